"""What generation may be asked for, and the model's own greedy text, by the same rules as a stream's.

A stream decodes step by step by itself (stream.py). Whatever else lets the model write does so by `write`.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eyeline.errors import PromptError
from eyeline.model import Inputs, Model, rope_deltas_kept
from eyeline.spans import Segmenter, Span

ARGUMENTS = (
    "logits_processor",
    "stopping_criteria",
    "prefix_allowed_tokens_fn",
)  # of `generate`, in no config
REFUSED: dict[str, Callable[[Any], bool]] = {  # what a capture cannot follow token by token
    "num_beams": lambda value: (value or 1) > 1,
    "num_return_sequences": lambda value: (value or 1) > 1,
    "constraints": bool,
    "force_words_ids": bool,
    "assistant_model": lambda value: value is not None,
    "prompt_lookup_num_tokens": lambda value: value is not None,
    "use_mtp": bool,
    "cache_implementation": lambda value: value is not None and not str(value).startswith("dynamic"),
    "past_key_values": lambda value: value is not None,
    "use_cache": lambda value: value is False,
    "penalty_alpha": bool,
    "dola_layers": lambda value: value is not None,
    "guidance_scale": lambda value: value not in (None, 1),
    "prefill_chunk_size": lambda value: value is not None,
    "token_healing": bool,
}
# what the ids do not depend on: stop strings are found in the text, and nothing but ids is asked for
LEFT_OUT = {
    "stop_strings": None, "return_dict_in_generate": False, "output_attentions": False, "output_hidden_states": False,
    "output_scores": False, "output_logits": False,
}  # fmt: skip


def check_options(model: Model, generation: Mapping[str, Any]) -> None:
    """Raises `PromptError` for options, or for a generation config of the model, that attribution cannot follow."""
    config = model.hf.generation_config
    known = {*config.to_dict(), *ARGUMENTS, *REFUSED}
    for name in generation:
        if name == "max_length":
            raise PromptError("max_length counts the prompt as well; give max_new_tokens instead.")
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            meant = (
                f"; did you mean {near[0]}?" if near else ", for example top_p, top_k or repetition_penalty."
            )
            raise PromptError(f"{name!r} is no option of generation; expected one of generate's{meant}")
    for name, refused in REFUSED.items():
        value = generation.get(name, getattr(config, name, None))
        if refused(value):
            out = "leave it out" if name in generation else "take it out of the model's generation_config"
            raise PromptError(
                f"{name}={value!r} cannot be followed: attribution reads one sequence, token by token, "
                f"on a growing cache; {out}."
            )


def stop_strings(model: Model, stop: str | Sequence[str] | None = None) -> list[str]:
    """Those of `stop_strings`, in place of which the model's generation config may have some."""
    found = stop or model.hf.generation_config.stop_strings or []
    return [found] if isinstance(found, str) else list(found)


def segmenter(model: Model, *, opened: bool, stop: Sequence[str] = ()) -> Segmenter:
    """What decides, for everybody, which generated ids are thinking and which the answer; `opened`: the prompt opens thinking."""
    return Segmenter(
        model.tokenizer, opened=opened, think=model.adapter.thinking_markers,
        answer_markers=model.adapter.answer_markers, stop=tuple(stop),
    )  # fmt: skip


def cut(model: Model, inputs: Inputs, trace: Sequence[int]) -> list[Span]:
    """The spans of a trace written after a prompt."""
    follow = segmenter(model, opened=model.prompt_opens_thinking(inputs["input_ids"]))
    events = [event for token in trace for event in follow.push(token)] + follow.finish()
    return [event for event in events if isinstance(event, Span)]


@dataclass(frozen=True, slots=True)
class Written:
    """What the model wrote after one prompt."""

    ids: list[int]  # the end token included
    spans: list[Span]
    answer: str


def write(
    model: Model, inputs: Inputs, max_new_tokens: int, opened: Sequence[bool] | None = None
) -> list[Written]:
    """The model's own greedy text after each of some prompts, filled up on the left; as `stream` writes it at temperature 0.

    `opened` says which of them end inside thinking; by default those that end with the marker. Raises `PromptError` for a
    generation config that attribution cannot follow.
    """
    check_options(model, {})
    if opened is None:
        opened = [model.prompt_opens_thinking(row[None]) for row in inputs["input_ids"]]
    stop, ends = stop_strings(model), end_tokens(model.hf.generation_config)
    rows = [_Row(segmenter(model, opened=each, stop=stop), [], []) for each in opened]
    room = [min(max_new_tokens, model.context_length - int(mask.sum())) for mask in inputs["attention_mask"]]

    def over(input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        for row, most, token in zip(rows, room, input_ids[:, -1].tolist(), strict=True):
            if not row.over:
                row.take(token)
                row.over = row.follow.stopped or token in ends or len(row.ids) == most
        return torch.tensor([row.over for row in rows], device=input_ids.device)

    options = {**LEFT_OUT, "do_sample": False, "max_new_tokens": max(room), "stopping_criteria": [over]}
    with rope_deltas_kept(model):
        model.hf.generate(**inputs, **options)
    return [row.finish() for row in rows]


def end_tokens(config: Any) -> set[int]:
    """The ids that end generation by a generation config; none where it has none."""
    ends = config.eos_token_id
    return set(ends) if isinstance(ends, list) else set() if ends is None else {ends}


@dataclass(eq=False)
class _Row:
    """One sequence of a batch while it is written."""

    follow: Segmenter
    ids: list[int]
    spans: list[Span]
    over: bool = False

    def take(self, token: int) -> None:
        self.ids.append(token)
        self._keep(self.follow.push(token))

    def finish(self) -> Written:
        self._keep(self.follow.finish())
        return Written(self.ids, self.spans, self.follow.answer)

    def _keep(self, events: list[Any]) -> None:
        self.spans += [event for event in events if isinstance(event, Span)]
