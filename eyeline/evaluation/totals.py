"""How well it is predicted what answers rest on through the thinking, and sentences on earlier ones, beside rivals.

The truth is that of training/traces.py: each region hidden from the start and the model let think again, each span's earlier
spans hidden from it. Rivals give one number a region; what is asked of all is whether regions that change the answer stand
above those that do not. Intervals are bootstrapped over images, differences are paired by image.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from eyeline import metrics
from eyeline.errors import EstimatorError
from eyeline.estimator import Estimator
from eyeline.evaluation.answers import means_the_same
from eyeline.evaluation.baselines.centre import centre_prior
from eyeline.evaluation.baselines.flashtrace import flash_trace
from eyeline.evaluation.results import write_csv
from eyeline.examples import Example
from eyeline.features import pool
from eyeline.metrics import auc
from eyeline.model import Model
from eyeline.regions import Regions
from eyeline.through import SHARP
from eyeline.training.collect import Answered
from eyeline.training.traces import OfText, Settings, Traced, collect, read_traced, spans_of

TABLE = "totals.csv"
OURS = "eyeline"
HOPS = 3
BANDS = (0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 1.0)  # of chances, for the reliability diagram
FEWEST_BEFORE = 4  # spans before one whose sources count


@dataclass(frozen=True, slots=True)
class Row:
    """One number of one method: the mean over families of the mean over images, with a 95 % interval.

    `ahead` is how far Eyeline is ahead of the method on the same images, paired; None for Eyeline itself.
    """

    method: str
    metric: str
    at: str  # a band of chances, a channel, or nothing
    family: str  # or "mean" of them
    value: float
    low: float | None
    high: float | None
    ahead: float | None
    ahead_low: float | None
    ahead_high: float | None
    count: int  # images, regions or spans


def measure_totals(
    model: Model, estimator: Estimator, examples: Iterable[Example], out: Path, settings: Settings
) -> Iterator[str]:
    """Measures every scene that the folder does not hold yet, rivals too, and yields the id of each. Raises `DataError`."""
    return collect(model, estimator, examples, out, settings, means_the_same, rivals)


def rivals(
    model: Model, own: Answered, regions: Regions, answer: tuple[int, int]
) -> dict[str, Float[Tensor, " region"]]:
    """What needs passes through the model: FlashTrace, after several hops, by sum and by mean over a region; the centre prior."""
    labels = regions.of_patch.to(model.device)
    sizes = torch.bincount(labels, minlength=regions.count)
    found = {}
    for hops, fallen in enumerate(flash_trace(model, own.inputs, own.ids, answer, HOPS)):
        summed = pool(fallen, labels, regions.count).cpu()
        found |= {f"flashtrace-{hops}-sum": summed, f"flashtrace-{hops}-mean": summed / sizes.cpu()}
    found["centre"] = centre_prior(model, own.inputs, own.ids, own.spans, regions)[0].cpu()
    return found


def methods(traced: Traced, estimator: Estimator) -> dict[str, Float[Tensor, " region"]]:
    """One number of each region from every method, larger where the answer rests on it; Eyeline's is what events carry."""
    rests = traced.rests_on(estimator)
    first = traced.answers[0][0]
    regions = traced.game.regions
    falls = traced.game.falls(torch.eye(regions)).clamp(min=0)
    thinking = [span for span in traced.spans if span["channel"] == "thinking"]
    last = slice(thinking[-1]["start"], thinking[-1]["end"]) if thinking else slice(0, 0)
    return {
        OURS: torch.tensor(rests.changes),
        "one-hop": _one_hop(traced, estimator, falls),
        "direct": torch.tensor(rests.direct),
        "thinking-sum": falls[:first].sum(0),
        "last-sentence": falls[last].sum(0),
        **traced.rivals,
    }


def _one_hop(
    traced: Traced, estimator: Estimator, falls: Float[Tensor, "token region"]
) -> Float[Tensor, " region"]:
    """The answer's links to tokens of the thinking, each with the chance that it changes by what it sees of the image itself."""
    links = estimator.links(traced.features.float(), traced.log_odds)
    first = traced.answers[0][0]
    weights = torch.zeros(len(falls))
    for start, end in traced.answers:
        some = links.of(start, end)
        weights.index_add_(0, some.earlier.flatten().long(), (some.scores**SHARP).flatten())
    return weights[:first] @ (1 - torch.exp(-falls[:first]))


def average_precision(values: Float[Tensor, " region"], changes: Bool[Tensor, " region"]) -> float:
    """Mean, over regions that change the answer, of the share of such among those that stand as high or higher."""
    at = values[changes][:, None]
    higher = values >= at
    return float(((higher & changes).sum(1) / higher.sum(1)).double().mean())


def named_first(values: Float[Tensor, " region"], changes: Bool[Tensor, " region"]) -> float:
    """Whether the region named first changes the answer."""
    return float(changes[int(values.argmax())])


METRICS: Mapping[str, Callable[[Tensor, Tensor], float]] = {
    "AUC": auc, "average precision": average_precision, "named first": named_first,
}  # fmt: skip


def table(traced: Sequence[Traced], estimator: Estimator) -> list[Row]:
    """All rows: regions to answers, chances, and sentences to sentences."""
    answered = [one for one in traced if one.answered]
    return [
        *_of_regions(answered, estimator),
        *_of_chances(answered, estimator),
        *_of_sources(answered, estimator),
    ]


