"""One sentence, the answer or a whole run as a picture: the images with the heat, the text, and in words what the colours mean.

Drawn as the film is (film.py). The regions of an evidence set are outlined, and what the model itself says of where things are
(claims.py) is drawn beside the heat: what it claims, and what its text rests on.
"""

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from eyeline.boxes import Evidence, Of, edges, evidence_sets
from eyeline.claims import Claim, claims_in, claims_of, share_inside
from eyeline.errors import DataError
from eyeline.events import Done, ImageInfo, SpanAttribution, Start, Unit
from eyeline.film import INK, PAPER, SOFT, View, cells_of, colour, font, grounds_of, lit, of_answer, of_span
from eyeline.report import ABOUT, FULL, answer_spans, none_alone, number_regions, paleness, percent, resting
from eyeline.runs import Run, span_of

TALL, WIDE, NARROWEST = (
    560,
    1040,
    640,
)  # pixels: of the images at most, of all of them, of the picture at least
GAP, MARGIN, LINE = 8, 18, 6
CLAIM = (0, 92, 175)
BAR = (220, 14)  # pixels of the colour scale
MOST_CLAIMS = 3  # that the legend tells of
AGAINST, AGAINST_FROM = "Bluish: speaks against this text.", 0.05  # nats


@dataclass(frozen=True, eq=False)
class Shown:
    """What a picture shows, and the words below it."""

    view: View
    title: str
    lowest: str  # what the colour scale begins at
    words: list[str]
    evidence: Evidence | None
    claims: Sequence[Claim]


def render_still(run: Run, of: Of = None) -> bytes:
    """A PNG of a span, of the `"answer"`, or by default of all spans added up. Raises `DataError` where there is none."""
    shown = _span(run, of) if isinstance(of, int) else _answer(run) if of == "answer" else _summed(run)
    grounds = grounds_of(run.images, TALL, WIDE)
    width = max(sum(ground.shape[1] for ground, _ in grounds) + GAP * (len(grounds) - 1), NARROWEST)
    lines = list(_laid_out(shown, width - 2 * MARGIN))
    tall = grounds[0][0].shape[0]
    end = tall + MARGIN + sum(size + LINE for _, size, _ in lines) + BAR[1] + 34 + MARGIN
    picture = Image.new("RGB", (width, end), PAPER)
    draw = ImageDraw.Draw(picture)
    left = (width - sum(ground.shape[1] for ground, _ in grounds) - GAP * (len(grounds) - 1)) // 2
    for number, ((ground, dark), heat) in enumerate(zip(grounds, shown.view.heats, strict=True)):
        picture.paste(lit(ground, dark, heat), (left, 0))
        info, size = run.start.images[number], (ground.shape[1], ground.shape[0])
        if shown.evidence is not None:
            chosen = {box.region for box in shown.evidence.boxes}
            _outline(draw, np.isin(np.asarray(run.start.regions[number]), list(chosen)), left, size, dark)
        for claim in shown.claims if number == 0 else ():
            _draw_claim(draw, claim, info, left, size)
        left += size[0] + GAP
    top = tall + MARGIN
    for text, size, ink in lines:
        draw.text((MARGIN, top), text, ink, font(size))
        top += size + LINE
    deepest = max(range(len(grounds)), key=lambda number: float(shown.view.heats[number].max()))
    _scale(draw, picture, (MARGIN, top + 8), shown, grounds[deepest][1])
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _span(run: Run, index: int) -> Shown:
    start = run.start
    span, names = span_of(run.events, index), number_regions(start)
    view = of_span(span, start)
    best = max(range(len(span.shown)), key=lambda region: span.shown[region])
    if start.unit == "attention":
        words = ["Colour: the share of its attention to the image. That is no effect."]
        most, evidence = f"{100 * span.shown[best]:.0f} %", None
    else:
        nats = span.whole_image or 0.0
        words = [
            "Colour: what hiding that part takes off this text's log-probability. "
            f"Hiding the whole image takes {_nats(nats, start.unit)}.",
        ]
        most = _nats(span.shown[best], start.unit)
        (evidence,) = evidence_sets(run.events, index) if span.evidence else (None,)
        if evidence is not None and evidence.boxes:
            words.append(
                "Outlined: the fewest parts found that, with all else hidden, keep 90 % of that: "
                f"{_few([names[box.region] for box in evidence.boxes])}."
            )
    words.insert(1, f"Most: {most} at {names[best]}.")
    claims = claims_in(claims_of(run.events), span)
    words += _of_claims(claims, cells_of(span, start.regions), start)
    marked = ", not grounded" if span.grounded is False else ""
    title = f"Span {index}, {span.channel}{marked}, {resting(span, start.unit)}{_places(span, start, names)}"
    words += [AGAINST] * (min(span.shown) <= -AGAINST_FROM)
    return Shown(view, title, "nothing", words, evidence, claims)


