"""One prompt written on from several pictures at once: thinking that may not go on for ever, and noise that rows share.

What a trace says is read by the rules of generation.py; what stands in the pictures is left to whoever asks.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.events import Channel, Text
from eyeline.generation import LEFT_OUT, check_options, end_tokens, segmenter
from eyeline.model import Inputs, Model, rope_deltas_kept
from eyeline.spans import Segmenter
from eyeline.teacher_forcing import LOGITS_AT_ONCE, cache_name

STAYING = 0.75  # of a batch, at most, are still written when those that ended leave it


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What the model wrote after one prompt, its thinking and its answer apart."""

    thinking_ids: tuple[int, ...]  # up to the closing marker and with it; all where nothing closes it
    answer_ids: tuple[int, ...]  # the end token included
    thinking: str
    answer: str  # without white space at its ends
    channel: Channel  # that it ended in
    closed: bool  # the closing marker was put there in the model's place
    stopped: bool  # at a stop string


@dataclass(frozen=True, eq=False)
class Batch:
    """What came of one prompt with several pictures."""

    written: list[Rewritten]  # a row each
    cache: Any  # the prompt's, but for its last id; None where windows slide
    draft: Float[Tensor, "row token"] | None  # log-probs of the draft's tokens, where it was read; nats


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a row ends at the latest, in tokens."""

    thinking: int  # then the closing marker is written for the model
    answer: int
    all: int


@dataclass(frozen=True, slots=True)
class Noise:
    """What makes the choice of each token random; the same seeds give the same noise, whatever it falls on.

    The id of the largest log-prob plus standard Gumbel noise is a draw from the distribution (Gumbel 1954).
    """

    seeds: tuple[int, ...]  # one for each sample
    of_row: tuple[int, ...]  # the sample of each row


def parse(model: Model, ids: Sequence[int], *, opened: bool, stop: Sequence[str] = ()) -> Rewritten:
    """What the ids of a trace say. `opened`: the prompt opens thinking."""
    row = _Row(segmenter(model, opened=opened, stop=stop), Limits(len(ids), len(ids), len(ids)), (), ())
    for token in ids:
        row.take(token)
    return row.finish()


def write_again(
    model: Model, inputs: Inputs, pixels: Float[Tensor, "row pixel_row value"], limits: Limits, *,
    opened: bool, stop: Sequence[str] = (), generation: Mapping[str, Any] | None = None, noise: Noise | None = None,
    draft: Sequence[int] = (),
) -> Batch:  # fmt: skip
    """What the model writes after one prompt with each of several pictures.

    `generation`: options of `hf.generate`; a sampled text needs `noise`, a greedy one uses none. Thinking that ends without
    its marker, or is as long as it may be, is closed for the model, which then answers.
    `draft`: what a greedy row may well write; those that do are read, not written, which is much faster. Raises `PromptError` for
    options that cannot be followed.
    """
    from eyeline.growing_cache import grow_in_place  # brings transformers

    generation = dict(generation or {})
    check_options(model, generation)
    closing = tuple(model.tokenizer(model.adapter.thinking_markers[1], add_special_tokens=False)["input_ids"])
    ends = tuple(end_tokens(model.hf.generation_config))
    rows = [
        _Row(segmenter(model, opened=opened, stop=stop), limits, closing, ends) for _ in range(len(pixels))
    ]

    cache: Any = None
    log_probs: Tensor | None = None
    slides = any(model.adapter.sliding_windows(model.hf))

    def loop(hf, input_ids, logits_processor, stopping_criteria, generation_config, **kwargs):
        """`GenerationMixin._sample`, where each row decides by itself what is written and when it ends, and then leaves."""
        nonlocal cache, log_probs
        name = cache_name(model)
        sampled = _Sampled(noise, model.device) if generation_config.do_sample and noise is not None else None
        outputs = hf._prefill(input_ids, generation_config, kwargs)
        cache = copy.deepcopy(outputs[name])
        grow_in_place(outputs[name])
        alive = torch.arange(len(rows), device=input_ids.device)
        if draft and not generation_config.do_sample and not slides:
            agree, log_probs = _agreeing(model, hf, input_ids, outputs, kwargs, logits_processor, draft)
            for row in agree.nonzero()[:, 0].tolist():
                for token in draft:
                    rows[row].step(token)
            assert all(rows[row].over for row in agree.nonzero()[:, 0].tolist()), "a draft is a whole trace"
            keep = torch.tensor([at for at, row in enumerate(rows) if not row.over], device=input_ids.device)
            if not len(keep):
                return input_ids
            alive, input_ids = alive[keep], input_ids[keep]
            outputs.logits = outputs.logits[keep]
            _keep_rows(hf, kwargs, outputs[name], keep)
        while True:
            kwargs = hf._update_model_kwargs_for_generation(outputs, kwargs, is_encoder_decoder=False)
            logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=input_ids.device)
            scores = logits_processor(input_ids, logits)
            if sampled is not None:
                scores = scores + sampled.next(scores.shape[1], alive)
            writing = [rows[row] for row in alive.tolist()]
            tokens = [row.step(token) for row, token in zip(writing, scores.argmax(-1).tolist(), strict=True)]
            input_ids = torch.cat([input_ids, input_ids.new_tensor(tokens)[:, None]], dim=1)
            left = [at for at, row in enumerate(writing) if not row.over]
            if not left:
                return input_ids
            if len(left) <= STAYING * len(writing):
                keep = torch.tensor(left, device=input_ids.device)
                alive, input_ids = alive[keep], input_ids[keep]
                _keep_rows(hf, kwargs, kwargs[name], keep)
            prepared = hf.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **kwargs)
            outputs = hf(**prepared, return_dict=True)

    batch = {
        name: inputs[name].repeat(len(pixels), 1)
        for name in ("input_ids", "attention_mask", "mm_token_type_ids", "image_grid_thw")
    }
    options = {**generation, **LEFT_OUT, "max_new_tokens": limits.all, "custom_generate": loop}
    with torch.inference_mode(), rope_deltas_kept(model):
        model.hf.generate(**batch, pixel_values=pixels.flatten(0, 1), **options)
    if slides:
        cache = None
    else:
        cache.crop(-1)
    return Batch([row.finish() for row in rows], cache, log_probs)


def _agreeing(
    model: Model, hf: Any, input_ids: Int[Tensor, "row position"], outputs: Any, kwargs: Mapping[str, Any],
    logits_processor: Any, draft: Sequence[int],
) -> tuple[Bool[Tensor, " row"], Float[Tensor, "row token"]]:  # fmt: skip
    """Which rows would write a draft greedily, and the log-probs of its tokens, from a few passes over it.

    `outputs` are the prompt's; their cache ends with the prompt again afterwards.
    """
    ids = torch.tensor(draft, device=input_ids.device)
    whole = torch.cat([input_ids, ids.expand(len(input_ids), -1)], dim=1)
    prompt, vocabulary = input_ids.shape[1], model.adapter.text_config(model.hf).vocab_size
    size = max(1, LOGITS_AT_ONCE // (len(input_ids) * vocabulary))
    kwargs, told, read, logits = dict(kwargs), outputs, 0, outputs.logits[:, -1:]
    log_probs: list[Tensor] = []
    agree = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
    while True:
        for step in range(logits.shape[1]):  # of the draft's ids from `read` on
            scores = logits[:, step].to(copy=True, dtype=torch.float32, device=input_ids.device)
            scores = logits_processor(whole[:, : prompt + read + step], scores)
            agree &= scores.argmax(-1) == ids[read + step]
        exact, targets = logits.float(), ids[read : read + logits.shape[1], None].expand(len(logits), -1, 1)
        log_probs.append(exact.gather(2, targets)[:, :, 0] - exact.logsumexp(2))
        read += logits.shape[1]
        some = min(size, len(ids) - read)
        if not some:
            break
        kwargs = hf._update_model_kwargs_for_generation(told, kwargs, num_new_tokens=some)
        end = prompt + read - 1 + some
        prepared = hf.prepare_inputs_for_generation(whole[:, :end], next_sequence_length=some, **kwargs)
        told = hf(**{**prepared, "logits_to_keep": some}, return_dict=True)
        logits = told.logits
    if read > 1:
        outputs[cache_name(model)].crop(1 - read)
    return agree, torch.cat(log_probs, dim=1)


def _keep_rows(hf: Any, kwargs: dict[str, Any], cache: Any, keep: Int[Tensor, " row"]) -> None:
    """Lets all other rows of a batch go from what `generate` hands on and from what the model keeps of positions."""
    cache.batch_select_indices(keep)
    for name in ("attention_mask", "mm_token_type_ids", "position_ids"):  # rows are the last axis but one
        if kwargs.get(name) is not None:
            kwargs[name] = kwargs[name][..., keep, :]
    hf.model.rope_deltas = hf.model.rope_deltas[keep]


class _Sampled:
    """The noise of each sample, step after step."""

    def __init__(self, noise: Noise, device: torch.device) -> None:
        self._rngs = [torch.Generator(device).manual_seed(seed) for seed in noise.seeds]
        self._of_row = torch.tensor(noise.of_row, device=device)

    def next(self, entries: int, rows: Int[Tensor, " row"]) -> Float[Tensor, "row entry"]:
        drawn = [
            torch.empty(entries, device=rng.device).exponential_(generator=rng).clamp(min=1e-30)
            for rng in self._rngs
        ]
        return -torch.stack(drawn).log()[self._of_row[rows]]


@dataclass(eq=False)
class _Row:
    """One sequence while it is written."""

    follow: Segmenter
    limits: Limits
    closing: Sequence[int]  # ids of the marker that closes thinking
    ends: Sequence[int]  # ids that end generation
    ids: list[int] = field(default_factory=list)
    thought: int = 0  # ids of thinking that is closed
    said: list[str] = field(default_factory=list)  # while it thinks
    waiting: list[int] = field(default_factory=list)  # ids that come in the model's place
    closed: bool = False
    over: bool = False

    def step(self, token: int) -> int:
        """Takes the model's id or what comes in its place; returns it."""
        if self.over:
            return token
        thinks = self.follow.channel == "thinking"
        if thinks and not self.waiting and (len(self.ids) >= self.limits.thinking or token in self.ends):
            self.waiting, self.closed = list(self.closing), True
        if self.waiting:
            token = self.waiting.pop(0)
        self.take(token)
        answered = self.follow.channel == "answer" and (
            token in self.ends or len(self.ids) - self.thought >= self.limits.answer
        )
        self.over = answered or self.follow.stopped or len(self.ids) >= self.limits.all
        return token

    def take(self, token: int) -> None:
        before = self.follow.channel
        self.ids.append(token)
        self._keep(self.follow.push(token))
        if before == "thinking" and self.follow.channel == "answer":
            self.thought = len(self.ids)

    def finish(self) -> Rewritten:
        channel = self.follow.channel
        self._keep(self.follow.finish())
        if channel == "thinking":
            self.thought = len(self.ids)
        return Rewritten(
            tuple(self.ids[: self.thought]), tuple(self.ids[self.thought :]), "".join(self.said), self.follow.answer,
            channel, self.closed, self.follow.stopped,
        )  # fmt: skip

    def _keep(self, events: list[Any]) -> None:
        self.said += [each.text for each in events if isinstance(each, Text) and each.channel == "thinking"]
