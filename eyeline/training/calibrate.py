"""An estimator of a model from a few of its images: general weights, moved as far as so many images justify.

Weights of heads as a set (head_set.py), learned on other models, are the prior. What they mean in nats is measured on the images,
and how far off they are on each image that is left out in turn (the jackknife of Barber et al. 2021, arXiv 1905.02928).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.head_set import SET
from eyeline.training.collect import Collected
from eyeline.training.fit import COVERAGE, Pairs, effect_pairs, mean_lds, scale, spread, with_features
from eyeline.training.weights import (
    FEWEST_COVER,
    NOTHING,
    FitSettings,
    TrainingData,
    agreement,
    training_data,
)  # fmt: skip

STEPS, AGAIN = 150, 40  # of Adam, for all images, and from there for all but one
RATE = 0.02
BATCH = 128  # spans
PRIOR = 10.0  # what moving a weight by the size of the general ones costs, over the number of images
FEWEST = 3  # images


def calibrate(
    images: Sequence[Sequence[Collected]], run: dict[str, Any], general: Estimator, name: str
) -> Iterator[tuple[str, Estimator | None]]:
    """Yields what is done, step by step, and the estimator at the end. `images` holds what was collected of each.

    Weights are moved only where that predicts falls of images left out better than the general ones, which the card says.
    Raises `DataError` where there are too few images, or none depends on what the model sees.
    """
    if len(images) < FEWEST:
        raise DataError(
            f"{len(images)} images are too few to calibrate an estimator; expected {FEWEST} at the very least, "
            "10 for intervals."
        )
    images = [with_features(each, run, SET) for each in images]
    everything = _without(images)
    moved = move(training_data(everything, SET), len(images), general)
    yield "all images", None
    without: list[Estimator] = []
    for left_out in range(len(images)):
        rest = training_data(_without(images, left_out), SET)
        without.append(move(rest, len(images) - 1, general, moved, AGAIN))
        yield f"without image {left_out + 1}", None
    held_out = {
        "general": _held_out(images, [general] * len(images)),
        "calibrated": _held_out(images, without),
    }
    if held_out["general"] >= held_out["calibrated"]:
        moved, without = general, [general] * len(images)
    scaled = scale(everything, moved)
    pairs = _left_out_pairs(images, without)
    intervals = len(images) >= FEWEST_COVER
    card = {
        "model": run["model"], "fingerprint": run["fingerprint"], "hiding": run["settings"]["hiding"],
        "regions": run["settings"]["regions"], "images": {"calibrate": len(images)}, "level": "calibrated",
        "coverage": COVERAGE if intervals else None, "unit": "nats", "collection": run["settings"],
        "version": run["version"], "general": general.id, "lds_held_out": round(max(held_out.values()), 4),
        "lds_by_level": {level: round(value, 4) for level, value in held_out.items()},
    }  # fmt: skip
    card |= {key: general.card[key] for key in ("chances", "traces") if key in general.card}
    found = replace(scaled, id=name, card=card)
    if intervals:
        found = replace(
            found, effect_spread=spread(general.effect_spread, pairs, conformal=False),
            contribution_spread=spread(general.contribution_spread, pairs, conformal=False),
        )  # fmt: skip
    yield "done", found


def move(
    data: TrainingData, images: int, general: Estimator, begin: Estimator | None = None, steps: int = STEPS
) -> Estimator:
    """General weights, moved to where predicted and measured falls agree better; the more images, the less the prior weighs."""
    settings = FitSettings(kinds=SET, hidden=0)
    sizes = data.sizes()
    unit = torch.where(sizes > NOTHING, 1 / sizes, 0.0)
    general_scores = general.weights * sizes
    size = general_scores.square().mean().sqrt()
    first = general_scores if begin is None else begin.weights * sizes
    by = ((first - general_scores) / size).clone().requires_grad_()
    optimizer = torch.optim.Adam([by], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rng, spans = torch.Generator().manual_seed(0), len(data.lengths)

    def moved(by: Tensor) -> Estimator:
        return replace(general, weights=(general_scores + by * size) * unit)

    for _ in range(steps):
        batch = torch.randint(spans, (min(BATCH, spans),), generator=rng)
        falls = data.predict_tokens(moved(by), batch)
        loss = -agreement(data, batch, falls, settings) + PRIOR / images * by.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return moved(by.detach())


def _without(images: Sequence[Sequence[Collected]], left_out: int | None = None) -> list[Collected]:
    return [one for number, each in enumerate(images) if number != left_out for one in each]


def _held_out(images: Sequence[Sequence[Collected]], estimators: Sequence[Estimator]) -> float:
    """LDS of joint falls of each image by its own estimator; mean over those that depend on what the model sees."""
    found = [mean_lds(each, estimator) for each, estimator in zip(images, estimators, strict=True)]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else 0.0


def _left_out_pairs(images: Sequence[Sequence[Collected]], estimators: Sequence[Estimator]) -> Pairs:
    """Effects of each image, predicted by what the others say, scale included."""
    parts: list[tuple[Tensor, ...]] = []
    for number, (each, estimator) in enumerate(zip(images, estimators, strict=True)):
        predicted, actual, _ = effect_pairs(each, scale(_without(images, number), estimator))
        parts.append((predicted, actual, torch.full((len(actual),), number)))
    predicted, actual, image = (torch.cat(column) for column in zip(*parts, strict=True))
    return predicted, actual, image