def _answer(run: Run) -> Shown:
    start, done = run.start, run.events[-1]
    (evidence,) = evidence_sets(run.events, "answer")
    assert isinstance(done, Done), "or there was no evidence set"
    assert done.rests_on is not None, "or there was no evidence set"
    view, changes = of_answer(run, done.rests_on), done.rests_on.changes
    names, about = number_regions(start), ABOUT[start.unit]
    words = [
        "Colour: how likely the answer would be another one if that part had been hidden before the model thought (predicted)."
    ]
    if evidence.boxes:
        words += [
            f"Most: {about}{percent(evidence.boxes[0].amount)} at {names[evidence.boxes[0].region]}. "
            f"Without the whole image: {about}{percent(done.rests_on.whole)}.",
            "Outlined: the parts without any one of which it rather changes than not: "
            f"{_few([names[box.region] for box in evidence.boxes])}.",
        ]
    else:
        words.append(none_alone(done.rests_on, names, start.unit))
    claims = claims_of(run.events)
    heats = [np.asarray(changes)[np.asarray(grid)].tolist() for grid in start.regions]
    words += _of_claims(claims, heats, start)
    marked = ", not grounded" if paleness(answer_spans(run.events)) < 1 else ""
    title = f"Answer{marked}: what it rests on, through the thinking"
    return Shown(view, title, "never", words, evidence, claims)


def _summed(run: Run) -> Shown:
    start, names = run.start, number_regions(run.start)
    spans = [event for event in run.events if isinstance(event, SpanAttribution)]
    if not spans:
        raise DataError("The run has no attributed span to show; ask again with a longer answer.")
    share = 1 / len(spans) if start.unit == "attention" else 1.0  # shares are averaged, nats added
    totals = share * np.sum([span.shown for span in spans], axis=0)
    cells = [cells_of(span, start.regions) for span in spans]
    heats = [
        share * np.sum([np.asarray(each[number], np.float32) for each in cells], axis=0)
        for number in range(len(start.images))
    ]
    best = int(totals.argmax())
    most = max(float(np.abs(heat).max()) for heat in heats) or 1.0
    strong = min(1.0, float(np.abs(totals).max()) / FULL[start.unit])
    done = run.events[-1]
    text = done.answer if isinstance(done, Done) and done.answer else spans[-1].text
    view = View([strong * heat / most for heat in heats], text, INK)
    if start.unit == "attention":
        told = f"{100 * totals[best]:.0f} %"
        words = ["Colour: the mean share of attention of all spans. That is no effect."]
    else:
        whole = sum(span.whole_image or 0.0 for span in spans)
        told = _nats(float(totals[best]), start.unit)
        words = [
            f"Colour: what hiding that part takes off the log-probability of all {len(spans)} spans, each with the text before "
            f"it as it is, added up. Hiding the whole image takes {_nats(whole, start.unit)}."
        ]
    words.append(f"Most: {told} at {names[best]}.")
    claims = claims_of(run.events)
    words += _of_claims(claims, heats, start)
    words += [AGAINST] * bool(totals.min() <= -AGAINST_FROM)
    title = f"The whole run, {len(spans)} spans; its answer:" if text != spans[-1].text else "The whole run"
    return Shown(view, title, "nothing", words, None, claims)


def _nats(nats: float, unit: Unit) -> str:
    """Nats, and how many times less likely that is, where sizes are calibrated."""
    if unit == "relative":
        return f"~{nats:.1f} nats (not calibrated)"
    if nats <= 0.05:
        return f"{nats:.2f} nats"
    times = math.exp(min(nats, 30.0))
    said = f"{times:.1f}" if times < 10 else f"{times:.0f}" if times < 1000 else "over 1000"
    return f"{nats:.1f} nats ({said} times less likely)"


