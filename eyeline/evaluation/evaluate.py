"""Every method on the same traces, spans, regions and ablations: what `eyeline evaluate` runs.

Each image is one file, written when it is whole; a run that was stopped goes on where it was. Subsets are drawn from the
run's seed and the image's id alone, so that every run measures the same. Tables are made from the files by table.py.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.ablation import Method, measured_contributions, prefixes
from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.estimator_files import digest, estimator_for
from eyeline.evaluation.baselines import NAMES, Baseline, MeanOverRegions, baseline
from eyeline.evaluation.baselines.hiding import span_falls
from eyeline.evaluation.meter import Cost, Meter
from eyeline.evaluation.prediction import Prediction, estimated
from eyeline.evaluation.whole_answers import read_whole
from eyeline.examples import Box, Example
from eyeline.game import orders
from eyeline.generation import check_options
from eyeline.metrics import joint, shared_areas, top_regions
from eyeline.model import Inputs, Model
from eyeline.regions import Regions, load_source
from eyeline.spans import Span
from eyeline.training.collect import (
    answer,
    draw_subsets,
    each_once,
    open_run,
    read_saved,
    regions_of,
    save_example,
)

Way = Baseline | Callable[..., Prediction]  # to attribute
TOPS = (1, 3, 5)  # regions hidden, or shown alone, highest first


@dataclass(frozen=True, slots=True)
class Settings:
    """What an evaluation was made with; it stands in `run.json`, and a run is only ever continued with the same."""

    methods: tuple[str, ...] = ()
    hiding: Method = "pixels"
    regions: str = "native"
    rates: tuple[float, ...] = (0.5, 0.25, 0.1)  # each region is hidden with this probability
    subsets: int = 32  # at each rate
    ordered: int = 0  # antithetic pairs of orders by which contributions are measured
    max_new_tokens: int = 512
    max_spans: int = 64  # of a trace, spread evenly
    seed: int = 1  # another one than collection's
    answers: bool = False  # whether whole answers are read too


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One image of an evaluation."""

    id: str
    family: str
    spans: tuple[dict[str, Any], ...]  # index, channel, start, end, text, cut
    tokens: int  # of the trace
    costs: Mapping[str, Cost]  # of all spans, by method; rows of one estimator share theirs
    subsets: Bool[Tensor, "subset region"]
    rates: Float[Tensor, " subset"]  # as a collection's
    falls: Float[Tensor, "span subset"]  # fall in log-prob, nats
    contributions: Float[Tensor, "span region"] | None  # measured, nats
    contribution_errors: Float[Tensor, "span region"] | None  # their standard errors
    effects: Mapping[str, Float[Tensor, "span region"]]  # one number a region, by method, in its own unit
    intervals: Mapping[str, Float[Tensor, "span region 2"]]  # around these, of estimators
    predicted: Mapping[str, Float[Tensor, "span subset"]]  # by method: sums of these, or joint falls
    hidden: Mapping[str, Float[Tensor, "span top"]]  # fall with the TOPS highest regions hidden, nats
    shown: Mapping[str, Float[Tensor, "span top"]]  # fall with all but the TOPS highest hidden, nats
    evidence: tuple[
        dict[str, Any], ...
    ]  # of spans that read boxes: span; covers, areas, boxes for `pointing`
    whole: dict[str, Any] | None = None  # of the whole answer, as `read_whole` gives it


WHOLE = "eyeline-whole"  # estimators again, with what hiding the whole image does measured


@dataclass(frozen=True, slots=True)
class Chosen:
    """The methods of an evaluation, and what they depend on."""

    methods: Mapping[str, Way]
    estimators: Mapping[str, Estimator]  # those of them that are estimators
    hiding: Method

    @property
    def cards(self) -> dict[str, Any]:
        """What makes estimators of the same name the same: digests of their numbers."""
        return {"estimators": {name: digest(estimator) for name, estimator in self.estimators.items()}}


