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

from eyeline.ablation import Method
from eyeline.errors import DataError
from eyeline.estimator import Estimator, digest, estimator_for
from eyeline.evaluation.baselines import NAMES, Baseline, baseline
from eyeline.evaluation.baselines.estimator import Prediction, estimated
from eyeline.evaluation.baselines.hiding import span_drops
from eyeline.evaluation.meter import Cost, Meter
from eyeline.evaluation.metrics import joint, shared_areas, top_regions
from eyeline.examples import Box, Example
from eyeline.generation import check_options
from eyeline.model import Model
from eyeline.regions import load_source
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
TOPS = (1, 2, 3, 5, 8, 13)  # regions hidden, or shown alone, highest first


@dataclass(frozen=True, slots=True)
class Settings:
    """What an evaluation was made with; it stands in `run.json`, and a run is only ever continued with the same."""

    methods: tuple[str, ...] = ()
    method: Method = "attention"  # how regions are hidden
    regions: str = "native"
    rates: tuple[float, ...] = (0.5, 0.25, 0.1)  # each region is hidden with this probability
    subsets: int = 32  # at each rate
    max_new_tokens: int = 512
    max_spans: int = 64  # of a trace, spread evenly
    seed: int = 1  # another one than collection's


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One image of an evaluation."""

    id: str
    family: str
    spans: tuple[dict[str, Any], ...]  # index, channel, start, end, text, cut
    tokens: int  # of the trace
    costs: Mapping[str, Cost]  # of all spans, by method
    subsets: Bool[Tensor, "subset region"]
    rates: Float[Tensor, " subset"]  # as a collection's
    drops: Float[Tensor, "span subset"]  # fall in log-prob, nats
    effects: Mapping[str, Float[Tensor, "span region"]]  # by method, in its own unit
    predicted: Mapping[
        str, Float[Tensor, "span subset"]
    ]  # by method; of regions whose effects add up, their sums
    hidden: Mapping[str, Float[Tensor, "span top"]]  # fall with the TOPS highest regions hidden, nats
    shown: Mapping[str, Float[Tensor, "span top"]]  # fall with all but the TOPS highest hidden, nats
    evidence: tuple[
        dict[str, Any], ...
    ]  # of spans that read boxes: span; covers, areas, boxes for `pointing`


@dataclass(frozen=True, slots=True)
class Chosen:
    """The methods of an evaluation, and what they depend on."""

    methods: Mapping[str, Way]
    estimators: Mapping[str, Estimator]  # those of them that are estimators
    hide: Method

    @property
    def cards(self) -> dict[str, Any]:
        """What makes estimators of the same name the same: digests of their numbers."""
        return {"estimators": {name: digest(estimator) for name, estimator in self.estimators.items()}}


def choose_methods(
    model: Model, names: Sequence[str], sources: Sequence[str | Path], hide: Method | None = None
) -> Chosen:
    """Rivals by name, and for `eyeline` the given estimators, or else the model's own; `all` is everything.

    Regions are hidden as the first estimator's card says unless told, and by attention knockout without an estimator.
    Raises `DataError` for an unknown name, for estimators without `eyeline` among the names, for two of the same id, and,
    unless told how to hide, for two of different ways; `EstimatorError` for an estimator of another model.
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
    if "eyeline" in names and not estimators:
        raise DataError(
            f"There is no estimator for {model.name!r}: name one with --estimator, or leave `eyeline` out of --methods."
        )
    if len(estimators) < len(found):
        raise DataError(
            f"Two estimators have the same id, of {', '.join(sorted(estimators))}; fit one again with another --name."
        )
    ways = list(dict.fromkeys(each.card.get("ablation", "pixels") for each in estimators.values()))
    if len(ways) > 1 and hide is None:
        raise DataError(
            f"The estimators were fitted on different ways of hiding, {', '.join(ways)}: choose one as --hide."
        )
    way: Method = hide or (ways[0] if ways else "attention")
    methods = {name: estimated(estimator) for name, estimator in estimators.items()}
    methods |= {name: baseline(name, way) for name in names if name != "eyeline"}
    return Chosen(methods, estimators, way)


