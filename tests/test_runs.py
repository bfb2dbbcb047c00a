import errno
import json
import os
from dataclasses import replace
from io import FileIO
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from eyeline.errors import DataError, RegionError
from eyeline.events import (
    SCHEMA,
    Done,
    Error,
    Event,
    Grid,
    ImageInfo,
    Notice,
    RestsOn,
    SpanAttribution,
    Start,
    Text,
    Unit,
    from_json,
    to_json,
)
from eyeline.files import write_files
from eyeline.game import Game
from eyeline.kept_games import Games
from eyeline.runs import Run, read_run, save_run

HOSTILE = '<script>document.title="taken"</script><img src=x onerror=alert(1)></script><!-- & \u2028 "é"'


def make_run(unit: Unit = "nats", patches: bool = True, lost: bool = False, extra: str = "") -> Run:
    """Two images (4 x 6 and 4 x 4 cells), ten regions of 2 x 2 cells and two channels.

    The first span rests on region 0, the second on region 9, in image 2, and against region 4. With `lost`
    the second span's attribution fails; `extra` ends the thinking.
    """
    infos = (ImageInfo(192, 128, 4, 6), ImageInfo(128, 128, 4, 4))
    hiding, level = None if unit == "attention" else "pixels", "fitted" if unit == "nats" else "none"
    grids: tuple[Grid, ...] = (
        tuple(tuple(row // 2 * 3 + col // 2 for col in range(6)) for row in range(4)),
        tuple(tuple(6 + row // 2 * 2 + col // 2 for col in range(4)) for row in range(4)),
    )
    sentences = [
        ("thinking", "The bar at the\nleft shows 3.14 km. ", {0: 1.8, 1: 0.3}),
        ("thinking", "In the other picture it is 7." + extra, {9: 2.4, 4: -0.8}),
        ("answer", "It is 7.", {9: 0.9}),
    ]
    estimator = {"nats": "mini-1", "relative": "general", "attention": None}[unit]
    events: list[Event] = [Start("0.1.0", "qwen3-vl-mini", estimator, unit, infos, grids, hiding, level)]
    token = 0
    for index, (channel, text, strong) in enumerate(sentences):
        first = token
        for start in range(0, len(text), 5):
            events.append(Text(channel, text[start : start + 5], token, token + 1))
            token += 1
        effects = [strong.get(region, 0.01) for region in range(10)]
        if unit == "attention":
            effects = [abs(effect) for effect in effects]
            effects = [effect / sum(effects) for effect in effects]
        heat = tuple(tuple(tuple(effects[label] / 4 for label in row) for row in grid) for grid in grids)
        interval = tuple((effect - 0.4, effect + 0.5) for effect in effects) if unit == "nats" else None
        contributions = None if unit == "attention" else tuple(effects)
        order = sorted(range(10), key=lambda region: -effects[region])
        sums = tuple(
            (region, sum(effects[each] for each in order[: n + 1])) for n, region in enumerate(order)
        )
        evidence, breaks = (None, None) if unit == "attention" else (sums[:2], sums[:5])
        if lost and index == 1:
            events.append(Error("Span 1 has no attribution: the worker ran out of memory."))
            continue
        whole_image = None if unit == "attention" else sum(max(effect, 0.0) for effect in effects)
        span = SpanAttribution(
            index, channel, first, token, text, tuple(effects), interval, contributions, interval, evidence, breaks,
            heat if patches else None, whole_image, -1.25, False, 0.02 * (index + 1),
        )  # fmt: skip
        events.append(span)
    events.append(Done("It is 7.", 90, token + 1, 31.4, 0.0, "eos"))
    return Run("How far is it? " + HOSTILE, tuple(map(_draw, infos)), tuple(events))


def with_span(run: Run, index: int, **changes) -> Run:
    """The same run with one of its spans otherwise."""
    events = (
        replace(event, **changes) if isinstance(event, SpanAttribution) and event.index == index else event
        for event in run.events
    )
    return Run(run.prompt, run.images, tuple(events))


def with_rests_on(run: Run, changes: dict[int, float], whole: float = 0.97) -> Run:
    """The same run, whose answer comes from its second span, and changes so likely without some of its ten regions."""
    likely = tuple(changes.get(region, 0.02) for region in range(10))
    total = tuple(12.0 * chance for chance in likely)
    rests_on = RestsOn(likely, whole, total, (0.1,) * 10, ((1, 8.5), (0, 0.7)))
    events = (replace(each, rests_on=rests_on) if isinstance(each, Done) else each for each in run.events)
    return Run(run.prompt, run.images, tuple(events))


def _draw(info: ImageInfo) -> Image.Image:
    image = Image.new("RGB", (info.width, info.height), (250, 248, 240))
    ImageDraw.Draw(image).rectangle((10, 30, 40, info.height - 10), fill=(40, 90, 200))
    return image


def save(run: Run, folder: Path) -> Path:
    with save_run(folder, run.images, run.prompt) as writer:
        for event in run.events:
            writer.write(event)
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def no_space(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("run", [make_run(), make_run("attention", patches=False, lost=True, extra=HOSTILE)])
def test_a_saved_run_reads_back_as_it_was(tmp_path, run):
    read = read_run(save(run, tmp_path / "new" / "run"))
    assert (read.prompt, read.events) == (run.prompt, run.events)
    assert len(read.images) == 2
    assert all(a.tobytes() == b.tobytes() for a, b in zip(read.images, run.images, strict=True))
    assert names(tmp_path / "new" / "run") == {"events.jsonl", "run.json", "image-0.png", "image-1.png"}


def test_every_event_is_readable_as_soon_as_it_is_written(tmp_path):
    run = make_run()
    with save_run(tmp_path / "run", run.images, run.prompt) as writer:
        for count, event in enumerate(run.events, start=1):
            writer.write(event)
            assert read_run(tmp_path / "run").events == run.events[:count]


def test_a_run_killed_at_any_byte_is_readable_up_to_its_last_whole_line(tmp_path):
    run = make_run()
    events = (run.start, Text("answer", "  →\n", 0, 1))
    folder = save(Run("", run.images, events), tmp_path / "run")
    whole = (folder / "events.jsonl").read_bytes()
    assert read_run(folder).events == events
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        (folder / "events.jsonl").write_bytes(whole[:length])
        complete = length == len(whole) - 1  # only its newline is missing
        assert read_run(folder).events == events[: 2 if complete else 1]


def break_line(folder: Path) -> None:
    lines = (folder / "events.jsonl").read_bytes().split(b"\n")
    lines[2] = lines[2][:20]
    (folder / "events.jsonl").write_bytes(b"\n".join(lines))


def without_start(folder: Path) -> None:
    (folder / "events.jsonl").write_bytes((folder / "events.jsonl").read_bytes().split(b"\n", 1)[1])


def with_nine_effects(folder: Path) -> None:
    text = (folder / "events.jsonl").read_text()
    (folder / "events.jsonl").write_text(text.replace('"effects": [1.8, ', '"effects": ['))


def with_a_number_for_a_grid(folder: Path) -> None:
    text = (folder / "events.jsonl").read_text()
    (folder / "events.jsonl").write_text(text.replace('"patches": [[[', '"patches": [7, [['))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "events.jsonl").unlink(), "is not a saved run"),
        (lambda folder: (folder / "events.jsonl").write_bytes(b""), "does not begin with a start"),
        (lambda folder: (folder / "events.jsonl").write_bytes(b"\x00\xff\n"), "events.jsonl cannot be read"),
        (lambda folder: (folder / "events.jsonl").write_bytes(b"{\xff\n"), "line 1"),
        (break_line, "line 3"),
        (without_start, "does not begin with a start"),
        (with_nine_effects, "does not have 10 effects"),
        (with_a_number_for_a_grid, "is damaged"),
        (lambda folder: (folder / "run.json").unlink(), "run.json is missing"),
        (lambda folder: (folder / "run.json").write_text("[]"), "run.json"),
        (lambda folder: (folder / "run.json").write_bytes(b"\xff"), "run.json"),
        (lambda folder: (folder / "image-1.png").unlink(), "has lost an image"),
        (lambda folder: (folder / "image-1.png").write_bytes(b"\x89PNG"), "has lost an image"),
    ],
)
def test_a_damaged_run_is_refused_with_a_sentence(tmp_path, damage, says):
    folder = save(make_run(), tmp_path / "run")
    damage(folder)
    with pytest.raises(DataError, match=says) as caught:
        read_run(folder)
    assert "\n" not in str(caught.value)


def test_a_missing_folder_and_a_file_are_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(DataError, match="is not a saved run"):
            read_run(path)
    with pytest.raises(DataError, match="is a file"):
        save(make_run(), tmp_path / "file")


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        save(make_run(), tmp_path)
    assert names(tmp_path) == {"thesis.txt"}


def test_an_earlier_run_makes_way_for_the_new_one(tmp_path):
    folder, new = save(make_run(), tmp_path / "run"), make_run("attention")
    with save_run(folder, new.images[:1], "again") as writer:
        writer.write(new.events[0])
    assert names(folder) == {"events.jsonl", "run.json", "image-0.png"}
    assert (folder / "events.jsonl").read_text() == to_json(new.events[0]) + "\n"


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_from_the_start_leaves_nothing_behind(tmp_path, monkeypatch, call):
    kept = save(make_run(), tmp_path / "kept")
    with monkeypatch.context() as patch:
        patch.setattr(os, call, no_space)
        for folder in (tmp_path / "new", kept):
            with pytest.raises(DataError, match="disk is full"):
                save(make_run("attention"), folder)
    assert names(tmp_path) == {"kept"}
    assert names(kept) == {"events.jsonl", "run.json", "image-0.png", "image-1.png"}
    assert read_run(kept).start.unit == "nats"


class AlmostFull(FileIO):
    def write(self, line):
        return super().write(line[:20])


@pytest.mark.parametrize("full", [lambda path: AlmostFull(path, "a"), lambda path: FileIO("/dev/full", "w")])
def test_a_disk_that_fills_up_leaves_the_lines_before(tmp_path, full):
    run = make_run()
    with save_run(tmp_path / "run", run.images, run.prompt) as writer:
        writer.write(run.events[0])
        assert writer.events is not None
        writer.events.close()
        writer.events = full(tmp_path / "run" / "events.jsonl")
        for event in run.events[1:3]:
            with pytest.raises(DataError, match="disk is full"):
                writer.write(event)
    assert (tmp_path / "run" / "events.jsonl").read_text() == to_json(run.events[0]) + "\n"


def test_only_regular_files_are_replaced(tmp_path):
    with pytest.raises(DataError, match="not a regular file"):
        write_files({Path("/dev/full"): b"x"})
    with pytest.raises(DataError, match="not a regular file"):
        write_files({tmp_path: b"x"})
    with pytest.raises(DataError, match="could not be written"):
        write_files({tmp_path / "absent" / "file": b"x"})
    assert not names(tmp_path)


def test_a_run_shows_itself_in_five_lines_whatever_it_holds():
    run = make_run(extra=HOSTILE)
    assert repr(run).splitlines() == [
        "Run, read by 'qwen3-vl-mini', in nats by 'mini-1'",
        "  prompt: " + repr("How far is it? " + " ".join(HOSTILE.split()))[:80] + "…'",
        "  images: 192 x 128, 128 x 128 pixels, 10 regions",
        f"  trace: 3 attributed spans, {run.events[-1].tokens} tokens, ended by eos",
        "  answer: 'It is 7.'",
    ]
    for events in ((), run.events[:1], run.events[:-1]):
        lines = repr(Run("\x1b[31m\n" * 99, run.images[:1], events)).splitlines()
        assert len(lines) == 5
        assert "\x1b" not in "".join(lines)
        assert lines[3:] == [
            f"  trace: {3 if len(events) > 1 else 0} attributed spans, cut short",
            "  answer: none yet",
        ]
    assert "in attention without an estimator" in repr(make_run("attention"))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("shows 3.14 km", "shows 9.99 km", "span 0 says another text than the text events before it"),
        ('"answer": "It is 7."', '"answer": "It is 8."', "its answer is another text"),
    ],
)
def test_a_run_whose_events_tell_two_texts_is_refused(tmp_path, old, new, expected):
    folder = save(make_run(), tmp_path / "run")
    path = folder / "events.jsonl"
    content = path.read_text(encoding="utf-8")
    assert old in content
    path.write_text(content.replace(old, new), encoding="utf-8")
    with pytest.raises(DataError, match=expected):
        read_run(folder)


