"""A stream of events in a terminal: the text as it is written, beside each finished span where it looked, and at the end
what the answer comes from.

`TerminalView` writes to a rich console and nowhere else. On a colour terminal a span gets a small picture of
half-block cells; elsewhere it is one plain line, its strongest regions in words. Spans have the numbers of events, which the
commands on a saved run take. JSON, and what goes to stdout or stderr, are left to the command line.
"""

import statistics
import time
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text as Line  # `Text` is an event here

from eyeline.boxes import RATHER, changing
from eyeline.events import Channel, Done, Error, Event, RestsOn, SpanAttribution, Start, Steps, Text, Unit
from eyeline.report import (
    ABOUT,
    TRAIN_COMMANDS,
    none_alone,
    number_regions,
    paleness,
    percent,
    resting,
    stands_out,
    strength,
)

MAX_COLS, MAX_ROWS = 16, 8  # pixels of a picture; a character cell holds two, one above the other
TEXT_WIDTH = 72  # characters of a span's text beside its picture
MIN_WIDTH = 56  # of a terminal that has room for both; in a narrower one the picture stands below the text
# From no effect to the strongest, on the dark ground of the picture: towards yellow for what supports the
# text, towards light blue for what speaks against it; told apart by hue, strength by brightness.
UP = ((120, 36, 12), (220, 96, 28), (255, 200, 96))
DOWN = ((14, 48, 100), (40, 116, 196), (144, 206, 255))
CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "�")  # all but tab and newline
EACH_S = 1 / 12  # between two drawings of the text in progress
PLACES = 3  # at most as many regions in words
Pending = list[tuple[Channel, str]]


