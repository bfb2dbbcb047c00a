"""The decoding loop: a model's next id, one after the other, for whoever takes them; nothing here knows of attribution."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from eyeline.events import Reason
from eyeline.generation import end_tokens
from eyeline.model import Inputs, Model
from eyeline.teacher_forcing import AT_ONCE, Along


@dataclass(frozen=True, slots=True)
class Likely:
    """How likely one step's tokens were; nats, the raw model's distribution at temperature 1."""

    log_prob: float  # of the token that was written
    top: tuple[tuple[int, float], ...]  # the likeliest tokens, and the log-prob of each


@runtime_checkable
class Taker(Protocol):
    """Who takes the ids."""

    def begin(self) -> None:
        """Told once the prompt has been read."""

    def take(self, token_id: int, likely: Likely | None = None) -> None:
        """Told each id, and how likely it was where that was asked."""

    def known(self, ids: Sequence[int]) -> None:
        """Told, of a text that is already written, its first ids, once the model has read what predicts each."""

    @property
    def ids(self) -> list[int]:
        """Those taken so far."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether a stop string stands in the text."""
        ...

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants any more."""
        ...


def decode(
    model: Model,
    inputs: Inputs,
    taker: Taker,
    rng: torch.Generator,
    generation: dict[str, Any],
    top_logprobs: int | None = None,
) -> Reason:
    """Lets the model write after a prompt; `generation` are options of `hf.generate`.

    `top_logprobs`: of how many tokens the taker is told how likely each step had them; None: of none, not the written one.
    """
    reason: Reason = "error"

    def loop(hf, input_ids, logits_processor, stopping_criteria, generation_config, **kwargs):
        """`GenerationMixin._sample` for one sequence, with a random generator of its own.

        Same calls in the same order, so the same ids as `generate` after `torch.manual_seed`.
        """
        nonlocal reason
        ends = _ending(stopping_criteria)
        outputs = hf._prefill(input_ids, generation_config, kwargs)
        taker.begin()
        while True:
            kwargs = hf._update_model_kwargs_for_generation(outputs, kwargs, is_encoder_decoder=False)
            logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
            log_probs = None if top_logprobs is None else logits.log_softmax(-1)[0]
            scores = logits_processor(input_ids, logits)
            if generation_config.do_sample:
                token = torch.multinomial(scores.softmax(-1), 1, generator=rng)
            else:
                token = scores.argmax(-1, keepdim=True)
            input_ids = torch.cat([input_ids, token], dim=-1)
            token_id = int(token)
            taker.take(token_id, None if log_probs is None else _likely(log_probs, token_id, top_logprobs))
            if taker.stopped:
                reason = "stop"
            elif ends(input_ids, token_id):
                reason = _end(taker.ids, generation_config)
            elif taker.cancelled:
                reason = "cancelled"
            else:
                prepared = hf.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **kwargs)
                outputs = hf(**prepared, return_dict=True)
                continue
            return input_ids

    model.hf.generate(**inputs, **generation, custom_generate=loop)
    return reason


def _likely(log_probs: Tensor, token_id: int, count: int | None) -> Likely:
    values, ids = log_probs.topk(min(count or 0, len(log_probs)))
    return Likely(float(log_probs[token_id]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


def _ending(criteria: Sequence[Any]) -> Callable[[Tensor, int], bool]:
    """Whether a sequence ends with its last token.

    The two criteria that every generation has cost a small model one token in twenty as tensors; they are numbers here.
    """
    from transformers.generation.stopping_criteria import (
        EosTokenCriteria,
        MaxLengthCriteria,
        StoppingCriteriaList,
    )

    longest = min(
        (each.max_length for each in criteria if type(each) is MaxLengthCriteria), default=sys.maxsize
    )
    last = {
        end
        for each in criteria
        if type(each) is EosTokenCriteria
        for end in each.eos_token_id.flatten().tolist()
    }
    others = StoppingCriteriaList(
        each for each in criteria if type(each) not in (EosTokenCriteria, MaxLengthCriteria)
    )

    def ends(input_ids: Tensor, token_id: int) -> bool:
        if token_id in last or input_ids.shape[1] >= longest:
            return True
        return bool(others) and bool(others(input_ids, None).all())  # pyright: ignore[reportArgumentType]

    return ends


def follow(model: Model, inputs: Inputs, taker: Taker, ids: list[int]) -> Reason:
    """Hands on the ids of a text that is already written, each when a pass over AT_ONCE of them has read what comes before it.

    Where no end token ends it, whoever gave it has: `stop`.
    """
    along = Along(model, inputs)
    taker.begin()
    for number, token_id in enumerate(ids):
        if taker.cancelled:
            return "cancelled"
        if number % AT_ONCE == 0:
            along.read(ids[: min(number + AT_ONCE, len(ids) - 1)])  # the last one predicts nothing
            taker.known(ids[: number + AT_ONCE])
        taker.take(token_id)
    return "eos" if ids[-1] in end_tokens(model.hf.generation_config) else "stop"


def _end(ids: Sequence[int], config: Any) -> Reason:
    """Why a sequence ends that was not cut at a stop string; `stop`: by a criterion of the caller's."""
    if ids[-1] in end_tokens(config):
        return "eos"
    return "length" if len(ids) == config.max_new_tokens else "stop"
