"""An estimator from a collection: weights on some images, then their scale and how far off they are on others.

Images are split three ways by the hashes of their ids: `fit` learns the weights (weights.py), `scale` what they mean in nats,
`cover` how widely measured effects and contributions lie around predicted ones.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize
from torch import Tensor

from eyeline import audit
from eyeline.errors import DataError
from eyeline.estimator import Estimator, interval, sum_spans
from eyeline.game import Game, contributions, orders
from eyeline.head_set import KINDS, SET, as_set, is_set
from eyeline.metrics import lds, varies
from eyeline.training.collect import ALONE, Collected
from eyeline.training.heads import among_all, by_layer, count_layers, keep_heads, learn_some
from eyeline.training.weights import (
    FEWEST_COVER,
    NOTHING,
    FitSettings,
    choose,
    learn_weights,
    split,
    training_data,
)

COVERAGE = 0.9
ABOVE = 0.15  # share of the rest that lies above its interval: an effect that was missed is worse than one that is not there
FEWEST_IMAGES, ENOUGH_IMAGES = 24, 500  # to fit at all, and for numbers to rely on
FEWEST_IN_BIN = (
    40  # pairs with the largest values that make an outermost knot of a spread; bins further in hold more
)
NARROWEST = 1e-3  # nats: half an interval
REACH = 5.0  # how far the logarithm of a scale may lie from the first guess's

Pairs = tuple[
    Tensor, Tensor, Tensor
]  # predicted and measured values, nats, and the number of each one's image


def fit(
    collected: Sequence[Collected], run: dict[str, Any], settings: FitSettings, name: str, layers: int | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Estimator, dict[str, Any]]:  # fmt: skip
    """The estimator, and what happened on the way. Raises `DataError` where there are too few images.

    Where heads are left out, the card tells them by layer; `layers` of the language model are by default its configuration's.
    """
    if len(collected) < FEWEST_IMAGES:
        raise DataError(
            f"{len(collected)} images are too few to fit and calibrate an estimator; expected {FEWEST_IMAGES} at the very least, "
            f"{ENOUGH_IMAGES} or more for numbers to rely on: collect more."
        )
    settings, splits = settings.settled(), split(with_features(collected, run, settings.kinds))
    number, kept = collected[0].features.shape[-1] // len(KINDS), []
    some = run["settings"].get("heads") or range(number)  # of which features were collected
    in_all = run["settings"].get("heads_in_all") or number
    if not is_set(settings.kinds):
        if 0 < settings.heads < 1 or len(some) < in_all:
            layers = count_layers(run["model"], in_all, layers)
        kept = keep_heads(splits["fit"], [settings.heads], settings)[settings.heads]
        learned, losses = learn_some(training_data(splits["fit"], settings.kinds), settings, kept, device)
    else:
        learned, losses = learn_weights(training_data(splits["fit"], settings.kinds), settings, device)
    scaled = scale(splits["scale"], replace(learned, id=name))
    effects = effect_pairs(splits["cover"], scaled)
    card = {
        "model": run["model"], "fingerprint": run["fingerprint"], "hiding": run["settings"]["hiding"],
        "regions": run["settings"]["regions"], "images": {part: len(images) for part, images in splits.items()},
        "coverage": COVERAGE, "unit": "nats", "loss": round(losses[-1], 4),
        "fit": {**asdict(settings), "kinds": list(settings.kinds)}, "collection": run["settings"], "version": run["version"],
        "r2_nats_held_out": round(r2_nats(*effects[:2]), 4),
    }  # fmt: skip
    if (held_out := mean_lds(splits["cover"], scaled)) is not None:
        card["lds_held_out"] = round(held_out, 4)
    if layers is not None and (settings.heads < 1 or len(some) < in_all):
        card["heads"] = by_layer([some[head] for head in kept], in_all, layers)
    shape = binned(*effect_pairs(splits["scale"], scaled)[:2])
    found = replace(
        scaled, card=card, effect_spread=spread(shape, effects),
        contribution_spread=contribution_spread(splits["cover"], scaled, shape),
    )  # fmt: skip
    return found if len(some) == in_all else among_all(found, some, in_all), {"losses": losses}


def contribution_spread(
    images: Sequence[Collected], estimator: Estimator, shape: Float[Tensor, "knot 3"]
) -> Float[Tensor, "other_knot 3"]:
    """That of contributions, of the images on which they were measured; where those are few, in the shape of the effects'."""
    some = [one for one in images if one.contributions is not None]
    if len(some) >= 2 * FEWEST_COVER:
        shape = binned(*contribution_pairs(some[::2], estimator)[:2])
        some = some[1::2]
    return shape if len(some) < FEWEST_COVER else spread(shape, contribution_pairs(some, estimator))


