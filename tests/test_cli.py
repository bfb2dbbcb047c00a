"""The command line, mostly in this process, with tiny models saved as folders; some of it as real processes."""

import contextlib
import dataclasses
import errno
import json
import os
import pty
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import webbrowser
from pathlib import Path

import click
import pytest
import torch
import transformers
from click.testing import CliRunner, Result
from conftest import SPREADS, build_tiny, fill, picture
from foundations import save_foundation
from test_images import png

import eyeline
from eyeline import cli
from eyeline.ablation import METHODS
from eyeline.cli import main
from eyeline.errors import DataError
from eyeline.estimator import Estimator, fingerprint, read_estimator, save_estimator
from eyeline.events import Done, Error, Event, SpanAttribution, Start, Text, from_json
from eyeline.examples import Example, read_examples, write_examples
from eyeline.features import KINDS
from eyeline.files import write_files
from eyeline.regions import SOURCES
from eyeline.runs import read_run
from eyeline.scenes import FAMILIES, MAX_SEED
from eyeline.server import app as server_app
from eyeline.training import heads
from eyeline.training.collect import read_collected

ROOT = Path(cli.__file__).parents[1]
CONTEXT = 16384  # tokens: generation without a limit outlasts any test
SHORT = 768
ESCAPE = "\x1b"


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


def refuse(*words: object, stdin: str | bytes | None = None) -> str:
    """The sentence that a command is refused with; it leaves no file behind."""
    before = everything()
    result = run(*words, stdin=stdin)
    assert result.exit_code == 1, result.output
    assert everything() == before, "something half-written"
    assert result.stdout == ""
    return sentence(result.stderr)


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


# --- stream and attribute


def test_json_is_one_event_a_line_and_nothing_else(here):
    read = ask()
    kinds = {type(event) for event in read}
    assert kinds == {Start, Text, SpanAttribution, Done}
    assert read[0].unit == "attention"
    assert read[-1].tokens == 12
    assert read[-1].reason == "length"


def test_the_plain_view_shows_the_text_and_where_each_span_looked(here):
    result = succeed("stream", "a.png", "What?", "--model", "model", "--max-new-tokens", 12)
    assert "model · attention, not effect · 6 regions" in result.stdout
    assert "Thinking" in result.stdout
    assert re.search(r"\[[a-z ,]+, \d+ % of attention", result.stdout)
    assert "12 tokens" in result.stdout
    assert ESCAPE not in result.stdout
    assert result.stderr == ""


def test_several_images_each_have_regions_of_their_own(here):
    words = ("stream", "a.png", "b.png", "What?", "--model", "model", "--json", "--max-new-tokens", 3)
    start = events(succeed(*words, "--regions", "grid", "--regions", "random").stdout)[0]
    assert [(image.width, image.height) for image in start.images] == [(96, 64), (128, 128)]
    assert start.regions[0] == ((0, 1, 2), (3, 4, 5))
    assert sorted(label for row in start.regions[1] for label in row) == list(range(6, 22))


def test_regions_come_from_superpixels_random_seeds_or_a_foundation_model(here):
    picture(320, 160, seed=2).save("c.png")  # 40 cells
    save_foundation("dinov3_vit", here / "foundation")
    found = {}
    for source in ("native", "slic", "voronoi", "dinov3:foundation"):
        words = ("c.png", "Which?", "--model", "model", "--max-new-tokens", "2", "--json")
        found[source] = events(succeed("stream", *words, "--regions", source).stdout)[0].regions
    assert len(set(found.values())) == 4
    assert all(16 <= max(map(max, grid)) + 1 <= 20 for (grid,) in found.values())


def test_regions_come_from_a_file(here):
    Path("boxes.json").write_text("[[0, 0, 64, 64]]", encoding="utf-8")
    read = ask("--regions", "boxes.json")
    assert read[0].regions == (((0, 0, 1), (0, 0, 1)),)
    assert all(len(event.effects) == 2 for event in read if isinstance(event, SpanAttribution))


def test_a_saved_run_holds_what_was_printed_and_makes_the_same_report(here):
    read = ask("--save", "run", "--report", "direct.html")
    saved = read_run("run")
    assert saved.events == tuple(read)
    assert saved.prompt == "What?"
    assert saved.images[0].tobytes() == picture().tobytes()
    result = succeed("report", "run")
    assert result.stdout == ""
    assert result.stderr == f"Report: {Path('run/report.html')}\n"
    succeed("report", "run", "--out", "again.html")
    pages = {Path(name).read_bytes() for name in ("run/report.html", "again.html", "direct.html")}
    assert len(pages) == 1
    assert b"What?" in pages.pop()


