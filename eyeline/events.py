"""What a stream yields: one frozen dataclass for each kind of event, and their JSON form.

The same fields appear in the command line's `--json`, in saved runs and in reports; in JSON the kind
stands under `event`. Values are plain numbers, strings and tuples, so that events compare and hash by value.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from eyeline.errors import DataError

Channel = Literal["thinking", "answer"]
Unit = Literal["nats", "attention"]
Reason = Literal["eos", "stop", "length", "cancelled", "error"]
Grid = tuple[tuple[int, ...], ...]  # rows of region labels, one for each visual token
Heat = tuple[tuple[float, ...], ...]  # rows of values, one for each visual token


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image of the prompt: its size in pixels after EXIF rotation, and its grid of visual tokens."""

    width: int
    height: int
    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class Start:
    """First event of a stream: what is attributed, in which unit, to which regions."""

    version: str
    model: str
    estimator: str | None  # id of the estimator; None: `effects` are attention shares
    unit: Unit
    images: tuple[ImageInfo, ...]
    regions: tuple[Grid, ...]  # one label grid for each image; labels run on over the images


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text as it is decoded; `start` and `end` are token positions in the generated ids."""

    channel: Channel
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SpanAttribution:
    """How much one finished span rests on each image region."""

    index: int
    channel: Channel
    start: int  # token positions in the generated ids, [start, end)
    end: int
    text: str
    effects: tuple[float, ...]  # fall in log-prob with that region alone hidden (nats), or attention shares
    interval: tuple[tuple[float, float], ...] | None  # [low, high] of each effect, same unit
    patches: tuple[Heat, ...] | None  # one grid for each image, same unit; sums to `effects` over a region
    whole_image: float | None  # effect of hiding everything (nats), estimated by itself
    log_prob: float  # of the span's tokens, nats, raw model distribution at temperature 1
    cut: bool  # closed at the longest allowed length, not at an end found in the text
    latency_s: float  # from the span's last token to this event, look-ahead included


@dataclass(frozen=True, slots=True)
class Error:
    """Something failed; `message` says what was lost, and whether generation went on."""

    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """Last event of every stream."""

    answer: str
    prompt_tokens: int
    tokens: int  # generated ids as `generate` returns them, the end token included
    tokens_per_s: float
    stalled_s: float  # time decoding waited for attribution
    reason: Reason


Event = Start | Text | SpanAttribution | Error | Done
KINDS: dict[str, type] = {"start": Start, "text": Text, "span": SpanAttribution, "error": Error, "done": Done}
NAMES: dict[type, str] = {kind: name for name, kind in KINDS.items()}


def to_json(event: Event) -> str:
    """One line of JSON, the event's kind first. Numbers must be finite."""
    return json.dumps({"event": NAMES[type(event)], **asdict(event)}, ensure_ascii=False, allow_nan=False)


def from_json(line: str) -> Event:
    """The event that `to_json` wrote. Raises `DataError` for anything else."""
    try:
        values = json.loads(line)
        kind = KINDS[values.pop("event")]
        values = {field.name: _tuples(values[field.name]) for field in fields(kind)}
        if kind is Start:
            values["images"] = tuple(ImageInfo(**image) for image in values["images"])
        return kind(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"Not an Eyeline event: {line[:80]!r}. Expected one JSON object a line with the fields of an event; "
            "write it again with --json or --save."
        ) from error


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
