"""FlashTrace (arXiv 2602.01914): a whole answer traced to the image by information flow, through the thinking in hops.

The flow of the answer's stretch (ifr.py) falls on visual tokens and on tokens of the thinking; what falls on these is handed on
by their own flow, once a hop. The text is fixed throughout: nobody thinks again.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.evaluation.baselines.ifr import flows
from eyeline.model import Inputs, Model
from eyeline.spans import Span
from eyeline.teacher_forcing import teacher_force


def flash_trace(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], answer: tuple[int, int], hops: int
) -> Float[Tensor, "hop patch"]:
    """What has fallen on each visual token after 0, 1, ... `hops` hops, of the answer's tokens [start, end)."""
    start, end = answer
    with torch.inference_mode():
        trace = teacher_force(model, inputs, trace_ids)
        spans = [Span(0, "answer", start, end, "", False)]
        spans += [Span(token + 1, "thinking", token, token + 1, "", False) for token in range(start)]
        shares = flows(model, trace, spans).positions
    on_image = shares[:, trace.patches]
    on_text = shares[:, trace.prompt_length : trace.prompt_length + start]  # position P + v holds token v
    fallen, left = [on_image[0]], on_text[0]
    for _ in range(hops):
        fallen.append(fallen[-1] + left @ on_image[1:])
        left = left @ on_text[1:]
    return torch.stack(fallen).clone()
