"""A prompt and a given trace through the model, part by part: vision tower, text model, log-probs of the written tokens.

The text model is called directly, with explicit positions, so that nothing of the model is changed, `rope_deltas`
included. Ablations and gradients both run on these passes, with whatever they put in place of a part.
"""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.adapters import ImageGrid, image_grids
from eyeline.model import Inputs, Model

LOGITS_AT_ONCE = 2**24  # float32: 64 MiB
AT_ONCE = 128  # ids of one pass of `Along`


@dataclass(frozen=True, slots=True)
class Trace:
    """A prompt and the trace written after it, without padding, as every pass sees it.

    `with_texts` makes one of several traces after the same prompt.
    """

    ids: Int[Tensor, "text position"]  # the trace's last token predicts nothing and is left out
    position_ids: Int[Tensor, "3 1 position"]
    images: list[ImageGrid]
    patches: Int[Tensor, " patch"]  # positions of all visual tokens
    prompt_length: int
    pixel_values: Float[Tensor, "pixel_row value"]
    grid_thw: Int[Tensor, "image 3"]


def teacher_force(model: Model, inputs: Mapping[str, Tensor], trace_ids: Int[Tensor, " token"]) -> Trace:
    prompt = inputs["input_ids"]
    if (mask := inputs.get("attention_mask")) is not None:
        prompt = prompt[:, mask[0].bool()]
    ids = torch.cat([prompt, trace_ids[None, :-1].to(prompt)], dim=1)
    images = image_grids(model.hf, {"input_ids": prompt, "image_grid_thw": inputs["image_grid_thw"]})
    patches = torch.cat([image.positions for image in images])
    # from the images' positions: an image token that the model wrote itself is text, as in decoding
    types = torch.zeros_like(ids, dtype=torch.int32)
    types[:, patches] = 1
    position_ids, _ = model.hf.model.get_rope_index(
        ids, mm_token_type_ids=types, image_grid_thw=inputs["image_grid_thw"]
    )
    return Trace(
        ids, position_ids, images, patches, prompt.shape[1], inputs["pixel_values"], inputs["image_grid_thw"]
    )


def prompt_alone(model: Model, inputs: Mapping[str, Tensor]) -> Trace:
    """A prompt with nothing written after it: the last token of a trace is left out."""
    return teacher_force(model, inputs, inputs["input_ids"].new_zeros(1))


def with_texts(model: Model, inputs: Mapping[str, Tensor], texts: Sequence[Sequence[int]]) -> Trace:
    """Several traces after one prompt, a row each: filled up at the end, where nothing that comes before looks."""
    prompt = prompt_alone(model, inputs).ids[0]
    longest = max(map(len, texts))
    ids = prompt.new_zeros(len(texts), longest + 1)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = torch.tensor(text)
    trace = teacher_force(model, inputs, ids[0])  # positions are the same in every row
    return replace(trace, ids=torch.cat([prompt.expand(len(texts), -1), ids[:, :longest]], dim=1))


def continued(inputs: Inputs, ids: Int[Tensor, " token"]) -> Inputs:
    """The model's own inputs for a prompt with text after it, to read or to go on from."""
    text = ids[None].to(inputs["input_ids"])
    more = {
        "input_ids": text, "attention_mask": torch.ones_like(text), "mm_token_type_ids": torch.zeros_like(text).int(),
    }  # fmt: skip
    return {**inputs, **{name: torch.cat([inputs[name], each], dim=1) for name, each in more.items()}}


@dataclass(frozen=True, slots=True)
class Vision:
    """The vision tower's output for a batch: what enters the text model at the visual tokens."""

    features: Float[Tensor, "row patch dim"]
    deepstack: list[Float[Tensor, "row patch dim"]]  # added to the output of the first layers

    def of(self, rows: slice | Int[Tensor, " some"]) -> "Vision":
        """Some of the batch."""
        return Vision(self.features[rows], [layer[rows] for layer in self.deepstack])


def see(model: Model, trace: Trace, pixels: Float[Tensor, "row pixel_row value"]) -> Vision:
    rows = len(pixels)
    tower: Any = model.adapter.vision_tower(model.hf)
    output = tower(pixels.flatten(0, 1).to(tower.dtype), grid_thw=trace.grid_thw.repeat(rows, 1))
    features = torch.cat(model.adapter.visual_features(output, trace.images * rows))
    deepstack = output.deepstack_features if model.adapter.deepstack else []
    layers = [layer.to(model.device).unflatten(0, (rows, -1)) for layer in (features, *deepstack)]
    return Vision(layers[0], layers[1:])