def check_features(run: dict[str, Any], what: str) -> None:
    """Raises `DataError` for a collection with other features than this version's of every head."""
    if tuple(run["settings"].get("kinds", ())) != KINDS:
        raise DataError(
            f"{what} holds other features than {', '.join(KINDS)} of every head; collect again with `--features heads` and this "
            "version of Eyeline."
        )


def with_features(
    collected: Sequence[Collected], run: dict[str, Any], kinds: Sequence[str]
) -> Sequence[Collected]:
    """Those of a collection that features of some kinds are among. Raises `DataError` where it does not hold them."""
    if not is_set(kinds) or tuple(run["settings"].get("kinds", ())) != SET:
        check_features(run, "The collection")
    if not is_set(kinds) or tuple(run["settings"]["kinds"]) == SET:
        return collected
    if run["settings"].get("heads"):
        raise DataError(
            "The collection holds features of some heads, and a set takes all of them; collect again with `--features set`, or "
            "fit other --kinds."
        )
    return [replace(one, features=as_set(one.features.float())) for one in collected]


def game_of(one: Collected, estimator: Estimator) -> Game:
    """The game of all tokens of an image's spans."""
    return estimator.game(choose(one.features, estimator.kinds).float(), one.log_odds)


def games_of(one: Collected, estimator: Estimator) -> Iterator[Game]:
    """Those of its spans, one after the other."""
    game, start = game_of(one, estimator), 0
    for length in one.lengths.tolist():
        yield game.of(start, start + length)
        start += length


def mean_lds(images: Sequence[Collected], estimator: Estimator) -> float | None:
    """How joint falls of random halves of the regions, or of the rate nearest to that, rank beside measured ones.

    Mean over an image's spans that hiding does something to, then over images; None where it does nothing.
    """
    found = []
    for one in images:
        at = one.rates == min(one.rates[one.rates > 0].tolist(), key=lambda rate: abs(rate - audit.RATE))
        falls = one.falls[:, at]
        predicted = sum_spans(game_of(one, estimator).falls(one.subsets[at].float().T), one.lengths)
        if (counted := varies(falls)).any():
            found.append(float(lds(predicted[counted], falls[counted]).mean()))
    return sum(found) / len(found) if found else None


def r2_nats(predicted: Float[Tensor, " pair"], actual: Float[Tensor, " pair"]) -> float:
    """1 - SSE / SST."""
    return 1 - float((actual - predicted).square().sum() / (actual - actual.mean()).square().sum())