# --- schemas of events

NEW = {
    "start": ("hiding", "level", "notices", "schema"),
    "span": ("contributions", "contribution_interval", "evidence", "breaks"),
}


def as_first_schema(event: Event) -> str:
    """The line that the first version wrote of an event, without what it did not have."""
    values = json.loads(to_json(event))
    return json.dumps(
        {name: value for name, value in values.items() if name not in NEW.get(values["event"], ())}
    )


@pytest.mark.parametrize("unit", ["nats", "attention"])
def test_a_run_of_the_first_schema_is_read_with_effects_of_attention_knockout_and_no_contributions(
    tmp_path, unit
):
    run = make_run(unit)
    folder = save(run, tmp_path / "run")
    lines = "".join(as_first_schema(event) + "\n" for event in run.events)
    (folder / "events.jsonl").write_text(lines, encoding="utf-8")
    start, *events = read_run(folder).events
    assert isinstance(start, Start)
    known = ("attention", "fitted") if unit == "nats" else (None, "none")
    assert (start.schema, start.hiding, start.level, start.notices) == (1, *known, ())
    for ours, theirs in zip(events, run.events[1:], strict=True):
        if not isinstance(ours, SpanAttribution):
            assert ours == theirs
            continue
        assert all(getattr(ours, name) is None for name in NEW["span"])
        assert (ours.effects, ours.interval, ours.patches) == (
            theirs.effects,
            theirs.interval,
            theirs.patches,
        )
        assert ours.shown == ours.effects
    assert all(from_json(to_json(event)) == event for event in (start, *events)), (
        "also when it is written again"
    )