def read(
    model: Model, trace: Trace, vision: Vision, rows: int, start: int = 0, end: int | None = None, **options
) -> tuple[Float[Tensor, "row position dim"], Any]:
    """Last hidden states of a batch at positions [start, end); and the cache, if the options ask for one.

    One trace is the same in every row; of several each is in its own.
    """
    text: Any = model.adapter.text_model(model.hf)
    ids = trace.ids[:, start:end].expand(rows, -1)
    inside = (trace.patches >= start) & (trace.patches < start + ids.shape[1])
    positions = trace.patches[inside] - start
    embeds = text.get_input_embeddings()(ids)
    embeds = embeds.index_copy(1, positions, vision.features[:, inside].to(embeds).expand(rows, -1, -1))
    if vision.deepstack and len(positions):
        is_visual = torch.zeros_like(ids, dtype=torch.bool).index_fill_(1, positions, True)
        options["visual_pos_masks"] = is_visual
        options["deepstack_visual_embeds"] = [
            layer[:, inside].expand(rows, -1, -1).flatten(0, 1) for layer in vision.deepstack
        ]
    position_ids = trace.position_ids[..., start:end].repeat(1, rows, 1)
    output = text(inputs_embeds=embeds, position_ids=position_ids, **options)
    return output.last_hidden_state.to(model.device), output.get(cache_name(model))


def read_masked(
    model: Model,
    trace: Trace,
    vision: Vision,
    start: int,
    prefix: Any,
    blocked: Bool[Tensor, "row query key"],
) -> Float[Tensor, "row query dim"]:
    """Last hidden states from `start` on, after a cached prefix that all rows share; queries do not see `blocked` keys."""
    mask = torch.zeros(blocked.shape, dtype=vision.features.dtype, device=blocked.device)
    mask.masked_fill_(blocked, torch.finfo(mask.dtype).min)
    cache = copy.deepcopy(prefix)
    cache.batch_repeat_interleave(len(blocked))
    options = {"attention_mask": mask[:, None], cache_name(model): cache, "use_cache": True}
    return read(model, trace, vision, len(blocked), start, **options)[0]


def mean_tokens(
    features: Float[Tensor, "row patch dim"], images: Sequence[ImageGrid]
) -> Float[Tensor, "row patch dim"]:
    """Every visual token replaced by the mean of its image's, in each row by itself; of the same dtype."""
    parts = features.split([len(image) for image in images], dim=1)
    return torch.cat([part.mean(dim=1, keepdim=True).expand_as(part) for part in parts], dim=1)


def kernel_without_mask(model: Model) -> str | None:
    """The text model's attention kernel where no mask of one's own can be given to it."""
    kernel = str(model.adapter.text_config(model.hf)._attn_implementation)
    return kernel if "flash" in kernel or "flex" in kernel else None


def cache_name(model: Model) -> str:
    """What the text model calls its cache: transformers 5.24 has renamed it."""
    text: Any = model.adapter.text_model(model.hf)
    return "cache" if "cache" in inspect.signature(text.forward).parameters else "past_key_values"


def trace_log_probs(
    model: Model, states: Float[Tensor, "row token dim"], trace_ids: Int[Tensor, " token"]
) -> Float[Tensor, "row token"]:
    """Log-probs of the trace's tokens from the hidden states that predict them; logits a chunk at a time."""
    head = model.adapter.lm_head(model.hf)
    targets = trace_ids.to(states.device).repeat(len(states))
    size = max(1, LOGITS_AT_ONCE // model.adapter.text_config(model.hf).vocab_size)
    log_probs = []
    for chunk, ids in zip(states.flatten(0, 1).split(size), targets.split(size), strict=True):
        logits = head(chunk).to(targets.device).float()
        log_probs.append(logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(dim=1))
    return torch.cat(log_probs).view(states.shape[:2])


class Along:
    """A prompt that has been read, and what is written after it, on one cache: in passes of a bounded length."""

    @torch.inference_mode()
    def __init__(self, model: Model, inputs: Inputs) -> None:
        self._model, self._trace = model, prompt_alone(model, inputs)
        self._vision = see(model, self._trace, self._trace.pixel_values[None])
        self._next = int(self._trace.position_ids.max()) + 1  # position of the first id
        self._cache: Any = None
        self._last = self._run(0, self._trace.ids.shape[1])[0, -1:]  # state that predicts the next id
        self.count = 0  # ids read

    @torch.inference_mode()
    def read(self, ids: Sequence[int]) -> Float[Tensor, "new dim"]:
        """Reads those of the trace's ids that are new; of each the last hidden state that predicts it."""
        states = [self._last[:0]]
        while new := ids[self.count : self.count + AT_ONCE]:
            self._extend(torch.tensor([new], device=self._trace.ids.device))
            end = self._trace.ids.shape[1]
            found = torch.cat([self._last, self._run(end - len(new), end)[0]])
            states.append(found[:-1])
            self._last = found[-1:].clone()
            self.count += len(new)
        return torch.cat(states)

    def _run(self, start: int, end: int) -> Float[Tensor, "1 position dim"]:
        """A pass over some positions after those on the cache; last hidden states."""
        options = {"use_cache": True, cache_name(self._model): self._cache}
        states, self._cache = read(self._model, self._trace, self._vision, 1, start, end, **options)
        return states

    def _extend(self, ids: Int[Tensor, "1 new"]) -> None:
        first = self._next + self.count
        positions = torch.arange(first, first + ids.shape[1], device=ids.device).expand(3, 1, -1)
        trace = self._trace
        self._trace = replace(
            trace,
            ids=torch.cat([trace.ids, ids], dim=1),
            position_ids=torch.cat([trace.position_ids, positions.to(trace.position_ids)], dim=2),
        )
