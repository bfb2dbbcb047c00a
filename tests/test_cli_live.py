"""What stream, attribute and demo print and keep."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest
import torch
import transformers
from click.testing import CliRunner
from command import ask, events, run, sentence, succeed, text
from conftest import picture
from foundations import save_foundation

from eyeline import load
from eyeline.ablation import ablate
from eyeline.cli import main
from eyeline.events import Done, Error, Event, SpanAttribution, Start, Text
from eyeline.runs import read_run

ESCAPE = "\x1b"


def test_json_is_one_event_a_line_and_nothing_else(here):
    read = ask()
    kinds = {type(event) for event in read}
    assert kinds == {Start, Text, SpanAttribution, Done}
    assert (read[0].unit, read[0].estimator, read[0].level) == ("relative", "general", "none")
    assert [notice.kind for notice in read[0].notices] == ["general"]
    assert {span.interval for span in read if isinstance(span, SpanAttribution)} == {None}
    assert read[-1].tokens == 12
    assert read[-1].reason == "length"


def test_the_plain_view_shows_the_text_and_where_each_span_looked(here):
    words = ("stream", "a.png", "What?", "--model", "model", "--max-new-tokens", 12)
    result = succeed(*words, "--estimator", "attention")
    assert "model · attention, not effect · 6 regions" in result.stdout
    assert "Thinking" in result.stdout
    assert re.search(r"\[0: \d+ [a-z ,]+, \d+ % of attention", result.stdout)
    assert "12 tokens" in result.stdout
    assert ESCAPE not in result.stdout
    assert result.stderr == ""
    general = succeed(*words).stdout
    assert "model · estimator general · 6 regions\nNote: Nothing was measured on this model" in general
    assert re.search(r"\[0: [a-z0-9 ,:]+ ~-?\d+\.\d nats[;\]]", general)
    assert "of attention" not in general


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


def test_the_demo_measures_what_the_whole_image_does(here):
    predicted = events(succeed("demo", "--predict-whole", "--json").stdout)
    measured = events(succeed("demo", "--json").stdout)
    ids, _ = read_run("demo/run").trace()
    image, model = read_run("demo/run").images[0], load("mini")
    cells = torch.ones(1, sum(map(len, measured[0].regions[0])), dtype=torch.bool)
    truth = ablate(model, model.inputs(image, read_run("demo/run").prompt), torch.tensor(ids), cells).falls[0]
    apart = {}
    for name, found in (("predicted", predicted), ("measured", measured)):
        spans = [event for event in found if isinstance(event, SpanAttribution)]
        falls = [float(truth[span.start : span.end].sum()) for span in spans]
        apart[name] = max(abs(span.whole_image - fall) for span, fall in zip(spans, falls, strict=True))
    assert apart["measured"] < 0.01
    assert apart["predicted"] > 1


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
