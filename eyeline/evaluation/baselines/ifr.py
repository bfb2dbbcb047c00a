"""Information Flow Routes (Ferrando & Voita 2024, arXiv 2403.00824) of a span, as FlashTrace (arXiv 2602.01914) begins.

How near a part lies to the sum that it is a part of says what share of the residual stream it is. Parts are what each head
writes from each position, and the stream before the attention. One ordinary pass; no gradients, and no position's stream but
those that predict spans is looked at.
"""

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eyeline.features import pool
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.teacher_forcing import Trace, read, see, teacher_force
from eyeline.writing import output_of

NAME = "flows"  # in transformers' registries, which match "flash", "sdpa" and "flex_attention" as substrings
AT_ONCE = 2**22  # numbers worked out together: 16 MiB


def information_flow(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span], regions: Regions
) -> Float[Tensor, "span region"]:
    """Shares of the visual tokens of a region in what predicts a span, mean over layers, summed over the region."""
    with torch.inference_mode():
        trace = teacher_force(model, inputs, trace_ids)
        found = flows(model, trace, spans)
    shares = found.positions[:, trace.patches].clone()  # usable in autograd
    return pool(shares, regions.of_patch.to(shares.device), regions.count)


@dataclass(frozen=True, eq=False)
class Flow:
    """Shares in the residual streams that predict a span, mean over layers; those of a span add up to 1."""

    positions: Float[Tensor, "span position"]  # written by all heads from that position
    kept: Float[Tensor, " span"]  # of the streams before attention


def flows(model: Model, trace: Trace, spans: Sequence[Span]) -> Flow:
    """Of a span as of one position: streams, and what is written to them, are summed over its tokens before they are compared.

    So FlashTrace does; the mean over tokens of each one's shares, as the older paper has it, takes as many times longer as a
    span has tokens.
    """
    first, length = trace.prompt_length - 1, trace.ids.shape[1]
    found = Flow(
        torch.zeros(len(spans), length, device=trace.ids.device),
        torch.zeros(len(spans), device=trace.ids.device),
    )
    layers = len(model.adapter.layers(model.hf))

    def add(layer: "_Layer") -> None:
        weights = torch.stack(
            [layer.weights(first + span.start, first + span.end) for span in spans]
        )  # (span, head, position)
        before, after = (
            torch.stack([stream[first + span.start : first + span.end].float().sum(0) for span in spans])
            for stream in (layer.before, layer.after)
        )
        near = torch.cat(
            [
                proximity(values, layer.weight, some, after)
                for values, some in zip(
                    layer.values.split(layer.chunk, 1), weights.split(layer.chunk, 2), strict=True
                )
            ],
            dim=1,
        )
        kept = nearness(after, before)
        total = (near.sum(1) + kept).clamp(min=torch.finfo(torch.float32).tiny) * layers
        found.positions.add_(near / total[:, None])
        found.kept.add_(kept / total)

    with each_layer(model, add):
        read(model, trace, see(model, trace, trace.pixel_values[None]), 1, use_cache=False)
    return found


def nearness(whole: Float[Tensor, "... width"], part: Float[Tensor, "... width"]) -> Float[Tensor, "..."]:
    """max(0, |whole| - |whole - part|), in L1 (proximity in arXiv 2403.00824)."""
    return (whole.abs() - (whole - part).abs()).sum(-1).clamp(min=0)


def proximity(
    values: Float[Tensor, "head position dim"],
    weight: Float[Tensor, "head dim width"],
    weights: Float[Tensor, "span head position"],
    after: Float[Tensor, "span width"],
) -> Float[Tensor, "span position"]:
    """Nearness of what heads write from some positions to each span's stream, summed over heads."""
    written = values.float() @ weight  # (head, position, width)
    return torch.stack(
        [
            nearness(whole, some[..., None] * written).sum(0)
            for whole, some in zip(after, weights, strict=True)
        ]
    )


