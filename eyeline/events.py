"""What a stream yields: one frozen dataclass for each kind of event, and their JSON form.

The same fields appear in the command line's `--json`, in saved runs and in reports; in JSON the kind
stands under `event`. Values are plain numbers, strings and tuples, so that events compare and hash by value.
"""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from eyeline.errors import DataError

SCHEMA = 2  # of what is written; 1 is read too
Channel = Literal["thinking", "answer"]
Unit = Literal["nats", "relative", "attention"]
Level = Literal["none", "calibrated", "fitted"]
Reason = Literal["eos", "stop", "length", "cancelled", "error"]
Grid = tuple[tuple[int, ...], ...]  # rows of region labels, one for each visual token
Heat = tuple[tuple[float, ...], ...]  # rows of values, one for each visual token
Steps = tuple[tuple[int, float], ...]  # regions, one after the other, and a number after each


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image of the prompt: its size in pixels after EXIF rotation, and its grid of visual tokens."""

    width: int
    height: int
    rows: int
    cols: int


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that whoever reads the numbers should know beforehand."""

    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Start:
    """First event of a stream: what is attributed, in which unit, to which regions."""

    version: str
    model: str
    estimator: str | None  # id of the estimator; None: `effects` are attention shares
    unit: Unit
    images: tuple[ImageInfo, ...]
    regions: tuple[Grid, ...]  # one label grid for each image; labels run on over the images
    hiding: str | None = None  # the way of hiding that the numbers mean; None: none
    level: Level = "none"  # how much of this model the estimator has seen
    notices: tuple[Notice, ...] = ()
    schema: int = SCHEMA
    family: str | None = None  # of the model: what its own boxes and points count (adapters)


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of text as it is decoded; `start` and `end` are token positions in the generated ids."""

    channel: Channel
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class SpanAttribution:
    """How much one finished span rests on each image region.

    All in the unit of `Start`. Effects, contributions, evidence, breaks and the whole image come from one predicted game
    (game.py); attention shares are effects alone, and everything else is None.
    """

    index: int
    channel: Channel
    start: int  # token positions in the generated ids, [start, end)
    end: int
    text: str
    effects: tuple[float, ...]  # fall in log-prob with that region alone hidden, or attention shares
    interval: tuple[tuple[float, float], ...] | None  # [low, high] of each effect
    contributions: tuple[float, ...] | None  # Shapley values of the game; they add up to `whole_image`
    contribution_interval: tuple[tuple[float, float], ...] | None
    evidence: Steps | None  # regions that, shown alone, keep 90 % of `whole_image`; what is kept after each
    breaks: Steps | None  # regions in the order in which hiding them together costs most; the fall after each
    patches: (
        tuple[Heat, ...] | None
    )  # one grid for each image: a region's cells add up to what the heat shows of it
    whole_image: float | None  # fall with everything hidden
    log_prob: float  # of the span's tokens, nats, raw model distribution at temperature 1
    cut: bool  # closed at the longest allowed length, not at an end found in the text
    latency_s: float  # from the span's last token to this event, look-ahead included
    sources: Steps | None = None  # earlier spans that it takes most from, by index, and their contributions
    grounded: bool | None = (
        None  # in the image, directly or through earlier spans; None: it states nothing, or nothing is known
    )

    @property
    def shown(self) -> tuple[float, ...]:
        """The number of each region that heat and bars show."""
        return self.effects if self.contributions is None else self.contributions


@dataclass(frozen=True, slots=True)
class RestsOn:
    """What an answer rests on, through the thinking: with regions hidden from the start, and the thinking written anew.

    Predicted, in chances and nats; `eyeline rethink` measures the same.
    """

    changes: tuple[float, ...]  # the chance that the answer means something else without that region
    whole: float  # the same without the whole image
    total: tuple[float, ...]  # fall of the answer's log-prob then, nats
    direct: tuple[
        float, ...
    ]  # fall with the thinking kept, nats: what hiding does to the answer's tokens alone
    sources: Steps  # earlier spans that the answer takes most from, by index, and their contributions, nats


@dataclass(frozen=True, slots=True)
class Error:
    """Something failed; `message` says what was lost, and whether generation went on."""

    message: str


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far the log-probs of the server that wrote a trace are from ours; nats, their sizes."""

    mean: float
    worst: float
    tokens: int  # compared


@dataclass(frozen=True, slots=True)
class Done:
    """Last event of every stream."""

    answer: str
    prompt_tokens: int
    tokens: int  # generated ids as `generate` returns them, the end token included
    tokens_per_s: float
    stalled_s: float  # time decoding waited for attribution
    reason: Reason
    agreement: Agreement | None = None  # with the server that wrote the trace, where one was followed
    rests_on: RestsOn | None = (
        None  # None: no answer, no image, or an estimator that does not know earlier text
    )


Event = Start | Text | SpanAttribution | Error | Done
KINDS: dict[str, type] = {"start": Start, "text": Text, "span": SpanAttribution, "error": Error, "done": Done}
NAMES: dict[type, str] = {kind: name for name, kind in KINDS.items()}


def to_json(event: Event) -> str:
    """One line of JSON, the event's kind first. Numbers must be finite."""
    return json.dumps({"event": NAMES[type(event)], **asdict(event)}, ensure_ascii=False, allow_nan=False)


# What fields say that earlier versions did not have; by the first schema effects were those of attention knockout
BEFORE: dict[type, dict[str, Any]] = {
    Start: {"schema": 1, "notices": (), "family": None},
    SpanAttribution: dict.fromkeys(
        ("contributions", "contribution_interval", "evidence", "breaks", "sources", "grounded")
    ),
    Done: {"agreement": None, "rests_on": None},
}


def from_json(line: str) -> Event:
    """The event that `to_json` wrote, of this schema or the first. Raises `DataError` for anything else."""
    try:
        values = json.loads(line)
        kind = KINDS[values.pop("event")]
        if kind is Start and "schema" not in values:
            values["hiding"] = None if values["estimator"] is None else "attention"
            values["level"] = "none" if values["estimator"] is None else "fitted"
        values = {**BEFORE.get(kind, {}), **values}
        values = {field.name: tuples(values[field.name]) for field in fields(kind)}
        if kind is Start:
            values["images"] = tuple(ImageInfo(**image) for image in values["images"])
            values["notices"] = tuple(Notice(**notice) for notice in values["notices"])
            if values["schema"] not in (1, SCHEMA):
                raise ValueError(f"schema {values['schema']}")
        if kind is Done and values["agreement"] is not None:
            values["agreement"] = Agreement(**values["agreement"])
        if kind is Done and values["rests_on"] is not None:
            values["rests_on"] = RestsOn(
                **{name: tuples(value) for name, value in values["rests_on"].items()}
            )
        return kind(**values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"Not an Eyeline event: {line[:80]!r}. Expected one JSON object a line with the fields of an event; "
            "write it again with --json or --save."
        ) from error


def tuples(value: Any) -> Any:
    """Lists as tuples, at every depth."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value
