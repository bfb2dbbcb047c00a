"""The command that draws scenes."""

from pathlib import Path

from command import succeed

from eyeline.examples import read_examples


def test_scenes_are_a_data_folder(here):
    result = succeed("scenes", "--family", "math", "--family", "general", "--seeds", "3:5", "--out", "data")
    assert [example.id for example in read_examples(Path("data"))] == [
        "math-3",
        "general-3",
        "math-4",
        "general-4",
    ]
    assert all(Path(example.image).is_file() for example in read_examples(Path("data")))
    assert result.stderr.endswith("4 examples in data\n")