def choose_methods(
    model: Model, names: Sequence[str], sources: Sequence[str | Path], hiding: Method | None = None
) -> Chosen:
    """Rivals by name, and for `eyeline` the given estimators, or else the one that is used by default; `all` is all of these.

    With `eyeline-whole` these estimators come once more, as in streams with `measure_whole`.
    Regions are hidden as the first estimator's card says unless told, and by filled pixels without an estimator.
    Raises `DataError` for an unknown name, for estimators without `eyeline` among the names, for `attention` as one, for two
    of the same id, and, unless told how to hide, for two of different ways; `EstimatorError` for an estimator of another model.
    """
    names = [name.strip() for name in names]
    if "all" in names:
        names = ["eyeline", *NAMES]
    if sources and "eyeline" not in names:
        raise DataError(
            "An estimator is given, but `eyeline` is not in --methods: add it, or leave --estimator out."
        )
    found = [estimator_for(model, source) for source in sources or (None,)] if "eyeline" in names else []
    estimators = {f"eyeline ({each.id})": each for each in found if each is not None}
    if None in found:
        raise DataError(
            "`attention` is no estimator, and predicts no effects: name another with --estimator, or leave it out."
        )
    if len(estimators) < len(found):
        raise DataError(
            f"Two estimators have the same id, of {', '.join(sorted(estimators))}; fit one again with another --name."
        )
    ways = list(dict.fromkeys(each.hiding for each in estimators.values()))
    if len(ways) > 1 and hiding is None:
        raise DataError(
            f"The estimators were fitted on different ways of hiding, {', '.join(ways)}: choose one as --hiding."
        )
    way: Any = hiding or (ways[0] if ways else "pixels")
    methods = {name: estimated(estimator) for name, estimator in estimators.items()}
    if WHOLE in names:
        methods |= {f"{name}, whole measured": estimated(each, True) for name, each in estimators.items()}
    methods |= {name: baseline(name, way) for name in names if name not in ("eyeline", WHOLE)}
    return Chosen(methods, estimators, way)


def one_estimator(model: Model, source: str | Path | None) -> tuple[Estimator, Method]:
    """The estimator given, or else the one used by default, and how its numbers hide regions. Raises as `choose_methods` does."""
    chosen = choose_methods(model, ["eyeline"], [source] if source else [])
    (found,) = chosen.estimators.values()
    return found, chosen.hiding


ALONE_ROW, JOINT_ROW = "{}, alone", "{}, joint"  # beside the row of what the heat shows


@dataclass(frozen=True, eq=False)
class _Row:
    """What a method says, or one of the three things that an estimator does."""

    effects: Tensor  # (span, region)
    predicted: Tensor  # (span, subset)
    hiding: Tensor  # (span, region): which come first, hidden together
    showing: Tensor  # and shown alone
    intervals: Tensor | None = None  # (span, region, 2)


def _rows_of(name: str, found: Any, subsets: Bool[Tensor, "subset region"]) -> dict[str, _Row]:
    """A rival's one row, or the three of an estimator: what the heat shows and single effects, added up, and joint falls."""

    def added(effects: Tensor, intervals: Tensor | None = None) -> _Row:
        effects = effects.float().cpu()
        intervals = None if intervals is None else intervals.float().cpu()
        return _Row(effects, joint(effects, subsets), effects, effects, intervals)

    if not isinstance(found, Prediction):
        return {name: added(found)}
    shown, together = found.shown.float().cpu(), found.together(subsets).float().cpu()
    orders = [found.order(showing=showing) for showing in (False, True)]
    return {
        name: added(shown, found.shown_intervals),
        ALONE_ROW.format(name): added(found.effects, found.intervals),
        JOINT_ROW.format(name): _Row(shown, together, *orders),
    }


