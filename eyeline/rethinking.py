"""The truth of total effects: hide parts of the images from the start, let the model think again, and see what its answer loses.

With x the images, x_k without a set of regions, T the thinking and T_k the one written anew, the log-prob of the first answer
under (x, T), (x_k, T), (x, T_k) and (x_k, T_k) gives what hiding does directly, what it does through the thinking, and both.
How pixels are filled is fills.py's, how a prompt is written on rewriting.py's, and which sets are hidden the caller's.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.ablation import Method, hidden_patches
from eyeline.errors import DataError, PromptError, RegionError
from eyeline.fills import FILLS
from eyeline.generation import end_tokens, stop_strings
from eyeline.model import Inputs, Model, check_finite
from eyeline.rewriting import Batch, Limits, Noise, Rewritten, parse, write_again
from eyeline.teacher_forcing import (
    cache_name,
    continued,
    prompt_alone,
    read,
    see,
    trace_log_probs,
    with_texts,
)

NULLS = ("nothing", "plain", "noise")  # nothing hidden; the plainest region filled; noise on the pixels
NOISE = 0.02  # standard deviation, of pixels as the processor has made them: about two and a half of 255 grey levels
FEWEST_SAMPLES = 8
LONGER = 2  # times the first thinking's length, and the first answer's, at the latest
ANSWER_ROOM = 32  # tokens more, for a new answer
POSITIONS_HELD = 32768  # keys and values of a batch while it is written
POSITIONS_READ = 8192  # that run through the model at once

Same = Callable[[str, str], bool]  # whether the second answer means what the first one does


@dataclass(frozen=True, eq=False)
class Rethinking:
    """What hiding some sets of regions from the start did to one answer.

    Falls in the first answer's log-prob, nats, are less the mean of the null rows of the same batch; `nulls` has those.
    """

    first: Rewritten
    log_prob: float  # of the first answer as it was written, nats
    sets: Bool[Tensor, "set region"]
    falls: Float[Tensor, "set 3"]  # under (x_k, T), (x, T_k), (x_k, T_k); means over samples
    changes: Float[Tensor, " set"]  # share of the samples in which the new answer means something else
    again: tuple[tuple[Rewritten, ...], ...]  # of each set the samples
    nulls: Float[Tensor, "null 3"]  # falls of NULLS, means over batches
    null_changes: Float[Tensor, " null"]

    @property
    def direct(self) -> Float[Tensor, " set"]:
        """The fall with the first thinking kept."""
        return self.falls[:, 0]

    @property
    def through(self) -> Float[Tensor, " set"]:
        """The fall after the new thinking, the images whole."""
        return self.falls[:, 1]

    @property
    def total(self) -> Float[Tensor, " set"]:
        return self.falls[:, 2]

    @property
    def interaction(self) -> Float[Tensor, " set"]:
        """What the total is beyond both parts."""
        return self.total - self.direct - self.through


def same_text(first: str, other: str) -> bool:
    return first.strip() == other.strip()


def rethink(
    model: Model, inputs: Inputs, ids: Sequence[int], labels: Int[Tensor, " patch"], sets: Bool[Tensor, "set region"], *,
    method: Method = "pixels", generation: Mapping[str, Any] | None = None,
    samples: int | None = None, seed: int = 0, same: Same = same_text, already: Bool[Tensor, " patch"] | None = None,
    positions_held: int = POSITIONS_HELD, positions_read: int = POSITIONS_READ,
) -> Rethinking:  # fmt: skip
    """Hides each set of regions, lets the model think again, and teacher-forces the first answer after both thinkings.

    `inputs` is one prompt from `model.inputs`, `ids` what the model wrote after it, `labels` the region of each visual token.
    `generation` are the options of `hf.generate` that it was written with, `stop_strings` among them. A greedy run is thought
    again greedily; of a sampled one there are `samples` (FEWEST_SAMPLES by default), each with the same noise whatever is
    hidden. Without thinking, or with blank thinking, nothing goes through it: `through` is 0. `already`: visual tokens that
    the run was asked without; they stay hidden throughout. `positions_held` and `positions_read` bound memory.

    Raises `PromptError` for a prompt without images, `DataError` for a trace without an answer and for `samples` that there
    cannot be, `RegionError` for a set that is none and for a way of hiding that fills no pixels.
    """
    prompt = _Prompt(model, inputs, ids, generation or {})
    count = _check(prompt, labels, sets, method, samples)
    already = torch.zeros(len(labels), dtype=torch.bool) if already is None else already
    device = model.device
    pictures = _Pictures(model, inputs, labels.to(device), sets.to(device), already.to(device), method)
    rows = max(1, positions_held // prompt.longest)
    at_once = max(1, rows // count - len(NULLS))
    seeds = tuple(seed + sample for sample in range(count)) if prompt.sampled else ()
    falls, changes, again = [], [], []
    null_falls, null_changes, base = [], [], 0.0
    for chunk in torch.arange(len(sets)).split(at_once) or [torch.arange(0)]:
        pixels = torch.cat([pictures.nulls(), pictures.filled(chunk)])  # the first has nothing hidden
        new: list[Rewritten] = []
        parts = pixels.split(max(1, rows // count))
        for part in parts:
            batch = prompt.write(part, count, seeds)
            new += batch.written
        samples_of = [tuple(new[at : at + count]) for at in range(0, len(new), count)]
        log_probs = prompt.arms(
            pixels, samples_of, batch if len(parts) == 1 else None, positions_held, positions_read
        )
        base = float(log_probs[0, 0])
        fell = base - log_probs
        changed = torch.tensor(
            [[not same(prompt.first.answer, each.answer) for each in of] for of in samples_of]
        ).float()
        null_falls.append(fell[: len(NULLS)])
        null_changes.append(changed[: len(NULLS)].mean(1))
        falls.append(fell[len(NULLS) :] - fell[: len(NULLS)].mean(0))
        changes.append(changed[len(NULLS) :].mean(1))
        again += samples_of[len(NULLS) :]
    return Rethinking(
        prompt.first, base, sets, torch.cat(falls), torch.cat(changes), tuple(again),
        torch.stack(null_falls).mean(0), torch.stack(null_changes).mean(0),
    )  # fmt: skip


def guessed_fall(
    model: Model, inputs: Inputs, ids: Sequence[int], *, method: Method = "pixels", generation: Mapping[str, Any] | None = None
) -> float:  # fmt: skip
    """By how much the answer's log-prob falls where it is a guess: all images hidden and nothing thought; nats.

    Two readings, and nothing written: the cheap neighbour of `rethink` for the whole image. Arguments and errors as there.
    """
    prompt = _Prompt(model, inputs, ids, generation or {})
    cells = sum(map(len, model.image_grids(inputs)))
    one, all_of_it = torch.zeros(cells, dtype=torch.long), torch.ones(1, 1, dtype=torch.bool)
    _check(prompt, one, all_of_it, method, None)
    nothing, device = torch.zeros(cells, dtype=torch.bool), model.device
    pictures = _Pictures(model, inputs, one.to(device), all_of_it.to(device), nothing.to(device), method)
    pixels = torch.cat([inputs["pixel_values"][None], pictures.filled(torch.arange(1))])
    with torch.inference_mode():
        asked = [(0, prompt.thinking), (1, prompt.unthought)]
        found = [prompt.answer_log_probs(pixels, [each], None, 1)[0] for each in asked]
    return found[0] - found[1]


def _check(
    prompt: "_Prompt", labels: Int[Tensor, " patch"], sets: Bool[Tensor, "set region"], method: Method, samples: int | None
) -> int:  # fmt: skip
    """How many samples of each set there are; raises as `rethink` does."""
    if method not in FILLS:
        raise RegionError(
            f"Thinking again cannot hide by {method!r}: the model must see other images from the start; "
            f"expected {', '.join(FILLS)}."
        )
    if sets.shape[1] != int(labels.max()) + 1 or not sets.any(1).all():
        raise RegionError(
            f"A set to hide needs at least one of the {int(labels.max()) + 1} regions; leave the empty one out."
        )
    if not prompt.sampled:
        if samples is not None:
            raise DataError(
                "The run is greedy (temperature 0), and so is thinking again: every sample would be the same; "
                "leave out how many samples."
            )
        return 1
    if samples is not None and samples < FEWEST_SAMPLES:
        raise DataError(
            f"{samples} samples say too little of a run that was sampled; expected at least {FEWEST_SAMPLES}."
        )
    return samples or FEWEST_SAMPLES


class _Prompt:
    """One prompt and its first trace: how it is written again, and how likely the first answer is then."""

    def __init__(
        self, model: Model, inputs: Inputs, ids: Sequence[int], generation: Mapping[str, Any]
    ) -> None:
        if "pixel_values" not in inputs:
            raise PromptError(
                "The prompt has no image, so there is nothing to hide; ask about a run with an image."
            )
        self.model, self.generation = model, {**generation}
        self.stop = stop_strings(model, self.generation.pop("stop_strings", None))
        self.opened = model.prompt_opens_thinking(inputs["input_ids"])
        self.first = parse(model, ids, opened=self.opened, stop=self.stop)
        if self.first.channel == "thinking":
            raise DataError(
                "The thinking was cut off before an answer came, so no answer can rest on it; let the model write on, "
                "with more --max-new-tokens."
            )
        if not self.first.answer:
            raise DataError("The run has no answer, so there is nothing that hiding a region could change.")
        thinking = self.first.thinking_ids
        if not self.first.thinking.strip():  # nothing to write anew: what stands in its place is kept
            inputs = continued(inputs, torch.tensor(thinking, dtype=torch.long))
            self.opened, thinking = False, ()
        self.inputs, self.thinking, self.answer = inputs, thinking, self.first.answer_ids
        do_sample = generation.get("do_sample", model.hf.generation_config.do_sample)
        self.sampled = bool(do_sample)

    @property
    def room(self) -> int:
        """Tokens that the context leaves."""
        return self.model.context_length - self.inputs["input_ids"].shape[1]

    @cached_property
    def limits(self) -> Limits:
        """So that the first answer has room after the new thinking; one that was cut off is compared with what is as long."""
        closing = len(self._marker(1))
        thinking = min(LONGER * len(self.thinking), self.room - closing - len(self.answer))
        ended = self.first.stopped or self.answer[-1] in end_tokens(self.model.hf.generation_config)
        answer = LONGER * len(self.answer) + ANSWER_ROOM if ended else len(self.answer)
        return Limits(thinking, answer, min(self.room, thinking + closing + answer))

    @property
    def longest(self) -> int:
        return self.inputs["input_ids"].shape[1] + self.limits.all

    def write(
        self, pixels: Float[Tensor, "picture pixel_row value"], samples: int, seeds: tuple[int, ...]
    ) -> Batch:
        """New traces, the samples of one picture after those of another."""
        noise = Noise(seeds, tuple(range(samples)) * len(pixels)) if seeds else None
        return write_again(
            self.model, self.inputs, pixels.repeat_interleave(samples, 0), self.limits, opened=self.opened,
            stop=self.stop, generation=self.generation, noise=noise, draft=(*self.thinking, *self.answer),
        )  # fmt: skip

    def after(self, new: Rewritten) -> tuple[int, ...]:
        """The ids of a new thinking, closed."""
        if not self.thinking:
            return ()
        if new.channel == "answer":
            return new.thinking_ids
        return (*new.thinking_ids, *self._marker(1))

    @property
    def unthought(self) -> tuple[int, ...]:
        """The ids of thinking in which nothing is said."""
        if not self.thinking:
            return ()
        return (*(() if self.opened else self._marker(0)), *self._marker(1))

    def _marker(self, which: int) -> tuple[int, ...]:
        """The ids that open thinking (0) or close it (1)."""
        marker = self.model.adapter.thinking_markers[which]
        return tuple(self.model.tokenizer(marker, add_special_tokens=False)["input_ids"])

    def arms(
        self, pixels: Float[Tensor, "picture pixel_row value"], new: Sequence[Sequence[Rewritten]],
        batch: Batch | None, held: int, positions: int,
    ) -> Float[Tensor, "picture 3"]:  # fmt: skip
        """Log-prob of the first answer under (x_k, T), (x, T_k), (x_k, T_k), of the samples the mean; x is the first picture.

        `batch`: what all of them were written in, whose cache of the prompt serves again; None: the prompt is read again.
        """
        thinkings = [[self.after(each) for each in of] for of in new]
        pairs = [
            [(at, self.thinking) for _ in of] + [(0, each) for each in of] + [(at, each) for each in of]
            for at, of in enumerate(thinkings)
        ]
        cache, found = None if batch is None else batch.cache, {}
        if batch is not None and batch.draft is not None:  # greedy: a row for each picture
            kept = batch.draft[:, len(self.thinking) :].sum(1)
            check_finite(self.model, "log-probs", kept)
            found = {(at, self.thinking): log_prob for at, log_prob in enumerate(kept.tolist())}
        missing = {pair for of in pairs for pair in of} - set(found)
        asked = sorted(missing, key=lambda pair: (len(pair[1]), pair[0]))
        prompt = prompt_alone(self.model, self.inputs).ids.shape[1]
        text = max((len(thinking) for _, thinking in asked), default=0) + len(self.answer)
        run = text if cache is not None else prompt + text
        at_once = max(1, min(positions // run, held // (prompt + text)))
        with torch.inference_mode():
            for first in range(0, len(asked), at_once):
                some = asked[first : first + at_once]
                found |= zip(some, self.answer_log_probs(pixels, some, cache, len(new[0])), strict=True)
        return torch.tensor([[found[pair] for pair in of] for of in pairs]).unflatten(1, (3, -1)).mean(2)

    def answer_log_probs(
        self, pixels: Float[Tensor, "picture pixel_row value"], batch: Sequence[tuple[int, tuple[int, ...]]], cache: Any,
        samples: int,
    ) -> list[float]:  # fmt: skip
        """Of the first answer with a picture and after a thinking each."""
        states = self._read(pixels, batch, cache, samples)
        starts = torch.tensor([len(thinking) for _, thinking in batch], device=states.device)
        places = starts[:, None] + torch.arange(len(self.answer), device=states.device)
        states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
        log_probs = trace_log_probs(self.model, states, torch.tensor(self.answer, device=states.device)).sum(
            1
        )
        check_finite(self.model, "log-probs", log_probs)
        return log_probs.tolist()

    def _read(
        self, pixels: Float[Tensor, "picture pixel_row value"], batch: Sequence[tuple[int, tuple[int, ...]]], cache: Any,
        samples: int,
    ) -> Float[Tensor, "pair position dim"]:  # fmt: skip
        """Last hidden states from the prompt's last position on, with a picture and after a thinking each."""
        model, device = self.model, self.model.device
        trace = with_texts(model, self.inputs, [(*thinking, *self.answer[:-1]) for _, thinking in batch])
        start = trace.prompt_length - 1
        picture = torch.tensor([at for at, _ in batch], device=device)
        if cache is None:
            shown, of_pair = picture.unique(return_inverse=True)
            vision = see(model, trace, pixels[shown]).of(of_pair)
            return read(model, trace, vision, len(batch), use_cache=False)[0][:, start:]
        known = copy.deepcopy(cache)
        known.batch_select_indices(picture * samples)
        options = {cache_name(model): known, "use_cache": True}
        return read(model, trace, see(model, trace, pixels[:1]), len(batch), start, **options)[0]


