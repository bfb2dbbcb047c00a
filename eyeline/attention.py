"""What decoding leaves behind of each token, and the attention that follows from it, a span at a time.

Attention to some columns, the image's above all, is exp(q . k * scaling - log-sum-exp). What keeps its parts while a model
decodes is capture.py; what is made of it is left to features.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LIKELY = (
    1024  # entries of the vocabulary that are kept of a token one by one; of those beyond what they add up to
)
WEIGHTS_AT_ONCE = 2**24  # attention weights in float32: 64 MiB
KEYS_AT_ONCE = 2**22  # numbers of keys, counted for each head: what a processor's cache holds in float32


@dataclass(frozen=True, slots=True)
class Likeliest:
    """The largest logits of some tokens; of a small vocabulary all of them."""

    logits: Float[Tensor, "token entry"]  # in the model's dtype
    entries: Int[Tensor, "token entry"] | None  # their numbers in the vocabulary, int32; None: all, in order
    beyond: Float[Tensor, " token"] | None  # log-sum-exp of all others, float32, where there are some

    def to(self, device: torch.device) -> "Likeliest":
        return Likeliest(*(None if each is None else each.to(device) for each in self._parts()))  # pyright: ignore[reportArgumentType]

    def of(self, start: int, end: int) -> "Likeliest":
        """Those of some of the tokens, [start, end)."""
        return Likeliest(*(None if each is None else each[start:end] for each in self._parts()))  # pyright: ignore[reportArgumentType]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in self._parts() if each is not None)

    def _parts(self) -> tuple[Tensor | None, ...]:
        return self.logits, self.entries, self.beyond


def likeliest(logits: Float[Tensor, "token entry"], count: int = LIKELY) -> Likeliest:
    """The `count` largest of each token's logits: a fiftieth of a vocabulary of 150,000, and all that features need of it."""
    if logits.shape[1] <= count:
        return Likeliest(logits, None, None)
    largest, entries = logits.topk(count, dim=1, sorted=False)
    others = logits.float().scatter(1, entries, -torch.inf)
    return Likeliest(largest, entries.int(), others.logsumexp(1))


def joined(parts: Sequence[Likeliest]) -> Likeliest:
    """Those of several stretches of tokens, one after the other."""
    each = zip(*(part._parts() for part in parts), strict=True)
    return Likeliest(*(None if some[0] is None else torch.cat(some) for some in each))  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True, slots=True)
class Steps:
    """What was kept of the generated tokens [start, start + token): of each, the row that predicts it."""

    start: int
    queries: Float[Tensor, "layer head token dim"]  # after rotary embedding, in the model's dtype
    log_sum_exp: Float[Tensor, "layer head token"]  # of scaled scores over all keys, float32
    hidden: Float[Tensor, "token width"]  # residual stream before the final norm
    attention_rms: (
        Float[Tensor, "layer token"] | None
    )  # divisor of the norm after attention, where there is one
    likeliest: Likeliest | None = None  # where the model has worked logits out for each token
    outputs: Float[Tensor, "layer head token dim"] | None = (
        None  # what heads put out, where no cache tells it later
    )

    def of_layers(self, layers: slice) -> "Steps":
        """Of some of the captured layers, without what is likely."""

        def of(values: Any) -> Any:
            return None if values is None else values[layers]

        return Steps(
            self.start, of(self.queries), of(self.log_sum_exp), self.hidden, of(self.attention_rms), None, of(self.outputs)
        )  # fmt: skip

    def __len__(self) -> int:
        return self.hidden.shape[0]


def layers_at_once(steps: Steps, columns: int) -> Iterator[slice]:
    """The captured layers, so many at a time that attention to `columns` columns stays small.

    All layers of a small model come at once, of a large one each by itself: then its keys are read where they lie and turned into
    float32 within the processor's cache.
    """
    layers, heads, tokens, dim = steps.queries.shape
    columns = max(1, columns)
    fit = min(WEIGHTS_AT_ONCE // (heads * tokens * columns), KEYS_AT_ONCE // (heads * dim * columns))
    at_once = max(1, fit)
    for first in range(0, layers, at_once):
        yield slice(first, min(first + at_once, layers))


def attention_to(
    steps: Steps,
    column_keys: Float[Tensor, "layer kv_head column dim"],
    scaling: float,
    visible: Bool[Tensor, "#layer token column"] | None = None,
) -> Float[Tensor, "layer head token column"]:
    """Attention weights of each token to some columns, normalised over all keys; float32.

    Where `visible` is False the weight is 0: of image columns it is `AttentionCapture.visible(steps)`, of text what is before.
    """
    layers, heads, tokens, _ = steps.queries.shape
    kv_heads, columns = column_keys.shape[1:3]
    grouped = steps.queries.float().unflatten(1, (kv_heads, heads // kv_heads)).flatten(2, 3)
    scores = grouped @ column_keys.float().transpose(-1, -2)  # (layer, kv_head, group * token, column)
    scores = scores.view(layers, heads, tokens, columns)
    weights = scores.mul_(scaling).sub_(steps.log_sum_exp[..., None]).exp_()
    return weights if visible is None else torch.where(visible[:, None], weights, 0.0)
