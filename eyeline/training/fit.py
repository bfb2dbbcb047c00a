"""Collected spans -> an estimator: Pearson loss on random subsets, then scale and intervals on other images.

Images are split three ways by the hashes of their ids: `fit` learns the direction of the weights, `scale` the size in
nats and the shape of the intervals, `cover` their width.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.features import KINDS
from eyeline.training.collect import ALONE, WHOLE, Collected

MIN_SPREAD = 0.05  # nats: spans whose effects vary less say nothing about a direction
COVERAGE = 0.9
FEWEST_COVER = 9  # images: COVERAGE * (1 + 1 / 9) = 1, with fewer no finite width is enough
FEWEST_IMAGES = 24
NOTHING = 1e-12  # features that vary less are dead; they get no weight


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How the weights are learned; chosen on held-out training images (docs/log.md)."""

    kinds: tuple[str, ...] = KINDS
    steps: int = 1500
    batch: int = 256  # spans
    rate: float = 5e-3
    decay: float = 0.0  # of the standardised weights towards zero
    seed: int = 0


def split(collected: Sequence[Collected]) -> dict[str, list[Collected]]:
    """Images in the order of their ids' hashes: an eighth to `scale`, an eighth to `cover`, the rest to `fit`."""
    shuffled = sorted(collected, key=lambda one: hashlib.sha256(one.id.encode()).digest())
    scale = len(shuffled) // 8
    cover = scale + max(scale, FEWEST_COVER)
    return {"scale": shuffled[:scale], "cover": shuffled[scale:cover], "fit": shuffled[cover:]}


def choose(
    features: Float[Tensor, "span region feature"], kinds: Sequence[str]
) -> Float[Tensor, "span region chosen"]:
    """The columns of some kinds out of a collection's, which holds all."""
    parts = features.chunk(len(KINDS), dim=-1)
    return torch.cat([parts[KINDS.index(kind)] for kind in kinds], dim=-1)


def fit(
    collected: Sequence[Collected], run: dict[str, Any], settings: FitSettings, name: str
) -> tuple[Estimator, dict[str, Any]]:
    """The estimator, and what happened on the way. Raises `DataError` where there are too few images."""
    if len(collected) < FEWEST_IMAGES:
        raise DataError(
            f"{len(collected)} images are too few to fit and calibrate an estimator; expected {FEWEST_IMAGES} at the very least, "
            "500 or more for numbers to rely on: collect more."
        )
    splits = split(collected)
    direction, losses = _direction(splits["fit"], settings)
    predicted, actual, image = _alone(splits["scale"], direction, settings.kinds)
    scale = float((predicted @ actual) / (predicted @ predicted).clamp(min=1e-12))
    if scale <= 0:
        raise DataError(
            f"The weights found on {len(splits['fit'])} images do not predict the effects of single regions in others; "
            "collect more images, and check that the model reads them."
        )
    weights = direction * scale
    base, slope = _spread(predicted * scale, actual, image)
    predicted, actual, image = _alone(splits["cover"], weights, settings.kinds)
    scores = (predicted - actual).abs() / (base + slope * predicted.abs())
    quantile = _conformal_quantile(scores, image, COVERAGE)
    whole = _whole(splits["fit"], settings.kinds)
    card = {
        "model": run["model"], "fingerprint": run["fingerprint"], "ablation": run["settings"]["method"],
        "regions": run["settings"]["regions"], "images": {part: len(images) for part, images in splits.items()},
        "coverage": COVERAGE, "unit": "nats", "pearson_loss": round(losses[-1], 4),
        "fit": {**asdict(settings), "kinds": list(settings.kinds)}, "collection": run["settings"], "version": run["version"],
        "r2_nats_held_out": round(1 - float((actual - predicted).square().sum() / (actual - actual.mean()).square().sum()), 4),
    }  # fmt: skip
    return Estimator(name, weights, whole, base, slope, quantile, settings.kinds, card), {"losses": losses}