def test_events_of_this_schema_come_back_as_they_were():
    run = make_run(extra=HOSTILE)
    notice = Notice("quantised", "its calibration is not verified")
    start = Start(
        "1", "m", None, "relative", run.start.images, run.start.regions, "blur", "calibrated", (notice,)
    )
    for event in (start, *run.events):
        assert from_json(to_json(event)) == event
    assert json.loads(to_json(start))["schema"] == SCHEMA == 2


@pytest.mark.parametrize("schema", [0, 3, "2", None, 2.5])
def test_a_schema_that_is_not_known_is_refused(schema):
    line = json.dumps(json.loads(to_json(make_run().start)) | {"schema": schema})
    with pytest.raises(DataError, match="Not an Eyeline event"):
        from_json(line)


# --- what is kept for whoever asks later


def kept(run: Run) -> Games:
    """Games of a run's spans, of ten regions, without units that see regions together."""
    games, rng = Games(), torch.Generator().manual_seed(0)
    for span in run.events:
        if isinstance(span, SpanAttribution):
            tokens = span.end - span.start
            none = torch.zeros(tokens, 0)
            games.add(
                span.start,
                Game(torch.randn(tokens, 10, generator=rng), torch.zeros(tokens, 0, 10), none, none, None),
            )
    return games


def test_a_run_that_is_read_again_answers_as_its_games_did(tmp_path):
    run = make_run()
    games = kept(run)
    with save_run(tmp_path / "run", run.images, run.prompt) as writer:
        for event in run.events:
            writer.write(event)
        writer.keep(games, [1, 2], {"do_sample": False})
    read = read_run(tmp_path / "run")
    spans = [event for event in run.events if isinstance(event, SpanAttribution)]
    assert read.joint(1, [9, 4]) == games.joint([(spans[1].start, spans[1].end)], [9, 4])
    assert read.joint("3.14") != read.joint(0), "words are fewer tokens than their span"
    with pytest.raises(RegionError, match="There is no region 10"):
        read.joint(0, [10])
    with pytest.raises(DataError, match="There is no span 3"):
        read.joint(3)
    again = make_run("attention")
    save(again, tmp_path / "run")
    with pytest.raises(DataError, match="keeps no numbers to ask about"):
        read_run(tmp_path / "run").joint(0)
    with pytest.raises(DataError, match="Only a saved or watched run keeps the numbers"):
        run.joint(0)