def evaluate_one(model: Model, example: Example, methods: Mapping[str, Way], settings: Settings) -> Evaluated:
    """Generates, cuts, attributes by every method, and ablates what their attributions ask for."""
    own = answer(model, example, settings.max_new_tokens, settings.max_spans)
    inputs, trace, spans = own.inputs, own.ids, own.spans
    regions = regions_of(model, own.picture, inputs, settings.regions, settings.seed)
    subsets, rates = draw_subsets(regions.count, settings, example.id)
    effects, predicted, costs = {}, {}, {}
    hiding, showing = {}, {}  # by method, which regions come first
    for name, method in methods.items():
        with Meter(model) as meter:
            told = method(model, inputs, trace, spans, regions)
        costs[name] = meter.cost
        if isinstance(told, Prediction):
            effects[name], predicted[name] = told.effects.float().cpu(), told.together(subsets).float().cpu()
            hiding[name], showing[name] = told.order(False), told.order(True)
        else:
            effects[name] = hiding[name] = showing[name] = told.float().cpu()
            predicted[name] = joint(effects[name], subsets)
    asked = _Asked(subsets)

    def asked_at(orders: Mapping[str, Tensor], shown: bool) -> dict[str, list[list[int]]]:
        """For each method and count, where each span's subset is: the highest regions, or all others."""
        highest = {
            name: [top_regions(values, count) ^ shown for count in TOPS] for name, values in orders.items()
        }
        return {name: [[asked.place(row) for row in rows] for rows in each] for name, each in highest.items()}

    tops, rests = asked_at(hiding, False), asked_at(showing, True)
    drops = span_drops(model, inputs, trace, spans, regions, asked.subsets(), settings.method).float().cpu()

    def measured(places: list[list[int]]) -> Float[Tensor, "span top"]:
        return torch.stack([drops[torch.arange(len(spans)), torch.tensor(top)] for top in places], dim=1)

    return Evaluated(
        id=example.id,
        family=example.family,
        spans=tuple(asdict(span) for span in spans),
        tokens=len(trace),
        costs=costs,
        subsets=subsets,
        rates=rates,
        drops=drops[:, : len(subsets)],
        effects=effects,
        predicted=predicted,
        hidden={name: measured(places) for name, places in tops.items()},
        shown={name: measured(places) for name, places in rests.items()},
        evidence=find_evidence(example, spans, regions.labels[0], own.picture.size),
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
    run of another model, version or settings, and for an example that cannot be evaluated.
    """
    check_options(model, {})
    load_source(settings.regions, model.device)
    open_run(model, out, {**asdict(settings), **(about or {})}, "evaluation")
    yield from each_once(
        examples, out, lambda example: evaluate_one(model, example, methods, settings), _save, "evaluated"
    )  # fmt: skip


PLAIN = ("id", "family", "spans", "tokens", "evidence")
TENSORS = ("subsets", "rates", "drops")
BY_METHOD = ("effects", "predicted", "hidden", "shown")


def _save(one: Evaluated, path: Path, digest: str) -> None:
    tensors = {name: getattr(one, name) for name in TENSORS}
    tensors |= {f"{kind}/{name}": tensor for kind in BY_METHOD for name, tensor in getattr(one, kind).items()}
    rest = {name: getattr(one, name) for name in PLAIN}
    costs = {name: asdict(cost) for name, cost in one.costs.items()}
    save_example(tensors, {**rest, "costs": costs, "digest": digest}, path)


def read_evaluated(run: Path) -> list[Evaluated]:
    """All images of an evaluation, by id. Raises `DataError` for a file that is none."""
    return list(read_saved(run, _evaluated, "evaluated"))


def _evaluated(rest: dict[str, Any], tensors: dict[str, Tensor]) -> Evaluated:
    by_method: dict[str, dict[str, Tensor]] = {kind: {} for kind in BY_METHOD}
    for name, tensor in tensors.items():
        kind, slash, method = name.partition("/")
        if slash:
            by_method[kind][method] = tensor
    return Evaluated(
        rest["id"], rest["family"], tuple(rest["spans"]), rest["tokens"],
        {name: Cost(**cost) for name, cost in rest["costs"].items()},
        tensors["subsets"], tensors["rates"], tensors["drops"],
        by_method["effects"], by_method["predicted"], by_method["hidden"], by_method["shown"], tuple(rest["evidence"]),
    )  # fmt: skip
