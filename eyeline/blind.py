"""The same text read once more by the model, behind a prompt whose images are filled: how likely each token is without them.

What hiding the whole image does to a text is then measured, not predicted. It takes one pass over the text, a block at a time,
and one over the prompt.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from eyeline.ablation import fill_pixels
from eyeline.events import Notice, Start
from eyeline.model import Inputs, Model
from eyeline.teacher_forcing import Along, trace_log_probs

NOTICE = Notice(
    "whole",
    "What hiding the whole image does is measured, by reading the text once more without it; the rest is predicted.",
)


def is_measured(start: Start) -> bool:
    """Whether what a run tells of its whole images was measured."""
    return any(notice.kind == NOTICE.kind for notice in start.notices)


class Blind:
    """Follows a text token by token, in order, without its images."""

    @torch.inference_mode()
    def __init__(self, model: Model, inputs: Inputs, method: str) -> None:
        """Reads the prompt. `method`: one of FILLS."""
        everything = torch.ones(sum(map(len, model.image_grids(inputs))), dtype=torch.bool)
        self._model, self._along = model, Along(model, fill_pixels(model, inputs, everything, method))
        self._ids: list[int] = []
        self._log_probs = torch.zeros(0, device=model.device)

    @torch.inference_mode()
    def log_probs(self, start: int, ids: Sequence[int]) -> Float[Tensor, " token"] | None:
        """Of the tokens `ids` from `start` on, nats; None where some before them never came."""
        if start > len(self._ids):
            return None
        if new := list(ids[len(self._ids) - start :]):
            self._ids += new
            states = self._along.read(self._ids)
            found = trace_log_probs(self._model, states[None], torch.tensor(new))[0]
            self._log_probs = torch.cat([self._log_probs, found.float()])
        return self._log_probs[start : start + len(ids)]