def _direction(
    images: Sequence[Collected], settings: FitSettings
) -> tuple[Float[Tensor, " feature"], list[float]]:
    """Weights that maximise the mean Pearson correlation of a span's predicted and actual effects over random subsets."""
    joint, drops = [], []
    for one in images:
        random = one.rates > 0
        features = choose(one.features, settings.kinds)
        wanted = one.drops[:, random].std(dim=1) > MIN_SPREAD
        joint.append(torch.einsum("mk,skf->smf", one.subsets[random].float(), features[wanted]))
        drops.append(one.drops[wanted][:, random])
    inputs, targets = torch.cat(joint), torch.cat(drops)
    if not len(inputs):
        raise DataError("No span of the collection depends on the image; check that the model sees it.")
    # Standardised by what varies between subsets of a span, which is all that correlation sees
    deviations = (inputs - inputs.mean(1, keepdim=True)).square().mean((0, 1)).sqrt()
    unit = torch.where(deviations > NOTHING, 1 / deviations, 0.0)
    inputs = inputs * unit
    rng = torch.Generator().manual_seed(settings.seed)
    weights = torch.full((inputs.shape[-1],), 1 / inputs.shape[-1], requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=settings.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    losses = []
    for _ in range(settings.steps):
        batch = torch.randint(len(inputs), (min(settings.batch, len(inputs)),), generator=rng)
        loss = -pearson(inputs[batch] @ weights, targets[batch]).mean()
        optimizer.zero_grad()
        (loss + settings.decay * weights.square().sum()).backward()
        torch.nn.utils.clip_grad_norm_([weights], 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return weights.detach() * unit, losses


def pearson(
    predicted: Float[Tensor, "span subset"], actual: Float[Tensor, "span subset"]
) -> Float[Tensor, " span"]:
    """Correlation of each span over its subsets; 0 for a constant."""
    predicted, actual = predicted - predicted.mean(1, keepdim=True), actual - actual.mean(1, keepdim=True)
    return (predicted * actual).sum(1) / (predicted.norm(dim=1) * actual.norm(dim=1) + 1e-8)


def _alone(
    images: Sequence[Collected], weights: Tensor, kinds: Sequence[str]
) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted and actual effects of single regions, all spans, and the number of each one's image."""
    predicted, actual, image = [], [], []
    for number, one in enumerate(images):
        predicted.append((choose(one.features, kinds) @ weights).flatten())
        actual.append(one.drops[:, one.rates == ALONE].flatten())
        image.append(torch.full((actual[-1].numel(),), number))
    return torch.cat(predicted), torch.cat(actual), torch.cat(image)


def _spread(predicted: Tensor, actual: Tensor, image: Tensor) -> tuple[float, float]:
    """base and slope of the narrowest intervals, by geometric mean, among those that hold COVERAGE of these pairs."""
    errors, size = (predicted - actual).abs(), predicted.abs()
    best = (float("inf"), 0.0, 0.0)
    for steepness in (0.0, *(2.0**power for power in range(-3, 8))):  # slope over base, for each nat
        shape = 1 + steepness * size
        width = max(_quantile(errors / shape, image, COVERAGE), 1e-6)
        best = min(best, (math.log(width) + float(shape.log().mean()), width, steepness))
    _, width, steepness = best
    return width, width * steepness


def _quantile(scores: Tensor, image: Tensor, share: float) -> float:
    """The least score with at least `share` of the pairs at or below it; images weigh the same."""
    counts = torch.bincount(image)
    order = scores.argsort()
    reached = (1 / counts[image[order]].double()).cumsum(0) >= share * len(counts) - 1e-9
    assert reached.any(), "no score is high enough"
    return float(scores[order][int(reached.int().argmax())])


def _conformal_quantile(scores: Tensor, image: Tensor, coverage: float) -> float:
    """The width that holds at least a share `coverage` of the pairs of a new image, in expectation.

    Pairs of one image are not independent, images are: each of n images weighs 1 / (n + 1), spread evenly over its
    pairs, and the new one 1 / (n + 1) at infinity (Lee, Barber & Willett 2023, arXiv 2306.06342, HCP).
    """
    images = len(torch.bincount(image))
    return _quantile(scores, image, coverage * (images + 1) / images)


def _whole(images: Sequence[Collected], kinds: Sequence[str]) -> Float[Tensor, " feature"]:
    """Ridge regression of the effect of hiding everything on the features of the whole image; strength by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    features = torch.cat([choose(one.features, kinds).sum(1) for one in images])
    actual = torch.cat([one.drops[:, one.rates == WHOLE][:, 0] for one in images])
    size = features.square().mean(0).sqrt()
    unit = torch.where(size > NOTHING, 1 / size, 0.0)
    ridge = RidgeCV(alphas=(1, 10, 100, 1000, 10000), fit_intercept=False)
    ridge.fit((features * unit).numpy(), actual.numpy())
    return torch.from_numpy(ridge.coef_).float() * unit