class TerminalView:
    """Shows one stream's events on a console: `with TerminalView(console, images) as view: view.show(event)`.

    Leaving the block (or a `Done`) ends the live part of the screen, whatever happened. `images` are those of
    the prompt, for the pictures' background; without them the heat stands on black.
    """

    def __init__(self, console: Console, images: Sequence[Image.Image] = ()):
        self.console = console
        self.images = images
        self.pictures = console.is_terminal and not console.is_dumb_terminal and not console.no_color
        self.pictures = (
            self.pictures and console.color_system is not None and console.encoding.startswith("utf")
        )
        self.start: Start | None = None
        self.names: tuple[str, ...] = ()
        self.channel: Channel | None = None
        self.pending: Pending = []  # text that no span has covered yet
        self.latencies: list[float] = []
        self.answer: list[SpanAttribution] = []  # the spans of the answer
        self.live: Live | None = None
        self.drawn = 0.0  # when the text in progress was, seconds

    def __enter__(self) -> "TerminalView":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_live()

    def show(self, event: Event) -> None:
        SHOW[type(event)](self, event)

    def _show_start(self, event: Start) -> None:
        self.start, self.names = event, number_regions(event)
        estimator = f"estimator {event.estimator}" if event.estimator else "attention, not effect"
        self._print(Line(_clean(f"{event.model} · {estimator} · {len(self.names)} regions"), "dim"))
        for notice in event.notices:
            self._print(Line(_clean(f"Note: {notice.message}"), "yellow"))
        if self.pictures:
            self._print(_key(event.unit))

    def _show_text(self, event: Text) -> None:
        self.pending.append((event.channel, event.text))
        if self.pictures and self.live is None:
            # Drawn by this thread alone: one that draws between two steps of a print leaves lines behind.
            self.live = Live(
                console=self.console, get_renderable=self._in_progress, transient=True, auto_refresh=False
            )
            self.live.start()
        if self.live is not None and time.monotonic() - self.drawn >= EACH_S:
            self.live.refresh()
            self.drawn = time.monotonic()

    def _show_span(self, event: SpanAttribution) -> None:
        assert self.start is not None, "a stream begins with its start"
        self._take(event)
        self._enter_channel(event.channel)
        self.latencies.append(event.latency_s)
        self.answer += [event] * (event.channel == "answer")
        words = f"{event.index}: {describe(event, self.names, self.start.unit)}"
        if event.grounded is False:
            words += " · not grounded"
        if self.pictures:
            self._print(self._block(event, words))
        else:
            self._print(Line(_clean(f"{' '.join(event.text.split())} [{words}]")))

    def _show_error(self, event: Error) -> None:
        self._print(Line(_clean(f"Lost: {event.message}"), "yellow"))

    def _show_done(self, event: Done) -> None:
        self._flush_pending()
        self._stop_live()
        if self.start is not None and event.rests_on is not None:
            self._show_rests_on(event.rests_on)
        self.console.print()
        facts = [f"{event.tokens} token{'s' * (event.tokens != 1)}"]
        if event.tokens_per_s:  # a text that was given has no speed
            facts.append(f"{event.tokens_per_s:.1f} tokens/s")
        if self.latencies:
            facts.append(
                f"attribution {statistics.median(self.latencies) * 1000:.0f} ms after each span (median)"
            )
        if event.stalled_s >= 0.05:
            facts.append(f"decoding waited {event.stalled_s:.1f} s")
        if event.reason in ENDS:
            facts.append(ENDS[event.reason])
        self._print(Line(" · ".join(facts), "dim"))
        if self.start is not None and self.start.unit == "attention":
            commands = ", then ".join(f"`{line.format(model=self.start.model)}`" for line in TRAIN_COMMANDS)
            self._print(Line(_clean(f"attention, not effect: train an estimator with {commands}"), "yellow"))

    def _show_rests_on(self, rests_on: RestsOn) -> None:
        assert self.start is not None, "the caller looked"
        pale, likely = paleness(self.answer), max(rests_on.changes, default=0.0)
        marked = "not grounded · " if pale < 1 else ""
        words = Line(f"[{marked}{describe_answer(rests_on, self.names, self.start.unit)}]")
        if not self.pictures:
            return self._print(words)
        heats = [np.array(rests_on.changes)[np.array(grid)] for grid in self.start.regions]
        words.stylize("rgb(224,122,52)" if pale == 1 and likely >= RATHER else "dim")
        key = Line("the brighter, the likelier to change without it", "dim")
        self._print(self._beside(words, self._pictures(heats, pale * likely), key))

    def _take(self, span: SpanAttribution) -> None:
        """Removes a span's text from what is pending; earlier text has lost its span and is printed alone."""
        text = "".join(text for channel, text in self.pending if channel == span.channel)
        found = text.find(span.text)
        if found < 0:
            return
        skipped: Pending = [(span.channel, text[:found])]
        rest: Pending = [(span.channel, text[found + len(span.text) :])]
        other = [piece for piece in self.pending if piece[0] != span.channel]
        # Spans come in order: thinking that is left when an answer's span arrives has lost its span too.
        self.pending = other + skipped if span.channel == "answer" else skipped
        self._flush_pending()
        self.pending = rest if span.channel == "answer" else rest + other

    def _flush_pending(self) -> None:
        pending, self.pending = self.pending, []
        for channel in ("thinking", "answer"):
            text = "".join(piece for of, piece in pending if of == channel)
            if text.strip():
                self._enter_channel(channel)
                shown = _clean(text.strip("\n")) if self.pictures else _clean(" ".join(text.split()))
                self._print(Line(shown, _style(channel)))

    def _enter_channel(self, channel: Channel) -> None:
        if channel != self.channel:
            self.channel = channel
            self.console.print()
            self._print(Line(channel.capitalize(), "bold" if channel == "answer" else "bold dim"))

    def _block(self, span: SpanAttribution, words: str) -> RenderableType:
        assert self.start is not None
        told = span.text.strip("\n").rstrip()
        if not told.startswith("  "):  # the space after the span before, not an indent
            told = told.lstrip(" ")
        text = Line(_clean(told), _style(span.channel))
        caption = Line(_clean(words), "rgb(224,122,52)" if stands_out(span, self.start.unit) else "dim")
        return self._beside(text, self._pictures(self._heats(span), strength(span, self.start.unit)), caption)

    def _beside(self, text: Line, pictures: list[Line], caption: Line) -> RenderableType:
        """A text with its caption and pictures, beside it where there is room."""
        assert self.start is not None
        drawn = Table.grid(padding=(0, 1, 0, 0))
        drawn.add_row(*pictures)
        row = Table.grid(padding=(0, 2, 0, 0))
        if self.console.width < MIN_WIDTH:
            row.add_row(drawn, caption)
            return Padding(Group(text, row), (0, 0, 1, 0))
        width = min(TEXT_WIDTH, self.console.width - _picture_width(self.start) - 4)
        row.add_column(width=width, overflow="fold")  # not cut: a formula, a text without spaces
        row.add_row(Group(text, caption), drawn)
        return Padding(row, (0, 0, 1, 0))

    def _heats(self, span: SpanAttribution) -> list[np.ndarray]:
        assert self.start is not None
        return [np.array(heat) for heat in span.patches or ()] or [
            np.array(span.shown)[np.array(grid)] for grid in self.start.regions
        ]

    def _pictures(self, heats: Sequence[np.ndarray], brightness: float) -> list[Line]:
        """For each image its heat, `brightness` (0 to 1) where it is largest."""
        assert self.start is not None
        sizes = _sizes(self.start)
        grounds = [_ground(image, size) for image, size in zip(self.images, sizes, strict=False)]
        grounds += [np.zeros((rows, cols)) for cols, rows in sizes[len(grounds) :]]
        heats = [_resize(heat, size) for heat, size in zip(heats, sizes, strict=True)]
        scale = max(float(np.abs(heat).max()) for heat in heats) or 1.0
        return [
            half_blocks(colour_cells(brightness * heat / scale, ground))
            for heat, ground in zip(heats, grounds, strict=True)
        ]

    def _in_progress(self) -> RenderableType:
        """The text that no span covers yet; the end of it, where it is longer than the screen."""
        text = Line()
        for channel, piece in self.pending[-1000:]:
            text.append(_clean(piece), _style(channel))
        wrapped = text.wrap(self.console, min(TEXT_WIDTH, self.console.width))
        return Group(*wrapped[-max(1, self.console.height - 2) :])

    def _print(self, what: RenderableType) -> None:
        if self.pictures:
            self.console.print(what, highlight=False)
        else:
            plain = what.plain if isinstance(what, Line) else str(what)
            encoding = self.console.encoding
            line = Line(plain.encode(encoding, "replace").decode(encoding))
            self.console.print(line, soft_wrap=True, highlight=False)

    def _stop_live(self) -> None:
        if self.live is not None:
            self.live.stop()
            self.live = None


