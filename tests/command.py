"""`eyeline` in this process and as real ones, with tiny models saved as folders; a plugin, for its fixtures."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from click.testing import CliRunner, Result
from conftest import SPREADS, build_tiny, picture

import eyeline
from eyeline.cli import main
from eyeline.estimator import Estimator
from eyeline.estimator_files import save_estimator
from eyeline.events import Done, Event, Start, Text, from_json
from eyeline.examples import Example, write_examples
from eyeline.features import KINDS
from eyeline.fingerprint import fingerprint

ROOT = Path(eyeline.__file__).parents[1]
CONTEXT = 16384  # tokens: generation without a limit outlasts any test
SHORT = 768


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Path:
    """Saved models: `model`, `other` (of other weights) and `short` (of a small context); images `a.png`, `b.png`."""
    home = tmp_path_factory.mktemp("folders")
    for name, seed, context in (("model", 0, CONTEXT), ("other", 1, CONTEXT), ("short", 0, SHORT)):
        model = build_tiny("qwen3_vl", seed=seed, max_position_embeddings=context)
        for part in (model.hf, model.tokenizer, model.image_processor):
            part.save_pretrained(home / name)
    picture().save(home / "a.png")
    picture(128, 128, seed=1).save(home / "b.png")
    return home


@pytest.fixture(scope="session")
def estimator(folders) -> Path:
    """An estimator for the weights of `model`."""
    model = eyeline.load(folders / "model")
    rng = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 3 * 4 * len(KINDS), generator=rng)
    card = {"model": "tiny", "fingerprint": fingerprint(model)}
    save_estimator(Estimator("tiny-1", weights, *SPREADS, card=card), folders / "estimator")
    return folders / "estimator"


@pytest.fixture
def here(folders, tmp_path, monkeypatch) -> Path:
    """An empty folder to work in, with links to the saved models and images."""
    for path in folders.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner(catch_exceptions=False).invoke(main, list(map(str, words)), stdin, prog_name="eyeline")


def succeed(*words: object, stdin: str | bytes | None = None) -> Result:
    result = run(*words, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result


def refuse(*words: object, stdin: str | bytes | None = None, first: str = "") -> str:
    """The sentence that a command is refused with, after what it says `first`; it leaves no file behind."""
    before = everything()
    result = run(*words, stdin=stdin)
    assert result.exit_code == 1, result.output
    assert everything() == before, "something half-written"
    assert result.stdout == ""
    assert result.stderr.startswith(first)
    return sentence(result.stderr.removeprefix(first))


def sentence(stderr: str) -> str:
    assert re.fullmatch(r"Error: [^\n]+\.\n", stderr), stderr
    assert "Traceback" not in stderr
    return stderr


def everything() -> dict[str, int]:
    return {str(path): path.lstat().st_size for path in Path().rglob("*")}


def events(stdout: str) -> list[Event]:
    assert stdout.endswith("\n")
    read = [from_json(line) for line in stdout.removesuffix("\n").split("\n")]
    assert isinstance(read[0], Start)
    assert isinstance(read[-1], Done)
    return read


def text(read: list[Event]) -> str:
    return "".join(event.text for event in read if isinstance(event, Text))


def ask(*words: object, model: str = "model", tokens: int | None = 12) -> list[Event]:
    limit = () if tokens is None else ("--max-new-tokens", tokens)
    return events(succeed("stream", "a.png", "What?", "--model", model, "--json", *limit, *words).stdout)


IMAGES = 12


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    examples = [
        Example(f"e{i}", picture(seed=i), f"What is {i}?", "it", "math", "blocks") for i in range(IMAGES)
    ]
    write_examples(examples, folder)
    return folder


def make_bad_models(estimator: Path) -> None:
    configs = {
        "unknown": {"model_type": "marsvl"},
        "llava": transformers.LlavaConfig().to_dict(),
        "blind": transformers.GPT2Config().to_dict(),
    }
    for name, config in configs.items():
        Path(name).mkdir()
        Path(name, "config.json").write_text(json.dumps(config), encoding="utf-8")
    Path("nothing").mkdir()
    Path("broken").mkdir()
    card = (estimator / "card.json").read_bytes()
    Path("broken/card.json").write_bytes(card[:50])
    Path("half").mkdir()
    Path("half/card.json").write_bytes(card)
    Path("half/estimator.safetensors").write_bytes((estimator / "estimator.safetensors").read_bytes()[:60])
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine", encoding="utf-8")
    Path("boxes.json").write_text("[[0, 0, 1000, 1000]]", encoding="utf-8")


@contextlib.contextmanager
def process(*words: object, before: str = "", **options):
    """`eyeline` as a shell starts it, after some code: Ctrl-C reaches it, whatever this process does with it."""
    code = before + "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from eyeline.cli import main; main(prog_name='eyeline')"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], env=environment, encoding="utf-8", **options
    )
    try:
        with child:
            yield child
    finally:
        child.kill()
