"""The command line as a whole: its help, the terminal, Ctrl-C and readers that go away."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from command import CONTEXT, ROOT, events, make_bad_models, process, run, sentence, succeed, text

import eyeline
from eyeline.cli import main
from eyeline.events import SpanAttribution, Start, from_json
from eyeline.runs import read_run

ESCAPE = "\x1b"


def test_a_full_disk_behind_stdout_is_told_in_one_sentence(here, monkeypatch, capsys):
    with open("/dev/full", "w", encoding="utf-8") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(SystemExit) as ended:
            main(["stream", "a.png", "What?", "--model", "model", "--json", "--max-new-tokens", "3"])
    assert ended.value.code == 1
    assert "No space left on device" in sentence(capsys.readouterr().err)


def test_without_a_command_the_help_is_shown(here):
    result = run()
    assert result.exit_code == 1
    assert "Commands:" in result.stderr
    assert succeed("--help").stdout.splitlines() == result.stderr.splitlines()
    assert succeed("--version").stdout.strip().endswith(eyeline.__version__)


@contextlib.contextmanager
def terminal(monkeypatch, **environment: str):
    """stdout and stderr are a terminal; what was written there, once the block is left."""
    for name in ("NO_COLOR", "COLORTERM", "FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    master, slave = pty.openpty()
    written: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(master, 4096):
                written.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    output: list[str] = []
    with open(slave, "w", encoding="utf-8") as screen, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        patch.setattr(sys, "stderr", screen)
        yield output
    reader.join()
    os.close(master)
    output.append(b"".join(written).decode("utf-8"))


COLOUR = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [(COLOUR, True), (COLOUR | {"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_escape_codes_only_go_where_they_are_wanted(here, data, monkeypatch, environment, coloured):
    for words in (
        ("stream", "a.png", "What?", "--model", "model", "--max-new-tokens", "12"),
        (
            "collect",
            "--model",
            "model",
            "--data",
            str(data),
            "--out",
            "c",
            "--limit",
            "1",
            "--max-new-tokens",
            "4",
        ),
        ("stream", "missing.png", "What?"),
    ):
        with terminal(monkeypatch, **environment) as output, pytest.raises(SystemExit):
            main(list(words))
        (shown,) = output
        assert {"a.png": "12 tokens", "--model": "1 example in c", "missing.png": "Error: "}[
            words[1]
        ] in shown
        assert (ESCAPE in shown) == (coloured and "missing.png" not in words)
        assert ("▀" in shown) == (coloured and "a.png" in words)


def test_ctrl_c_ends_generation_and_leaves_a_readable_run(here):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = ("stream", "a.png", "What?", "--model", "model", "--json", "--save", "run", "--report", "r.html")
    with process(*words, **pipes) as child:
        lines = [child.stdout.readline() for _ in range(4)]
        assert '"event": "text"' in lines[-1], child.stderr.read()
        child.send_signal(signal.SIGINT)
        # `communicate` would lose what has been read ahead
        rest, complaints = child.stdout.read(), child.stderr.read()
        child.wait()
    read = events("".join(lines) + rest)
    assert read[-1].reason == "cancelled"
    assert 0 < read[-1].tokens < CONTEXT - 100
    assert child.returncode == 130
    assert complaints == "Report: r.html\n"
    assert read_run("run").events == tuple(read)
    spans = [event for event in read if isinstance(event, SpanAttribution)]
    assert "".join(span.text for span in spans) == text(read)


def test_a_reader_that_goes_away_ends_the_command_quietly(here):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with process("stream", "a.png", "What?", "--model", "model", "--json", **pipes) as child:
        assert isinstance(from_json(child.stdout.readline()), Start)
        child.stdout.close()
        assert child.stderr.read() == ""
        assert child.wait() == 1


def test_a_model_that_cannot_be_loaded_leaves_stdout_empty(here, estimator):
    make_bad_models(estimator)
    weights = Path("weights")
    weights.mkdir()
    for file in Path("model").iterdir():
        if file.suffix != ".safetensors":
            (weights / file.name).write_bytes(file.read_bytes())
    (weights / "model.safetensors").write_bytes(b"no weights")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ("-m", "eyeline", "stream", "a.png", "What?", "--json", "--model", "weights")
    ended = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "The model 'weights' cannot be loaded" in sentence(ended.stderr)
