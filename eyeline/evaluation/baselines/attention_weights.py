"""Attention as attribution, without any fit: raw weights, and weights multiplied through the layers."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eyeline.evaluation.prediction import read_spans
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.teacher_forcing import read, see, teacher_force


def raw_attention(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span], regions: Regions
) -> Float[Tensor, "span region"]:
    """Attention weights of the queries that predict a span's tokens: mean over layers, heads and tokens, sum over a region.

    Weights are normalised over all keys. A mean over tokens keeps them shares, so that spans of any length compare.
    """
    shares = read_spans(model, inputs, trace_ids, spans, regions, ("attention",)).features.mean(-1)
    return torch.stack([part.mean(0) for part in shares.split([span.end - span.start for span in spans])])


def attention_rollout(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span], regions: Regions
) -> Float[Tensor, "span region"]:
    """Attention rollout (Abnar & Zuidema 2020, arXiv 2005.00928, eq. 1): how much of each region reaches a span.

    One layer passes on 0.5 A + 0.5 I (A with heads averaged; the half for the residual connection; rows sum to 1 as they
    are), and the product over layers says what share of each input position arrives at each output. Causal masks make
    every factor lower triangular. The paper explains one output position; a span is the mean over the positions that
    predict its tokens, so that a row stays a distribution.

    The product is taken from the input side and of the regions' columns only, (position, region), while the model runs:
    no product of two (position, position) matrices, and no layer's attention outlives the layer.
    """
    with torch.inference_mode():
        trace = teacher_force(model, inputs, trace_ids)
        reached = torch.zeros(trace.ids.shape[1], regions.count, device=trace.ids.device)
        reached[trace.patches, regions.of_patch.to(trace.ids.device)] = 1

        def roll(weights: Float[Tensor, "head query key"]) -> None:
            reached.copy_(0.5 * weights.float().mean(0) @ reached + 0.5 * reached)

        with each_layers_attention(model, roll):
            read(model, trace, see(model, trace, trace.pixel_values[None]), 1, use_cache=False)
    predicting = reached[trace.prompt_length - 1 :]
    return torch.stack([predicting[span.start : span.end].mean(0) for span in spans])


@contextmanager
def each_layers_attention(model: Model, use: Callable[[Tensor], None]) -> Iterator[None]:
    """Runs the text model with eager attention and hands on the weights of each layer, (head, query, key), as it is done.

    Eager is the only kernel that has them; the model gets its own back however the block ends.
    """

    def hand_on(_: nn.Module, args: tuple, output: Any) -> None:
        use(output[1][0])

    before = model.adapter.text_config(model.hf)._attn_implementation
    with ExitStack() as undo:
        undo.callback(model.hf.set_attn_implementation, {"text_config": before})
        model.hf.set_attn_implementation({"text_config": "eager"})
        for layer in model.adapter.layers(model.hf):
            undo.callback(model.adapter.self_attention(layer).register_forward_hook(hand_on).remove)
        yield
