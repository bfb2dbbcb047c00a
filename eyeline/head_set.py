"""The features of all heads of a model -> features of the heads as a set: no number of theirs has an index of a head or a layer.

So weights for them fit every model. With f_h a feature of head h for token t and region k (features.py), they are

- `odds_sum`, `odds_for`: the sum over heads of `odds`, and of what of it is above 0: what speaks for the token;
- `change_sum`, `change_for`, `change_most`: the sum of `change`, of what of it is above 0, and the largest;
- `value_share`: the mean over heads of each region's share in the head's `value`;
- `value_mean`: the mean over heads of `attention`, shared among regions as the sums of `value` are;
- `value_seen`: the same by the sums of `value` times `attention`, which only counts where a head looks hard.

The first five are nats of log-odds, the others shares of attention: none has a unit that belongs to one model.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

KINDS = ("attention", "value", "odds", "change")  # the order of features in estimators and collections
SET = (
    "odds_sum", "odds_for", "change_sum", "change_for", "change_most", "value_share", "value_mean", "value_seen",
)  # fmt: skip
LEAST = 1e-9  # of a total that shares are of


def is_set(kinds: Sequence[str]) -> bool:
    """Whether features of some kinds are of the heads as a set."""
    return bool(kinds) and set(kinds) <= set(SET)


def of_heads(kinds: Sequence[str]) -> tuple[str, ...]:
    """The features of each head that features of some kinds are made of."""
    return KINDS if is_set(kinds) else tuple(kinds)


def as_set(features: Float[Tensor, "token region feature"]) -> Float[Tensor, "token region set_feature"]:
    """The features SET of tokens' features KINDS of every head, kind-major."""
    attention, value, odds, change = features.unflatten(2, (len(KINDS), -1)).unbind(2)
    looks, written, seen = attention.mean(2), value.sum(2), (value * attention).sum(2)
    turned = looks.sum(1, keepdim=True) / written.sum(1, keepdim=True).clamp(min=LEAST)
    columns = (
        odds.sum(2), odds.clamp(min=0).sum(2), change.sum(2), change.clamp(min=0).sum(2), change.amax(2),
        (value / value.sum(1, keepdim=True).clamp(min=LEAST)).mean(2), written * turned, seen * turned,
    )  # fmt: skip
    return torch.stack(columns, dim=2)
