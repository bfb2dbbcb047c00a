"""Whole answers in an evaluation: marked, held against evidence, and deleted and inserted region by region.

An answer counts against evidence where it is right, and is another with the image blurred and with it grey. So do published
tables of Wiki-VISA, CLEVR-XAI and VizWiz-LF, there cell by cell, here by regions whose cells share their number evenly.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from PIL import Image, ImageFilter
from torch import Tensor

from eyeline.evaluation.answers import is_right, marks
from eyeline.evaluation.evidence import (
    RECALLS,
    covered_cells,
    energy,
    evidence_cells,
    pointing_cell,
    rank_auc,
    recall_at,
    spread_over_cells,
)
from eyeline.examples import Example
from eyeline.images import open_image
from eyeline.model import Model
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.training.collect import Answered, answer

STEPS = 10  # of regions hidden or shown, evenly
LEAST = 0.05  # nats that an answer must lose without its image for its curves to say anything
BLUR = 10  # times the radius is the shorter side

Measured = Callable[[Bool[Tensor, "subset region"]], Float[Tensor, "span subset"]]  # falls, nats


def read_whole(
    model: Model, example: Example, own: Answered, regions: Regions, effects: Mapping[str, Tensor], measured: Measured,
    max_new_tokens: int,
) -> dict[str, Any]:  # fmt: skip
    """What a run keeps of one answer, in plain numbers: `effects` (span, region) by method, `measured` the falls of spans."""
    rows = answer_rows(own.spans)
    kept: dict[str, Any] = {"answer": own.answer, "marks": marks(example, own.answer)}
    kept["right"] = bool(rows) and (kept["marks"] is None or is_right(example, own.answer))
    if not kept["right"]:
        return kept
    kept["changes"] = _changes(model, example, own, max_new_tokens)
    grid = regions.labels[0]
    summed = {name: found[rows].sum(0).cpu() for name, found in effects.items()}
    kept["labels"] = grid.tolist()
    kept["effects"] = {name: found.tolist() for name, found in summed.items()}
    if boxes := example.answer_evidence:
        kept["covered"] = covered_cells(boxes, own.pictures[0].size, *grid.shape).tolist()
    counts = step_counts(regions.count)
    orders = {name: found.argsort(descending=True, stable=True) for name, found in summed.items()}
    subsets = [_first(order, count, regions.count) for order in orders.values() for count in counts]
    falls = measured(torch.cat([torch.stack(subsets), ~torch.stack(subsets)]))[rows].sum(0).cpu()
    by_method = falls.view(2, len(orders), len(counts))
    kept["hidden"] = dict(zip(orders, by_method[0].tolist(), strict=True))
    kept["shown"] = dict(zip(orders, by_method[1].tolist(), strict=True))
    return kept


def answer_rows(spans: Sequence[Span]) -> list[int]:
    """Which of the spans are of the answer."""
    return [row for row, span in enumerate(spans) if span.channel == "answer"]


def step_counts(regions: int) -> list[int]:
    """How many regions are hidden or shown at each step; all at the last."""
    return sorted({max(1, round(step * regions / STEPS)) for step in range(1, STEPS + 1)})


def _first(order: Tensor, count: int, regions: int) -> Bool[Tensor, " region"]:
    subset = torch.zeros(regions, dtype=torch.bool)
    subset[order[:count]] = True
    return subset


def _changes(model: Model, example: Example, own: Answered, max_new_tokens: int) -> bool:
    """Whether the model answers otherwise where its images are blurred, and where they are grey."""
    for spoil in (_blurred, _grey):
        images = tuple(spoil(open_image(image)) for image in example.images)
        other = answer(model, replace(example, image=images), max_new_tokens, 1).answer
        same = other == own.answer if marks(example, own.answer) is None else is_right(example, other)
        if same:
            return False
    return True


def _blurred(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / BLUR))


def _grey(image: Image.Image) -> Image.Image:
    return Image.new("RGB", image.size, (128, 128, 128))


def kept_areas(hidden: Sequence[float], shown: Sequence[float], regions: int) -> tuple[float, float] | None:
    """Deletion and insertion: mean share of an answer's dependence on the image that is kept, while the first regions go or come.

    That is 1 less the fall over the fall with everything hidden, by trapezoids over the share of regions (RISE, arXiv 1806.07421,
    on log-probs). Deletion is good where it is low, insertion where it is high. None for an answer that loses too little without
    its image.
    """
    whole = hidden[-1]
    if whole < LEAST:
        return None
    shares = torch.tensor([0, *step_counts(regions)]).double() / regions
    going = torch.tensor([1.0, *(1 - fall / whole for fall in hidden)], dtype=torch.float64)
    coming = torch.tensor([0.0, *(1 - fall / whole for fall in shown)], dtype=torch.float64)
    return float(torch.trapezoid(going, shares)), float(torch.trapezoid(coming, shares))


def whole_measures(name: str) -> Iterator[tuple[str, str, Callable[[Any], list[float]]]]:
    """Metrics of a method on whole answers, each a function from an evaluated image to no value or one."""

    def area(one: Any, which: int) -> list[float]:
        kept = one.whole or {}
        if name not in kept.get("hidden", {}):
            return []
        found = kept_areas(kept["hidden"][name], kept["shown"][name], one.subsets.shape[1])
        return [] if found is None else [found[which]]

    yield "answer_deletion", "", lambda one: area(one, 0)
    yield "answer_insertion", "", lambda one: area(one, 1)

    def against(one: Any, measure: Callable[[Tensor, Tensor, Tensor], float]) -> list[float]:
        kept = one.whole or {}
        if "covered" not in kept or not kept["changes"] or name not in kept["effects"]:
            return []
        labels = torch.tensor(kept["labels"]).flatten()
        covered = torch.tensor(kept["covered"])
        heat = spread_over_cells(torch.tensor(kept["effects"][name]), labels)
        found = measure(heat, covered, evidence_cells(covered))
        return [] if found != found else [found]

    yield "answer_energy", "", lambda one: against(one, lambda heat, covered, _: energy(heat, covered))
    yield "answer_rank_auc", "", lambda one: against(one, lambda heat, _, inside: rank_auc(heat, inside))
    for share in RECALLS:
        yield (
            "answer_recall", f"{share:.0%}",
            lambda one, share=share: against(one, lambda heat, _, inside: recall_at(heat, inside, share)),
        )  # fmt: skip
    yield "answer_pointing", "", lambda one: against(one, lambda heat, _, inside: pointing_cell(heat, inside))


def answer_marks(one: Any) -> list[float]:
    """An answer's marks, where whole answers were read and no judge is needed."""
    found = (one.whole or {}).get("marks")
    return [] if found is None else [float(found)]