def test_sampling_options_reach_generation(here):
    greedy = text(ask("--temperature", 0))
    warm = [text(ask("--temperature", 3, "--seed", seed)) for seed in (1, 1, 2)]
    assert warm[0] == warm[1]
    assert len({greedy, warm[1], warm[2]}) == 3
    assert text(ask("--temperature", 3, "--seed", 1, "--top-p", 1e-6)) == greedy
    stop = next(char for char in greedy[1:] if char.isprintable() and char != "\N{REPLACEMENT CHARACTER}")
    stopped = ask("--temperature", 0, "--stop", stop, "--stop", "never to be seen")
    assert text(stopped) == greedy[: greedy.index(stop)]
    assert stopped[-1].reason == "stop"


def test_an_estimator_gives_effects_in_nats_with_intervals(here, estimator):
    read = ask("--estimator", estimator)
    assert (read[0].estimator, read[0].unit) == ("tiny-1", "nats")
    assert all(event.interval is not None for event in read if isinstance(event, SpanAttribution))


def test_a_saved_run_is_asked_about_a_span_words_or_characters_without_the_model(
    here, estimator, monkeypatch
):
    trace = "The bar is tall.\nIt is red.</think>Left."
    words = (
        "attribute",
        "a.png",
        "Which?",
        "--model",
        "model",
        "--estimator",
        estimator,
        "--json",
        "--text",
        "-",
    )
    read = events(succeed(*words, "--save", "run", stdin=trace).stdout)
    span = next(event for event in read if isinstance(event, SpanAttribution))
    monkeypatch.setattr("eyeline.model.load", lambda *_: pytest.fail("loaded"))
    by = {
        target: json.loads(succeed("joint", "run", *target, "--regions", "0,2", "--json").stdout)
        for target in (
            ("--span", 0),
            ("--words", "The bar is tall."),
            ("--characters", "0,16"),
            ("--words", "bar"),
        )
    }
    whole, words, characters, bar = by.values()
    assert words == characters != bar
    assert whole["whole_image"] == pytest.approx(span.whole_image, rel=1e-4, abs=1e-5)
    assert whole["effects"] == pytest.approx(span.effects, rel=1e-4, abs=1e-5)
    assert whole["parts"] == pytest.approx(span.effects[0] + span.effects[2], rel=1e-4, abs=1e-5)
    assert whole["regions"] == [0, 2]
    shown = succeed("joint", "run", "--span", 0, "--regions", "0,2").stdout
    assert f"regions 0, 2 hidden together: {whole['fall']:.2f} nats" in shown
    assert f"everything hidden: {span.whole_image:.2f} nats" in shown
    strongest = max(span.contributions)
    assert (
        f"  region {span.contributions.index(strongest)}: {strongest:.2f} nats (alone "
        in shown.splitlines()[2]
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "Give one of --span, --words or --characters"),
        (("--span", 0, "--words", "It"), "Give one of --span, --words or --characters"),
        (("--span", 99), "There is no span 99"),
        (("--words", "nowhere to be seen"), "do not stand in the text"),
        (("--characters", "3,1"), "The characters 3 to 1 are none of the text's"),
        (("--characters", "3"), "no range of characters"),
        (("--span", 0, "--regions", "0,99"), "There is no region 99"),
        (("--span", 0, "--regions", "most"), "'most' is not a valid integer"),
    ],
)
def test_a_question_about_a_saved_run_that_cannot_be_answered_is_told_in_one_sentence(
    here, asked, words, expected
):
    assert expected in refuse("joint", asked, *words)


@pytest.fixture(scope="module")
def asked(folders, estimator, tmp_path_factory) -> Path:
    """A saved run that can be asked about."""
    out = tmp_path_factory.mktemp("asked") / "run"
    words = ("attribute", folders / "a.png", "Which?", "--model", folders / "model", "--estimator", estimator)
    succeed(*words, "--text", "-", "--save", out, stdin="It is red.")
    return out


def test_a_run_without_an_estimator_says_that_it_keeps_nothing_to_ask_about(here):
    ask("--save", "run")
    assert "not kept" in refuse("joint", "run", "--span", 0)


def test_a_trace_is_attributed_from_a_file_and_from_stdin(here):
    trace = "The bar at the left is tall. Größe 3.</think>Left."
    Path("trace.txt").write_text(trace, encoding="utf-8")
    words = ("attribute", "a.png", "Which?", "--model", "model", "--json", "--text")
    read = events(succeed(*words, "trace.txt", "--save", "run", "--report", "r.html").stdout)
    assert text(read) == trace.replace("</think>", "")
    spans = [event for event in read if isinstance(event, SpanAttribution)]
    assert [span.text.strip() for span in spans] == ["The bar at the left is tall.", "Größe 3.", "Left."]
    assert read[-1].answer == "Left."
    assert read_run("run").events == tuple(read)
    again = events(succeed(*words, "-", stdin=trace.encode()).stdout)
    assert text(again) == text(read)
    for ours, theirs in zip(
        spans, [event for event in again if isinstance(event, SpanAttribution)], strict=True
    ):
        assert ours.effects == pytest.approx(theirs.effects, abs=1e-5)


