"""Evidence as boxes and masks: where in their images the regions lie that a span or an answer rests on.

A span's set is that of its event, the fewest regions found that keep 90 % of the whole image's effect. An answer's is made of
the chances that it changes (`rests_on`): those regions without any one of which it rather changes than not.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Int

from eyeline.errors import DataError
from eyeline.events import Channel, Done, Event, Grid, ImageInfo, SpanAttribution, Start
from eyeline.game import NOTHING
from eyeline.regions.place import where

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; ends not included
Of = int | Literal["answer"] | None  # a span by its index, the answer, or all spans and the answer
Form = Literal["pixels", "thousand", "coco"]
THOUSAND = 1000
RATHER = 0.5  # chance from which an answer rather changes than not


@dataclass(frozen=True, slots=True)
class RegionBox:
    """One region of an evidence set, and where it lies."""

    region: int
    image: int  # from 0
    where: str  # in words
    box: Rectangle  # around it, pixels of the image
    parts: tuple[Rectangle, ...]  # rectangles that make it up, without overlap
    amount: float  # nats: its contribution to the span; of an answer the chance that it changes without the region


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence set of a span, or of the answer as a whole; regions in the order in which they are found."""

    span: int | None  # by index; None: the answer, through the thinking
    channel: Channel
    text: str
    unit: Literal["nats", "relative", "chance"]  # of the amounts; "relative" are nats that are not calibrated
    whole: float  # the same of the whole image
    boxes: tuple[RegionBox, ...]


def evidence_sets(events: Iterable[Event], of: Of = None) -> list[Evidence]:
    """The evidence set of a span, of the answer, or of all spans and the answer, from the events of a run.

    Of a whole run those that rest on nothing are left out. Raises `DataError` where there is no such span, or nothing is known.
    """
    events = list(events)
    start = next((event for event in events if isinstance(event, Start)), None)
    spans = {event.index: event for event in events if isinstance(event, SpanAttribution)}
    done = next((event for event in events if isinstance(event, Done)), None)
    if start is None or start.unit == "attention":
        raise DataError(
            "The run has no evidence sets: it was written without an estimator, so that its numbers are shares of attention; "
            "ask again with an estimator."
        )
    if of is None:
        found = [_of_span(start, span) for span in spans.values() if _regions_of(span)]
        return found + ([_of_answer(start, done)] if done is not None and done.rests_on is not None else [])
    if of == "answer":
        if done is None or done.rests_on is None:
            raise DataError(
                "What the answer rests on is not known: the run has no answer, was cut short, or was written without sources; "
                "ask for one of its spans."
            )
        return [_of_answer(start, done)]
    if of not in spans or isinstance(of, bool):
        raise DataError(
            f"There is no span {of!r}; expected one of 0 to {max(spans, default=-1)}, or 'answer'."
        )
    if spans[of].evidence is None:
        raise DataError(f"Span {of} has no evidence set: its run is of an earlier version; ask again.")
    return [_of_span(start, spans[of])]


def changing(changes: Sequence[float]) -> list[int]:
    """Regions without which an answer rather changes than not, from the likeliest: every view says of these that they would."""
    return [region for region in likeliest(changes) if changes[region] >= RATHER]


def likeliest(changes: Sequence[float]) -> list[int]:
    """Regions from the one without which an answer changes likeliest."""
    return sorted(range(len(changes)), key=lambda region: -changes[region])


def as_json(events: Iterable[Event], of: Of = None, form: Form = "pixels") -> Any:
    """What `evidence_sets` finds, as lists and objects of JSON: in pixels, in thousandths of an image's sides, or as COCO."""
    events = list(events)
    found = evidence_sets(events, of)
    start = next(event for event in events if isinstance(event, Start))
    if form == "coco":
        return coco(found, start)
    told = [asdict(each) for each in found]
    for box in (box for each in told for box in each["boxes"] if form == "thousand"):
        info = start.images[box["image"]]
        box["box"] = _thousandths(box["box"], info)
        box["parts"] = [_thousandths(part, info) for part in box["parts"]]
    return told


def coco(found: Sequence[Evidence], start: Start) -> dict[str, Any]:
    """The sets as a COCO file of instances: one annotation a region of each set, its mask as run lengths that are not compressed.

    Ids count from 1; `file_name` is that of a saved run's folder. What COCO does not know stands beside: `span`, `text`,
    `region`, `rank`, `amount` and `unit`.
    """
    annotations = []
    for each in found:
        for rank, box in enumerate(each.boxes):
            info = start.images[box.image]
            mask = mask_of(start.regions[box.image], box.region, info)
            left, top, right, bottom = box.box
            annotations.append({
                "id": len(annotations) + 1, "image_id": box.image + 1, "category_id": 1 if each.span is not None else 2,
                "bbox": [left, top, right - left, bottom - top], "area": int(mask.sum()), "iscrowd": 0,
                "segmentation": {"size": [info.height, info.width], "counts": run_lengths(mask)},
                "span": each.span, "text": each.text, "region": box.region, "rank": rank, "amount": box.amount,
                "unit": each.unit,
            })  # fmt: skip
    images = [
        {
            "id": number + 1,
            "file_name": f"image-{number}.png",
            "width": info.width,
            "height": info.height,
        }
        for number, info in enumerate(start.images)
    ]
    names = ("evidence of a span", "evidence of the answer")
    categories = [
        {"id": number, "name": name, "supercategory": "evidence"} for number, name in enumerate(names, 1)
    ]
    return {"images": images, "categories": categories, "annotations": annotations}