def attribute(
    methods: Mapping[str, Way], model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span],
    regions: Regions,
) -> Iterator[tuple[str, Any, Cost]]:  # fmt: skip
    """What each method finds, and what that took. One pass of a rival serves both its readings, and is the cost of each."""
    passes: dict[Way, tuple[Any, Cost]] = {}
    for name, method in methods.items():
        rival = method.rival if isinstance(method, MeanOverRegions) else method
        if rival not in passes:
            with Meter(model) as meter:
                found = rival(model, inputs, trace_ids, spans, regions)
            passes[rival] = found, meter.cost
        found, cost = passes[rival]
        yield name, method.of(found, regions) if isinstance(method, MeanOverRegions) else found, cost


def evaluate_one(model: Model, example: Example, methods: Mapping[str, Way], settings: Settings) -> Evaluated:
    """Generates, cuts, attributes by every method, and ablates what their attributions ask for."""
    own = answer(model, example, settings.max_new_tokens, settings.max_spans)
    inputs, trace, spans = own.inputs, own.ids, own.spans
    regions = regions_of(model, own.pictures, inputs, settings.regions, settings.seed)
    subsets, rates = draw_subsets(regions.count, settings, example.id)
    rows: dict[str, _Row] = {}
    costs: dict[str, Cost] = {}
    for name, found, cost in attribute(methods, model, inputs, trace, spans, regions):
        of_method = _rows_of(name, found, subsets)
        rows |= of_method
        costs |= dict.fromkeys(of_method, cost)
    asked = _Asked(subsets)
    tops, rests = (
        {
            name: [[asked.place(row) for row in top_regions(order(each), count) ^ shown] for count in TOPS]
            for name, each in rows.items()
        }
        for shown, order in ((False, lambda each: each.hiding), (True, lambda each: each.showing))
    )
    ordered = orders(regions.count, settings.ordered, settings.seed) if settings.ordered else None
    every = [asked.subsets()] if ordered is None else [asked.subsets(), prefixes(ordered)]
    falls = span_falls(model, inputs, trace, spans, regions, torch.cat(every), settings.hiding).float().cpu()
    pairs = None
    if ordered is not None:
        whole = falls[:, len(subsets) - 1]
        pairs = measured_contributions(falls[:, len(every[0]) :].T, whole, ordered)  # (pair, region, span)

    def measured(places: list[list[int]]) -> Float[Tensor, "span top"]:
        return torch.stack([falls[torch.arange(len(spans)), torch.tensor(top)] for top in places], dim=1)

    kept = None
    if settings.answers:

        def measure(hidden: Bool[Tensor, "subset region"]) -> Float[Tensor, "span subset"]:
            return span_falls(model, inputs, trace, spans, regions, hidden, settings.hiding).float()

        summed = {
            name: each.effects for name, each in rows.items() if not name.endswith(JOINT_ROW.format(""))
        }
        kept = read_whole(model, example, own, regions, summed, measure, settings.max_new_tokens)
    return Evaluated(
        id=example.id,
        family=example.family,
        spans=tuple(asdict(span) for span in spans),
        tokens=len(trace),
        costs=costs,
        subsets=subsets,
        rates=rates,
        falls=falls[:, : len(subsets)],
        contributions=None if pairs is None else pairs.mean(0).T,
        contribution_errors=None if pairs is None else (pairs.std(0) / len(pairs) ** 0.5).T,
        effects={name: each.effects for name, each in rows.items()},
        intervals={name: each.intervals for name, each in rows.items() if each.intervals is not None},
        predicted={name: each.predicted for name, each in rows.items()},
        hidden={name: measured(places) for name, places in tops.items()},
        shown={name: measured(places) for name, places in rests.items()},
        evidence=find_evidence(example, spans, regions.labels[0], own.pictures[0].size),
        whole=kept,
    )


