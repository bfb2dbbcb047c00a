"""Mistakes of the user and full disks: one sentence each, and nothing half-written."""

import errno
import os
import re
from pathlib import Path

import pytest
from command import SHORT, ask, everything, make_bad_models, refuse, run, sentence
from test_images import png

from eyeline.errors import DataError
from eyeline.files import write_files


def make_bad_images() -> None:
    Path("notes.txt").write_text("no image", encoding="utf-8")
    Path("cut.png").write_bytes(Path("a.png").read_bytes()[:100])
    Path("empty.png").write_bytes(b"")
    Path("bomb.png").write_bytes(png(60_000, 60_000))
    Path("folder.png").mkdir()


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("notes.txt", "'notes.txt' is not an image"),
        ("cut.png", "'cut.png' is truncated or damaged"),
        ("empty.png", "'empty.png' is empty"),
        ("folder.png", "'folder.png' is a folder"),
        ("missing.png", "There is no file 'missing.png'"),
        ("bomb.png", "'bomb.png' is too large: at most 50 megapixels"),
    ],
)
def test_what_is_no_image_is_refused_before_the_model_is_loaded(here, image, expected, monkeypatch):
    make_bad_images()
    monkeypatch.setattr("eyeline.load", lambda *_: pytest.fail("loaded"))
    keep = ("--save", "run", "--report", "report.html")
    assert expected in refuse("stream", image, "What?", "--model", "model", *keep)
    assert expected in refuse("stream", "a.png", image, "What?", "--model", "model", "--json", *keep)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--model", "unknown"), "No adapter for the model family 'marsvl'"),
        (("--model", "llava"), "No adapter for the model family 'llava'"),
        (("--model", "blind"), "The model family 'gpt2' takes no images"),
        (("--model", "nothing"), "nothing is not a model folder: it has no config.json"),
        (("--model", "a.png"), "'a.png' is a file, not a model folder"),
        (("--model", "./missing"), "'./missing' does not exist"),
        (("--model", "someone/model"), "the Hugging Face Hub cannot be reached"),
        (
            ("--model", "other", "--estimator", "estimator"),
            "The estimator 'tiny-1' was fitted for 'tiny', not for",
        ),
        (("--estimator", "broken"), "broken is not an estimator"),
        (("--estimator", "half"), "half is not an estimator"),
        (("--estimator", "nothing"), "nothing is not an estimator"),
        (("--save", "full"), "'full' is not empty and holds no saved run"),
        (("--save", "a.png"), "'a.png' is a file"),
        (("--report", "missing/report.html"), "There is no folder 'missing'"),
        (("--report", "full"), "'full' is a directory"),
        (("--regions", "boxes.json"), "Box 0 of 'boxes.json'"),
        (("--regions", "missing.npy"), "There is no label map 'missing.npy'"),
        (("--regions", "squares"), "Unknown source of regions 'squares'"),
        (("--regions", "dinov3"), "dinov3-vitl16-pretrain-lvd1689m' is not on this computer"),
        (("--regions", "dinov3:./missing"), "'./missing'"),
        (("--regions", "grid", "--regions", "grid"), "2 region sources were given for 1 images"),
        (("--max-new-tokens", "0"), "0 is not in the range x>=1"),
        (("--max-new-tokens", "999999"), "max_new_tokens is 999999; expected 1 to"),
        (("--max-new-tokens", "many"), "'many' is not a valid integer"),
        (("--temperature", "-1"), "-1.0 is not in the range x>=0"),
        (("--temperature", "nan"), "'nan' is not a finite number"),
        (("--top-p", "1.5"), "1.5 is not in the range 0<x<=1"),
        (("--seed", "-1"), "-1 is not in the range"),
        (("--stop", ""), "A stop string is empty"),
        (("--unknown",), "No such option '--unknown'"),
        (
            ("--modle", "mini"),
            "No such option '--modle'. Did you mean '--model'? (see 'eyeline stream --help')",
        ),
        (("--max-new-tokens",), "Option '--max-new-tokens' requires an argument"),
    ],
)
def test_a_bad_option_of_stream_is_told_in_one_sentence(here, estimator, words, expected):
    make_bad_models(estimator)
    words = words if "--model" in words else ("--model", "model", *words)
    save = () if "--save" in words else ("--save", "run")
    assert expected in refuse("stream", "a.png", "What?", *save, *words)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "Expected an image and a prompt"),
        (("a.png",), "Expected an image and a prompt"),
        (("a.png", "b.png"), "Expected a prompt as the last argument, not the file 'b.png'"),
        (("a.png", ""), "The prompt is empty"),
        (("a.png", " \n"), "The prompt is empty"),
        (("a.png", "long " * SHORT), f"and the model's context holds {SHORT}"),
        (("a.png", "What is <|image_pad|>?"), "leave '<|image_pad|>' out of the prompt"),
    ],
)
@pytest.mark.parametrize("command", [("stream",), ("attribute", "--text", "-")])
def test_a_bad_question_is_told_in_one_sentence(here, command, words, expected):
    assert expected in refuse(*command, "--model", "short", "--save", "run", *words, stdin="It is red.")


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        (b"", "The text to attribute has 0 tokens"),
        (b"long " * SHORT, "The text to attribute has"),
        (b"\xff\xfe", "cannot be read: it is UTF-16, not UTF-8; save it as UTF-8"),
        ("It is red.".encode("utf-16-be"), "cannot be read: it is UTF-16 or no text"),
        ("It is é.".encode("latin-1"), "cannot be read: it is not UTF-8: byte 7 is 0xe9; save it"),
    ],
)
def test_a_bad_trace_is_told_in_one_sentence(here, trace, expected):
    words = ("attribute", "a.png", "What?", "--model", "short", "--save", "run", "--text")
    assert expected in refuse(*words, "-", stdin=trace)
    assert "'missing.txt': No such file or directory" in refuse(*words, "missing.txt")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("report", "missing"), "'missing' is not a saved run"),
        (("report", "model"), "'model' is not a saved run"),
        (("report",), "Missing argument 'RUN'"),
        (("joint", "missing", "--span", "0"), "'missing' is not a saved run"),
        (("joint",), "Missing argument 'RUN'"),
        (("demo", "--seed", "9000000"), "9000000 is not in the range"),
        (("demo", "--family", "art"), "'art' is not one of 'math', 'science', 'document', 'code', 'general'"),
        (("demo", "--model", "./nowhere"), "'./nowhere' does not exist"),
        (("scenes", "--out", "data", "--seeds", "5"), "'5' is not A:B"),
        (("scenes", "--out", "data", "--seeds", "5:5"), "'5:5' is not A:B"),
        (("scenes", "--out", "data", "--seeds", "-5:5"), "'-5:5' is not A:B"),
        (("scenes", "--out", "data", "--seeds", "1:2:3"), "'1:2:3' is not A:B"),
        (("scenes", "--out", "data", "--seeds", "8999999:9000001"), "0 <= A < B <= 9000000"),
        (("scenes", "--out", "a.png/data", "--seeds", "0:1"), "Not a directory"),
        (("scenes",), "Missing option '--out'"),
        (("scenes", "--out", "data", "--long", "--pairs"), "Long scenes have no counterfactuals"),
        (("fit", "missing", "--out", "e"), "missing is no collection"),
        (("fit", "missing", "--out", "e", "--kinds", "smell"), "'smell' is not one of"),
        (("fit", "missing", "--out", "e", "--kinds", ""), "'' is not one of"),
        (("fit", "missing", "--out", "e", "--heads", "0"), "0.0 is not in the range 0<x<=1"),
        (("fit", "missing", "--out", "e", "--heads", "2"), "2.0 is not in the range 0<x<=1"),
        (("fit", "missing", "--out", "e", "--heads", "nan"), "'nan' is not a finite number"),
        (("collect", "--data", "missing", "--out", "c"), "There is no data folder 'missing'"),
        (("collect", "--data", "no-data", "--out", "c"), "examples.jsonl is empty"),
        (
            ("collect", "--data", "no-lines", "--out", "c"),
            "Line 1 of no-lines/examples.jsonl is not an example",
        ),
        (("collect", "--data", "missing", "--out", "c", "--rates", "half"), "'half' is not a valid float"),
        (
            ("collect", "--data", "missing", "--out", "c", "--rates", "0.5,1"),
            "1.0 is not in the range 0<x<1",
        ),
        (("collect", "--data", "missing", "--out", "c", "--rates", "0"), "0.0 is not in the range"),
        (("collect", "--data", "missing", "--out", "c", "--rates", "nan"), "'nan' is not a finite number"),
        (("collect", "--data", "missing", "--out", "c", "--limit", "0"), "0 is not in the range x>=1"),
        (("collect", "--data", "missing", "--out", "c", "--limit", "few"), "'few' is not a valid integer"),
        (("collect", "--data", "missing", "--out", "c", "--subsets", "0"), "0 is not in the range x>=2"),
        (
            ("collect", "--data", "missing", "--out", "c", "--max-new-tokens", "0"),
            "0 is not in the range x>=1",
        ),
        (("collect", "--data", "missing", "--out", "c", "--regions", "a.png"), "'a.png' is not one of"),
        (("evaluate", "--data", "missing", "--out", "c", "--regions", "dinov3:"), "'dinov3:' is not one of"),
        (
            ("collect", "--data", "missing", "--out", "c", "--regions", "dinov3:x"),
            "There is no data folder 'missing'",
        ),
        (("dance",), "No such command 'dance'"),
        (("--dance",), "No such option '--dance'"),
    ],
)
def test_a_bad_option_of_other_commands_is_told_in_one_sentence(here, words, expected):
    for name, line in (("no-data", ""), ("no-lines", "{}")):
        Path(name).mkdir()
        Path(name, "examples.jsonl").write_text(line, encoding="utf-8")
    error = refuse_quietly(*words) if words[0] == "demo" else refuse(*words)
    assert expected in error
    usage = re.match(r"Error: (Missing|Invalid value|No such (option|command))", error)
    assert bool(usage) == bool(re.search(r" \(see 'eyeline( \w+)? --help'\)\.$", error.strip()))


