"""An estimator from a collection: weights on some images, then effects and intervals on others.

Images are split three ways by the hashes of their ids: `fit` learns the weights (weights.py), `curve` what a predicted drop
means in nats and how widely effects lie around it, `cover` the width of the intervals.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.features import KINDS
from eyeline.training.collect import ALONE, WHOLE, Collected
from eyeline.training.heads import by_layer, count_layers, keep_heads, learn_some
from eyeline.training.weights import NOTHING, FitSettings, choose, split, training_data

COVERAGE = 0.9
ABOVE = 0.15  # share of the rest that lies above its interval: an effect that was missed is worse than one that is not there
FEWEST_IMAGES = 24
FEWEST_IN_BIN = (
    40  # pairs with the largest drops that make an outermost knot of the curve; bins further in hold more
)
LEAST_SLOPE = 0.02  # of the curve, nats for each nat predicted: no two drops have the same effect
NARROWEST = 1e-3  # nats: half an interval


def fit(
    collected: Sequence[Collected], run: dict[str, Any], settings: FitSettings, name: str, layers: int | None = None
) -> tuple[Estimator, dict[str, Any]]:  # fmt: skip
    """The estimator, and what happened on the way. Raises `DataError` where there are too few images.

    Where heads are left out, the card tells them by layer; `layers` of the language model are by default its configuration's.
    """
    if len(collected) < FEWEST_IMAGES:
        raise DataError(
            f"{len(collected)} images are too few to fit and calibrate an estimator; expected {FEWEST_IMAGES} at the very least, "
            "500 or more for numbers to rely on: collect more."
        )
    check_features(run, "The collection")
    settings, splits = settings.settled(), split(collected)
    number = collected[0].features.shape[-1] // len(KINDS)
    if 0 < settings.heads < 1:
        layers = count_layers(run["model"], number, layers)
    kept = keep_heads(splits["fit"], [settings.heads], settings)[settings.heads]
    learned, losses = learn_some(training_data(splits["fit"], settings.kinds), settings, kept)
    raw = replace(learned, id=name)
    drops, actual, _ = _alone(splits["curve"], raw)
    scale = float((drops @ actual) / (drops @ drops).clamp(min=1e-12))
    if scale <= 0:
        raise DataError(
            f"The weights found on {len(splits['fit'])} images do not predict the effects of single regions in others; "
            "collect more images, and check that the model reads them."
        )
    if settings.link == "identity":  # correlation tells no scale
        raw, drops = replace(raw, weights=raw.weights * scale), drops * scale
    raw = replace(raw, curve=_curve(drops, actual), whole=_whole(splits["curve"], raw))
    drops, actual, image = _alone(splits["cover"], raw)
    effects, (low, high) = raw.effects(drops), raw.intervals(drops).T
    outside = torch.maximum(low - actual, actual - high) / (high - low)
    margin = _conformal_quantile(outside, image, COVERAGE)
    card = {
        "model": run["model"], "fingerprint": run["fingerprint"], "ablation": run["settings"]["method"],
        "regions": run["settings"]["regions"], "images": {part: len(images) for part, images in splits.items()},
        "coverage": COVERAGE, "unit": "nats", "loss": round(losses[-1], 4),
        "fit": {**asdict(settings), "kinds": list(settings.kinds)}, "collection": run["settings"], "version": run["version"],
        "r2_nats_held_out": round(1 - float((actual - effects).square().sum() / (actual - actual.mean()).square().sum()), 4),
    }  # fmt: skip
    if layers is not None and settings.heads < 1:
        card["heads"] = by_layer(kept, number, layers)
    return replace(raw, curve=_widen(raw.curve, margin), card=card), {"losses": losses}


def check_features(run: dict[str, Any], what: str) -> None:
    """Raises `DataError` for a collection with other features than this version's."""
    if tuple(run["settings"].get("kinds", ())) != KINDS:
        raise DataError(
            f"{what} holds other features than {', '.join(KINDS)}; collect again with this version of Eyeline."
        )


def predict_alone(one: Collected, estimator: Estimator) -> Float[Tensor, "span region"]:
    """The drops of single regions as the estimator predicts them, before its curve; nats."""
    return _predict(one, estimator, torch.eye(one.features.shape[1]))


def _predict(
    one: Collected, estimator: Estimator, subsets: Float[Tensor, "region subset"]
) -> Float[Tensor, "span subset"]:
    scores = estimator.scores(choose(one.features, estimator.kinds).float(), one.log_odds, subsets)
    return estimator.drops(scores, one.log_odds, one.lengths)


def _alone(images: Sequence[Collected], estimator: Estimator) -> tuple[Tensor, Tensor, Tensor]:
    """Predicted and measured drops of single regions, all spans, and the number of each one's image."""
    predicted, actual, image = [], [], []
    for number, one in enumerate(images):
        predicted.append(predict_alone(one, estimator).flatten())
        actual.append(one.drops[:, one.rates == ALONE].flatten())
        image.append(torch.full((actual[-1].numel(),), number))
    return torch.cat(predicted), torch.cat(actual), torch.cat(image)


def _curve(drops: Float[Tensor, " pair"], actual: Float[Tensor, " pair"]) -> Float[Tensor, "knot 4"]:
    """What regions of a predicted drop really do, by bins of pairs of like drop: mean effect, and where COVERAGE of them lie.

    Bins are small where drops are large, there pairs are few and effects differ. Mean effects are made monotone
    (isotonic regression), and shifted so that a drop of 0 is no effect.
    """
    order = drops.argsort()
    negative = int((drops < 0).sum())
    bins = [*_growing(order[:negative]), *reversed(_growing(order[negative:].flip(0)))]
    at = torch.stack([drops[each].mean() for each in bins])
    effect = torch.stack([actual[each].mean() for each in bins])
    tails = torch.tensor([(1 - ABOVE) * (1 - COVERAGE), 1 - ABOVE * (1 - COVERAGE)])
    low, high = torch.stack([actual[each].quantile(tails) for each in bins], dim=1)
    sizes = torch.tensor([float(len(each)) for each in bins])
    effect = _monotone(effect - LEAST_SLOPE * at, sizes) + LEAST_SLOPE * at
    curve = torch.stack([at, effect, low, high], dim=1)
    kept = torch.cat([curve[1:, 0] > curve[:-1, 0], torch.tensor([True])])  # like drops make one knot
    curve = curve[kept]
    if len(curve) < 2:
        curve = torch.cat([curve[:1] - 1, curve[:1]])
    nothing = Estimator("", drops[None, :0], curve, torch.ones(())).effects(torch.zeros(1))
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


def _whole(images: Sequence[Collected], estimator: Estimator) -> Float[Tensor, ""]:
    """The measured drop with everything hidden for each nat predicted, by least squares."""
    predicted = torch.cat(
        [_predict(one, estimator, torch.ones(one.features.shape[1], 1))[:, 0] for one in images]
    )
    actual = torch.cat([one.drops[:, one.rates == WHOLE][:, 0] for one in images])
    return (predicted @ actual) / (predicted @ predicted).clamp(min=NOTHING)
