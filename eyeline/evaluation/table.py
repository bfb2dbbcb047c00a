"""An evaluation as one table: each method and metric, by family and in the mean, with 95 % intervals over images.

Spans whose actual effects hardly vary count in no correlation, and are counted themselves.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from eyeline import metrics
from eyeline.estimator import Estimator
from eyeline.evaluation.evaluate import ALONE_ROW, JOINT_ROW, TOPS, Evaluated
from eyeline.evaluation.meter import Cost
from eyeline.evaluation.whole_answers import answer_marks, whole_measures
from eyeline.training.collect import ALONE, WHOLE
from eyeline.training.weights import MIN_SPREAD

TABLED_TOPS = (1, 3, 5)
VISUAL = 1.0  # nats, that a span loses with some half hidden, from which on it rests on the image
LARGE = 0.5  # nats, of an effect, from which on its coverage is told apart
# (what a method took for all spans of a trace, its tokens) -> the number to table
COSTS: dict[str, Callable[[Cost, int], float | int | None]] = {
    "ms_per_token": lambda cost, tokens: 1e3 * cost.seconds / tokens,
    "forward_passes": lambda cost, _: cost.forward_passes,
    "backward_passes": lambda cost, _: cost.backward_passes,
    "vision_passes": lambda cost, _: cost.vision_passes,
    "extra_memory_mib": lambda cost, _: (
        None if cost.extra_memory_bytes is None else cost.extra_memory_bytes / 2**20
    ),
}
# a metric, what it is at, and a function from an image to the values of its spans, or to one value of its trace
Measure = tuple[str, str, Callable[[Evaluated], list[float]]]


@dataclass(frozen=True, slots=True)
class Row:
    """One number, of `count` images, spans or pairs. `at` is an ablation rate, `alone`, a number of regions, or empty."""

    method: str
    metric: str
    at: str
    family: str
    value: float
    low: float | None
    high: float | None
    count: int


def table(images: Sequence[Evaluated], estimators: Mapping[str, Estimator]) -> list[Row]:
    """All rows; `estimators` are the methods of that name, alone and joint, that predict nats."""
    rows = [*_left_out(images), *_by_family(images, "all", "pointing_of_largest", "", _largest_hits)]
    rows += _by_family(images, "all", "marks", "", answer_marks)
    if measured := [
        one.contribution_errors.flatten() for one in images if one.contribution_errors is not None
    ]:
        errors = torch.cat(measured)
        error = float(errors.square().mean().sqrt())
        rows.append(Row("all", "contribution_standard_error_nats", "", "all", error, None, None, len(errors)))
    for name in images[0].effects if images else ():
        for metric, at, measure in _measures(images, name):
            rows += _by_family(images, name, metric, at, measure)
        known = next(
            (
                each
                for of, each in estimators.items()
                if name in (of, ALONE_ROW.format(of), JOINT_ROW.format(of))
            ),
            None,
        )
        rows += _over_pairs(images, name, known)
    return rows


def _rates(images: Sequence[Evaluated]) -> list[float]:
    """The rates at which random subsets were drawn, highest first."""
    return sorted({rate for one in images for rate in one.rates.tolist() if rate > 0}, reverse=True)


def correlations(images: Sequence[Evaluated], name: str) -> Iterator[Measure]:
    """LDS and R2 of a method at each rate. Which spans count is the same for every method."""
    for rate in _rates(images):
        for metric in (metrics.lds, metrics.r2_span):

            def correlation(one: Evaluated, rate: float = rate, metric=metric) -> list[float]:
                drawn = torch.isclose(one.rates, torch.tensor(rate))
                kept = metrics.varies(one.falls[:, drawn])
                return metric(one.predicted[name][kept][:, drawn], one.falls[kept][:, drawn]).tolist()

            yield metric.__name__, f"{rate:.2g}", correlation


def top_drop(name: str, count: int) -> Measure:
    """What spans lose without the so many regions that a method puts first."""
    return "top_drop", str(count), lambda one: one.hidden[name][:, TOPS.index(count)].tolist()


def _measures(images: Sequence[Evaluated], name: str) -> Iterator[Measure]:
    """All metrics of a method."""
    yield from correlations(images, name)

    def with_alone(one: Evaluated) -> list[float]:
        alone = one.falls[:, one.rates == ALONE]
        kept = metrics.varies(alone)
        return metrics.agreement(one.effects[name][kept], alone[kept]).tolist()

    yield "agreement", "", with_alone
    if images[0].contributions is not None:
        for metric in ("contribution_correlation", "contribution_lds"):
            yield metric, "", partial(_with_contributions, name=name, ranks=metric.endswith("lds"))
    yield "empty_heat", "", partial(_empty, name=name)
    yield "false_heat_nats", "", partial(_false, name=name)
    yield from (top_drop(name, count) for count in TABLED_TOPS)
    yield "deletion", "", lambda one: _area(one, one.hidden[name], torch.zeros(len(one.falls), 1))
    yield "insertion", "", lambda one: _area(one, one.shown[name], one.falls[:, one.rates == WHOLE])
    yield "pointing", "", lambda one: hits(one.evidence, one.effects[name])
    yield from whole_measures(name)
    for metric, read in COSTS.items():
        yield metric, "", lambda one, read=read: _known(read(one.costs[name], one.tokens))


def _with_contributions(one: Evaluated, name: str, ranks: bool) -> list[float]:
    """Pearson or Spearman of what regions are given with their measured contributions, of spans whose random halves vary."""
    assert one.contributions is not None
    kept = metrics.varies(_halves(one))
    correlate = metrics.spearman if ranks else metrics.pearson
    return correlate(one.effects[name][kept], one.contributions[kept]).tolist()


def _halves(one: Evaluated) -> Float[Tensor, "span subset"]:
    """Measured falls at the highest rate."""
    return one.falls[:, one.rates == one.rates.max()]


def _empty(one: Evaluated, name: str) -> list[float]:
    """Of thinking spans that lose more than a nat with some random half hidden, whether the heat is empty."""
    halves = _halves(one)
    thinking = torch.tensor([span["channel"] == "thinking" for span in one.spans])
    wanted = thinking & (halves.max(dim=1).values > VISUAL)
    return metrics.empty_heat(one.effects[name], halves)[wanted].float().tolist()


def _false(one: Evaluated, name: str) -> list[float]:
    """Of spans whose measured falls are all under MIN_SPREAD, the largest number that is shown."""
    still = (one.falls.abs() < MIN_SPREAD).all(dim=1)
    return metrics.false_heat(one.effects[name])[still].tolist()


def _known(value: float | int | None) -> list[float]:
    return [] if value is None else [float(value)]


def _area(one: Evaluated, curve: Tensor, begin: Tensor) -> list[float]:
    regions = one.subsets.shape[1]
    steps = [count for count in TOPS if count <= regions]
    return metrics.area(torch.cat([begin, curve[:, : len(steps)]], dim=1), steps, regions).tolist()


def hits(evidence: Sequence[Mapping[str, Any]], effects: Float[Tensor, "span region"]) -> list[float]:
    """Of each span that reads evidence, which `find_evidence` tells, whether its highest region is that."""
    found = []
    for each in evidence:
        parts = (torch.tensor(each[part]) for part in ("covers", "areas", "boxes"))
        found.append(float(metrics.pointing(effects[each["span"]][None], *parts)))
    return found


def _largest_hits(one: Evaluated) -> list[float]:
    """Of each span that reads evidence, whether the largest region is that, whatever a method says."""
    areas = torch.zeros(len(one.falls), one.subsets.shape[1])
    for each in one.evidence:
        areas[each["span"]] = torch.tensor(each["areas"])
    return hits(one.evidence, areas)


def by_image(
    images: Iterable[Evaluated], measure: Callable[[Evaluated], list[float]]
) -> dict[str, list[float]]:
    """The values of each family's images; an image's is the mean of its spans', one without any is left out."""
    values: dict[str, list[float]] = {}
    for one in images:
        of_spans = measure(one)
        if of_spans:
            values.setdefault(one.family, []).append(sum(of_spans) / len(of_spans))
    return values