def refuse_quietly(*words: object) -> str:
    """As `refuse`, of a command that first tells what it asks."""
    before = everything()
    result = run(*words)
    assert (result.exit_code, result.stdout, everything()) == (1, "", before)
    return sentence(result.stderr.splitlines(keepends=True)[-1])


def test_a_full_disk_leaves_no_half_report(here, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ask("--save", "run")
    Path("old.html").write_text("before", encoding="utf-8")
    monkeypatch.setattr(os, "fsync", full)
    assert "The disk is full: 'run/report.html'" in refuse("report", "run")
    assert "The disk is full: 'old.html'" in refuse("report", "run", "--out", "old.html")
    assert "The disk is full: 'new" in refuse("stream", "a.png", "What?", "--model", "model", "--save", "new")
    monkeypatch.undo()
    monkeypatch.chdir(here)
    monkeypatch.setattr(os, "replace", full)
    before = everything()
    result = run(
        "stream", "a.png", "What?", "--model", "model", "--max-new-tokens", 3, "--report", "old.html"
    )
    assert result.exit_code == 1
    assert "3 tokens" in result.stdout
    assert "The disk is full: 'old.html'" in sentence(result.stderr)
    assert everything() == before
    with pytest.raises(DataError):
        write_files({Path("x"): b""})


@pytest.mark.parametrize(
    "words",
    [
        ("stream", "a.png", "What?", "--report", "out.html"),
        ("stream", "a.png", "What?", "--save", "out"),
        ("attribute", "a.png", "What?", "--text", "-", "--report", "out.html"),
        ("demo", "--out", "new/out"),
        ("scenes", "--out", "out"),
        ("collect", "--data", "no-data", "--out", "out"),
        ("fit", "no-run", "--out", "new/out"),
        ("evaluate", "--data", "no-data", "--out", "out"),
    ],
)
def test_a_full_disk_is_told_before_any_work(here, full_disk, words):
    place = full_disk / words[-1]
    if "--report" in words:
        place.parent.mkdir(exist_ok=True)
    assert f"The disk is full: '{place}' could not be written" in refuse(*words[:-1], place)
    assert list(full_disk.rglob("*")) == [full_disk / "filler"]


def test_ctrl_c_says_that_the_command_stopped(here, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("eyeline.runs.read_run", interrupt)
    result = run("report", "run")
    assert result.exit_code == 130
    assert result.stderr.strip() == "Stopped."
