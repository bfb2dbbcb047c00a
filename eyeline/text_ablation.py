"""The slow truth of earlier text: hide parts of it from a span's own queries, and see how far the span's log-prob falls.

The image stays visible, and all that stands before the span has read what it read: what is measured is direct. It is the
suppression of attention of Thought Anchors (arXiv 2506.19143, section 5) for one later span; a query always sees itself.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.errors import UnsupportedModelError
from eyeline.model import Model, check_finite
from eyeline.spans import Span
from eyeline.teacher_forcing import (
    kernel_without_mask,
    read,
    read_masked,
    see,
    teacher_force,
    trace_log_probs,
)


def hide_text(
    model: Model,
    inputs: Mapping[str, Tensor],
    trace_ids: Int[Tensor, " trace_token"],
    span: Span,
    hidden: Bool[Tensor, "subset earlier"],
    rows: int = 64,
) -> Float[Tensor, "subset token"]:
    """The fall of each of a span's tokens, nats, with each subset of the trace's tokens before the span hidden from it.

    `hidden` runs over the tokens [0, `span.start`); every batch of at most `rows` holds the pass with nothing hidden as its
    first row. Raises `UnsupportedModelError` where a mask cannot be set.
    """
    kernel = kernel_without_mask(model)
    if kernel or any(model.adapter.sliding_windows(model.hf)):
        raise UnsupportedModelError(
            "Earlier text is hidden by a mask, for which the model needs full attention whose mask can be set; "
            "load it with attn_implementation=sdpa."
        )
    falls = []
    with torch.inference_mode():
        trace = teacher_force(model, inputs, trace_ids[: span.end])
        vision = see(model, trace, trace.pixel_values[None])
        first, length = trace.prompt_length - 1 + span.start, trace.ids.shape[1]
        _, prefix = read(model, trace, vision, rows=1, end=first, use_cache=True)
        queries = torch.arange(first, length, device=trace.ids.device)
        future = torch.arange(length, device=queries.device) > queries[:, None]
        itself = torch.arange(length, device=queries.device) == queries[:, None]
        nothing = hidden.new_zeros(1, hidden.shape[1])
        for subsets in hidden.split(max(1, rows - 1)):
            subsets = torch.cat([nothing, subsets]).to(queries.device)
            keys = queries.new_zeros(len(subsets), length, dtype=torch.bool)
            keys[:, trace.prompt_length : trace.prompt_length + span.start] = subsets
            blocked = future | (keys[:, None] & ~itself)
            states = read_masked(model, trace, vision, first, prefix, blocked)
            log_probs = trace_log_probs(model, states, trace_ids[span.start : span.end])
            falls.append(log_probs[0] - log_probs[1:])
    check_finite(model, "log-probs", *falls)
    return torch.cat(falls).clone()


def of_spans(
    subsets: Bool[Tensor, "subset source"], spans: Sequence[Span], count: int
) -> Bool[Tensor, "subset earlier"]:
    """Subsets of earlier spans as subsets of the first `count` tokens of a trace."""
    found = subsets.new_zeros(len(subsets), count)
    for column, span in zip(subsets.T, spans, strict=True):
        found[:, span.start : min(span.end, count)] = column[:, None]
    return found
