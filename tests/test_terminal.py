import io
import re
import threading

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from test_runs import make_run, with_rests_on, with_span

from eyeline.events import Done, RestsOn, SpanAttribution, Text
from eyeline.report import strength
from eyeline.runs import Run
from eyeline.terminal import (
    DOWN,
    UP,
    TerminalView,
    colour_cells,
    describe,
    describe_answer,
    half_blocks,
)

CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def play(run: Run, **options) -> str:
    console = Console(file=io.StringIO(), **{"width": 80, "height": 40, "legacy_windows": False} | options)
    with TerminalView(console, run.images) as view:
        for event in run.events:
            view.show(event)
    return written(console)


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def terminal(**options) -> Console:
    options = {"width": 80, "height": 40, "force_terminal": True, "color_system": "truecolor"} | options
    return Console(file=io.StringIO(), no_color=False, legacy_windows=False, **options)


def uppers(picture) -> list[tuple[int, int, int]]:
    """The colours of the upper half of each character cell."""
    return [tuple(span.style.color.triplet) for span in picture.spans]


def in_colour(run: Run, **options) -> str:
    return play(run, force_terminal=True, color_system="truecolor", no_color=False, **options)


def screen(output: str) -> list[str]:
    """The lines that a terminal is left with after `output`: "cursor up" and "erase line" applied."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[a-zA-Z]|\n|\r)", output):
        if part == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif part == "\x1b[1A":
            row -= 1
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part and part != "\r" and not part.startswith("\x1b"):
            lines[row] += part
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("unit", ["nats", "attention"])
@pytest.mark.parametrize(
    "options",
    [
        {},  # a pipe
        {"force_terminal": True, "color_system": "truecolor", "no_color": True},
        {"force_terminal": True, "color_system": "truecolor", "_environ": {"TERM": "dumb"}},
        {"force_terminal": True, "color_system": None},
    ],
)
def test_without_colour_a_span_is_one_line_of_words(unit, options):
    output = play(make_run(unit, extra=" \x1b[31mred"), **options)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f▀]", output)
    lines = output.splitlines()
    words = {"nats": "1.8 nats", "attention": "83 % of attention"}[unit]
    assert f"The bar at the left shows 3.14 km. [0: 0 top left of image 1, {words}]" in lines
    assert lines.index("Thinking") < lines.index("Answer")
    assert any(line.startswith("It is 7. [2: 9 bottom right of image 2, ") for line in lines)


def test_an_ascii_pipe_gets_question_marks_not_a_crash():
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True), width=80)
    with TerminalView(console) as view:
        for event in make_run(extra=" Größe →").events:
            view.show(event)
    assert b"Gr??e ?" in raw.getvalue()


def test_a_known_heat_gives_known_cells():
    heat = np.array([[1.0, 0.0], [0.0, -1.0], [0.5, 1 / 3]])
    colours = colour_cells(heat, np.array([[9.0, 9.0], [0.0, 0.0], [0.0, 60.0]]))
    between = tuple((a + b) // 2 for a, b in zip(UP[0], UP[1], strict=True))
    expected = [[UP[-1], (9, 9, 9)], [(0, 0, 0), DOWN[-1]], [between, UP[0]]]
    assert colours.tolist() == [[list(colour) for colour in row] for row in expected]
    console = terminal()
    console.print(half_blocks(colours))
    up, down, mid, low = (";".join(map(str, rgb)) for rgb in (UP[-1], DOWN[-1], between, UP[0]))
    assert written(console) == (
        f"\x1b[38;2;{up};48;2;0;0;0m▀\x1b[0m\x1b[38;2;9;9;9;48;2;{down}m▀\x1b[0m\n"
        f"\x1b[38;2;{mid}m▀\x1b[0m\x1b[38;2;{low}m▀\x1b[0m\n"
    )


@pytest.mark.parametrize("patches", [True, False])
def test_the_picture_beside_a_span_is_bright_where_it_looked(patches):
    run = make_run(patches=patches)
    view = TerminalView(terminal(), run.images)
    view.show(run.start)
    span = next(event for event in run.events if isinstance(event, SpanAttribution))
    first, second = view._pictures(view._heats(span), 1.0)
    assert first.plain == "▀▀▀▀▀▀\n▀▀▀▀▀▀"  # 4 x 6 cells
    assert second.plain == "▀▀▀▀\n▀▀▀▀"
    bright = [colour == UP[-1] for colour in uppers(first)]
    assert bright == [True, True] + [False] * 10  # region 0: two cells wide, two high
    assert max(map(max, uppers(second))) < 80  # nothing there: the dark thumbnail


def test_a_span_that_hardly_looks_gets_a_dim_picture():
    run = make_run()
    view = TerminalView(terminal())
    view.show(run.start)
    heat = tuple(tuple((0.01,) * image.cols for _ in range(image.rows)) for image in run.start.images)
    span = SpanAttribution(0, "answer", 0, 1, "x", (0.04,) * 10, *[None] * 5, heat, None, 0.0, False, 0.0)
    drawn = view._pictures(view._heats(span), strength(span, "nats"))
    brightest = max(max(colour) for picture in drawn for colour in uppers(picture))
    assert 0 < brightest < 60
    nothing = SpanAttribution(0, "answer", 0, 1, "x", (0.0,) * 10, *[None] * 6, None, 0.0, False, 0.0)
    assert len(view._pictures(view._heats(nothing), strength(nothing, "nats"))) == 2


@pytest.mark.parametrize("width", [24, 40, 56, 80, 200])
@pytest.mark.parametrize("lost", [False, True])
def test_on_a_colour_terminal_all_text_stays_and_every_line_fits(width, lost):
    output = in_colour(make_run(lost=lost), width=width)
    lines = screen(output)
    assert all(cell_len(line) <= width for line in lines)
    words = " ".join(" ".join(re.sub("▀", " ", line) for line in lines).split())
    for sentence in ("The bar at the", "left shows 3.14 km.", "It is 7."):
        assert words.count(sentence) == 1
    assert words.count("▀") == 0
    assert "▀▀▀▀" in CODES.sub("", output)
    assert ("Lost: Span 1" in words) == lost


def test_a_word_longer_than_its_column_is_folded():
    words = "x" * 150 + " " + "第一个柱子是最高的" * 12
    lines = screen(in_colour(make_run(extra=" " + words)))
    shown = "".join(re.sub("[▀ ]", "", line) for line in lines)
    assert words.replace(" ", "") in shown
    assert all(cell_len(line) <= 80 for line in lines)


def test_text_appears_before_its_span_is_finished():
    run = make_run()
    console = terminal()
    with TerminalView(console, run.images) as view:
        for event in run.events[:3]:
            view.show(event)
        assert view.live is not None
        view.live.refresh()
        assert "The bar at" in screen(written(console))[-1]


def test_text_that_comes_in_time_is_drawn_by_itself_and_no_other_thread_draws(monkeypatch):
    run = make_run()
    console = terminal()
    clock = iter(range(1000))
    monkeypatch.setattr("eyeline.terminal.time.monotonic", lambda: float(next(clock)))
    threads = threading.active_count()
    with TerminalView(console, run.images) as view:
        for event in run.events[:3]:
            view.show(event)
        assert threading.active_count() == threads
        assert "The bar at" in screen(written(console))[-1]


def test_the_cursor_comes_back_when_the_stream_breaks():
    run = make_run()
    console = terminal()

    def broken():
        with TerminalView(console, run.images) as view:
            for event in run.events[:5]:
                view.show(event)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    output = written(console)
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l") >= 0


def test_model_text_cannot_drive_the_terminal():
    output = in_colour(make_run(extra=" \x1b]0;title\x07\x1b[2J\x9b5A[red]markup[/]"))
    assert "\x1b]" not in output
    assert "\x1b[2J" not in output
    assert "\x9b" not in output
    assert "[red]markup[/]" in CODES.sub("", output)


def test_text_without_any_span_is_shown_at_the_end():
    run = make_run()
    events = tuple(event for event in run.events if not isinstance(event, SpanAttribution))
    for output in (
        play(Run("", run.images, events)),
        "\n".join(screen(in_colour(Run("", run.images, events)))),
    ):
        assert "left shows 3.14 km. In the other picture it is 7." in output
        assert "It is 7." in output.split("Answer")[1]


def test_the_last_line_counts_tokens_speed_and_latency():
    output = play(make_run())
    assert output.splitlines()[-1] == "16 tokens · 31.4 tokens/s · attribution 40 ms after each span (median)"
    console = Console(file=io.StringIO(), width=200)
    TerminalView(console).show(Done("", 1, 2, 3.0, 0.5, "cancelled"))
    assert written(console).strip() == "2 tokens · 3.0 tokens/s · decoding waited 0.5 s · cancelled"
    console = Console(file=io.StringIO(), width=200)
    TerminalView(console).show(Done("", 1, 2, 0.0, 0.0, "stop"))  # a text that was given
    assert written(console).strip() == "2 tokens · the text ended"


@pytest.mark.parametrize("unit", ["nats", "attention"])
def test_attention_is_never_called_an_effect(unit):
    output = play(make_run(unit))
    assert ("attention, not effect" in output) == (unit == "attention")
    assert ("eyeline collect --model qwen3-vl-mini --data DIR --out RUN" in output) == (unit == "attention")
    assert ("nats" in output) == (unit == "nats")


FOLLOWS = "follows from the text before it"
PLACES = ("0 top left", "1 top left", "2 centre", "3 right", "4 bottom")


def span_of(effects, contributions=None, whole=None, channel="thinking", sources=None) -> SpanAttribution:
    return SpanAttribution(
        0, channel, 0, 1, "x", effects, None, contributions, None, None, None, None, whole, 0.0, False, 0.0, sources
    )  # fmt: skip


def test_shares_and_effects_are_told_in_order_of_strength():
    for effects, unit, words in (
        (
            (0.9, 1.8, -0.6, 0.1, 0.0),
            "nats",
            "1 top left, 1.8 nats; 0 top left, 0.9 nats; 2 centre, -0.6 nats",
        ),
        ((0.06, 0.0, 0.0, 0.0, 0.0), "nats", "hardly rests on the image"),
        ((0.01, 0.0, 0.0, 0.0, 0.0), "nats", FOLLOWS),
        (
            (0.34, 0.2, 0.26, 0.1, 0.1),
            "attention",
            "0 top left, 34 % of attention; 2 centre, 26 %; 1 top left, 20 %",
        ),
    ):
        assert describe(span_of(effects), PLACES, unit) == words
    assert describe(span_of(()), (), "nats") == FOLLOWS


def test_each_region_has_its_own_number_however_many_lie_in_one_place():
    parts = (0.9, 1.8, -0.6, 0.1, 0.0)
    assert describe(span_of(parts, parts, 2.2), PLACES, "nats") == (
        "1 top left, 1.8 nats; 0 top left, 0.9 nats; 2 centre, -0.6 nats"
    )
    cancel = (1.0, -1.0, 2.0, 0.0, 0.0)
    assert describe(span_of(cancel, cancel, 2.0), PLACES, "nats") == (
        "2 centre, 2.0 nats; 0 top left, 1.0 nats; 1 top left, -1.0 nats"
    )


def test_what_several_regions_do_together_is_said_first_where_none_matters_alone():
    alone, parts = (0.2, 0.2, 0.1, 0.0, 0.0), (4.0, 3.0, 4.5, 0.1, 0.0)
    assert describe(span_of(alone, parts, 11.6), PLACES, "nats") == (
        "11.6 nats, from several regions together: 2 centre, 4.5 nats; 0 top left, 4.0 nats; 1 top left, 3.0 nats"
    )
    none = (0.0,) * 5
    assert describe(span_of(none, (0.04, -0.04, 0.04, 0.04, 0.04), 0.9), PLACES, "nats") == (
        "0.9 nats, from several regions together"
    )
    matters = (1.2, 0.2, 0.1, 0.0, 0.0)  # one alone does a tenth of all
    assert describe(span_of(matters, parts, 11.6), PLACES, "nats").startswith(
        "2 centre, 4.5 nats; 0 top left"
    )


def test_what_loses_nothing_without_the_image_follows_from_the_text_before_it():
    none = (0.0,) * 5
    assert describe(span_of(none, none, 0.01), PLACES, "nats") == FOLLOWS
    little = describe(span_of(none, (0.02,) * 5, 0.09), PLACES, "nats")
    assert little == "hardly rests on the image: hiding it costs 0.09 nats"
    less = describe(span_of(none, (-0.06,) * 5, -0.3), PLACES, "nats")
    assert less == "hardly rests on the image: hiding it gains 0.3 nats"
    against = describe(span_of(none, (-0.3,) * 5, -1.5), PLACES, "nats")
    assert against == "is likelier without the image: hiding it gains 1.5 nats"


def test_unfinished_text_of_the_answer_does_not_overtake_the_thinking():
    run = make_run()
    texts = [event for event in run.events if isinstance(event, Text)]
    spans = [event for event in run.events if isinstance(event, SpanAttribution)]
    output = play(Run("", run.images, (run.start, *texts, *spans, run.events[-1])))  # a worker far behind
    kept = [output.index(text) for text in ("The bar at", "In the other", "It is 7.")]
    assert kept == sorted(kept)
    assert output.count("Thinking") == output.count("Answer") == 1


@pytest.mark.parametrize(("whole", "more"), [(0.01, ""), (0.3, "; hiding the image costs 0.3 nats")])
def test_text_that_hardly_rests_on_the_image_says_which_sentences_it_comes_from(whole, more):
    sources = ((4, 9.0), (1, 4.6), (3, 4.4))  # the last is under half of the first
    thinking = span_of((0.0,) * 5, (0.0,) * 5, whole, sources=sources)
    assert describe(thinking, PLACES, "nats") == "comes from 4, 1" + more
    answer = span_of((0.0,) * 5, (0.0,) * 5, whole, "answer", sources)
    assert describe(answer, PLACES, "nats") == "comes from 4, 1"
    seen = span_of((1.8, 0.0, 0.0, 0.0, 0.0), (1.8, 0.0, 0.0, 0.0, 0.0), 1.8, "answer", sources)
    assert describe(seen, PLACES, "nats") == "0 top left, 1.8 nats"


def answer_of(changes, whole=0.9, sources=((3, 9.0), (2, 6.0), (0, 1.0))) -> RestsOn:
    return RestsOn(changes, whole, (0.0,) * len(changes), (0.0,) * len(changes), sources)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ((0.2, 0.49, 0.0, 0.94, 0.3), "3 right, 94 % likely to change without it"),
        ((0.61, 0.7, 0.4, 0.94, 0.1), "3 right, 94 % likely to change without it; 1 top left, 70 %; 0 top left, 61 %"),
        ((0.7, 0.5, 0.7, 0.8, 0.6),
         "3 right, 80 % likely to change without it; 0 top left, 70 %; 2 centre, 70 %; 2 more regions"),
    ],
)  # fmt: skip
def test_an_answer_names_the_sentences_and_the_places_that_it_comes_from(changes, words):
    assert describe_answer(answer_of(changes), PLACES, "nats") == "through 3, 2: " + words
    assert describe_answer(answer_of(changes, sources=()), PLACES, "nats") == words


@pytest.mark.parametrize(
    ("changes", "whole", "words"),
    [
        ((0.09, 0.0, 0.0, 0.0, 0.0), 0.37, ". Nor is the whole image (37 %)."),
        ((0.46, 0.0, 0.26, 0.05, 0.0), 0.49, "; most likely 0 top left (46 %), 2 centre (26 %). Nor is the whole image (49 %)."),
        ((0.0, 0.0, 0.15, 0.0, 0.0), 0.5, "; most likely 2 centre (15 %). Without the whole image it would change (50 %)."),
    ],
)  # fmt: skip
def test_an_answer_that_no_part_is_likely_to_change_says_so_and_which_is_likeliest(changes, whole, words):
    said = "o part by itself is likely to change it" + words
    assert describe_answer(answer_of(changes, whole), PLACES, "nats") == "through 3, 2: n" + said
    assert describe_answer(answer_of(changes, whole, ()), PLACES, "nats") == "N" + said
    assert describe_answer(answer_of((), 0.0, ()), (), "nats").startswith("No part")


def test_an_answer_that_is_not_grounded_says_so_and_its_picture_is_pale():
    run = with_rests_on(make_run(), {9: 1.0})
    drawn = {}
    for grounded in (None, False):
        view = TerminalView(terminal(width=200), run.images)
        for event in with_span(run, 2, grounded=grounded).events:
            view.show(event)
        drawn[grounded] = written(view.console).rpartition("through 1")
    brightest = ";".join(map(str, UP[-1]))
    assert brightest in drawn[None][2]
    assert brightest not in drawn[False][2]
    assert drawn[False][0].endswith("[not grounded · ")
    assert not drawn[None][0].endswith("· ")


def test_chances_that_are_not_calibrated_are_said_to_be_about_so():
    found = describe_answer(answer_of((0.9, 0.1, 0.0, 0.0, 0.0)), PLACES, "relative")
    assert "~90 % likely to change without it" in found
    none = describe_answer(answer_of((0.05, 0.0, 0.0, 0.0, 0.0), 0.37), PLACES, "relative")
    assert "(~37 %)" in none


def test_a_sentence_that_is_not_grounded_is_said_to_be_so():
    lines = play(with_span(make_run(), 1, grounded=False), width=200).splitlines()
    assert [line.count("not grounded") for line in lines if " [1: " in line] == [1]
    assert sum(line.count("not grounded") for line in lines) == 1


def test_a_finished_stream_ends_with_what_its_answer_comes_from():
    run = with_rests_on(make_run(), {9: 0.94, 0: 0.5, 4: 0.2})
    line = "[through 1: 9 bottom right of image 2, 94 % likely to change without it; 0 top left of image 1, 50 %]"
    lines = play(run, width=200).splitlines()
    assert lines.index(line) == lines.index("Answer") + 2
    assert lines[-2:] == [
        "",
        "16 tokens · 31.4 tokens/s · attribution 40 ms after each span (median)",
    ]
    assert "likely to change" not in play(make_run())
    shown = " ".join(screen(in_colour(run, width=200)))
    assert "[through 1: 9 bottom right of image 2, 94 % likely" in shown
    assert "the brighter, the likelier to change without it" in shown


def test_the_picture_beside_an_answer_is_as_bright_as_the_chance_that_it_changes():
    run = with_rests_on(make_run(), {9: 1.0, 0: 0.0})
    view = TerminalView(terminal(width=200), run.images)
    for event in run.events:
        view.show(event)
    drawn = written(view.console).rpartition("[through")[2]
    brightest = ";".join(map(str, UP[-1]))
    assert drawn.count(f"38;2;{brightest};48;2;{brightest}m▀") == 2  # 2 x 2 cells


@pytest.mark.parametrize("width", [24, 56, 80])
def test_what_an_answer_comes_from_fits_every_terminal(width):
    output = in_colour(with_rests_on(make_run(), {9: 0.94, 0: 0.5}), width=width)
    assert all(cell_len(line) <= width for line in screen(output))
