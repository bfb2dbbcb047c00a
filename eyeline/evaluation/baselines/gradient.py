"""What the gradient of a span's log-prob at the visual inputs says that each region contributes.

Visual inputs are all that enters the text model at the visual tokens: the merged features that stand there as
embeddings and, with DeepStack, the features added again after the first layers. Without those a part of the image
would count for nothing. Pixels are no inputs here: regions are made of visual tokens, and the vision tower's
attention would credit a region for what other tokens tell.

A trace costs one forward pass and each span one backward pass, over all of the trace. lrp.py takes the same passes
with other gradients.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.features import pool
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.teacher_forcing import Trace, Vision, mean_tokens, read, see, teacher_force, trace_log_probs

_alone = threading.RLock()  # `requires_grad` of a model's parameters is shared by all threads


def input_gradient(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span], regions: Regions
) -> Float[Tensor, "span region"]:
    """Gradient times input (Shrikumar et al. 2016, arXiv 1605.01713).

    Of a visual token: |sum over its inputs and their dimensions of x * d log p(span) / dx|, summed over the region;
    nats, never negative. Summed before the absolute value, because that is the first-order fall in log-prob when the
    token is zeroed, whatever basis the model keeps it in; after it, tokens of a region cannot cancel. A span's log-prob
    is its tokens' sum, so one gradient is taken for a span, not the tokens' absolute values summed.
    """
    with differentiable(model):
        trace, visual = look(model, inputs, trace_ids)
        tokens = first_order(model, trace, visual, visual, trace_ids, spans)
    return by_region(tokens.abs(), regions)


def integrated_gradients(
    model: Model,
    inputs: Inputs,
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    regions: Regions,
    *,
    steps: int = 32,
) -> Float[Tensor, "span region"]:
    """Integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365, eq. 1) from each image's mean visual token.

    All visual inputs go along the straight path at once, so that a span's effects sum to the fall in its log-prob when
    every token becomes its image's mean (completeness, proposition 1); signed, nats. The mean, not zeros: hiding fills
    a region with its image's mean colour, and a zero embedding is where an RMS norm's gradient is largest, 1 / sqrt(eps).
    `steps` are Gauss-Legendre nodes, each a forward pass and a backward pass a span. Captum is not used: it
    integrates one scalar at a time, where here all spans share a forward pass.
    """
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    with differentiable(model):
        trace, visual = look(model, inputs, trace_ids)
        baseline = mean_tokens(visual.float(), trace.images)
        change = visual.float() - baseline
        tokens = change.new_zeros(len(spans), visual.shape[1])
        for along, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            point = (baseline + float(along) * change).to(visual.dtype)
            tokens += float(weight) * first_order(model, trace, point, change, trace_ids, spans)
    return by_region(tokens, regions)


@contextmanager
def differentiable(model: Model) -> Iterator[None]:
    """Gradients in this thread, whatever its mode; none for parameters, whose inputs would have to be kept.

    `requires_grad` comes back as it was, however the block ends. One thread at a time: another one waits.
    """
    with _alone, torch.inference_mode(False), torch.enable_grad():
        trained = [parameter for parameter in model.hf.parameters() if parameter.requires_grad]
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)


def look(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"]
) -> tuple[Trace, Float[Tensor, "input patch dim"]]:
    """The visual inputs of a trace: first the embeddings, then what DeepStack adds, in the order of its layers.

    Raises `PromptError` for a prompt that holds fewer visual tokens than its images need.
    """
    trace = teacher_force(model, inputs, trace_ids)
    with torch.no_grad():  # inputs, so nothing before them is differentiated
        vision = see(model, trace, trace.pixel_values[None])
    return trace, torch.cat([vision.features, *vision.deepstack])


def first_order(
    model: Model,
    trace: Trace,
    visual: Float[Tensor, "input patch dim"],
    change: Float[Tensor, "input patch dim"],
    trace_ids: Int[Tensor, " token"],
    spans: Sequence[Span],
) -> Float[Tensor, "span patch"]:
    """`change` times the gradient of each span's log-prob at `visual`, summed over inputs and dimensions; float32."""
    visual = visual.detach().requires_grad_()
    trace_ids = trace_ids.clone()  # ids from inference mode cannot be kept for the backward pass
    features, *deepstack = visual.split(1)
    states, _ = read(model, trace, Vision(features, deepstack), 1, use_cache=False)
    states = states[:, states.shape[1] - len(trace_ids) :]
    tokens = torch.zeros(len(spans), visual.shape[1], device=visual.device)
    for row, span in zip(tokens, spans, strict=True):
        predicting, ids = states[:, span.start : span.end], trace_ids[span.start : span.end]
        upper = _log_prob_gradient(model, predicting, ids)
        (gradient,) = torch.autograd.grad(predicting, visual, upper, retain_graph=True)
        row.copy_((change.float() * gradient.float()).sum(dim=(0, 2)))
    return tokens


def _log_prob_gradient(
    model: Model, states: Float[Tensor, "1 token dim"], ids: Int[Tensor, " token"]
) -> Float[Tensor, "1 token dim"]:
    """Apart from the rest, so that logits of one span are kept at a time, not of the whole trace."""
    states = states.detach().requires_grad_()
    return torch.autograd.grad(trace_log_probs(model, states, ids).sum(), states)[0]


def by_region(tokens: Float[Tensor, "span patch"], regions: Regions) -> Float[Tensor, "span region"]:
    return pool(tokens, regions.of_patch.to(tokens.device), regions.count)