class _Asked:
    """Subsets to ablate, each once however often it is asked for."""

    def __init__(self, first: Bool[Tensor, "subset region"]) -> None:
        self.rows = list(first)
        self.places = {tuple(row.tolist()): at for at, row in reversed(list(enumerate(self.rows)))}

    def place(self, subset: Bool[Tensor, " region"]) -> int:
        key = tuple(subset.tolist())
        if key not in self.places:
            self.places[key] = len(self.rows)
            self.rows.append(subset)
        return self.places[key]

    def subsets(self) -> Bool[Tensor, "subset region"]:
        return torch.stack(self.rows)


def find_evidence(
    example: Example, spans: Sequence[Span], labels: Int[Tensor, "row col"], size: tuple[int, int]
) -> tuple[dict[str, Any], ...]:
    """What `pointing` reads, for the first span that says what a sentence of the reference trace says and that reads boxes.

    Of equal sentences the first one reads; what says the same again may rest on it instead.
    """
    boxes_of: dict[str, tuple[Box, ...]] = {}
    for sentence, boxes in zip(example.trace, example.evidence, strict=False):
        boxes_of.setdefault(sentence, boxes)
    found = []
    for number, span in enumerate(spans):
        boxes = boxes_of.pop(span.text.strip(), ()) if span.channel == "thinking" else ()
        if boxes:
            covers, areas, sizes = shared_areas(labels, boxes, *size)
            found.append(
                {"span": number, "covers": covers.tolist(), "areas": areas.tolist(), "boxes": sizes.tolist()}
            )
    return tuple(found)


def evaluate(
    model: Model, examples: Iterable[Example], methods: Mapping[str, Way], out: Path, settings: Settings,
    about: Mapping[str, Any] | None = None,
) -> Iterator[str]:  # fmt: skip
    """Evaluates every example that the run does not hold yet, and yields the id of each as it is done or found done.

    `about` names what else the run depends on, such as the estimators' cards. Raises `DataError` where the folder holds a
    run of another model, version or settings, for an example that cannot be evaluated, and for a single pair of orders.
    """
    if settings.ordered == 1:
        raise DataError(
            "Contributions along 1 pair of orders have no standard error; expected 0 or at least 2 for --ordered."
        )
    check_options(model, {})
    load_source(settings.regions, model.device)
    open_run(model, out, {**asdict(settings), **(about or {})}, "evaluation")
    yield from each_once(
        examples, out, lambda example: evaluate_one(model, example, methods, settings), _save, "evaluated"
    )  # fmt: skip


PLAIN = ("id", "family", "spans", "tokens", "evidence", "whole")
TENSORS = ("subsets", "rates", "falls", "contributions", "contribution_errors")
BY_METHOD = ("effects", "intervals", "predicted", "hidden", "shown")


def _save(one: Evaluated, path: Path, digest: str) -> None:
    tensors = {name: value for name in TENSORS if (value := getattr(one, name)) is not None}
    tensors |= {f"{kind}/{name}": tensor for kind in BY_METHOD for name, tensor in getattr(one, kind).items()}
    rest = {name: getattr(one, name) for name in PLAIN}
    costs = {name: asdict(cost) for name, cost in one.costs.items()}
    save_example(tensors, {**rest, "costs": costs, "digest": digest}, path)


def read_evaluated(run: Path) -> list[Evaluated]:
    """All images of an evaluation, by id. Raises `DataError` for a file that is none."""
    return list(read_saved(run, _evaluated, "evaluated"))


def _evaluated(rest: dict[str, Any], tensors: dict[str, Tensor]) -> Evaluated:
    own: dict[str, Any] = {name: tensors.get(name) for name in TENSORS} | {kind: {} for kind in BY_METHOD}
    for name, tensor in tensors.items():
        kind, slash, method = name.partition("/")
        if slash:
            own[kind][method] = tensor
    return Evaluated(
        rest["id"], rest["family"], tuple(rest["spans"]), rest["tokens"],
        {name: Cost(**cost) for name, cost in rest["costs"].items()},
        **own, evidence=tuple(rest["evidence"]), whole=rest.get("whole"),
    )  # fmt: skip
