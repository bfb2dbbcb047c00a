"""Layer-wise relevance propagation: AttnLRP and CP-LRP, as gradient times input with changed gradients.

Each rule of LRP gives an input its share in proportion to input times gradient of some linear stand-in for the layer.
So relevance is input times the gradient of the stand-ins, and one backward pass carries it. Propositions and equations
below are those of arXiv 2402.05602; visual inputs and passes are gradient.py's.

The target is the span's log-prob, whose relevance at the logits is their values times its gradient there: the written
token's logit minus the model's expected one. Relevance is signed and its sign is kept: below zero a region spoke against
the span, as an effect below zero says that the span becomes likelier without the region.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.activations import ACT2FN

from eyeline.evaluation.baselines.gradient import by_region, differentiable, first_order, look
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span

# What is left of the gradient at the output of a decoder layer's projections. Each factor of a product takes half of its
# relevance (propositions 3.2, 3.3): attention weights and values, then queries and keys, and gate and gated. From a
# projection to its product all is linear under these rules, and the factors are powers of two: scaling here is scaling
# right before the product, bit for bit, and no attention kernel needs to be touched.
ATTN_LRP = {
    "self_attn.q_proj": 1 / 4,
    "self_attn.k_proj": 1 / 4,
    "self_attn.v_proj": 1 / 2,
    "mlp.down_proj": 1 / 2,
}
# Attention weights are constants, so that their product with the values is linear (arXiv 2202.07304).
CP_LRP = {"self_attn.q_proj": 0.0, "self_attn.k_proj": 0.0, "mlp.down_proj": 1 / 2}

EPSILON = 1e-10  # keeps an activation's slope finite at 0
Rule = Callable[[Any, Tensor, Tensor], Tensor]  # (module, its input, its output) -> the output to go on with


def attn_lrp(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span], regions: Regions
) -> Float[Tensor, "span region"]:
    """AttnLRP (Achtibat et al. 2024, arXiv 2402.05602): signed relevance of each region for a span's log-prob.

    Of a visual token: x * gradient under `ATTN_LRP`, summed over its embedding and all that DeepStack adds. Relevance
    is not conserved: the softmax keeps a part (proposition 3.1), biases and the question's own tokens take theirs.
    """
    return _relevance(model, inputs, trace_ids, spans, regions, ATTN_LRP)


def cp_lrp(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span], regions: Regions
) -> Float[Tensor, "span region"]:
    """CP-LRP (Ali et al. 2022, arXiv 2202.07304): as AttnLRP, but attention weights are constants.

    Without biases the relevance of all inputs, the text's too, sums to the target where that is a logit.
    """
    return _relevance(model, inputs, trace_ids, spans, regions, CP_LRP)


def _relevance(
    model: Model,
    inputs: Inputs,
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    regions: Regions,
    factors: Mapping[str, float],
) -> Float[Tensor, "span region"]:
    with differentiable(model), relevance_rules(model, factors):
        trace, visual = look(model, inputs, trace_ids)
        tokens = first_order(model, trace, visual, visual, trace_ids, spans)
    return by_region(tokens, regions)


@contextmanager
def relevance_rules(model: Model, factors: Mapping[str, float]) -> Iterator[None]:
    """Passes of this thread through the text model are differentiated by LRP's rules; their values stay the same.

    `factors` is `ATTN_LRP` or `CP_LRP`. The rules stay with what was computed in the block, so the backward pass may
    come after it. They are forward hooks, gone however the block ends; passes of other threads are left alone, and
    any target of any pass can be differentiated. Not to be nested in one thread: factors would multiply.
    """
    adapter, hf, thread = model.adapter, model.hf, threading.get_ident()
    activation = type(ACT2FN[adapter.text_config(hf).hidden_act])

    with ExitStack() as undo:

        def follow(module: nn.Module, rule: Rule) -> None:
            def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
                return rule(module, args[0], output) if threading.get_ident() == thread else output

            undo.callback(module.register_forward_hook(hook).remove)

        for module in adapter.text_model(hf).modules():
            if hasattr(
                module, "variance_epsilon"
            ):  # an RMS norm, of queries and keys too; families have several classes
                follow(module, _keep_scale)
            elif isinstance(module, activation):
                follow(module, _keep_slope)
        for layer in adapter.layers(hf):
            for name, factor in factors.items():
                for module in _named(layer, name):
                    follow(module, partial(_damp, factor))
            for experts in _fused_experts(layer):
                hook = experts.register_forward_pre_hook(
                    partial(_enter_experts, factors["mlp.down_proj"], thread)
                )
                undo.callback(hook.remove)
        yield


def _named(layer: nn.Module, name: str) -> list[nn.Module]:
    """The projections of a name like mlp.down_proj in a layer; experts that are shared have one too. Raises `AttributeError`."""
    part, _, last = name.partition(".")
    found = [module for path, module in layer.get_submodule(part).named_modules() if path.endswith(last)]
    return found if found or _fused_experts(layer) else [layer.get_submodule(name)]


def _fused_experts(layer: nn.Module) -> list[nn.Module]:
    """Modules that hold the projections of all experts as one weight."""
    return [
        module for module in layer.modules() if isinstance(getattr(module, "down_proj", None), nn.Parameter)
    ]


def _enter_experts(factor: float, thread: int, module: nn.Module, args: tuple) -> Any:
    """The rule at each expert's gated product, applied where all of it enters: in between all is linear.

    How much each expert counts is a constant, as which of them are asked is.
    """
    if threading.get_ident() != thread:
        return None
    states, which, weights = args
    states = states.view_as(states)  # the router reads the same states, and is to get none of it
    return _damp(factor, module, states, states), which, weights.detach()


def _damp(factor: float, module: Any, x: Tensor, output: Tensor) -> Tensor:
    """Uniform rule (propositions 3.2 and 3.3): the gradient times a factor; 0 cuts it off."""
    if factor == 0:
        return output.detach()
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient * factor)
    return output


def _keep_scale(module: Any, x: Tensor, output: Tensor) -> Tensor:
    """Identity rule for RMS norms (proposition 3.4): what the input is divided by is a constant."""
    return _Scaled.apply(x, output.detach(), module.weight, module.variance_epsilon)


def _keep_slope(module: Any, x: Tensor, output: Tensor) -> Tensor:
    """Identity rule for activations (eq. 9): f is a constant times its input, f(x) / x."""
    return _Sloped.apply(x, output.detach())


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        mean_square = x.float().square().mean(-1, keepdim=True)
        ctx.save_for_backward(torch.rsqrt(mean_square + epsilon), weight)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        scale, weight = ctx.saved_tensors
        return (gradients[0] * scale * weight).to(gradients[0].dtype), None, None, None


class _Sloped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, output: Tensor) -> Tensor:
        ctx.save_for_backward(x, output)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, output = ctx.saved_tensors
        slope = output.float() / (x.float() + EPSILON)  # float32: float16 has no 1e-10
        return (gradients[0] * slope).to(gradients[0].dtype), None
