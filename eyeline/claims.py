"""What the model itself says of where things are: boxes and points in its text, told apart and put into pixels.

They are what it claims; what its text rests on is measured elsewhere, and may be another place. What numbers mean in a family
stands in its adapter (`Coordinates`).
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eyeline.adapters import ADAPTERS
from eyeline.adapters.adapter import Coordinates
from eyeline.errors import DataError
from eyeline.events import Channel, Event, Heat, ImageInfo, SpanAttribution, Start, Text
from eyeline.targets import tokens_of

OBJECT = re.compile(r"\{[^{}]*\}")
NUMBER = r"\s*(\d+(?:\.\d+)?)\s*"
BARE = re.compile(r"\[" + ",".join([NUMBER] * 4) + r"\]")
KEYS = {"bbox_2d": 4, "point_2d": 2}  # and how many numbers they hold
LONGEST_LABEL = 60  # characters


@dataclass(frozen=True, slots=True)
class Claim:
    """A box, or a point, which is a box without width and height, that the model names in its text."""

    label: str  # what it says is there; may be empty
    box: tuple[float, float, float, float]  # left, top, right, bottom, pixels of the image
    channel: Channel
    tokens: tuple[int, int]  # of the text that it stands in, [start, end)

    @property
    def is_point(self) -> bool:
        return self.box[:2] == self.box[2:]


def claims_of(events: Iterable[Event]) -> tuple[Claim, ...]:
    """The boxes and points in the text of a run, in order; none where its family or its image is not known.

    Of a prompt with several images none either: the text does not say which one is meant.
    """
    events = list(events)
    start = next((event for event in events if isinstance(event, Start)), None)
    adapter = ADAPTERS.get(start.family or "") if start is not None else None
    if start is None or adapter is None or len(start.images) != 1:
        return ()
    return tuple(_claims(events, start.images[0], adapter.coordinates))


def as_shares(events: Iterable[Event]) -> list[dict[str, Any]]:
    """The same for whoever draws: `box` in shares of the image's sides, `tokens` and `label`."""
    events = list(events)
    sides = [
        side
        for event in events
        if isinstance(event, Start)
        for info in event.images[:1]
        for side in (info.width, info.height)
    ]
    return [
        {
            "label": claim.label,
            "tokens": claim.tokens,
            "box": [at / side for at, side in zip(claim.box, sides * 2, strict=True)],
        }
        for claim in claims_of(events)
    ]


def claims_in(claims: Sequence[Claim], span: SpanAttribution) -> tuple[Claim, ...]:
    """Those that stand in a span's text."""
    return tuple(claim for claim in claims if claim.tokens[0] < span.end and span.start < claim.tokens[1])


def share_inside(claim: Claim, heat: Heat, info: ImageInfo) -> float:
    """The share of an image's heat above 0 that lies in a claimed box, or in the cell of a point; 0 where there is none."""
    left, top, right, bottom = claim.box
    across, down = info.width / info.cols, info.height / info.rows
    inside = total = 0.0
    for row, line in enumerate(heat):
        for col, value in enumerate(line):
            total += max(0.0, value)
            if claim.is_point:
                shared = float((int(left // across), int(top // down)) == (col, row))
            else:
                wide = min(right, (col + 1) * across) - max(left, col * across)
                tall = min(bottom, (row + 1) * down) - max(top, row * down)
                shared = max(0.0, wide) * max(0.0, tall) / (across * down)
            inside += max(0.0, value) * shared
    return inside / total if total else 0.0


def _claims(events: Sequence[Event], info: ImageInfo, coordinates: Coordinates) -> Iterator[Claim]:
    text, answer_at = "", None
    for event in events:
        if isinstance(event, Text):
            if event.channel == "answer" and answer_at is None:
                answer_at = len(text)
            text += event.text
    found = list(_named(text))
    if coordinates.bare and answer_at is not None:
        named = [range(start, end) for start, end, _, _ in found]
        found += [
            (match.start(), match.end(), "", [float(number) for number in match.groups()])
            for match in BARE.finditer(text, answer_at)
            if not any(match.start() in place for place in named)
        ]
    sides = (info.cols, info.rows) if coordinates.unit == "pixels" else (1, 1)
    x, y = (side * coordinates.size for side in sides)
    for start, end, label, numbers in sorted(found):
        left, top, right, bottom = numbers if len(numbers) == 4 else numbers * 2
        fits = 0 <= left <= right <= x and 0 <= top <= bottom <= y
        if not fits or (len(numbers) == 4 and (left == right or top == bottom)):
            continue
        box = (
            left / x * info.width, top / y * info.height, right / x * info.width, bottom / y * info.height,
        )  # fmt: skip
        try:
            ranges = tokens_of((start, end), events)
        except DataError:
            continue
        channel: Channel = "thinking" if answer_at is None or start < answer_at else "answer"
        yield Claim(label, box, channel, (ranges[0][0], ranges[-1][1]))


def _named(text: str) -> Iterator[tuple[int, int, str, list[float]]]:
    """Objects of JSON with a box or a point: where they stand, their label, their numbers."""
    for match in OBJECT.finditer(text):
        try:
            fields = json.loads(match.group())
        except ValueError:
            continue
        for key, count in KEYS.items():
            numbers = fields.get(key)
            if (
                isinstance(numbers, list)
                and len(numbers) == count
                and all(
                    isinstance(number, int | float) and not isinstance(number, bool) for number in numbers
                )
            ):
                label = " ".join(str(fields.get("label", "")).split())[:LONGEST_LABEL]
                yield match.start(), match.end(), label, [float(number) for number in numbers]
