"""Some of the heads: which ones to keep, and learning with them alone.

An estimator gives the other heads no weight, and layers without a head that is kept need not be captured. Heads are
chosen, and the way to choose them, within the images that are given: nothing else may be known of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.embedded import folder_of
from eyeline.errors import DataError
from eyeline.estimator import Estimator, sum_spans
from eyeline.features import KINDS
from eyeline.training.collect import Collected, read_collected, read_run
from eyeline.training.weights import (
    FitSettings,
    TrainingData,
    columns_of,
    learn_weights,
    pearson,
    split,
    training_data,
)

# To choose heads: the same LDS as the estimator's own settings, in a fraction of the time
QUICK = FitSettings(steps=200, batch=64, rate=4e-2, hidden=0)

FEWEST_TO_CHOOSE = 10  # images

Importance = Callable[[Estimator, TrainingData], Float[Tensor, " head"]]


def keep_heads(
    images: Sequence[Collected], shares: Sequence[float], settings: FitSettings
) -> dict[float, list[int]]:
    """The heads to keep for each share of them, at least one; a head is a pair of layer and head, numbered layer by layer.

    Raises `DataError` for what is no share.
    """
    for share in shares:
        if not 0 < share <= 1:
            raise DataError(
                f"{share:g} is no share of heads to keep; expected more than 0, and 1 at most, for all."
            )
    number = images[0].features.shape[-1] // len(KINDS)
    counts = {share: max(1, round(share * number)) for share in shares}
    quick = replace(QUICK, kinds=settings.kinds, link=settings.link)
    chosen = choose_heads(images, [count for count in set(counts.values()) if count < number], quick)
    chosen[number] = list(range(number))
    return {share: chosen[count] for share, count in counts.items()}


def heads_of(run: Path, share: float) -> tuple[tuple[int, ...], int]:
    """The heads to keep by a collection of every head of a few images, in order, and how many there are in all.

    So that a large collection of 8B models keeps a tenth of the bytes: the features that a fit would give no weight are never
    written. Raises `DataError` for a collection of something else and for too few images.
    """
    about, images = read_run(run), read_collected(run)
    if tuple(about["settings"].get("kinds", ())) != KINDS or about["settings"].get("heads"):
        raise DataError(
            f"{run} does not hold features of every head, and only those tell which heads matter; collect "
            f"{FEWEST_TO_CHOOSE} images or more with `--features heads`."
        )
    if len(images) < FEWEST_TO_CHOOSE:
        raise DataError(
            f"{run} holds {len(images)} images, too few to choose heads on; expected {FEWEST_TO_CHOOSE} or more."
        )
    kept = keep_heads(images, [share], FitSettings().settled())[share]
    return tuple(sorted(kept)), images[0].features.shape[-1] // len(KINDS)


def among_all(estimator: Estimator, heads: Sequence[int], count: int) -> Estimator:
    """An estimator of some heads, in order, as one of all `count`: the others have no weight."""
    features = count * len(estimator.kinds)
    return _spread(estimator, columns_of(features, estimator.kinds, heads, among=estimator.kinds), features)


def choose_heads(
    images: Sequence[Collected], counts: Sequence[int], settings: FitSettings
) -> dict[int, list[int]]:
    """The heads to keep, for each number of them: by the way in WAYS that does best on images held out of these."""
    if not counts:
        return {}
    best = _best_ways(images, counts, settings)
    everything = training_data(images, settings.kinds)
    final = {way: order_heads(everything, *WAYS[way], settings) for way in sorted(set(best.values()))}
    return {count: final[way][:count] for count, way in best.items()}


def _best_ways(images: Sequence[Collected], counts: Sequence[int], settings: FitSettings) -> dict[int, str]:
    """The way in WAYS for each number of heads."""
    shuffled = [one for part in split(images).values() for one in part]
    some = len(images) // 6 + len(images) // 8  # as many as a fit does not learn weights from
    learned, held = (
        training_data(shuffled[some:], settings.kinds),
        training_data(shuffled[:some], settings.kinds),
    )
    orders = {way: order_heads(learned, *WAYS[way], settings) for way in WAYS}

    def held_out(way: str, count: int) -> float:
        return held.correlation(learn_some(learned, settings, orders[way][:count])[0])

    return {count: max(WAYS, key=lambda way: held_out(way, count)) for count in counts}


def order_heads(
    data: TrainingData, importance: Importance, dropped: float, settings: FitSettings
) -> list[int]:
    """All heads, the most needed first: a share of them is dropped, the least important, and the others fitted again.

    `data` has the settings' kinds.
    """
    left = list(range(data.features.shape[-1] // len(settings.kinds)))
    order: list[int] = []
    while left:
        values = importance(learn_some(data, settings, left)[0], data).tolist()
        left.sort(key=lambda head: -values[head])
        stay = int(len(left) * (1 - dropped))
        left, order = left[:stay], left[stay:] + order
    return order


def by_weight(estimator: Estimator, data: TrainingData) -> Float[Tensor, " head"]:
    """How far the weights of a head's columns move scores: their sizes in units of the columns', summed."""
    return (estimator.weights.abs().sum(0) * data.sizes()).view(len(estimator.kinds), -1).sum(0)


def by_loss(estimator: Estimator, data: TrainingData) -> Float[Tensor, " head"]:
    """How far the correlation falls without a head, the others' weights left as they are.

    What a head adds to the scores is taken off them, so that features are read once for all heads.
    """
    random = data.of_random()
    measured, losses = random.falls, []
    for spans in random.spread():
        lengths, tokens = random.lengths[spans], random.tokens(spans)
        features, odds = random.features[tokens].float(), random.log_odds[tokens]
        subsets = random.subsets[random.image[spans].repeat_interleave(lengths)]
        game = estimator.game(features, odds)
        scores = game.scores(subsets)
        weighted = features * estimator.of_tokens(odds)[:, None]
        of_heads = weighted.unflatten(-1, (len(estimator.kinds), -1)).sum(2)  # (token, region, head)
        without = (scores - (one[:, None] @ subsets)[:, 0] for one in of_heads.unbind(-1))
        found = torch.stack([
            pearson(sum_spans(game.linked(each), lengths), measured[spans]) for each in chain([scores], without)
        ])  # fmt: skip
        losses.append(found[0] - found[1:])
    return torch.cat(losses, dim=1).mean(1)


# Importance of a head, and share of the heads that is dropped before the next fit
WAYS: Mapping[str, tuple[Importance, float]] = {
    "weight, at once": (by_weight, 1.0),
    "weight, by and by": (by_weight, 0.2),
    "loss, at once": (by_loss, 1.0),
    "loss, by and by": (by_loss, 0.2),
}


def learn_some(
    data: TrainingData, settings: FitSettings, heads: Sequence[int], device: torch.device | str = "cpu"
) -> tuple[Estimator, list[float]]:
    """`learn_weights` with some heads, as if no others had been collected; those have no weight. `data` has the settings' kinds.

    Where heads are left out, the network has twice the units, and half as many of the others are hidden from it in a step.
    """
    features = data.features.shape[-1]
    if len(heads) == features // len(settings.kinds):
        return learn_weights(data, settings, device)
    columns = columns_of(features, settings.kinds, heads, among=settings.kinds)
    settings = replace(settings, hidden=2 * settings.hidden, dropped=settings.dropped / 2)
    learned, losses = learn_weights(data.of(columns), settings, device)
    return _spread(learned, columns, features), losses


def learn(data: TrainingData, settings: FitSettings, heads: Sequence[int] | None = None) -> Estimator:
    """`learn_some` of training data of all kinds of features: those that are not the settings' have no weight either."""
    features = data.features.shape[-1]
    columns = columns_of(features, settings.kinds)
    heads = range(features // len(KINDS)) if heads is None else heads
    learned, _ = learn_some(data.of(columns), settings, heads)
    return replace(_spread(learned, columns, features), kinds=KINDS)


def _spread(estimator: Estimator, columns: Int[Tensor, " chosen"], features: int) -> Estimator:
    """With its columns where they are among more, of which the others have no weight."""

    def spread(values: Tensor) -> Tensor:
        return values.new_zeros(*values.shape[:-1], features).index_copy(-1, columns, values)

    network = None if estimator.network is None else estimator.network.columns(spread)
    return replace(estimator, weights=spread(estimator.weights), network=network)


def by_layer(kept: Sequence[int], heads: int, layers: int) -> list[list[int]]:
    """The heads that are kept in each layer, by their number there; `heads` are those of all layers together."""
    each = heads // layers
    return [[head % each for head in sorted(kept) if head // each == layer] for layer in range(layers)]


def count_layers(model: str, heads: int, given: int | None = None) -> int:
    """Layers of the language model: those given, or its configuration's. Raises `DataError` where heads do not fit them."""
    from transformers import AutoConfig

    try:
        place = folder_of(model) or model
        layers = given or AutoConfig.from_pretrained(place).get_text_config().num_hidden_layers
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"The configuration of {model!r} cannot be read; give the model's number of layers as --layers."
        ) from error
    if heads % layers:
        raise DataError(
            f"{heads} heads do not divide into {layers} layers; give the model's number of layers as --layers."
        )
    return layers
