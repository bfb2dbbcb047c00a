"""Public data sets on the command line: listed, shown, collected on and evaluated by name."""

import json
import re
from pathlib import Path

import pytest
from command import refuse, run, succeed
from public_rows import write

from eyeline.catalogue import SETS, PublicExamples
from eyeline.training.collect import read_collected

COLLECT = ("--subsets", 2, "--rates", "0.5", "--max-new-tokens", 8)


@pytest.fixture(scope="module")
def pope(tmp_path_factory):
    return write("pope", tmp_path_factory.mktemp("pope"))


def test_every_set_is_listed_with_its_rows_licence_and_rule():
    listed = succeed("data").stdout
    for found in SETS.values():
        line = next(line for line in listed.splitlines() if line.startswith(f"{found.name} "))
        assert found.licence in line
        assert found.rule in listed
    assert "1,920,000" in listed


def test_a_set_says_what_is_there_and_shows_three_questions(here, pope):
    shown = succeed("data", "pope", "--folder", pope).stdout
    assert "rows: 6\n" in shown
    assert "licence: that of COCO's photographs\n" in shown
    assert "rule: yes or no, the first that is said\n" in shown
    assert re.findall(r"^pope-\d+: 96 x 64$", shown, re.MULTILINE) == [f"pope-{n}: 96 x 64" for n in range(3)]
    assert "  Is there a dog?\n" in shown
    assert shown.count("  answer: ") == 3


def test_a_set_that_cannot_be_shown_is_told_in_one_sentence_after_what_is_known(here):
    result = run("data", "pope")
    assert result.exit_code == 1
    assert "rule: yes or no" in result.stdout
    assert re.fullmatch(r"Error: pope cannot be had from the Hub [^\n]+\.\n", result.stderr)
    assert "nearest: pope" in refuse("data", "poppe")
    assert "There is no folder 'gone'" in refuse("data", "pope", "--folder", "gone")
    assert "say which" in refuse("data", "--folder", "a")


def test_a_set_is_collected_on_by_its_name_in_the_part_to_fit_and_goes_on(here, pope):
    fit = [example.id for example in PublicExamples(SETS["pope"], "fit", pope)]
    words = ("collect", "--model", "model", "--data", "pope", "--folder", pope, "--out", "c", *COLLECT)
    result = succeed(*words, "--limit", 1)
    assert "1 example in c" in result.stderr
    succeed(*words)
    assert sorted(one.id for one in read_collected(Path("c"))) == sorted(fit)
    assert all(one.family == "general" for one in read_collected(Path("c")))


def test_several_images_of_a_question_are_collected_on_together(here, tmp_path):
    folder = write("mmmu", tmp_path / "mmmu")
    result = succeed(
        "collect", "--model", "model", "--data", "mmmu:all", "--folder", folder, "--out", "c", *COLLECT
    )
    assert "1 row left out: without an answer" in result.stderr
    two, one = read_collected(Path("c"))
    assert (len(two.labels), len(one.labels)) == (2, 1)


def test_a_set_is_evaluated_by_its_name_in_the_part_to_test(here, pope):
    parts = {
        part: [e.id for e in PublicExamples(SETS["pope"], part, pope)] for part in ("fit", "test", "all")
    }
    part = "test" if parts["test"] else "fit"
    words = (
        "evaluate",
        "--model",
        "model",
        "--data",
        f"pope:{part}",
        "--folder",
        pope,
        "--out",
        "e",
        "--limit",
        1,
    )
    succeed(*words, "--methods", "random", "--max-new-tokens", 8, "--answers")
    marks = [line for line in Path("e/table.csv").read_text().splitlines() if line.startswith("all,marks,")]
    assert [line.split(",")[3:5] for line in marks] == [
        ["general", "0.0000"],
        ["mean", "0.0000"],
    ]  # thinking has no end
    assert [path.stem for path in Path("e/examples").iterdir()] == parts[part][:1]
    assert json.loads(Path("e/run.json").read_text())["settings"]["methods"] == ["random"]


def test_a_set_that_cannot_be_read_is_told_before_the_model_is_loaded(here):
    for command in ("collect", "evaluate"):
        words = (command, "--model", "missing", "--out", "c", "--data")
        assert "pope cannot be had from the Hub" in refuse(*words, "pope")
        assert "nearest: mathvista" in refuse(*words, "mathvsta")
        assert "There is no folder 'gone'" in refuse(*words, "pope", "--folder", "gone")