SHOW = {
    Start: TerminalView._show_start,
    Text: TerminalView._show_text,
    SpanAttribution: TerminalView._show_span,
    Error: TerminalView._show_error,
    Done: TerminalView._show_done,
}
ENDS = {
    "stop": "the text ended",
    "length": "stopped at the length limit",
    "cancelled": "cancelled",
    "error": "stopped by an error",
}
LEAST = 0.05  # nats: regions with less are not named
SHARE = 0.5  # of the first source, under which others are not named


def describe(span: SpanAttribution, names: Sequence[str], unit: Unit) -> str:
    """What a span rests on: "3 top left, 1.8 nats; 7 centre, 0.6 nats", or "3 top left, 34 % of attention".

    Regions under a fifth of the strongest, or under 0.05 nats, are left out. Where no region matters alone but several do
    together, that is said first, and where nothing does, which spans it comes from, or that alone where they are not known.
    Nothing is said of the image then for an answer: that it comes from it through its thinking stands below it.
    """
    order = sorted(range(len(span.shown)), key=lambda region: -abs(span.shown[region]))
    strongest = max(map(abs, span.shown), default=0.0)
    least = max(0.2 * strongest, 1e-9 if unit == "attention" else LEAST)
    told = [region for region in order[:PLACES] if abs(span.shown[region]) >= least]
    about = ABOUT[unit]
    amounts = [
        f"{100 * span.shown[region]:.0f} %"
        if unit == "attention"
        else f"{about}{_nats(span.shown[region])} nats"
        for region in told
    ]
    if amounts and unit == "attention":
        amounts[0] += " of attention"
    words = "; ".join(f"{names[region]}, {amount}" for region, amount in zip(told, amounts, strict=True))
    how, whole = resting(span, unit), span.whole_image or 0.0
    if how == "attends to" or (how == "rests on" and words):
        return words
    if how.startswith("rests on"):
        together = f"{about}{_nats(whole)} nats, from several regions together"
        return f"{together}: {words}" if words else together
    does = (
        f"{'costs' if whole > 0 else 'gains'} {about}{_nats(abs(whole))} nats" if abs(whole) >= LEAST else ""
    )
    if span.sources and (span.channel == "answer" or not how.startswith("is")):
        origin = f"comes from {_numbers(span.sources)}"
        return f"{origin}; hiding the image {does}" if does and span.channel == "thinking" else origin
    return f"{how}: hiding it {does}" if does else how