def scale(images: Sequence[Collected], estimator: Estimator) -> Estimator:
    """With weights whose scores are nats: what is learned from correlations knows no size.

    A factor for each set of weights, and for the units that see hidden regions together one more, by least squares of the
    falls of spans over subsets of every size, each size weighing the same. So one game holds for all sizes, everything hidden
    included. Raises `DataError` where no factor above 0 helps.
    """
    data = [_Parts.of(one, estimator) for one in images]
    rates = images[0].rates.unique().tolist()
    sizes = {}
    for rate in rates:
        actual = torch.cat([each.at(each.falls, rate).flatten() for each in data])
        sizes[rate] = (actual - actual.mean()).square().sum().clamp(min=NOTHING)
    guess = _first_guess(images, estimator)

    def loss(powers: np.ndarray) -> tuple[float, np.ndarray]:
        """And its gradient."""
        at = torch.tensor(powers, dtype=torch.float32, requires_grad=True)
        total = 0.0
        for each in data:
            off = each.predict(guess * at.view(2, -1).exp()) - each.falls
            part: Any = sum(each.at(off, rate).square().sum() / sizes[rate] for rate in rates)
            part.backward()
            total += float(part.detach())
        assert at.grad is not None, "every image has spans"
        return total, at.grad.numpy().astype(float)

    start = np.zeros(2 * len(estimator.weights))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(-REACH, REACH)] * len(start))
    factors = guess * torch.tensor(found.x, dtype=torch.float32).view(2, -1).exp()
    return _times(estimator, factors)


@dataclass(frozen=True, eq=False)
class _Parts:
    """The game of an image's tokens, each set of weights by itself, so that factors are tried without reading features again."""

    sets: list[Game]
    subsets: Float[Tensor, "region subset"]
    rates: Float[Tensor, " subset"]
    lengths: Int[Tensor, " span"]
    falls: Float[Tensor, "span subset"]  # measured, nats

    @staticmethod
    def of(one: Collected, estimator: Estimator) -> "_Parts":
        ones = torch.eye(len(estimator.weights))
        sets = [game_of(one, _times(estimator, alone.expand(2, -1))) for alone in ones]
        return _Parts(sets, one.subsets.float().T, one.rates, one.lengths, one.falls)

    def predict(self, factors: Float[Tensor, "part set"]) -> Float[Tensor, "span subset"]:
        """What is predicted with the scores of each set times its factors."""
        apart: Any = sum(factor * game.apart for factor, game in zip(factors[0], self.sets, strict=True))
        outward: Any = sum(factor * game.outward for factor, game in zip(factors[1], self.sets, strict=True))
        game = replace(self.sets[0], apart=apart, outward=outward)
        return sum_spans(game.falls(self.subsets), self.lengths)

    def at(self, values: Float[Tensor, "span subset"], rate: float) -> Float[Tensor, "span some"]:
        return values[:, self.rates == rate]


def _first_guess(images: Sequence[Collected], estimator: Estimator) -> Float[Tensor, ""]:
    """Least squares of single regions' falls alone, as if falls were lines of scores."""
    predicted, actual, _ = effect_pairs(images, estimator)
    factor = (predicted @ actual) / (predicted @ predicted).clamp(min=NOTHING)
    if factor <= 0:
        raise DataError(
            "The weights found do not predict the effects of single regions in other images; collect more images, and "
            "check that the model reads them."
        )
    return factor


def _times(estimator: Estimator, factors: Float[Tensor, "part set"]) -> Estimator:
    """Its scores times a factor for each set: the first row's for what regions do apart, the second's for that together."""
    network = estimator.network
    if network is not None:
        apart, together = network.outward.tensor_split(2, dim=1)
        outward = torch.cat([apart * factors[0, :, None], together * factors[1, :, None]], dim=1)
        network = replace(network, outward=outward)
    return replace(estimator, weights=estimator.weights * factors[0, :, None], network=network)


def effect_pairs(images: Sequence[Collected], estimator: Estimator) -> Pairs:
    """Effects of single regions, all spans."""
    return _pairs(images, estimator, Game.alone, lambda one: one.falls[:, one.rates == ALONE])


def contribution_pairs(images: Sequence[Collected], estimator: Estimator) -> Pairs:
    """Contributions, of images on which they were measured."""
    along = {count: orders(count) for count in {one.subsets.shape[1] for one in images}}
    return _pairs(
        images,
        estimator,
        lambda game: contributions(game, along[game.regions]),
        lambda one: one.contributions,
    )


