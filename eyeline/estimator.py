"""Features -> the game of a text: what hiding regions takes off its tokens' log-odds, by weights fitted once for each model.

What follows from a game stands in game.py, how estimators are written and found in estimator_files.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import silu

from eyeline.events import Level, Unit
from eyeline.features import KINDS
from eyeline.game import Game
from eyeline.head_set import is_set
from eyeline.links import Links, strongest
from eyeline.through import Chances

Link = Literal["log-odds", "identity"]
SETS = {
    "log-odds": 2,
    "identity": 1,
}  # of weights: for tokens that the model doubts and is sure of, or one for all
SURE, WIDTH = (
    5.0,
    1.5,
)  # log-odds at which both sets of weights count alike, and how soon one gives way to the other
TENSORS = ("weights", "effect_spread", "contribution_spread")
OF_NETWORK = ("unit", "inward", "context", "bias", "outward")


def mix(log_odds: Float[Tensor, " token"], sets: int) -> Float[Tensor, "token set"]:
    """The share that each set of weights has in each token's; with two, the second is for tokens that the model is sure of."""
    if sets == 1:
        return torch.ones_like(log_odds)[:, None]
    sure = torch.sigmoid((log_odds - SURE) / WIDTH)
    return torch.stack([1 - sure, sure], dim=1)


def sum_spans(values: Float[Tensor, "token ..."], lengths: Int[Tensor, " span"]) -> Float[Tensor, "span ..."]:
    """Sums over the tokens of spans that stand one after the other."""
    span = torch.arange(len(lengths), device=values.device).repeat_interleave(lengths.to(values.device))
    return values.new_zeros(len(lengths), *values.shape[1:]).index_add_(0, span, values)


@dataclass(frozen=True, eq=False)
class Compressed:
    """Features as a network sees them, in units of their own."""

    regions: Float[Tensor, "token region feature"]
    image: Float[Tensor, "token feature"]  # of all regions together


def compress(features: Float[Tensor, "token region feature"], unit: Float[Tensor, " feature"]) -> Compressed:
    """In such units, their sign times log(1 + |f|): what is many times as large as usual counts little more than that."""

    def log(values: Float[Tensor, "*any feature"]) -> Float[Tensor, "*any feature"]:
        return values.sign() * values.abs().log1p()

    return Compressed(log(features * unit), log(features.sum(1) * unit))


@dataclass(frozen=True, eq=False)
class Network:
    """What hidden regions add to a score beyond a linear map: one hidden layer, in the sight of the whole image.

    f(z) = silu(z + c) - silu(c),  c = C X + b, with x a region's compressed features and X those of the whole image.
    The first half of the units sees each region by itself, the second half those that are hidden together as one:

        score(S) = v1 . sum over k in S of f(U1 x_k)  +  v2 . f(sum over k in S of U2 x_k)

    so that two regions may do more or less together than one by one; a region without features adds nothing. Tokens that
    the model doubts and those that it is sure of have a b and a v of their own, mixed as weights are.
    """

    unit: Float[Tensor, " feature"]  # 1 / the usual size of a feature
    inward: Float[Tensor, "hidden feature"]  # U
    context: Float[Tensor, "hidden feature"]  # C
    bias: Float[Tensor, "set hidden"]  # b
    outward: Float[Tensor, "set hidden"]  # v, nats of log-odds

    def game(
        self,
        linear: Float[Tensor, "token region"],
        seen: Compressed,
        log_odds: Float[Tensor, " token"],
        linked: bool,
    ) -> Game:
        """The game of tokens whose scores are `linear` and what the network adds."""
        shares = mix(log_odds, len(self.bias))
        first, second = torch.einsum("tkf,hf->thk", seen.regions, self.inward).tensor_split(2, dim=1)
        at_rest = seen.image @ self.context.T + shares @ self.bias
        of_first, of_second = at_rest.tensor_split(2, dim=1)
        to_first, to_second = (shares @ self.outward).tensor_split(2, dim=1)
        first = silu(first + of_first[..., None]) - silu(of_first)[..., None]
        apart = linear + torch.einsum("th,thk->tk", to_first, first)
        return Game(apart, second, of_second, to_second, log_odds if linked else None)

    @staticmethod
    def shapes(sets: int, hidden: int, features: int) -> dict[str, tuple[int, ...]]:
        """Of its tensors, by name."""
        return {
            "unit": (features,), "inward": (hidden, features), "context": (hidden, features), "bias": (sets, hidden),
            "outward": (sets, hidden),
        }  # fmt: skip

    @property
    def reads(self) -> Bool[Tensor, " feature"]:
        """Which features change what it adds."""
        return ((self.inward != 0) | (self.context != 0)).any(0) & (self.unit != 0)

    def columns(self, change: Callable[[Tensor], Tensor]) -> "Network":
        """With other columns of features, as `change` makes them of a matrix whose last dimension is the feature."""
        return replace(self, **{name: change(getattr(self, name)) for name in ("unit", "inward", "context")})

    def to(self, device: torch.device) -> "Network":
        return Network(**{name: getattr(self, name).to(device) for name in OF_NETWORK})