def groups(values: Mapping[str, list[float]]) -> dict[str, Mapping[str, list[float]]]:
    """Values by family: each family by itself, and the mean of them; nothing without any."""
    alone = {family: {family: values[family]} for family in sorted(values)}
    return {**alone, "mean": values} if values else {}


def _by_family(
    images: Sequence[Evaluated], name: str, metric: str, at: str, measure: Callable[[Evaluated], list[float]]
) -> Iterator[Row]:
    """The metric of each family and their mean."""
    for family, some in groups(by_image(images, measure)).items():
        yield Row(name, metric, at, family, *metrics.bootstrap(some), sum(map(len, some.values())))


def _left_out(images: Sequence[Evaluated]) -> Iterator[Row]:
    """The share of each family's spans whose effects vary too little for a correlation, of all its spans.

    Over the random subsets of a rate, or, at `alone`, over single regions, for `agreement`.
    """
    for rate in (*_rates(images), ALONE):
        at = "alone" if rate == ALONE else f"{rate:.2g}"
        flat: dict[str, list[bool]] = {}
        for one in images:
            drawn = torch.isclose(one.rates, torch.tensor(rate))
            flat.setdefault(one.family, []).extend((~metrics.varies(one.falls[:, drawn])).tolist())
        for family, values in sorted(flat.items()):
            share = sum(values) / len(values)
            yield Row("all", "spans_left_out", at, family, share, None, None, len(values))