def _few(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _places(span: SpanAttribution, start: Start, names: Sequence[str]) -> str:
    """Where it rests most, after "rests on" and "attends to"; nothing after words that say all."""
    if resting(span, start.unit) not in ("rests on", "attends to"):
        return ""
    order = sorted(range(len(span.shown)), key=lambda region: -span.shown[region])
    return ": " + _few([names[region] for region in order[:2]])


def _of_claims(claims: Sequence[Claim], heats: Sequence, start: Start) -> list[str]:
    """What the model claims, held against what its text rests on."""
    told = []
    for claim in claims[:MOST_CLAIMS]:
        kind, sign = ("point", "Ring") if claim.is_point else ("box", "Dashed")
        name = f"the model's own {kind}" + (f" “{claim.label}”" if claim.label else "")
        share = share_inside(claim, heats[0], start.images[0])
        where = "the patch of it" if claim.is_point else "it"
        told.append(f"{sign}: {name}; {100 * share:.0f} % of the colour lies in {where}.")
    if len(claims) > MOST_CLAIMS:
        told.append(f"{len(claims) - MOST_CLAIMS} more of its boxes and points are drawn.")
    return told


def _laid_out(shown: Shown, width: int) -> Iterator[tuple[str, int, tuple[int, int, int]]]:
    """The lines below the images: text, size, colour."""
    yield shown.title, 15, SOFT
    text = " ".join(shown.view.text.split())
    lines = list(_wrapped(text, 21, width))
    for number, line in enumerate(lines[:6]):
        yield line + (" …" if number == 5 and len(lines) > 6 else ""), 21, shown.view.ink
    for words in shown.words:
        for line in _wrapped(words, 15, width):
            yield line, 15, SOFT


def _wrapped(text: str, size: int, width: int) -> Iterator[str]:
    """Lines of a text no wider than so many pixels; a longer word is cut."""
    line = ""
    for word in text.split():
        while font(size).getlength(word) > width:
            fits = next(
                count for count in range(len(word), 0, -1) if font(size).getlength(word[:count]) <= width
            )
            if line:
                yield line
                line = ""
            yield word[:fits]
            word = word[fits:]
        longer = f"{line} {word}".strip()
        if line and font(size).getlength(longer) > width:
            yield line
            longer = word
        line = longer
    if line:
        yield line


def _scale(draw: ImageDraw.ImageDraw, picture: Image.Image, at: tuple[int, int], shown: Shown, dark: bool) -> None:  # fmt: skip
    """The colour scale, with what stands at its ends."""
    deepest = max(float(np.max(heat)) for heat in shown.view.heats)
    ramp = np.linspace(0, max(deepest, 0.02), BAR[0], dtype=np.float32)[None]
    bar = colour(np.broadcast_to(ramp, (BAR[1], BAR[0])), dark)
    left, top = at
    left += round(font(15).getlength(shown.lowest)) + 8
    draw.text(at, shown.lowest, SOFT, font(15))
    picture.paste(Image.fromarray(bar.astype(np.uint8)), (left, top + 3))
    draw.rectangle((left, top + 3, left + BAR[0], top + 3 + BAR[1]), outline=SOFT)
    draw.text((left + BAR[0] + 8, top), "most", SOFT, font(15))


def _outline(
    draw: ImageDraw.ImageDraw, inside: np.ndarray, left: int, size: tuple[int, int], dark: bool
) -> None:
    """A line around the cells of a set, along their sides."""
    rows, cols = inside.shape
    down, across = edges(rows, size[1]), left + edges(cols, size[0])
    padded = np.pad(inside, 1)
    ink = (255, 255, 255) if dark else INK
    for row, col in zip(*np.nonzero(padded[1:, 1:] != padded[:-1, 1:]), strict=True):  # above a cell
        if col < cols:
            y = min(int(down[row]), size[1] - 1)
            draw.line((int(across[col]), y, int(across[col + 1]), y), ink, 2)
    for row, col in zip(*np.nonzero(padded[1:, 1:] != padded[1:, :-1]), strict=True):  # left of a cell
        if row < rows:
            x = min(int(across[col]), left + size[0] - 1)
            draw.line((x, int(down[row]), x, int(down[row + 1])), ink, 2)


def _draw_claim(
    draw: ImageDraw.ImageDraw, claim: Claim, info: ImageInfo, left: int, size: tuple[int, int]
) -> None:
    """A box in dashes, or a point as a ring, with its label."""
    x0, y0, x1, y1 = (
        value * side / of + shift
        for value, side, of, shift in zip(
            claim.box, (*size, *size), (info.width, info.height) * 2, (left, 0, left, 0), strict=True
        )
    )
    if claim.is_point:
        draw.ellipse((x0 - 7, y0 - 7, x0 + 7, y0 + 7), outline=CLAIM, width=3)
    else:
        for start, end in (
            ((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)), ((x0, y1), (x0, y0))
        ):  # fmt: skip
            _dashes(draw, start, end)
    if claim.label:
        y = y0 - 19 if y0 >= 20 else y1 + 3
        draw.text((x0 + 2, y), claim.label, CLAIM, font(15), stroke_width=2, stroke_fill=(255, 255, 255))


def _dashes(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], dash: int = 9
) -> None:
    length = math.dist(start, end)
    for number in range(0, max(1, math.ceil(length / dash)), 2):
        a, b = number * dash / length, min(1.0, (number + 1) * dash / length)
        draw.line(
            tuple(s + (e - s) * part for part in (a, b) for s, e in zip(start, end, strict=True)), CLAIM, 3
        )
