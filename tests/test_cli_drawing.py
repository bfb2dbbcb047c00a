"""The command that draws scenes."""

from pathlib import Path

from command import run, succeed

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
    assert succeed("scenes", "--family", "math", "--seeds", "3:4", "--out", "one").stderr.endswith(
        "1 example in one\n"
    )


def test_a_folder_of_other_examples_is_refused_and_stays_and_the_same_is_written_again(here):
    words = ("scenes", "--family", "math", "--out", "data", "--seeds")
    succeed(*words, "3:5")
    before = {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()}
    for other in ("4:6", "3:4"):
        refused = run(*words, other)
        assert refused.exit_code == 1
        assert "Error: data holds other examples;" in refused.stderr
        assert {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()} == before
    succeed(*words, "3:5")
    assert {path: path.read_bytes() for path in Path("data").rglob("*") if path.is_file()} == before
    succeed(*words, "3:6")
    assert [example.id for example in read_examples(Path("data"))] == ["math-3", "math-4", "math-5"]
