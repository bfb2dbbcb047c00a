"""The gaze of a saved run as an animated GIF: the images with each span's heat, its text below; last the answer, and what it
comes from.

Frames are drawn with PIL; the colours are those of the page. Several images stand side by side.
"""

import io
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from eyeline.errors import DataError
from eyeline.events import Done, Grid, Heat, RestsOn, SpanAttribution, Start
from eyeline.report import ABOUT, answer_spans, is_dark, paleness, percent, strength
from eyeline.runs import Run

HEIGHT = 360  # pixels of the images
WIDEST = 800  # pixels of all images together
CAPTION = 84  # pixels below them
MOST_SPANS = 120  # of a longer run every second, third, ... span is shown
STILL_MS, MOVE_MS, MOVES = 1100, 70, 3  # a span stands, then moves to the next in so many frames
COLOURS = 255  # of the palette
PAPER, INK, SOFT, ACCENT = (250, 248, 245), (31, 29, 26), (104, 100, 93), (201, 60, 32)
# from no effect to the strongest, as on the page: multiplied into light images, screened onto dark ones
LIGHT_UP = ((255, 255, 255), (255, 228, 190), (253, 184, 108), (240, 113, 58), (201, 44, 30))
LIGHT_DOWN = ((255, 255, 255), (212, 230, 243), (146, 195, 226), (74, 144, 200), (32, 90, 160))
DARK_UP = ((0, 0, 0), (74, 24, 8), (156, 56, 14), (206, 88, 24), (232, 126, 42))
DARK_DOWN = ((0, 0, 0), (8, 32, 66), (20, 66, 124), (38, 100, 174), (64, 140, 214))


@dataclass(frozen=True, eq=False)
class View:
    """What the film rests on: for each image the values of its cells, 1 and -1 for the full colour, and what stands below."""

    heats: list[np.ndarray]
    text: str
    ink: tuple[int, int, int]
    key: str = ""  # what the colours mean, where it is not what they mean elsewhere