def _of_regions(traced: Sequence[Traced], estimator: Estimator) -> Iterator[Row]:
    """Of images in which some regions change the answer and some do not; and where the first one named holds evidence."""
    given = {one.id: methods(one, estimator) for one in traced}
    told = [one for one in traced if one.changed[:-1].any() and not one.changed[:-1].all()]
    for name in given[traced[0].id] if traced else ():
        for metric, measure in METRICS.items():
            yield from _rows(
                name,
                metric,
                "",
                told,
                lambda one, of, measure=measure: measure(given[one.id][of], one.changed[:-1]),
            )
    truth = {one.id: given[one.id] | {"measured total": one.falls[:-1, 2]} for one in traced}
    shown = [one for one in told if one.boxes and len(one.labels) == 1]
    for name in truth[traced[0].id] if shown else ():
        yield from _rows(
            name, "first holds evidence", "", shown, lambda one, of: _points(truth[one.id][of], one)
        )


def _points(values: Float[Tensor, " region"], one: Traced) -> float:
    shared = metrics.shared_areas(torch.tensor(one.labels[0]), one.boxes, *one.size)
    return float(metrics.pointing(values[None], *shared)[0])


def _rows(
    name: str, metric: str, at: str, traced: Sequence[Traced], measure: Callable[[Traced, str], float]
) -> Iterator[Row]:
    """In the mean of families, and of each."""
    families: dict[str, list[Traced]] = {}
    for one in traced:
        families.setdefault(one.family, []).append(one)
    groups = {"mean": families} if len(families) > 1 else {}
    for family, some in {**groups, **{family: {family: ones} for family, ones in families.items()}}.items():
        values = {key: [measure(one, name) for one in ones] for key, ones in some.items()}
        ahead: tuple[float | None, ...] = (None, None, None)
        if name != OURS:
            paired = {
                key: [measure(one, OURS) - value for one, value in zip(ones, values[key], strict=True)]
                for key, ones in some.items()
            }
            ahead = metrics.bootstrap(paired)
        yield Row(name, metric, at, family, *metrics.bootstrap(values), *ahead, sum(map(len, some.values())))


def _of_chances(traced: Sequence[Traced], estimator: Estimator) -> Iterator[Row]:
    """Brier score, that of the share of regions that change any answer, and what share of each band changes it."""
    if not traced:
        return
    said = [torch.tensor(one.rests_on(estimator).changes) for one in traced]
    changed = [one.changed[:-1].float() for one in traced]
    every, truth = torch.cat(said), torch.cat(changed)
    base = float(truth.mean())
    scores = [((one - other) ** 2).mean() for one, other in zip(said, changed, strict=True)]
    plain = [((base - other) ** 2).mean() for other in changed]
    for name, values in ((OURS, scores), ("base rate", plain)):
        of_images = {"all": [float(value) for value in values]}
        yield Row(
            name, "Brier score", "", "all", *metrics.bootstrap(of_images), None, None, None, len(traced)
        )
    share = float(torch.stack(scores).mean() / torch.stack(plain).mean())
    yield Row(
        OURS, "Brier score over the base rate's", "", "all", share, None, None, None, None, None, len(traced)
    )
    for low, high in pairwise(BANDS):
        inside = (every >= low) & ((every < high) | (high == BANDS[-1]))
        if inside.any():
            at = f"{low:g} to {high:g}"
            for name, values in ((OURS, truth), ("said", every)):
                value = float(values[inside].mean())
                yield Row(
                    name, "reliability", at, "all", value, None, None, None, None, None, int(inside.sum())
                )


def _of_sources(traced: Sequence[Traced], estimator: Estimator) -> Iterator[Row]:
    """LDS of earlier spans: predicted falls of a span with random halves of those before it hidden, against measured ones."""
    weights = estimator.text
    assert weights is not None, "the estimator knows earlier text"
    ways: dict[str, Callable[[OfText], Tensor]] = {
        OURS: lambda span: span.predicted(weights),
        "attention-sum": lambda span: span.features[..., 0].sum(0) @ span.hidden.T,
        "value-sum": lambda span: span.features[..., 1].sum(0) @ span.hidden.T,
        "nearest": lambda span: torch.arange(span.hidden.shape[1]).float() @ span.hidden.T,
    }
    for channel in ("thinking", "answer"):
        spans = {one.id: _counted(one, channel) for one in traced}
        some = [one for one in traced if spans[one.id]]

        def lds(one: Traced, name: str, spans: Mapping[str, list[OfText]] = spans) -> float:
            each = [metrics.spearman(ways[name](span)[None], span.falls[None])[0] for span in spans[one.id]]
            return float(torch.stack(each).mean())

        for name in ways if some else ():
            yield from _rows(name, "LDS of sources", channel, some, lds)


def _counted(one: Traced, channel: str) -> list[OfText]:
    return [
        span
        for span in spans_of(one)
        if span.hidden.shape[1] >= FEWEST_BEFORE and span.is_answer == (channel == "answer")
    ]


def check_estimator(estimator: Estimator) -> None:
    """Raises `EstimatorError` for one that does not know earlier text."""
    if estimator.text is None or estimator.chances is None:
        raise EstimatorError(
            f"The estimator {estimator.id!r} says nothing of earlier text; fit that with `eyeline collect-through` and "
            "`eyeline fit-through`."
        )


def write_totals(out: Path, estimator: Estimator) -> None:
    """Writes the table of a folder of measurements into it. Raises `DataError`."""
    write_csv(Row, table(read_traced(out), estimator), out / TABLE)