def run_lengths(mask: Bool[np.ndarray, "height width"]) -> list[int]:
    """A mask as COCO's run lengths: column after column, first those that are off (perhaps 0), then on, by turns."""
    flat = mask.flatten(order="F")
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], changes, [len(flat)]])).tolist()
    return [0, *lengths] if len(flat) and flat[0] else lengths


def mask_of(grid: Grid, region: int, info: ImageInfo) -> Bool[np.ndarray, "{info.height} {info.width}"]:
    """Which pixels of an image are of a region."""
    cells = np.asarray(grid) == region
    down, across = np.diff(edges(info.rows, info.height)), np.diff(edges(info.cols, info.width))
    return cells.repeat(down, axis=0).repeat(across, axis=1)


def edges(cells: int, pixels: int) -> Int[np.ndarray, " {cells}+1"]:
    """Between which pixels the cells of one side lie."""
    return np.array([round(cell * pixels / cells) for cell in range(cells + 1)])


def around(start: Start, region: int) -> tuple[int, Rectangle]:
    """The number of a region's image, and the box around it in pixels."""
    image, cells = _cells(start, region)
    (top, *_, bottom), (left, *_, right) = (
        np.append(found := np.flatnonzero(cells.any(axis)), found[-1] + 1) for axis in (1, 0)
    )
    return image, _pixels((int(left), int(top), int(right), int(bottom)), start.images[image])


def parts_of(cells: Bool[np.ndarray, "row col"]) -> list[Rectangle]:
    """Rectangles of cells that make up a region: runs of its rows, joined with those of the row below where they are alike."""
    done: list[Rectangle] = []
    growing: dict[tuple[int, int], int] = {}  # runs of the row above, and the row that each began in
    for row, line in enumerate([*cells, np.zeros(cells.shape[1], dtype=bool)]):
        ends = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        runs = [(int(left), int(right)) for left, right in zip(ends[::2], ends[1::2], strict=True)]
        done += [
            (left, top, right, row) for (left, right), top in growing.items() if (left, right) not in runs
        ]
        growing = {run: growing.get(run, row) for run in runs}
    return sorted(done, key=lambda part: (part[1], part[0]))


def _cells(start: Start, region: int) -> tuple[int, Bool[np.ndarray, "row col"]]:
    for number, grid in enumerate(start.regions):
        cells = np.asarray(grid) == region
        if cells.any():
            return number, cells
    raise DataError(f"There is no region {region} in the run.")


def _pixels(part: Rectangle, info: ImageInfo) -> Rectangle:
    """A rectangle of cells in pixels."""
    down, across = edges(info.rows, info.height), edges(info.cols, info.width)
    left, top, right, bottom = part
    return int(across[left]), int(down[top]), int(across[right]), int(down[bottom])


def _thousandths(part: Rectangle, info: ImageInfo) -> Rectangle:
    left, top, right, bottom = part
    x, y = THOUSAND / info.width, THOUSAND / info.height
    return round(left * x), round(top * y), round(right * x), round(bottom * y)


def _of_span(start: Start, span: SpanAttribution) -> Evidence:
    boxes = tuple(_box(start, region, span.shown[region]) for region in _regions_of(span))
    unit = "relative" if start.unit == "relative" else "nats"
    return Evidence(span.index, span.channel, span.text, unit, span.whole_image or 0.0, boxes)


def _regions_of(span: SpanAttribution) -> list[int]:
    """In their order; none of a run that still names some where nothing is lost."""
    lost = span.whole_image is None or span.whole_image >= NOTHING
    return [region for region, _ in span.evidence or () if lost]


def _of_answer(start: Start, done: Done) -> Evidence:
    assert done.rests_on is not None, "the caller looked"
    changes = done.rests_on.changes
    boxes = tuple(_box(start, region, changes[region]) for region in changing(changes))
    return Evidence(None, "answer", done.answer, "chance", done.rests_on.whole, boxes)


def _box(start: Start, region: int, amount: float) -> RegionBox:
    image, cells = _cells(start, region)
    name = where(torch.tensor(start.regions[image]), region)
    parts = tuple(_pixels(part, start.images[image]) for part in parts_of(cells))
    return RegionBox(region, image, name, around(start, region)[1], parts, amount)
