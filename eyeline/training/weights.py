"""Collected spans -> the weights of an estimator: what is maximised is how well predicted and measured falls correlate.

The loss is of arXiv 2604.16587 and AT2 (arXiv 2504.13752), Pearson's correlation over random subsets; tokens, ranks, single
regions and sizes across spans beside it are ours (docs/method.md, step 6).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from eyeline.errors import DataError
from eyeline.estimator import SETS, Compressed, Estimator, Link, Network, compress, sum_spans
from eyeline.head_set import KINDS, is_set
from eyeline.training.collect import ALONE, WHOLE, Collected, place
from eyeline.training.large import joined

FEWEST_COVER = 9  # images: COVERAGE * (1 + 1 / 9) = 1, with fewer no finite width is enough
MIN_SPREAD = 0.05  # nats: spans whose effects vary less say nothing about weights
LEAST_OF_TOKEN = 0.02  # nats: the same of single tokens
NOTHING = 1e-12  # features that vary less are dead; they get no weight
BEGIN_INWARD = 0.05  # the standard deviation of what learning begins with inside the network
BEGIN = 2.0  # the standard deviation of scores that learning begins with, in all features
SPREAD = 1000  # spans that tell how well weights do while they are being compared
SOFTNESS = (
    0.1  # standard deviations of a span's predicted falls within which a rank is neither above nor below
)
AT_ONCE = 2**14  # tokens whose features are read in float32
UNKNOWN = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])  # a spread that is not measured yet


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How the weights are learned; chosen on held-out training images (docs/log.md)."""

    kinds: tuple[str, ...] = ("value", "odds", "change")
    link: Link = "log-odds"
    steps: int = 800
    batch: int = 128  # spans
    rate: float = (
        2e-2  # of the scale that all weights have in common; a quarter of it for each, a tenth in the network
    )
    hidden: int = 32  # units of the network; 0 for none, and with the identity there is none
    dropped: float = 0.3  # share of the heads that the network does not see in a step
    tokens: float = 0.5  # share that single tokens have in what is maximised, beside spans; with the identity they have none
    ranks: float = (
        0.5  # share that the correlation of ranks has in what is maximised; with the identity it has none
    )
    alone: float = 0.5  # share that regions by themselves have in it, beside random subsets; with the identity they have none
    across: float = 0.1  # share that the spans of a batch have in it, against each other; with the identity they have none
    heads: float = 1.0  # share of the heads that are kept, chosen first; the others get no weight
    seed: int = 0

    def settled(self) -> "FitSettings":
        """As they are used: the link `identity` knows random subsets of spans, Pearson and linear maps alone.

        A set of heads has no heads to keep or to hide from the network.
        """
        if is_set(self.kinds):
            return replace(self, heads=1.0, dropped=0.0)
        if self.link != "identity":
            return self
        return replace(self, hidden=0, tokens=0.0, ranks=0.0, alone=0.0, across=0.0)