def describe_answer(rests_on: RestsOn, names: Sequence[str], unit: Unit) -> str:
    """What the answer comes from: "through 2, 3: 4 left, 94 % likely to change without it; 1 top, 61 %".

    First the spans that it takes most from, then the regions without which it rather changes than not, the likeliest first.
    Where there is none that is said, with the whole image's chance.
    """
    about, regions = ABOUT[unit], changing(rests_on.changes)
    through = f"through {_numbers(rests_on.sources)}: " if rests_on.sources else ""
    if not regions:
        said = none_alone(rests_on, names, unit)
        return through + (said[0].lower() + said[1:] if through else said)
    words = [f"{names[region]}, {about}{percent(rests_on.changes[region])}" for region in regions[:PLACES]]
    words[0] += " likely to change without it"
    more = len(regions) - len(words)
    return through + "; ".join(
        words + ([f"{more} more {'region' if more == 1 else 'regions'}"] if more else [])
    )


def _numbers(sources: Steps) -> str:
    """The spans that a text takes most from, the largest first."""
    return ", ".join(str(index) for index, nats in sources[:PLACES] if nats >= SHARE * sources[0][1])


def _nats(value: float) -> str:
    return f"{value:.{1 if abs(value) >= 0.095 else 2}f}"


def colour_cells(
    values: Float[np.ndarray, "row col"], ground: Float[np.ndarray, "row col"]
) -> Int[np.ndarray, "row col 3"]:
    """RGB of each pixel of a picture: `values` in [-1, 1] as heat over the `ground`'s grey (0 to 255)."""
    at = np.clip(np.abs(values), 0, 1)[..., None]
    stops = np.linspace(0, 1, 1 + len(UP))
    grey = np.repeat(ground[..., None], 3, axis=-1)
    ramps = [np.stack([np.interp(at[..., 0], stops[1:], channel) for channel in zip(*ramp, strict=True)], -1)
             for ramp in (UP, DOWN)]  # fmt: skip
    hue = np.where(values[..., None] < 0, ramps[1], ramps[0])
    cover = np.clip(at / stops[1], 0, 1)  # the ground fades out up to the first colour
    return np.rint(grey * (1 - cover) + hue * cover).astype(np.int64)


def half_blocks(colours: Int[np.ndarray, "row col 3"]) -> Line:
    """A picture as text, two pixel rows a line: "▀" in the colour of the upper one over that of the lower."""
    lines = []
    for top in range(0, len(colours), 2):
        line = Line(no_wrap=True)
        for col in range(colours.shape[1]):
            upper = "rgb({},{},{})".format(*colours[top, col])
            lower = "rgb({},{},{})".format(*colours[top + 1, col]) if top + 1 < len(colours) else None
            line.append("▀", Style(color=upper, bgcolor=lower))
        lines.append(line)
    return Line("\n").join(lines)


def _key(unit: str) -> Line:
    """What the colours mean, from no effect to the strongest."""
    steps = np.linspace(0, 1, 6)[None].repeat(2, axis=0)
    key = half_blocks(colour_cells(steps, np.zeros_like(steps)))
    key.append(" supports the text" if unit != "attention" else " share of attention", "dim")
    if unit != "attention":
        key.append("  ").append_text(half_blocks(colour_cells(-steps, np.zeros_like(steps))))
        key.append(" against", "dim")
    return key


def _sizes(start: Start) -> list[tuple[int, int]]:
    """(cols, rows) of each image's picture: its own grid, or as much of it as fits."""
    fit = [min(1.0, MAX_COLS / image.cols, MAX_ROWS / image.rows) for image in start.images]
    return [
        (max(1, round(image.cols * scale)), max(1, round(image.rows * scale)))
        for image, scale in zip(start.images, fit, strict=True)
    ]


def _picture_width(start: Start) -> int:
    return sum(cols + 1 for cols, _ in _sizes(start))


def _resize(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(
        Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX), dtype=float
    )


def _ground(image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The image as a dark grey thumbnail, so that heat stands out on it."""
    return 16 + 0.16 * np.asarray(image.convert("L").resize(size, Image.Resampling.BOX), dtype=float)


def _style(channel: Channel) -> str:
    return "bold" if channel == "answer" else "dim"


def _clean(text: str) -> str:
    """Model text without control characters: it must not drive the terminal."""
    return text.translate(CONTROL)
