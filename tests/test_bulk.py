"""Logs of traces to tables of spans: the same numbers as single attributions, whatever stops on the way."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from command import events, refuse, succeed
from conftest import picture, tiny_model
from streams import random_estimator
from test_earlier import knowing

from eyeline import bulk, files
from eyeline.bulk import attribute_log, count_lines, region_boxes
from eyeline.errors import DataError, EyelineError
from eyeline.events import ImageInfo, SpanAttribution, Start
from eyeline.stream import attribute

TEXTS = ("It is red.\nIt is old.\n</think>\n\nRed.", "No thinking at all", "<think>\nTwo.\n</think>\nBlue.")


@pytest.fixture
def log(tmp_path) -> Path:
    """Five lines: three traces, one whose image is missing, one that is none."""
    folder = tmp_path / "log"
    folder.mkdir()
    for seed in range(2):
        picture(seed=seed).save(folder / f"{seed}.png")
    lines = [
        json.dumps({"id": f"t{n}", "image": f"{n % 2}.png", "prompt": "What?", "text": text})
        for n, text in enumerate(TEXTS)
    ]
    lines.insert(1, json.dumps({"image": ["0.png", "gone.png"], "prompt": "What?", "text": "x"}))
    lines.append("")
    lines.append('{"prompt": "no image"}')
    (folder / "traces.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "traces.jsonl"


def table(out: Path) -> list[dict]:
    return [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_span_is_a_row_with_the_numbers_of_a_single_attribution(log, tmp_path):
    model = tiny_model("qwen3_vl")
    estimator = random_estimator(model)
    done = list(attribute_log(model, log, tmp_path / "out", estimator=estimator, traces=2))
    assert done == [0, 1, 2, 3, 4]
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 3
    rows = table(tmp_path / "out")
    for line, name, text, seed in (
        (0, "t0", TEXTS[0], 0),
        (2, "t1", TEXTS[1], 1),
        (3, "t2", TEXTS[2].removeprefix("<think>"), 0),
    ):
        with attribute(model, picture(seed=seed), "What?", text, estimator=estimator) as stream:
            expected = [event for event in stream if isinstance(event, SpanAttribution)]
        found = [row for row in rows if row["line"] == line]
        assert [row["text"] for row in found] == [event.text for event in expected]
        for row, event in zip(found, expected, strict=True):
            assert (row["id"], row["span"], row["channel"], row["start"], row["end"]) == (
                name,
                event.index,
                event.channel,
                event.start,
                event.end,
            )
            assert row["effects"] == pytest.approx(event.effects, abs=1e-5)
            assert row["contributions"] == pytest.approx(event.contributions, abs=1e-5)
            assert row["reliance"] == pytest.approx(event.whole_image, abs=1e-5)
            assert row["evidence"] == [region for region, _ in event.evidence]
            assert len(row["boxes"]) == len(row["evidence"])
            assert (row["unit"], row["error"]) == ("nats", None)
    lost = {row["line"]: row["error"] for row in rows if row["error"]}
    assert set(lost) == {1, 4}
    assert "gone.png" in lost[1]
    assert "Line 5 is no trace (KeyError: 'image')" in lost[4]


def test_rows_are_of_the_general_estimator_by_default_and_shares_of_attention_where_asked_for(log, tmp_path):
    model = tiny_model("qwen3_vl")
    for name, options, unit in (
        ("default", {}, "relative"),
        ("asked", {"estimator": "attention"}, "attention"),
    ):
        list(attribute_log(model, log, tmp_path / name, **options))
        rows = [row for row in table(tmp_path / name) if not row["error"]]
        assert {row["unit"] for row in rows} == {unit}
        of_spans = [row for row in rows if row["span"] is not None]
        assert {row["contributions"] is None for row in of_spans} == {unit == "attention"}


def test_what_an_answer_rests_on_is_a_row_after_its_spans(log, tmp_path):
    model = tiny_model("qwen3_vl")
    estimator = knowing(model)
    list(attribute_log(model, log, tmp_path / "out", estimator=estimator))
    with attribute(model, picture(), "What?", TEXTS[0], estimator=estimator) as stream:
        *_, done = every = list(stream)
    *spans, answer = [row for row in table(tmp_path / "out") if row["line"] == 0]
    expected = [[span for span, _ in event.sources] for event in every if isinstance(event, SpanAttribution)]
    assert [row["sources"] for row in spans] == expected
    assert (answer["span"], answer["channel"], answer["text"]) == (None, "answer", "Red.")
    assert answer["changes"] == pytest.approx(done.rests_on.changes, abs=1e-5)
    assert answer["total"] == pytest.approx(done.rests_on.total, abs=1e-4)
    assert answer["effects"] == pytest.approx(done.rests_on.direct, abs=1e-4)
    assert answer["sources"] == [span for span, _ in done.rests_on.sources]


def test_boxes_are_those_around_regions_in_pixels_of_their_image():
    infos = (ImageInfo(96, 64, 2, 3), ImageInfo(100, 50, 1, 2))
    start = Start("0", "m", None, "nats", infos, (((0, 0, 1), (0, 1, 1)), ((2, 3),)))
    assert region_boxes(start, [1, 3]) == [
        {"image": 0, "left": 32, "top": 0, "right": 96, "bottom": 64},
        {"image": 1, "left": 50, "top": 0, "right": 100, "bottom": 50},
    ]


def test_a_log_that_was_stopped_goes_on_and_ends_as_if_never_stopped(log, tmp_path, monkeypatch):
    model = tiny_model("qwen3_vl")
    list(attribute_log(model, log, tmp_path / "whole", traces=2))
    going = attribute_log(model, log, tmp_path / "out", traces=2)
    assert [next(going) for _ in range(4)] == [0, 1, 2, 3]
    going.close()
    assert [path.name for path in (tmp_path / "out").glob("*.parquet")] == ["spans-00000.parquet"]
    first = (tmp_path / "out" / "spans-00000.parquet").stat().st_mtime_ns
    asked = []
    monkeypatch.setattr(
        bulk, "attribute", lambda *args, **more: asked.append(args[3]) or attribute(*args, **more)
    )
    assert list(attribute_log(model, log, tmp_path / "out", traces=2)) == [0, 1, 2, 3, 4]
    assert len(asked) == 2  # of the second file; the third holds no trace
    assert (tmp_path / "out" / "spans-00000.parquet").stat().st_mtime_ns == first
    assert table(tmp_path / "out") == table(tmp_path / "whole")


def test_another_run_another_log_and_other_folders_are_refused(log, tmp_path):
    model = tiny_model("qwen3_vl")
    list(attribute_log(model, log, tmp_path / "out", traces=2))
    with pytest.raises(DataError, match='another regions \\("native" there, "grid" here\\)'):
        list(attribute_log(model, log, tmp_path / "out", regions="grid", traces=2))
    with pytest.raises(DataError, match=r"another estimator .* and another digest"):
        list(attribute_log(model, log, tmp_path / "out", estimator=random_estimator(model), traces=2))
    log.write_text(log.read_text().replace("old", "new"))
    with pytest.raises(DataError, match="was made of other lines"):
        list(attribute_log(model, log, tmp_path / "out", traces=2))
    (tmp_path / "out" / "spans-00000.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="remove it and run the same again"):
        list(attribute_log(model, log, tmp_path / "out", traces=2))
    with pytest.raises(DataError, match="no empty folder"):
        list(attribute_log(model, log, log.parent))
    for name, content, said in (
        ("none.jsonl", None, "cannot be read"),
        ("empty.jsonl", "\n", "is empty"),
        ("bad.jsonl", "{}", "Line 1 is no trace"),
    ):
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        with pytest.raises(DataError, match=said):
            list(attribute_log(model, path, tmp_path / "new"))
        assert not (tmp_path / "new").exists()
    assert count_lines(log) == 5


def test_another_process_that_begins_at_the_same_time_goes_on_or_is_refused(log, tmp_path, monkeypatch):
    model, iterdir, make_folder = tiny_model("qwen3_vl"), Path.iterdir, files.make_folder
    (tmp_path / "same").mkdir()
    (tmp_path / "other").mkdir()

    def just_before(place, name, call, **options):
        def begin_first(*given):
            monkeypatch.setattr(place, name, call)
            list(attribute_log(model, log, given[0], traces=2, **options))
            return call(*given)

        monkeypatch.setattr(place, name, begin_first)

    just_before(Path, "iterdir", iterdir)
    assert len(list(attribute_log(model, log, tmp_path / "same", traces=2))) == 5
    just_before(files, "make_folder", make_folder, regions="grid")
    with pytest.raises(DataError, match="made with another regions"):
        list(attribute_log(model, log, tmp_path / "other", traces=2))


def test_without_pyarrow_the_command_that_installs_it_is_named(log, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(EyelineError, match=r"pip install 'eyeline\[data\]'"):
        list(attribute_log(tiny_model("qwen3_vl"), log, tmp_path / "out"))


def test_a_log_is_attributed_on_the_command_line(here, log, estimator):
    words = ("attribute", "--model", "model", "--estimator", estimator)
    result = succeed(*words, "--data", log, "--out", "spans", "--traces", 3)
    assert result.stdout == ""
    assert result.stderr == "5 of 5, 0 min left\n5 traces in spans\n"
    rows = [row for row in table(Path("spans")) if row["id"] == "t1"]
    Path("trace.txt").write_text(TEXTS[1])
    single = events(succeed(*words, log.parent / "1.png", "What?", "--text", "trace.txt", "--json").stdout)
    spans = [event for event in single if isinstance(event, SpanAttribution)]
    torch.testing.assert_close(
        torch.tensor([row["effects"] for row in rows]), torch.tensor([span.effects for span in spans])
    )


def test_a_log_and_a_question_are_not_mixed(here, log):
    words = ("attribute", "--model", "model", "--data", log)
    assert "Give --out" in refuse(*words)
    assert "leave out a question" in refuse(*words, "--out", "o", "a.png", "What?")
    assert "leave out --save and --json" in refuse(*words, "--out", "o", "--save", "run", "--json")
    assert "one source for all images" in refuse(*words, "--out", "o", "--regions", "boxes.json")
    assert "Missing option '--text'" in refuse("attribute", "--model", "model", "a.png", "What?")
    assert "--out is where --data goes to" in refuse(
        "attribute", "a.png", "What?", "--text", log, "--out", "o"
    )
    assert "cannot be read" in refuse("attribute", "--model", "model", "--data", "gone", "--out", "o")
