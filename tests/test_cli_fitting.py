"""Collections that are killed and go on, and estimators fitted on them."""

import dataclasses
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from command import IMAGES, ask, process, refuse, run, succeed
from conftest import fill
from server_process import eventually

from eyeline.errors import DataError
from eyeline.estimator_files import read_estimator, save_estimator
from eyeline.training import fit, heads
from eyeline.training.collect import read_collected

COLLECT = ("--subsets", 6, "--rates", "0.5,0.25", "--max-new-tokens", 24, "--features", "heads")
TOLD = (
    f"To fit an estimator takes 24 images at the very least, 500 for numbers to rely on; here are {IMAGES}.\n"
)
# as a process is killed from outside: in the middle of writing an example
KILLED_AT_THE_THIRD = (
    "import os, signal; real, written = os.fsync, []\n"
    "def fsync(file):\n"
    "    name = os.readlink(f'/proc/self/fd/{file}')\n"
    "    written.append(name) if '/examples/' in name else None\n"
    "    os.kill(os.getpid(), signal.SIGKILL) if len(written) == 3 else real(file)\n"
    "os.fsync = fsync\n"
)


@pytest.fixture(scope="session")
def killed(folders, data, tmp_path_factory) -> Path:
    """A collection whose process was killed in the middle."""
    out = tmp_path_factory.mktemp("collections") / "killed"
    words = ["collect", "--model", folders / "model", "--data", data, "--out", out, *COLLECT]
    with process(
        *words, before=KILLED_AT_THE_THIRD, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        complaints = child.stderr.read()
        assert child.wait() == -signal.SIGKILL, complaints
    assert len(list(out.glob("examples/*.safetensors"))) == 2
    return out


@pytest.fixture(scope="session")
def whole(folders, data, tmp_path_factory) -> Path:
    """The same collection in one go."""
    out = tmp_path_factory.mktemp("collections") / "whole"
    succeed("collect", "--model", folders / "model", "--data", data, "--out", out, *COLLECT)
    return out


def test_a_killed_collection_goes_on_and_ends_as_if_never_killed(here, folders, killed, whole, data):
    finished = {path: path.stat().st_mtime_ns for path in killed.glob("examples/*.safetensors")}
    words = ("collect", "--model", folders / "model", "--data", data, *COLLECT, "--out")
    result = succeed(*words, killed)
    assert result.stdout == ""
    assert re.fullmatch(
        rf"{re.escape(TOLD)}{IMAGES} of {IMAGES}, 0 min left\n{IMAGES} examples in .*\n",
        result.stderr,
    )
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
    resumed, uninterrupted = read_collected(killed), read_collected(whole)
    assert len(resumed) == len(uninterrupted) == IMAGES
    for ours, theirs in zip(resumed, uninterrupted, strict=True):
        assert (ours.id, ours.spans, ours.labels) == (theirs.id, theirs.spans, theirs.labels)
        assert torch.equal(ours.subsets, theirs.subsets)
        torch.testing.assert_close(ours.falls, theirs.falls, atol=1e-4, rtol=1e-4)
    for other in (("--rates", "0.1"), ("--max-spans", "1")):
        assert f"another {other[0][2:].replace('-', '_')} (" in refuse(*words, whole, *other, first=TOLD)


def test_a_fitted_estimator_is_used_with_its_own_model_only(here, whole, monkeypatch):
    shutil.copytree(whole, "enough")  # of images: each three times
    for path in list(Path("enough/examples").iterdir()):
        for copy in ("again", "once-more"):
            shutil.copy(path, path.with_stem(f"{path.stem}-{copy}"))
    learn = fit.learn_some
    monkeypatch.setattr(
        fit,
        "learn_some",
        lambda data, settings, some, device: learn(
            data, dataclasses.replace(settings, steps=60), some, device
        ),
    )
    words = ("fit", "enough", "--out", "fitted", "--kinds", "odds, attention", "--name", "mine")
    result = succeed(*words)
    assert result.stdout == ""
    assert re.fullmatch(r"Estimator: fitted \(loss -0\.\d+\)\n", result.stderr)
    read = read_estimator(Path("fitted"))
    assert (read.id, read.kinds) == ("mine", ("odds", "attention"))
    assert ask("--estimator", "fitted")[0].estimator == "mine"
    assert "was fitted for" in refuse("stream", "a.png", "What?", "--model", "other", "--estimator", "fitted")
    quick = dataclasses.replace(heads.QUICK, steps=5)
    monkeypatch.setattr(heads, "QUICK", quick)
    succeed("fit", "enough", "--out", "some", "--link", "identity", "--heads", 0.1)
    read = read_estimator(Path("some"))
    kept = read.card["heads"]
    assert len(kept) == 3  # layers, of the model's configuration
    assert sum(map(len, kept)) == 1  # of twelve heads
    assert read.layers(3) == [layer for layer, some in enumerate(kept) if some]
    assert ask("--estimator", "some")[0].estimator == "some"
    monkeypatch.setenv("EYELINE_HOME", str(here / "home"))
    result = succeed("fit", "enough", "--link", "identity", "--kinds", "attention")
    assert str(here / "home" / "estimators") in result.stderr
    assert ask()[0].estimator == "enough"
    assert "'enough' of that model is kept already" in refuse("fit", "enough")


def make_bad(data):
    """A copy of a data folder with two images that cannot be used and an id that stands twice."""
    shutil.copytree(data, "bad")
    lines = Path("bad/examples.jsonl").read_text().splitlines()[:5]
    Path("bad/images/e1.png").write_bytes(b"no image")
    Path("bad/images/e3.png").unlink()
    Path("bad/examples.jsonl").write_text("\n".join([*lines, lines[0]]) + "\n")


def test_all_images_and_ids_are_looked_at_before_the_first_is_measured(here, data, monkeypatch):
    make_bad(data)
    monkeypatch.setattr("eyeline.load", lambda *_: pytest.fail("loaded"))
    result = run("collect", "--model", "model", "--data", "bad", "--out", "c", *COLLECT)
    assert result.exit_code == 1
    assert "3 of 6 examples cannot be collected, and none was begun. 'e1': " in result.stderr
    assert "'e0': stands twice in the data" in result.stderr
    assert "with --skip-bad" in result.stderr
    assert not Path("c").exists()


def test_bad_examples_are_left_out_and_listed_at_the_end(here, data):
    make_bad(data)
    words = ("collect", "--model", "model", "--data", "bad", "--out", "c", *COLLECT, "--skip-bad")
    lines = succeed(*words).stderr.splitlines()
    assert sorted(path.stem for path in Path("c/examples").iterdir()) == ["e0", "e2", "e4"]
    assert [line.split()[:3] for line in lines[-3:]] == [
        ["Left", "out:", f"'{each}':"] for each in ("e1", "e3", "e0")
    ]
    assert lines[-4] == "3 examples in c"


def test_ctrl_c_tells_what_is_kept_and_the_command_that_goes_on(here, data):
    words = ["collect", "--model", "model", "--data", data, "--out", "c d", *COLLECT]
    with process(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
        eventually(lambda: len(list(Path("c d/examples").glob("*.safetensors"))) >= 1, 60)
        child.send_signal(signal.SIGINT)
        told = child.stderr.read()
        assert child.wait() == 130
    kept = len(list(Path("c d/examples").glob("*.safetensors")))
    assert (
        f"Stopped: {kept} example{'s' * (kept != 1)} kept in c d. The same line goes on: eyeline collect --model model"
        in told
    )
    assert shlex.split(told.strip().rpartition("goes on: ")[2])[1:] == list(map(str, words))


def test_limit_takes_the_first_examples(here, data):
    succeed("collect", "--model", "model", "--data", data, "--out", "c", *COLLECT, "--limit", 2)
    assert [path.name for path in sorted(Path("c/examples").iterdir())] == [
        "e0.safetensors",
        "e1.safetensors",
    ]
    assert "2 images are too few" in refuse("fit", "c", "--out", "fitted")


def test_a_foundation_model_out_of_reach_is_told_before_a_collection_or_an_evaluation_begins(here, data):
    for command in (("collect",), ("evaluate", "--methods", "random")):
        words = (*command, "--model", "model", "--data", data, "--out", "c", "--regions", "dinov3")
        assert "dinov3-vitl16-pretrain-lvd1689m' is not on this computer" in refuse(
            *words, first=TOLD if command == ("collect",) else ""
        )


def test_a_fit_on_a_disk_that_fills_up_keeps_the_estimator_before(full_disk, estimator):
    """Where the room is gone only at the end."""
    (full_disk / "filler").unlink()
    kept = full_disk / "kept"
    shutil.copytree(estimator, kept)
    before = {path.name: path.read_bytes() for path in kept.iterdir()}
    fill(full_disk)
    with pytest.raises(DataError, match="The disk is full"):
        save_estimator(dataclasses.replace(read_estimator(kept), id="new"), kept)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