@dataclass(frozen=True, eq=False)
class Estimator:
    """From features to the game of a text, and how far measured values lie from those that a game predicts.

    A score is by how much hiding a subset of the regions lowers a token's log-odds: the sum of a linear map of their
    features, and what a small network adds to it. What that does to the log-prob depends on how sure the model is of the
    token. Tokens that the model doubts and those that it is sure of have weights of their own, mixed by the token's
    log-odds. With the link `identity`, weights are the same for all tokens, and scores are taken for the fall in log-prob
    itself, as in arXiv 2604.16587.
    """

    id: str
    weights: Float[Tensor, "set feature"]  # score for each unit of a feature
    effect_spread: Float[
        Tensor, "effect_knot 3"
    ]  # predicted value, increasing; low and high end of its interval from there, nats
    contribution_spread: Float[Tensor, "contribution_knot 3"]
    kinds: tuple[str, ...] = KINDS
    link: Link = "log-odds"
    card: Mapping[str, Any] = field(default_factory=dict)
    network: Network | None = None
    text: Float[Tensor, "set text_feature"] | None = None  # score for each unit of a feature of earlier text

    @property
    def hiding(self) -> str:
        """The way of hiding that its numbers mean."""
        return str(self.card.get("hiding", "pixels"))

    @property
    def level(self) -> Level:
        """How much of its model it has seen."""
        return self.card.get("level", "fitted")

    @property
    def unit(self) -> Unit:
        """What its numbers are in. Of a model that it has not seen, sizes cannot be believed, order and shares can."""
        return "relative" if self.level == "none" else "nats"

    @property
    def has_intervals(self) -> bool:
        """Whether sizes can be believed, and how far off they are was measured."""
        return self.unit == "nats" and self.card.get("coverage", True) is not None

    @property
    def chances(self) -> Chances | None:
        """How likely answers change when the model thinks again, where that was fitted."""
        card = self.card.get("chances")
        return None if card is None else Chances.of(card)

    def of_tokens(self, log_odds: Float[Tensor, " token"]) -> Float[Tensor, "token feature"]:
        """The weights that each token has."""
        return mix(log_odds, len(self.weights)) @ self.weights

    def game(
        self,
        features: Float[Tensor, "token region feature"],
        log_odds: Float[Tensor, " token"],
        seen: Compressed | None = None,
    ) -> Game:
        """The game of some tokens; `seen` are the features as the network sees them, where they are at hand."""
        linear = torch.einsum("tkf,tf->tk", features, self.of_tokens(log_odds))
        linked = self.link != "identity"
        if self.network is not None:
            seen = compress(features, self.network.unit) if seen is None else seen
            return self.network.game(linear, seen, log_odds, linked)
        none = linear.new_zeros(len(linear), 0)
        return Game(linear, linear[:, None][:, :0], none, none, log_odds if linked else None)

    def links(
        self, features: Float[Tensor, "token earlier text_feature"], log_odds: Float[Tensor, " token"]
    ) -> Links:
        """By how much hiding earlier tokens lowers the log-odds of some tokens; `text` must be there."""
        assert self.text is not None, "the estimator knows earlier text"
        scores = torch.einsum("tef,tf->te", features, mix(log_odds, len(self.text)) @ self.text)
        return strongest(scores).rounded()

    def layers(self, count: int) -> list[int]:
        """Which of a model's `count` layers have a head with any weight; the first where none has, for one is always captured."""
        if is_set(self.kinds):
            return list(range(count))
        used = (self.weights != 0).any(0)
        if self.network is not None:
            used = used | self.network.reads
        of_layers = used.view(len(self.kinds), count, -1).any(2).any(0)
        return of_layers.nonzero()[:, 0].tolist() or [0]

    def of_layers(self, layers: Sequence[int], count: int) -> "Estimator":
        """With the columns of some of a model's `count` layers alone, in the order given."""
        if list(layers) == list(range(count)):
            return self
        chosen = torch.tensor(layers, device=self.weights.device)

        def choose(columns: Tensor) -> Tensor:
            by_layer = columns.unflatten(-1, (len(self.kinds), count, -1))
            return by_layer.index_select(-2, chosen).flatten(-3)

        network = None if self.network is None else self.network.columns(choose)
        return replace(self, weights=choose(self.weights), network=network)

    def to(self, device: torch.device) -> "Estimator":
        tensors = {name: getattr(self, name).to(device) for name in TENSORS}
        network = None if self.network is None else self.network.to(device)
        text = None if self.text is None else self.text.to(device)
        return replace(self, **tensors, network=network, text=text)


def interval(values: Float[Tensor, " region"], spread: Float[Tensor, "knot 3"]) -> Float[Tensor, "region 2"]:
    """Low and high ends around predicted values, nats: linear between the knots of a spread, beyond them as at the last one."""
    knots, ends = spread[:, 0].contiguous(), spread[:, 1:]
    after = torch.searchsorted(knots, values.contiguous()).clamp(1, len(knots) - 1)
    share = ((values - knots[after - 1]) / (knots[after] - knots[after - 1])).clamp(0, 1)
    return values[:, None] + torch.lerp(ends[after - 1], ends[after], share[:, None])
