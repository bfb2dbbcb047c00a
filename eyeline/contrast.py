"""Why these words and not others: what each region does to the difference of two continuations of a trace, measured.

The trace is teacher-forced up to where both part, once as it was written and once with other words: with nothing hidden, with
each region hidden, and with all of them. Nothing here is predicted. How regions are hidden is ablation.py's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from eyeline.ablation import METHODS, Method, ablate, hidden_patches
from eyeline.asked import check_ids
from eyeline.errors import DataError, PromptError
from eyeline.events import Event, SpanAttribution, Start
from eyeline.kept_trace import check_model, read_back
from eyeline.model import Model, Prompt
from eyeline.runs import Run, span_of
from eyeline.stream import Stream


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two continuations at one place of a trace, and what hiding does to the difference of their log-probs; measured, nats."""

    span: int
    written: str  # from where the two part to one token after the words
    instead: str
    log_prob: float  # of the first with nothing hidden
    log_prob_instead: float
    effects: tuple[
        float, ...
    ]  # by how much hiding that region alone lowers the difference; above 0: it speaks for the first
    whole_image: float  # the same of everything hidden
    method: str  # how regions were hidden

    @property
    def difference(self) -> float:
        """By how much the first is likelier."""
        return self.log_prob - self.log_prob_instead

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "difference": self.difference, "measured": True}


def contrast(
    model: Model, of: Run | Stream, span: int, instead: str, *, words: str | None = None, method: Method | None = None,
    prompt: Prompt | None = None, hidden: Sequence[int] = (),
) -> Contrast:  # fmt: skip
    """What each region does to whether a span says what it says, or something else in its place.

    `instead` stands for `words`, which stand in the span once; without them for all of the span's text. `method`: by default the
    way of hiding that the run's numbers mean. `prompt`: what was asked, where that is more than one turn; `hidden`: regions that
    a run was asked without, and that stay hidden. Two passes a region, in batches. Raises `DataError` for a span, words or an
    alternative that are none, and for a run of another model or without its token ids; `PromptError` without an image.
    """
    events, ids, inputs = _of_stream(of) if isinstance(of, Stream) else _of_run(model, of, prompt)
    start = next((event for event in events if isinstance(event, Start)), None)
    if start is None or "pixel_values" not in inputs:
        raise PromptError("The prompt has no image, so nothing can be hidden; ask about a run with an image.")
    place, first, other = continuations(model, ids, span_of(events, span), instead, words)
    labels = torch.tensor([label for grid in start.regions for row in grid for label in row])
    count = int(labels.max()) + 1
    already = torch.zeros(count, dtype=torch.bool)
    already[list(hidden)] = True
    sets = torch.cat(
        [already[None], torch.eye(count, dtype=torch.bool) | already, torch.ones(1, count).bool()]
    )
    way: Method = method or (start.hiding if start.hiding in METHODS else "pixels")  # pyright: ignore
    log_probs: list[float] = []
    falls: list[Tensor] = []
    for ending in (first, other):
        found = ablate(
            model, inputs, torch.tensor([*ids[:place], *ending]), hidden_patches(sets, labels), way
        )
        fell = found.falls[:, place:].sum(1)
        log_probs.append(float(found.log_probs[place:].sum() - fell[0]))
        falls.append(fell - fell[0])
    effects = (falls[0] - falls[1])[1:].tolist()
    texts = [str(model.tokenizer.decode(ending, skip_special_tokens=True)) for ending in (first, other)]
    return Contrast(
        span, texts[0], texts[1], log_probs[0], log_probs[1], tuple(effects[:-1]), effects[-1], way
    )


def continuations(
    model: Model, ids: Sequence[int], span: SpanAttribution, instead: str, words: str | None
) -> tuple[int, list[int], list[int]]:
    """Where the two part, as a position in the trace, and the ids of both from there to one token after the words.

    That token belongs to both, so that "1" is not taken for the beginning of "16". Raises `DataError`.
    """
    words = span.text.strip() if words is None else words

    def text_of(end: int) -> str:
        return str(model.tokenizer.decode(list(ids[span.start : end]), skip_special_tokens=False))

    if len(ids) < span.end:
        raise DataError(f"The token ids of span {span.index} are not kept; ask the question again.")
    written = text_of(span.end)
    told = span.text.count(words) if words else 0
    if told != 1 or words not in written:
        problem = (
            "do not stand in"
            if not told
            else f"stand {told} times in"
            if told > 1
            else "cannot be found among the tokens of"
        )
        raise DataError(
            f"The words {words!r} {problem} span {span.index}, {span.text.strip()!r}; expected words that stand there once."
        )
    begin = written.rindex(words)
    end = begin + len(words)
    lengths = [len(text_of(at)) for at in range(span.start, span.end + 1)]
    low = max(at for at, length in enumerate(lengths) if length <= begin)
    high = min(at for at, length in enumerate(lengths) if length >= end)
    text = written[lengths[low] : begin] + instead + written[end : lengths[high]]
    new = model.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    check_ids(model, new)
    old = list(ids[span.start + low : span.start + high])
    after = list(ids[span.start + high : span.start + high + 1])
    first, other = [*old, *after], [*new, *after]
    if not instead.strip() or first == other:
        raise DataError(
            f"{instead!r} is no alternative to {words!r}; expected other words, as the model might have written them."
        )
    same = 0
    while same < min(len(first), len(other)) - 1 and first[same] == other[same]:
        same += 1
    place = span.start + low + same
    return place, first[same:], other[same:]


def _of_stream(stream: Stream) -> tuple[Sequence[Event], Sequence[int], Mapping[str, Tensor]]:
    return stream.events, stream.ids, stream.inputs


def _of_run(
    model: Model, run: Run, prompt: Prompt | None
) -> tuple[Sequence[Event], Sequence[int], Mapping[str, Tensor]]:
    check_model(model, run, "contrast it")
    kept = read_back(model, run, prompt)
    return run.events, kept.ids, kept.inputs