def test_a_trace_may_begin_with_a_mark_and_end_lines_as_on_windows(here):
    words = ("attribute", "a.png", "Which?", "--model", "model", "--json", "--text")
    plain = without_times(succeed(*words, "-", stdin="It is red.\nIt is é.</think>Left.").stdout)
    for path, written in (("mark.txt", b"\xef\xbb\xbf"), ("windows.txt", b"")):
        Path(path).write_bytes(written + "It is red.\r\nIt is é.</think>Left.".encode())
        assert without_times(succeed(*words, path).stdout) == plain


def without_times(stdout: str) -> list[Event]:
    return [
        dataclasses.replace(
            event, latency_s=0.0, log_prob=round(event.log_prob, 3), patches=None,
            effects=tuple(round(x, 3) for x in event.effects),
        )
        if isinstance(event, SpanAttribution)
        else dataclasses.replace(event, tokens_per_s=0.0, stalled_s=0.0) if isinstance(event, Done)
        else event
        for event in events(stdout)
    ]  # fmt: skip


def test_json_is_utf8_under_any_encoding_of_the_terminal(here, monkeypatch):
    words = ("attribute", "a.png", "Which?", "--model", "model", "--json", "--text", "-")
    result = CliRunner(charset="utf-8").invoke(main, list(words), "Größe →.".encode(), catch_exceptions=False)
    assert "Größe →." in result.stdout_bytes.decode("utf-8")
    with open("out.json", "w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        Path("trace.txt").write_text("Größe →.", encoding="utf-8")
        with pytest.raises(SystemExit) as ended:
            main([*words[:-1], "trace.txt"])
    assert ended.value.code == 0
    assert "Größe →." in Path("out.json").read_text(encoding="utf-8")


def test_the_demo_writes_a_run_and_a_report(here):
    result = succeed("demo", "--model", "short", "--family", "math", "--seed", 8_000_001, "--json")
    read = events(result.stdout)
    assert read[-1].reason == "length"
    assert read_run("demo/run").events == tuple(read)
    assert read_run("demo/run").prompt in Path("demo/report.html").read_text(encoding="utf-8")
    assert "math scene 8000001; right answer: " in result.stderr
    assert f"Report: {Path('demo/report.html')}" in result.stderr


@pytest.mark.parametrize(
    ("words", "environment", "opened"),
    [
        ((), {"DISPLAY": ":0"}, False),
        (("--open",), {"DISPLAY": ":0"}, True),
        (("--open",), {"WAYLAND_DISPLAY": "wayland-0"}, True),
        (("--open",), {"BROWSER": "ours"}, True),
        (("--open",), {}, sys.platform in ("darwin", "win32")),
    ],
)
def test_serve_prints_its_url_and_opens_it_where_there_is_a_browser(
    here, monkeypatch, words, environment, opened
):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    pages = queue.SimpleQueue()
    monkeypatch.setattr(webbrowser, "open", pages.put)
    monkeypatch.setattr(
        server_app, "serve", lambda settings, model, estimator, ready: ready("http://localhost:1")
    )
    result = CliRunner(env=environment).invoke(main, ["serve", *words])
    assert result.exit_code == 0
    assert "Serving http://localhost:1\n" in result.stderr
    if opened:
        assert pages.get(timeout=60) == "http://localhost:1"
    assert pages.empty()


def test_a_crash_of_generation_is_told_and_exits_1(here, monkeypatch):
    def crash(*_: object, **__: object):
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(transformers.Qwen3VLForConditionalGeneration, "generate", crash)
    words = ("stream", "a.png", "What?", "--model", "model", "--json", "--save", "run", "--report", "r.html")
    result = run(*words)
    assert result.exit_code == 1
    read = events(result.stdout)
    assert any(isinstance(event, Error) for event in read)
    assert read[-1].reason == "error"
    assert "out of memory" in sentence(result.stderr.splitlines(keepends=True)[-1])
    assert read_run("run").events == tuple(read)
    assert "out of memory" in Path("r.html").read_text(encoding="utf-8")


# --- scenes, collect, fit


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


def test_the_options_offer_what_the_library_has():
    assert tuple(FAMILIES) == cli.FAMILIES
    assert tuple(SOURCES) == cli.SOURCES
    assert KINDS == cli.FEATURES
    assert tuple(METHODS) == cli.WAYS
    assert MAX_SEED == cli.LAST_SEED


IMAGES = 12


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    examples = [
        Example(f"e{i}", picture(seed=i), f"What is {i}?", "it", "math", "blocks") for i in range(IMAGES)
    ]
    write_examples(examples, folder)
    return folder


COLLECT = ("--subsets", 6, "--rates", "0.5,0.25", "--max-new-tokens", 24)


# as a process is killed from outside: in the middle of writing an example
KILLED_AT_THE_THIRD = (
    "import os, signal; real, written = os.fsync, []\n"
    "def fsync(file):\n"
    "    name = os.readlink(f'/proc/self/fd/{file}')\n"
    "    written.append(name) if name.endswith('.safetensors.part') else None\n"
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
    assert re.fullmatch(rf"{IMAGES} of {IMAGES}, 0 min left\n{IMAGES} examples in .*\n", result.stderr)
    assert all(path.stat().st_mtime_ns == written for path, written in finished.items())
    resumed, uninterrupted = read_collected(killed), read_collected(whole)
    assert len(resumed) == len(uninterrupted) == IMAGES
    for ours, theirs in zip(resumed, uninterrupted, strict=True):
        assert (ours.id, ours.spans, ours.labels) == (theirs.id, theirs.spans, theirs.labels)
        assert torch.equal(ours.subsets, theirs.subsets)
        torch.testing.assert_close(ours.drops, theirs.drops, atol=1e-4, rtol=1e-4)
    for other in (("--rates", "0.1"), ("--max-spans", "1")):
        assert "another settings" in refuse(*words, whole, *other)


def test_a_fitted_estimator_is_used_with_its_own_model_only(here, whole, monkeypatch):
    shutil.copytree(whole, "enough")  # of images: each three times
    for path in list(Path("enough/examples").iterdir()):
        for copy in ("again", "once-more"):
            shutil.copy(path, path.with_stem(f"{path.stem}-{copy}"))
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


def test_limit_takes_the_first_examples(here, data):
    succeed("collect", "--model", "model", "--data", data, "--out", "c", *COLLECT, "--limit", 2)
    assert [path.name for path in sorted(Path("c/examples").iterdir())] == [
        "e0.safetensors",
        "e1.safetensors",
    ]
    assert "2 images are too few" in refuse("fit", "c", "--out", "fitted")


# --- bad input


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
    monkeypatch.setattr("eyeline.model.load", lambda *_: pytest.fail("loaded"))
    keep = ("--save", "run", "--report", "report.html")
    assert expected in refuse("stream", image, "What?", "--model", "model", *keep)
    assert expected in refuse("stream", "a.png", image, "What?", "--model", "model", "--json", *keep)


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
        (("collect", "--data", "missing", "--out", "c"), "missing is not a data folder"),
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
            "missing is not a data folder",
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


def test_a_foundation_model_out_of_reach_is_told_before_a_collection_or_an_evaluation_begins(here, data):
    for command in (("collect",), ("evaluate", "--methods", "random")):
        words = (*command, "--model", "model", "--data", data, "--out", "c", "--regions", "dinov3")
        assert "dinov3-vitl16-pretrain-lvd1689m' is not on this computer" in refuse(*words)


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


# --- help


@pytest.mark.parametrize("name", sorted(main.commands))
def test_every_option_says_what_it_is_and_its_default(name):
    command = main.commands[name]
    page = " ".join(succeed(name, "--help").stdout.split())
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            shown = page.partition(f"{option.opts[-1]} ")[2].partition(" --")[0]
            assert option.help
            assert option.is_flag or "[default: " in shown or "required]" in shown, shown
            assert not isinstance(option.type, click.types.IntParamType) or any(
                unit in option.help.lower() for unit in ("token", "number", "subsets", "examples")
            )


# --- the terminal


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
        assert {"a.png": "12 tokens", "--model": "1 examples in c", "missing.png": "Error: "}[
            words[1]
        ] in shown
        assert (ESCAPE in shown) == (coloured and "missing.png" not in words)
        assert ("▀" in shown) == (coloured and "a.png" in words)


# --- real processes


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


def test_ctrl_c_ends_generation_and_leaves_a_readable_run(here):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = ("stream", "a.png", "What?", "--model", "model", "--json", "--save", "run", "--report", "r.html")
    with process(*words, **pipes) as child:
        lines = [child.stdout.readline() for _ in range(4)]
        assert '"event": "text"' in lines[-1], child.stderr.read()
        child.send_signal(signal.SIGINT)
        rest, complaints = (
            child.stdout.read(),
            child.stderr.read(),
        )  # `communicate` would lose what has been read ahead
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