@dataclass(frozen=True, eq=False)
class _Layer:
    """A layer's attention on one sequence."""

    query: Float[Tensor, "head position dim"]
    key: Float[Tensor, "head position dim"]
    values: Float[Tensor, "head position dim"]
    mask: Tensor | None  # (query, key), true or added; None where a position sees all before it
    scaling: float
    weight: Float[Tensor, "head dim width"]  # from a head's value to what it writes, but for `divisor`
    divisor: Float[Tensor, " position"] | None  # of the norm after attention, where there is one
    before: Float[Tensor, "position width"]  # the residual stream
    after: Float[Tensor, "position width"]

    @property
    def chunk(self) -> int:
        """Positions whose writing is worked out together."""
        return max(1, AT_ONCE // (self.weight.shape[0] * self.weight.shape[2]))

    def weights(self, start: int, end: int) -> Float[Tensor, "head position"]:
        """Attention weights summed over the queries [start, end), each over its divisor; some queries at a time."""
        heads, length, _ = self.key.shape
        found = torch.zeros(heads, length, device=self.key.device)
        for queries in torch.arange(start, end, device=self.key.device).split(
            max(1, AT_ONCE // (heads * length))
        ):
            scores = self.query[:, queries].float() @ self.key.float().transpose(1, 2) * self.scaling
            if self.mask is None:
                later = torch.arange(length, device=queries.device) > queries[:, None]
                scores = scores.masked_fill(later, -torch.inf)
            elif self.mask.dtype == torch.bool:
                scores = scores.masked_fill(~self.mask[queries], -torch.inf)
            else:
                scores = scores + self.mask[queries]
            weights = scores.softmax(-1)
            found += (weights if self.divisor is None else weights / self.divisor[queries, None]).sum(1)
        return found


_following = threading.local()  # `attend`: what is told of a layer's heads in this thread


@contextmanager
def each_layer(model: Model, use: Callable[[_Layer], None]) -> Iterator[None]:
    """Hands on the attention of each layer of the text model as soon as it is done; passes keep sdpa's kernel and its results.

    The model gets its own attention back however the block ends.
    """
    _register()
    adapter = model.adapter
    seen: dict[str, Any] = {}
    before = adapter.text_config(model.hf)._attn_implementation

    def finish(number: int, written: Tensor, divisor: Tensor | None) -> None:
        weight = output_of(model, number).weight()
        groups = seen["query"].shape[0] // seen["key"].shape[0]
        key, values = (seen[name].repeat_interleave(groups, 0) for name in ("key", "value"))
        weight = weight.T.unflatten(0, (len(key), -1))
        residual = seen["residual"][0]
        use(_Layer(
            seen["query"], key, values, seen["mask"], seen["scaling"], weight, divisor, residual, residual + written[0],
        ))  # fmt: skip
        seen.clear()

    def follow(number: int, layer: nn.Module) -> Iterator[Any]:
        def begin(_: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
            seen["residual"] = args[0] if args else kwargs["hidden_states"]

        def attended(_: nn.Module, args: tuple, output: Any) -> None:
            finish(number, output[0], None)

        def normed(module: Any, args: tuple, output: Tensor) -> None:
            square = args[0][0].float().square().mean(-1)
            finish(number, output, (square + module.variance_epsilon).sqrt())

        yield layer.register_forward_pre_hook(begin, with_kwargs=True)
        norm = adapter.attention_norm(layer)
        attention = adapter.self_attention(layer)
        yield (
            attention.register_forward_hook(attended) if norm is None else norm.register_forward_hook(normed)
        )

    with ExitStack() as undo:
        undo.callback(model.hf.set_attn_implementation, {"text_config": before})
        model.hf.set_attn_implementation({"text_config": NAME})
        undo.callback(setattr, _following, "attend", None)
        _following.attend = seen.update
        for number, layer in enumerate(adapter.layers(model.hf)):
            for handle in follow(number, layer):
                undo.callback(handle.remove)
        yield


@functools.cache
def _register() -> None:
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> Any:
    """What transformers calls in each text layer, of one sequence: sdpa, and what it works on is told."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    attend = getattr(_following, "attend", None)
    if attend is not None:
        attend(
            query=query[0], key=key[0], value=value[0], mask=None if mask is None else mask[0, 0], scaling=options["scaling"]
        )  # fmt: skip
    return sdpa_attention_forward(module, query, key, value, mask, **options)