class _Pictures:
    """The prompt's images, as they are and with parts hidden."""

    def __init__(
        self, model: Model, inputs: Inputs, labels: Int[Tensor, " patch"], sets: Bool[Tensor, "set region"],
        already: Bool[Tensor, " patch"], method: Method,
    ) -> None:  # fmt: skip
        self.pixels, self.labels, self.sets, self.already = inputs["pixel_values"], labels, sets, already
        self.merged = model.adapter.merge_size(model.hf) ** 2  # rows of pixels in a visual token
        self.fill = FILLS[method](model, self.pixels, model.image_grids(inputs))

    def filled(self, which: Int[Tensor, " set"]) -> Float[Tensor, "set pixel_row value"]:
        if not len(which):
            return self.pixels.new_zeros(0, *self.pixels.shape)
        return self.fill(hidden_patches(self.sets[which.to(self.sets.device)], self.labels) | self.already)

    def nulls(self) -> Float[Tensor, "null pixel_row value"]:
        """The images as NULLS have them."""
        plainest = self.labels == self.plainest
        plain = self.already if plainest.all() else self.already | plainest  # a lone region is no null
        whole, plain = self.fill(torch.stack([self.already, plain]))
        rng = torch.Generator().manual_seed(0)
        noise = NOISE * torch.randn(self.pixels.shape, generator=rng).to(self.pixels)
        return torch.stack([whole, plain, whole + noise])

    @cached_property
    def plainest(self) -> int:
        """The region whose pixels differ least from their own mean colour."""
        of_row = self.labels.repeat_interleave(self.merged)
        values = self.pixels.float().unflatten(1, (3, -1))  # (row, channel, pixel)
        spreads = [
            float(values[of_row == region].var((0, 2), correction=0).mean())
            for region in range(int(self.labels.max()) + 1)
        ]
        return min(range(len(spreads)), key=spreads.__getitem__)