def _pairs(
    images: Sequence[Collected], estimator: Estimator, predict: Callable[[Game], Tensor],
    measured: Callable[[Collected], Any],
) -> Pairs:  # fmt: skip
    predicted, actual, image = [], [], []
    for number, one in enumerate(images):
        predicted += [predict(game) for game in games_of(one, estimator)]
        actual.append(measured(one).flatten())
        image.append(torch.full((actual[-1].numel(),), number))
    return torch.cat(predicted), torch.cat(actual), torch.cat(image)


def spread(
    shape: Float[Tensor, "knot 3"], pairs: Pairs, *, conformal: bool = True
) -> Float[Tensor, "knot 3"]:
    """The intervals of a shape wider, or narrower, by one share of their widths, to hold COVERAGE of a new image's values.

    Conformalised quantile regression (Romano et al. 2019, arXiv 1905.03222), on images that the shape does not know. What is
    added so that a new image is held in expectation (`conformal`) would go to nearly the largest error with ten images.
    """
    predicted, actual, image = pairs
    low, high = interval(predicted, shape).T
    outside = torch.maximum(low - actual, actual - high) / (high - low)
    quantile = _conformal_quantile if conformal else _quantile
    return _widen(shape, quantile(outside, image, COVERAGE))


def binned(predicted: Float[Tensor, " pair"], actual: Float[Tensor, " pair"]) -> Float[Tensor, "knot 3"]:
    """By bins of pairs of like predicted value: their mean, and between which ends COVERAGE of what is off lies.

    Bins are small where values are large: there pairs are few and differ most.
    """
    order = predicted.argsort()
    negative = int((predicted < 0).sum())
    bins = [*_growing(order[:negative]), *reversed(_growing(order[negative:].flip(0)))]
    at = torch.stack([predicted[each].mean() for each in bins])
    tails = torch.tensor([(1 - ABOVE) * (1 - COVERAGE), 1 - ABOVE * (1 - COVERAGE)])
    low, high = torch.stack([(actual - predicted)[each].quantile(tails) for each in bins], dim=1)
    found = torch.stack([at, low, high], dim=1)
    found = found[
        torch.cat([found[1:, 0] > found[:-1, 0], torch.tensor([True])])
    ]  # like values make one knot
    if len(found) < 2:
        found = torch.cat([found[:1] - torch.tensor([1.0, 0.0, 0.0]), found[:1]])
    return _widen(found, 0.0)


def _growing(order: Int[Tensor, " pair"]) -> list[Int[Tensor, " _some"]]:
    """Cut into bins of FEWEST_IN_BIN and then half as many again each time; the last one takes what is left."""
    ends, size = [FEWEST_IN_BIN], FEWEST_IN_BIN
    while ends[-1] + 2 * size < len(order):
        size = size * 3 // 2
        ends.append(ends[-1] + size)
    return [each for each in order.tensor_split(ends[:-1]) if len(each)]


def _widen(spread: Float[Tensor, "knot 3"], margin: float) -> Float[Tensor, "knot 3"]:
    """Its intervals wider by a share of their width on each side, holding the predicted value, and never empty."""
    at, low, high = spread.T
    room = margin * (high - low)
    return torch.stack([at, (low - room).clamp(max=-NARROWEST), (high + room).clamp(min=NARROWEST)], dim=1)


def _quantile(values: Tensor, image: Tensor, share: float) -> float:
    """The least value with at least `share` of the pairs at or below it; images weigh the same."""
    counts = torch.bincount(image)
    order = values.argsort()
    reached = (1 / counts[image[order]].double()).cumsum(0) >= share * len(counts) - 1e-9
    assert reached.any(), "no value is high enough"
    return float(values[order][int(reached.int().argmax())])


def _conformal_quantile(values: Tensor, image: Tensor, coverage: float) -> float:
    """The width that holds at least a share `coverage` of the pairs of a new image, in expectation.

    Pairs of one image are not independent, images are: each of n images weighs 1 / (n + 1), spread evenly over its
    pairs, and the new one 1 / (n + 1) at infinity (Lee, Barber & Willett 2023, arXiv 2306.06342, HCP).
    """
    images = len(torch.bincount(image))
    return _quantile(values, image, coverage * (images + 1) / images)