def _over_pairs(images: Sequence[Evaluated], name: str, estimator: Estimator | None) -> Iterator[Row]:
    """What is a number of all pairs of span and region, or of span and subset: R2 and slope in nats, and how intervals do.

    A row's numbers are held against what they mean: single effects against regions hidden alone, what the heat shows against
    contributions, joint falls against subsets. For rivals, and estimators that have seen nothing of the
    model, whose numbers have no unit, one factor is chosen on these very pairs.
    """
    alone = torch.cat([one.falls[:, one.rates == ALONE].flatten() for one in images])
    predicted = torch.cat([one.effects[name].flatten() for one in images])
    if estimator is None or estimator.unit == "relative":
        value = metrics.calibrated_r2_nats(predicted, alone)
        if value is not None:
            yield Row(name, "r2_nats_calibrated_here", "alone", "all", value, None, None, len(alone))
        return
    if name.endswith(JOINT_ROW.format("")):
        for rate in (*_rates(images), ALONE, WHOLE):
            predicted = torch.cat([one.predicted[name][:, _drawn_at(one, rate)].flatten() for one in images])
            actual = torch.cat([one.falls[:, _drawn_at(one, rate)].flatten() for one in images])
            at = {ALONE: "alone", WHOLE: "whole"}.get(rate, f"{rate:.2g}")
            if (value := metrics.r2_nats(predicted, actual)) is not None:
                yield Row(name, "r2_nats", at, "all", value, None, None, len(actual))
            yield Row(name, "slope", at, "all", metrics.slope(predicted, actual), None, None, len(actual))
        return
    if name.endswith(ALONE_ROW.format("")):
        at, measured = "alone", [one.falls[:, one.rates == ALONE] for one in images]
    else:
        at, measured = "contributions", [one.contributions for one in images]
    kept = [(one, of) for one, of in zip(images, measured, strict=True) if of is not None]
    if not kept:
        return
    actual = torch.cat([of.flatten() for _, of in kept])
    predicted = torch.cat([one.effects[name].flatten() for one, _ in kept])
    if all(name not in one.intervals for one, _ in kept):
        value = metrics.r2_nats(predicted, actual)
        if value is not None:
            yield Row(name, "r2_nats", at, "all", value, None, None, len(actual))
        return
    low, high = torch.cat([one.intervals[name].flatten(0, 1) for one, _ in kept]).T
    image = torch.cat([torch.full((of.numel(),), number) for number, (_, of) in enumerate(kept)])
    width = metrics.median_width(low, high)
    constant = metrics.constant_width(predicted, actual, estimator.card["coverage"])
    for metric, value, count in (
        ("r2_nats", metrics.r2_nats(predicted, actual), len(actual)),
        ("slope", metrics.slope(predicted, actual), len(actual)),
        ("coverage", metrics.coverage(low, high, actual, image), len(image.unique())),
        (
            "coverage_over_half_a_nat",
            metrics.coverage_of_large(low, high, actual, LARGE),
            int((actual.abs() > LARGE).sum()),
        ),
        ("median_width_nats", width, len(actual)),
        ("median_width_over_constant", width / constant if constant else None, len(actual)),
    ):
        if value is not None:
            yield Row(name, metric, at, "all", value, None, None, count)


def _drawn_at(one: Evaluated, rate: float) -> Bool[Tensor, " subset"]:
    return torch.isclose(one.rates, torch.tensor(rate))