def render_film(run: Run) -> bytes:
    """The GIF. Raises `DataError` for a run without any span."""
    spans = [event for event in run.events if isinstance(event, SpanAttribution)]
    if not spans:
        raise DataError("The run has no attributed span to show; ask again with a longer answer.")
    views = [of_span(span, run.start) for span in spans[:: -(-len(spans) // MOST_SPANS)]]
    done = run.events[-1]
    if isinstance(done, Done) and done.rests_on is not None:
        views.append(of_answer(run, done.rests_on))
    grounds = grounds_of(run.images, HEIGHT, WIDEST)
    frames, durations = [], []
    for number, view in enumerate(views):
        if number:
            for step in range(1, MOVES + 1):
                part = step / (MOVES + 1)
                part = part * part * (3 - 2 * part)
                mixed = [a + (b - a) * part for a, b in zip(views[number - 1].heats, view.heats, strict=True)]
                frames.append(_frame(grounds, mixed, view, number, len(views)))
                durations.append(MOVE_MS)
        frames.append(_frame(grounds, view.heats, view, number, len(views)))
        durations.append(STILL_MS)
    palette = _palette(frames)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    gif = io.BytesIO()
    indexed[0].save(
        gif, "GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=False
    )
    return gif.getvalue()


def grounds_of(
    images: Sequence[Image.Image], tall: int, wide: int
) -> list[tuple[UInt8[np.ndarray, "height width 3"], bool]]:
    """The images, so tall and all together so wide at most, pale under the heat; and whether each is dark."""
    height = min(tall, wide / sum(image.width / image.height for image in images))
    grounds = []
    for image in images:
        size = (max(1, round(height * image.width / image.height)), max(1, round(height)))
        colour = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS), np.float32)
        grey = colour.mean(axis=2, keepdims=True)
        dark = is_dark(image)
        faded = 0.55 * colour + 0.45 * grey
        pale = faded * 0.62 if dark else 255 - (255 - faded) * 0.75
        grounds.append((pale.astype(np.uint8), dark))
    return grounds


def cells_of(span: SpanAttribution, regions: Sequence[Grid]) -> tuple[Heat, ...]:
    """The value of each cell: its part of its region's, or all of that where parts are not known."""
    return span.patches or tuple(tuple(tuple(span.shown[k] for k in row) for row in grid) for grid in regions)


def of_span(span: SpanAttribution, start: Start) -> View:
    heats = [np.asarray(grid, np.float32) for grid in cells_of(span, start.regions)]
    scale = max(float(np.abs(heat).max()) for heat in heats) or 1.0
    scaled = [strength(span, start.unit) * heat / scale for heat in heats]
    return View(scaled, span.text, INK if span.channel == "answer" else SOFT)


def of_answer(run: Run, rests_on: RestsOn) -> View:
    """The chances that it changes; the full colour is certain, and of an answer that is not grounded pale."""
    done, start = run.events[-1], run.start
    assert isinstance(done, Done), "or nothing would be known of the answer"
    chances, pale = np.asarray(rests_on.changes, np.float32), paleness(answer_spans(run.events))
    most = f"{ABOUT[start.unit]}{percent(max(rests_on.changes))}"
    key = f"Stronger colour: the answer is likelier to change without it, at most {most}"
    heats = [pale * chances[np.asarray(grid)] for grid in start.regions]
    return View(heats, done.answer, INK, ("Not grounded. " if pale < 1 else "") + key)


def _frame(
    grounds: Sequence[tuple[np.ndarray, bool]],
    heats: Sequence[np.ndarray],
    view: View,
    number: int,
    total: int,
) -> Image.Image:
    gap = 8
    height = grounds[0][0].shape[0]
    width = sum(ground.shape[1] for ground, _ in grounds) + gap * (len(grounds) - 1)
    frame = Image.new("RGB", (max(width, 320), height + CAPTION), PAPER)
    left = (frame.width - width) // 2
    for (ground, dark), heat in zip(grounds, heats, strict=True):
        frame.paste(lit(ground, dark, heat), (left, 0))
        left += ground.shape[1] + gap
    draw = ImageDraw.Draw(frame)
    draw.rectangle((0, height, round(frame.width * (number + 1) / total), height + 3), fill=ACCENT)
    lines = textwrap.wrap(" ".join(view.text.split()), max(20, frame.width // 9)) or [""]
    room = 1 if view.key else 2
    text = "\n".join(lines[:room]) + (" …" if len(lines) > room else "")
    draw.text((14, height + 14), text, view.ink, font(19), spacing=5)
    if view.key:
        draw.text((14, height + 48), textwrap.fill(view.key, frame.width // 6), SOFT, font(13))
    return frame


def lit(
    ground: UInt8[np.ndarray, "height width 3"], dark: bool, heat: Float[np.ndarray, "row col"]
) -> Image.Image:
    """An image with heat on it, smooth between the middles of its cells."""
    size = (ground.shape[1], ground.shape[0])
    smooth = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    colours = colour(smooth, dark)
    paper = ground.astype(np.float32)
    mixed = 255 - (255 - paper) * (255 - colours) / 255 if dark else paper * colours / 255
    return Image.fromarray(mixed.astype(np.uint8))


def colour(heat: Float[np.ndarray, "height width"], dark: bool) -> Float[np.ndarray, "height width 3"]:
    up, down = (DARK_UP, DARK_DOWN) if dark else (LIGHT_UP, LIGHT_DOWN)
    stops = np.linspace(-1, 1, 9)
    ramp = np.asarray((*reversed(down), *up[1:]), np.float32)
    return np.stack([np.interp(heat, stops, ramp[:, i]) for i in range(3)], axis=-1).astype(np.float32)


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """One palette for the whole film, so that what stands still does not flicker."""
    sample = list(_evenly(frames, 8))
    sheet = Image.new("RGB", (frames[0].width, frames[0].height * len(sample)))
    for number, frame in enumerate(sample):
        sheet.paste(frame, (0, number * frame.height))
    return sheet.quantize(COLOURS, method=Image.Quantize.MEDIANCUT)


def _evenly(frames: Sequence[Image.Image], most: int) -> Iterator[Image.Image]:
    yield from frames[:: -(-len(frames) // most)]


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(
        str(files("font_source_sans_pro").joinpath("files", "SourceSansPro-Regular.ttf")), size
    )