def split(collected: Sequence[Collected]) -> dict[str, list[Collected]]:
    """Images in the order of their `place`: an eighth to `cover`, a sixth to `scale`, the rest to `fit`.

    `cover` comes first: contributions are measured on the first images in that order.
    """
    ordered = sorted(collected, key=lambda one: place(one.id))
    cover = max(len(ordered) // 8, FEWEST_COVER)
    scale = cover + len(ordered) // 6
    return {"cover": ordered[:cover], "scale": ordered[cover:scale], "fit": ordered[scale:]}


def columns_of(
    features: int, kinds: Sequence[str], heads: Sequence[int] | None = None, among: Sequence[str] = KINDS
) -> Int[Tensor, " chosen"]:
    """Where the columns of some kinds, in the order that is given, and of some heads are among those of more kinds.

    A head is a pair of layer and head, numbered layer by layer.
    """
    number = features // len(among)
    within = torch.arange(number) if heads is None else torch.tensor(sorted(heads))
    return torch.cat([among.index(kind) * number + within for kind in kinds])


def choose(
    features: Float[Tensor, "token region feature"], kinds: Sequence[str]
) -> Float[Tensor, "token region chosen"]:
    """The columns of some kinds out of a collection's, which holds all, in the order that is given; of heads as a set all."""
    if is_set(kinds):
        return features
    return features[..., columns_of(features.shape[-1], kinds)]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What weights are learned from: tokens of the spans that depend on the image, and the effects of subsets.

    The random subsets of an image come first, `random` of them, then each of its regions by itself, and all of them last.
    """

    features: Float[Tensor, "token region feature"]  # as collected; an image with fewer regions has zeros
    log_odds: Float[Tensor, " token"]
    lengths: Int[Tensor, " span"]  # tokens of each span, one span after the other
    image: Int[Tensor, " span"]
    subsets: Float[Tensor, "image region subset"]
    counted: Bool[Tensor, "image subset"]  # not so the regions that an image has fewer of than another
    token_falls: Float[Tensor, "token subset"]  # measured, nats
    random: int

    @property
    def falls(self) -> Float[Tensor, "span subset"]:
        """Those of each span's tokens, summed."""
        return sum_spans(self.token_falls, self.lengths)

    def of(self, columns: Int[Tensor, " chosen"]) -> "TrainingData":
        """With some of the features alone."""
        parts = (part[..., columns] for part in self.features.split(AT_ONCE))
        return replace(self, features=joined(parts, len(self.features)))

    def of_random(self) -> "TrainingData":
        """With the random subsets alone."""
        return replace(
            self, subsets=self.subsets[..., : self.random], counted=self.counted[:, : self.random],
            token_falls=self.token_falls[:, : self.random],
        )  # fmt: skip

    def sizes(self) -> Float[Tensor, " feature"]:
        """The root mean square of each feature over tokens and regions."""
        powers = [part.float().square().sum((0, 1)) for part in self.features.split(AT_ONCE)]
        return (torch.stack(powers).sum(0) / self.features[..., 0].numel()).sqrt()

    def compressed(self, unit: Float[Tensor, " feature"]) -> Compressed:
        """The features as a network sees them, in units of their own; those of regions as float16."""
        image: list[Tensor] = []

        def regions() -> Iterator[Tensor]:
            for part in self.features.split(AT_ONCE):
                seen = compress(part.float(), unit)
                image.append(seen.image)
                yield seen.regions.half()

        return Compressed(joined(regions(), len(self.features)), torch.cat(image))

    def predict(
        self, estimator: Estimator, spans: Int[Tensor, " some"], compressed: Compressed | None = None
    ) -> Float[Tensor, "some subset"]:
        """The falls of some spans as an estimator predicts them for the subsets, nats; for `compressed` see `predict_tokens`."""
        return sum_spans(self.predict_tokens(estimator, spans, compressed), self.lengths[spans])

    def tokens(self, spans: Int[Tensor, " some"]) -> Int[Tensor, " token"]:
        """Where the tokens of some spans are."""
        lengths = self.lengths[spans]
        skipped = (self.lengths.cumsum(0) - self.lengths)[spans] - (lengths.cumsum(0) - lengths)
        return torch.arange(int(lengths.sum())) + skipped.repeat_interleave(lengths)

    def predict_tokens(
        self, estimator: Estimator, spans: Int[Tensor, " some"], compressed: Compressed | None = None
    ) -> Float[Tensor, "token subset"]:
        """The falls of the tokens of some spans as an estimator predicts them for the subsets, nats.

        `compressed` are all features as the estimator's network sees them, if it has one and they are at hand.
        """
        tokens, device = self.tokens(spans), estimator.weights.device
        subsets = self.subsets[self.image[spans].repeat_interleave(self.lengths[spans])].to(device)
        seen = None
        if compressed is not None:
            seen = Compressed(
                compressed.regions[tokens].to(device).float(), compressed.image[tokens].to(device)
            )
        features, log_odds = self.features[tokens].to(device).float(), self.log_odds[tokens].to(device)
        return estimator.game(features, log_odds, seen).falls(subsets)

    def spread(self) -> tuple[Int[Tensor, " _some"], ...]:
        """Spans spread over the images, enough to tell how well weights do, some at a time."""
        return torch.arange(len(self.lengths))[:: 1 + len(self.lengths) // SPREAD].split(128)

    def correlation(self, estimator: Estimator) -> float:
        """Mean Pearson correlation of predicted and measured falls over random subsets, of spans spread over the images."""
        random = self.of_random()
        falls = random.falls
        parts = [pearson(random.predict(estimator, some), falls[some]) for some in self.spread()]
        return float(torch.cat(parts).mean())


def training_data(images: Sequence[Collected], kinds: Sequence[str]) -> TrainingData:
    """What weights are learned from; features larger than memory is to hold are mapped (large.py).

    Raises `DataError` where no span depends on its image.
    """
    regions = max((one.subsets.shape[1] for one in images), default=0)
    told, log_odds, lengths, image, subsets, counted, token_falls = [], [], [], [], [], [], []
    for number, one in enumerate(images):
        random, alone = one.rates > 0, one.rates == ALONE
        wanted = one.falls[:, random].std(dim=1) > MIN_SPREAD
        tokens = wanted.repeat_interleave(one.lengths)
        more = regions - one.subsets.shape[1]
        first, last = torch.cat([random.nonzero()[:, 0], alone.nonzero()[:, 0]]), one.rates == WHOLE
        own = torch.cat(
            [one.subsets[first], torch.zeros(more, regions - more, dtype=torch.bool), one.subsets[last]]
        )
        told.append(tokens)
        log_odds.append(one.log_odds[tokens])
        lengths.append(one.lengths[wanted])
        image.append(torch.full((int(wanted.sum()),), number))
        subsets.append(pad(own.T.float(), (0, 0, 0, more)))
        counted.append(torch.ones(len(own), dtype=torch.bool))
        counted[-1][len(first) : len(first) + more] = False
        falls = one.token_falls[tokens]
        token_falls.append(torch.cat([pad(falls[:, first], (0, more)), falls[:, last]], dim=1))
    if not any(map(len, lengths)):
        raise DataError("No span of the collection depends on the image; check that the model sees it.")
    features = (
        pad(choose(one.features[tokens], kinds), (0, 0, 0, regions - one.features.shape[1]))
        for one, tokens in zip(images, told, strict=True)
    )
    return TrainingData(
        joined(features, sum(map(len, log_odds))), torch.cat(log_odds), torch.cat(lengths), torch.cat(image),
        torch.stack(subsets), torch.stack(counted), torch.cat(token_falls), subsets[0].shape[1] - regions - 1,
    )  # fmt: skip


def learn_weights(
    data: TrainingData, settings: FitSettings, device: torch.device | str = "cpu"
) -> tuple[Estimator, list[float]]:
    """An estimator that maximises how well predicted and measured falls correlate over random subsets.

    That is the mean of Pearson's correlation of a span's falls (arXiv 2604.16587); for a share of `tokens` of its single tokens'
    instead, for a share of `ranks` of soft ranks, and for a share of `alone` over regions by themselves. A share of `across` is
    Pearson's over all pairs of a span and a single region, and over the spans' falls with everything hidden: no correlation
    within spans tells which of them depend on the image more. It has no spreads yet.
    Predicted falls are those of regions hidden together, so that weights learn from what the log-odds of a token leave of it.
    Scores have a scale of their own, in nats of log-odds, that all weights share. Batches go to `device`, where weights are
    learned; the estimator is on the CPU.
    """
    settings = settings.settled()
    sizes = data.sizes()
    unit = torch.where(sizes > NOTHING, 1 / sizes, 0.0)
    rng = torch.Generator().manual_seed(settings.seed)
    sets = SETS[settings.link]
    if not settings.alone and not settings.across:
        data = data.of_random()
    hidden = settings.hidden
    direction = torch.full((sets, len(unit)), 1 / len(unit), requires_grad=True, device=device)
    scale = torch.tensor(math.log(BEGIN), requires_grad=True, device=device)
    network = compressed = None
    if hidden:
        inward, context = BEGIN_INWARD * torch.randn(2, hidden, len(unit), generator=rng)
        network = Network(
            unit, inward.clone(), context.clone(), torch.zeros(sets, hidden), torch.zeros(sets, hidden)
        ).to(torch.device(device))
        compressed = data.compressed(unit)
    unit = unit.to(device)
    parts = [] if network is None else [network.inward, network.context, network.bias, network.outward]
    learned = [direction, *(part.requires_grad_() for part in parts)]
    optimizer = torch.optim.Adam([
        {"params": [direction], "lr": settings.rate / 4},
        {"params": [scale], "lr": settings.rate},
        *([{"params": parts, "lr": settings.rate / 10}] if parts else []),
    ])  # fmt: skip
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)

    def estimator(seen: Tensor | None = None) -> Estimator:
        inside = network
        if inside is not None:
            inside = replace(inside, outward=inside.outward * scale.exp())
            if seen is not None:
                inside = replace(inside, inward=inside.inward * seen, context=inside.context * seen)
        weights = direction * scale.exp() * unit
        return Estimator(
            "",
            weights,
            UNKNOWN,
            UNKNOWN,
            tuple(settings.kinds),
            settings.link,
            network=inside,
        )

    spans, losses = len(data.lengths), []
    for _ in range(settings.steps):
        batch = torch.randint(spans, (min(settings.batch, spans),), generator=rng)
        seen = None
        if hidden:
            kept = torch.rand(len(unit) // len(settings.kinds), generator=rng) >= settings.dropped
            seen = kept.repeat(len(settings.kinds)).to(device) / (1 - settings.dropped)
        loss = -agreement(data, batch, data.predict_tokens(estimator(seen), batch, compressed), settings)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    for part in (scale, *learned):
        part.requires_grad_(False)
    return estimator().to(torch.device("cpu")), losses


def agreement(
    data: TrainingData,
    spans: Int[Tensor, " some"],
    falls: Float[Tensor, "token subset"],
    settings: FitSettings,
) -> Float[Tensor, ""]:
    """What is maximised: within each span over random subsets and over regions by themselves, and across the spans."""
    lengths = data.lengths[spans].to(falls.device)
    measured = data.token_falls[data.tokens(spans)].to(falls.device)
    counted = data.counted[data.image[spans]].to(falls.device)
    shares = ((1 - settings.alone, slice(data.random)), (settings.alone, slice(data.random, -1)))
    within = [
        share * _agreement_over(lengths, falls[:, part], measured[:, part], counted[:, part], settings)
        for share, part in shares
        if share
    ]
    agreement = torch.stack(within).sum()
    if not settings.across:
        return agreement
    singly, together = slice(data.random, -1), slice(-1, None)
    of_spans = [sum_spans(each, lengths) for each in (falls, measured)]
    across = [
        pearson(*(each[:, part][counted[:, part]][None] for each in of_spans))[0]
        for part in (singly, together)
    ]
    return (1 - settings.across) * agreement + settings.across * torch.stack(across).mean()


def _agreement_over(
    lengths: Int[Tensor, " span"], falls: Float[Tensor, "token subset"], measured: Float[Tensor, "token subset"],
    counted: Bool[Tensor, "span subset"], settings: FitSettings,
) -> Float[Tensor, ""]:  # fmt: skip
    """A token counts in its span by the root of how much its measured falls vary."""
    of_spans = correlation(
        sum_spans(falls, lengths), sum_spans(measured, lengths), settings.ranks, counted
    ).mean()
    if not settings.tokens:
        return of_spans
    counted = counted.repeat_interleave(lengths, dim=0)
    spread = _spread(measured, counted)[:, 0]
    counts = torch.where(spread > LEAST_OF_TOKEN, spread.sqrt(), 0.0)
    parts = sum_spans(counts * correlation(falls, measured, settings.ranks, counted), lengths)
    of_tokens = (parts / sum_spans(counts, lengths).clamp(min=NOTHING)).mean()
    return (1 - settings.tokens) * of_spans + settings.tokens * of_tokens


def pearson(
    predicted: Float[Tensor, "span subset"],
    actual: Float[Tensor, "span subset"],
    counted: Bool[Tensor, "span subset"] | None = None,
) -> Float[Tensor, " span"]:
    """Correlation of each span over its subsets, all or those that are counted; 0 for a constant."""
    predicted, actual = _centred(predicted, counted), _centred(actual, counted)
    return (predicted * actual).sum(1) / (predicted.norm(dim=1) * actual.norm(dim=1) + 1e-8)


def correlation(
    predicted: Float[Tensor, "span subset"],
    actual: Float[Tensor, "span subset"],
    ranks: float,
    counted: Bool[Tensor, "span subset"] | None = None,
) -> Float[Tensor, " span"]:
    """Pearson's of each span over its subsets, and for a share of `ranks` that of soft ranks with measured ranks.

    A soft rank counts the subsets below, those about as high in part: the sigmoid of how far they are below, in standard
    deviations by SOFTNESS.
    """
    if counted is None:
        counted = torch.ones_like(predicted, dtype=torch.bool)
    found = pearson(predicted, actual, counted)
    if not ranks:
        return found
    scaled = predicted / (SOFTNESS * _spread(predicted, counted) + 1e-8)
    soft = ((scaled[:, :, None] - scaled[:, None]).sigmoid() * counted[:, None]).sum(2)
    measured = actual.masked_fill(~counted, torch.inf).argsort(1).argsort(1).float()
    return (1 - ranks) * found + ranks * pearson(soft, measured, counted)


def _centred(
    values: Float[Tensor, "span subset"], counted: Bool[Tensor, "span subset"] | None
) -> Float[Tensor, "span subset"]:
    """Without their mean over the subsets that are counted; 0 for the others."""
    if counted is None:
        return values - values.mean(1, keepdim=True)
    values = values * counted
    return (values - values.sum(1, keepdim=True) / counted.sum(1, keepdim=True)) * counted


def _spread(
    values: Float[Tensor, "span subset"], counted: Bool[Tensor, "span subset"]
) -> Float[Tensor, "span 1"]:
    """The standard deviation over the subsets that are counted."""
    variance = _centred(values, counted).square().sum(1, keepdim=True) / counted.sum(1, keepdim=True)
    return variance.clamp(min=NOTHING).sqrt()
