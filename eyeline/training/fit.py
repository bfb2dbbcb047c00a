"""Collected spans -> an estimator: Pearson loss on random subsets, then effects and intervals on other images.

Images are split three ways by the hashes of their ids: `fit` learns the direction of the weights, `curve` what a score
means in nats and how widely effects lie around it, `cover` the width of the intervals.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
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
FEWEST_IN_BIN = (
    40  # pairs with the largest scores that make an outermost knot of the curve; bins further in hold more
)
LEAST_SLOPE = 0.02  # of the curve, nats for each unit of score: no two scores have the same effect
NARROWEST = 1e-3  # nats: half an interval


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
    """Images in the order of their ids' hashes: a sixth to `curve`, an eighth to `cover`, the rest to `fit`."""
    shuffled = sorted(collected, key=lambda one: hashlib.sha256(one.id.encode()).digest())
    curve = len(shuffled) // 6
    cover = curve + max(len(shuffled) // 8, FEWEST_COVER)
    return {"curve": shuffled[:curve], "cover": shuffled[curve:cover], "fit": shuffled[cover:]}


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
    check_features(run, "The collection")
    splits = split(collected)
    direction, losses = learn_direction(*joint_features(splits["fit"], settings.kinds), settings)
    scores, actual, _ = _alone(splits["curve"], direction, settings.kinds)
    scale = float((scores @ actual) / (scores @ scores).clamp(min=1e-12))
    if scale <= 0:
        raise DataError(
            f"The weights found on {len(splits['fit'])} images do not predict the effects of single regions in others; "
            "collect more images, and check that the model reads them."
        )
    weights = direction * scale
    raw = Estimator(
        name, weights, _whole(splits["fit"], settings.kinds), _curve(scores * scale, actual), settings.kinds
    )
    scores, actual, image = _alone(splits["cover"], weights, settings.kinds)
    effects, (low, high) = raw.effects(scores), raw.intervals(scores).T
    outside = torch.maximum(low - actual, actual - high) / (high - low)
    margin = _conformal_quantile(outside, image, COVERAGE)
    card = {
        "model": run["model"], "fingerprint": run["fingerprint"], "ablation": run["settings"]["method"],
        "regions": run["settings"]["regions"], "images": {part: len(images) for part, images in splits.items()},
        "coverage": COVERAGE, "unit": "nats", "pearson_loss": round(losses[-1], 4),
        "fit": {**asdict(settings), "kinds": list(settings.kinds)}, "collection": run["settings"], "version": run["version"],
        "r2_nats_held_out": round(1 - float((actual - effects).square().sum() / (actual - actual.mean()).square().sum()), 4),
    }  # fmt: skip
    return replace(raw, curve=_widen(raw.curve, margin), card=card), {"losses": losses}


def check_features(run: dict[str, Any], what: str) -> None:
    """Raises `DataError` for a collection with other features than this version's."""
    if tuple(run["settings"].get("kinds", ())) != KINDS:
        raise DataError(
            f"{what} holds other features than {', '.join(KINDS)}; collect again with this version of Eyeline."
        )


def joint_features(
    images: Sequence[Collected], kinds: Sequence[str]
) -> tuple[Float[Tensor, "span subset feature"], Float[Tensor, "span subset"]]:
    """What a direction is learned from: summed features and effects of the random subsets, of spans that depend on them."""
    joint, drops = [], []
    for one in images:
        random = one.rates > 0
        features = choose(one.features, kinds)
        wanted = one.drops[:, random].std(dim=1) > MIN_SPREAD
        joint.append(torch.einsum("mk,skf->smf", one.subsets[random].float(), features[wanted]))
        drops.append(one.drops[wanted][:, random])
    inputs, targets = torch.cat(joint), torch.cat(drops)
    if not len(inputs):
        raise DataError("No span of the collection depends on the image; check that the model sees it.")
    return inputs, targets


def learn_direction(
    inputs: Float[Tensor, "span subset feature"], targets: Float[Tensor, "span subset"], settings: FitSettings
) -> tuple[Float[Tensor, " feature"], list[float]]:
    """Weights that maximise the mean Pearson correlation of a span's predicted and actual effects over random subsets."""
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


def _curve(scores: Float[Tensor, " pair"], actual: Float[Tensor, " pair"]) -> Float[Tensor, "knot 4"]:
    """What regions of a score do when hidden, by bins of pairs of like score: mean effect, and where COVERAGE of them lie.

    Bins are small where scores are large, there pairs are few and effects differ. Mean effects are made monotone
    (isotonic regression), and shifted so that a score of 0 is no effect.
    """
    order = scores.argsort()
    negative = int((scores < 0).sum())
    bins = [*_growing(order[:negative]), *reversed(_growing(order[negative:].flip(0)))]
    at = torch.stack([scores[each].mean() for each in bins])
    effect = torch.stack([actual[each].mean() for each in bins])
    tails = torch.tensor([(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    low, high = torch.stack([actual[each].quantile(tails) for each in bins], dim=1)
    sizes = torch.tensor([float(len(each)) for each in bins])
    effect = _monotone(effect - LEAST_SLOPE * at, sizes) + LEAST_SLOPE * at
    curve = torch.stack([at, effect, low, high], dim=1)
    kept = torch.cat([curve[1:, 0] > curve[:-1, 0], torch.tensor([True])])  # like scores make one knot
    curve = curve[kept]
    if len(curve) < 2:
        curve = torch.cat([curve[:1] - 1, curve[:1]])
    nothing = Estimator("", scores[:0], scores[:0], curve).effects(torch.zeros(1))
    curve[:, 1] -= nothing
    return _widen(curve, 0.0)


def _growing(order: Int[Tensor, " pair"]) -> list[Int[Tensor, " _some"]]:
    """Cut into bins of FEWEST_IN_BIN and then half as many again each time; the last one takes what is left."""
    ends, size = [FEWEST_IN_BIN], FEWEST_IN_BIN
    while ends[-1] + 2 * size < len(order):
        size = size * 3 // 2
        ends.append(ends[-1] + size)
    return [each for each in order.tensor_split(ends[:-1]) if len(each)]


def _monotone(values: Float[Tensor, " knot"], weights: Float[Tensor, " knot"]) -> Float[Tensor, " knot"]:
    from sklearn.isotonic import IsotonicRegression

    places = torch.arange(len(values))
    fitted = IsotonicRegression().fit(places.numpy(), values.numpy(), weights.numpy()).predict(places.numpy())
    return torch.from_numpy(fitted).to(values)


def _widen(curve: Float[Tensor, "knot 4"], margin: float) -> Float[Tensor, "knot 4"]:
    """The curve's intervals wider by a share of their width on each side, holding their effect, and never empty."""
    at, effect, low, high = curve.T
    room = margin * (high - low)
    low = torch.minimum(low - room, effect - NARROWEST)
    high = torch.maximum(high + room, effect + NARROWEST)
    return torch.stack([at, effect, low, high], dim=1)


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
