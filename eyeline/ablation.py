"""The slow truth: hide parts of the images, teacher-force the same trace, measure the fall in log-prob.

Two ways of hiding, `METHODS`; an estimator's card names the one it was fitted on. Which parts make a region
is regions.py's, which subsets to hide the caller's. Nothing of the model is changed, `rope_deltas` included:
the text model is called directly, with explicit positions.
"""

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.adapters import ImageGrid, image_grids
from eyeline.errors import UnsupportedModelError
from eyeline.model import Model

Method = Literal["pixels", "attention"]
CHANNELS = 3  # images.py makes every image RGB
LOGITS_AT_ONCE = 2**24  # float32: 64 MiB


@dataclass(frozen=True, slots=True)
class Ablation:
    """What hiding did to every token of a trace; nats, raw model distribution at temperature 1."""

    log_probs: Float[Tensor, " token"]  # nothing hidden, from the first batch
    drops: Float[Tensor, "subset token"]  # fall in log-prob against the unablated pass of the same batch


def ablate(
    model: Model,
    inputs: Mapping[str, Tensor],
    trace_ids: Int[Tensor, " token"],
    hidden: Bool[Tensor, "subset patch"],
    method: Method = "pixels",
    tokens_per_batch: int = 4096,
) -> Ablation:
    """Hide each subset of visual tokens in turn, and see how far the log-prob of each written token falls.

    `inputs` is one prompt from `model.inputs`; `hidden` runs over the visual tokens of all its images in
    order. Every batch holds the unablated pass as its first row, and at least one ablated. `tokens_per_batch`
    bounds memory: it counts positions that run through the language model. Raises `UnsupportedModelError` for
    attention knockout in a model whose masks cannot be set.
    """
    with torch.inference_mode():
        trace = _teacher_force(model, inputs, trace_ids)
        hidden = hidden.to(trace.ids.device)
        forward, length = METHODS[method](model, trace)
        nothing = hidden.new_zeros(1, hidden.shape[1])
        log_probs, drops = [], []
        for subsets in hidden.split(max(1, tokens_per_batch // length - 1)):
            states = forward(torch.cat([nothing, subsets]))
            batch = _log_probs(model, states[:, states.shape[1] - len(trace_ids) :], trace_ids)
            log_probs.append(batch[0])
            drops.append(batch[0] - batch[1:])
    return Ablation(log_probs[0].clone(), torch.cat(drops).clone())  # cloned: usable in autograd


def hidden_patches(
    subsets: Bool[Tensor, "subset region"], region_of_patch: Int[Tensor, " patch"]
) -> Bool[Tensor, "subset patch"]:
    """Subsets of regions as subsets of visual tokens."""
    return subsets[:, region_of_patch]


def fill_pixels(
    model: Model, inputs: Mapping[str, Tensor], hidden: Bool[Tensor, " patch"]
) -> dict[str, Tensor]:
    """The same prompt with some visual tokens' pixels filled as `METHODS["pixels"]` fills them, to generate from."""
    grids = model.image_grids(inputs)
    filled = _fill(model, inputs["pixel_values"], grids, hidden[None].to(inputs["pixel_values"].device))
    return {**inputs, "pixel_values": filled[0]}


def read_trace(model: Model, inputs: Mapping[str, Tensor], trace_ids: Int[Tensor, " token"]) -> None:
    """One pass over prompt and trace with nothing hidden, for an `AttentionCapture` to record."""
    with torch.inference_mode():
        trace = _teacher_force(model, inputs, trace_ids)
        _read(model, trace, _see(model, trace, trace.pixel_values[None]), 1, use_cache=False)


def leak(pixels: Float[Tensor, "*drop"], attention: Float[Tensor, "*drop"]) -> float:
    """Share of the pixels' effect that attention knockout misses: the vision tower's own attention has
    carried what was hidden into other visual tokens.

    One minus the least-squares slope of the knockout's drops on the pixels' drops: 0 if knockout does as
    much, 1 if it does nothing, negative if it does more; 0 where pixels have no effect.
    """
    power = float((pixels * pixels).sum())
    return 1 - float((pixels * attention).sum()) / power if power else 0.0


@dataclass(frozen=True, slots=True)
class _Trace:
    """A prompt and the trace written after it, without padding, as every pass sees it."""

    ids: Int[Tensor, "1 position"]  # the trace's last token predicts nothing and is left out
    position_ids: Int[Tensor, "3 1 position"]
    images: list[ImageGrid]
    patches: Int[Tensor, " patch"]  # positions of all visual tokens
    prompt_length: int
    pixel_values: Float[Tensor, "pixel_row value"]
    grid_thw: Int[Tensor, "image 3"]


def _teacher_force(model: Model, inputs: Mapping[str, Tensor], trace_ids: Int[Tensor, " token"]) -> _Trace:
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
    return _Trace(
        ids, position_ids, images, patches, prompt.shape[1], inputs["pixel_values"], inputs["image_grid_thw"]
    )


@dataclass(frozen=True, slots=True)
class _Vision:
    """The vision tower's output for a batch: what enters the text model at the visual tokens."""

    features: Float[Tensor, "row patch dim"]
    deepstack: list[Float[Tensor, "row patch dim"]]  # added to the output of the first layers


def _see(model: Model, trace: _Trace, pixels: Float[Tensor, "row pixel_row value"]) -> _Vision:
    rows = len(pixels)
    tower: Any = model.adapter.vision_tower(model.hf)
    output = tower(pixels.flatten(0, 1).to(tower.dtype), grid_thw=trace.grid_thw.repeat(rows, 1))
    features = torch.cat(model.adapter.visual_features(output, trace.images * rows))
    deepstack = output.deepstack_features if model.adapter.deepstack else []
    return _Vision(features.unflatten(0, (rows, -1)), [layer.unflatten(0, (rows, -1)) for layer in deepstack])


def _read(
    model: Model, trace: _Trace, vision: _Vision, rows: int, start: int = 0, end: int | None = None, **options
) -> tuple[Float[Tensor, "row position dim"], Any]:
    """Last hidden states of a batch at positions [start, end); and the cache, if the options ask for one."""
    text: Any = model.adapter.text_model(model.hf)
    ids = trace.ids[:, start:end]
    inside = (trace.patches >= start) & (trace.patches < start + ids.shape[1])
    positions = trace.patches[inside] - start
    embeds = text.get_input_embeddings()(ids).repeat(rows, 1, 1)
    embeds[:, positions] = vision.features[:, inside].to(embeds.dtype)
    if vision.deepstack and len(positions):
        is_visual = torch.zeros_like(ids, dtype=torch.bool).index_fill_(1, positions, True)
        options["visual_pos_masks"] = is_visual.repeat(rows, 1)
        options["deepstack_visual_embeds"] = [
            layer[:, inside].expand(rows, -1, -1).flatten(0, 1) for layer in vision.deepstack
        ]
    position_ids = trace.position_ids[..., start:end].repeat(1, rows, 1)
    output = text(inputs_embeds=embeds, position_ids=position_ids, **options)
    return output.last_hidden_state, output.get(_cache_name(model))


def _cache_name(model: Model) -> str:
    """What the text model calls its cache: transformers 5.24 has renamed it."""
    text: Any = model.adapter.text_model(model.hf)
    return "cache" if "cache" in inspect.signature(text.forward).parameters else "past_key_values"


Forward = Callable[[Tensor], Tensor]  # hidden (row, patch) -> last hidden states (row, position, dim)


def _hide_pixels(model: Model, trace: _Trace) -> tuple[Forward, int]:
    """Fill hidden cells with their image's mean colour, on `pixel_values`: no bleeding on resize.

    A cell is `merge`^2 consecutive rows of `pixel_values`, cells in raster order, images one after the other;
    a row is (channel, frame, y, x) flattened (the `patchify` of Qwen2VL's and Glm4v's image processors).
    """

    def forward(hidden: Bool[Tensor, "row patch"]) -> Float[Tensor, "row position dim"]:
        filled = _fill(model, trace.pixel_values, trace.images, hidden)
        return _read(model, trace, _see(model, trace, filled), len(hidden), use_cache=False)[0]

    return forward, trace.ids.shape[1]


def _fill(
    model: Model,
    pixels: Float[Tensor, "pixel_row value"],
    images: list[ImageGrid],
    hidden: Bool[Tensor, "row patch"],
) -> Float[Tensor, "row pixel_row value"]:
    rows_per_cell = model.adapter.merge_size(model.hf) ** 2
    counts = [len(image) * rows_per_cell for image in images]
    colours = [image.unflatten(1, (CHANNELS, -1)).mean(dim=(0, 2)) for image in pixels.split(counts)]
    fill = torch.stack(colours).repeat_interleave(pixels.shape[1] // CHANNELS, dim=1)  # (image, value)
    fill = fill.repeat_interleave(torch.tensor(counts, device=fill.device), dim=0)
    return torch.where(hidden.repeat_interleave(rows_per_cell, dim=1)[..., None], fill, pixels)


def _hide_from_attention(model: Model, trace: _Trace) -> tuple[Forward, int]:
    """Every position after an image, the question included, cannot attend to its hidden visual tokens.

    That holds for the visual tokens of later images too; an image's own tokens go on seeing each other. So
    all up to the end of the first image is the same in every row and is computed once.
    """
    config = model.adapter.text_config(model.hf)
    kernel = str(config._attn_implementation)
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if sliding or "flash" in kernel or "flex" in kernel:
        raise UnsupportedModelError(
            "Attention knockout needs full attention with a mask that can be set, but this model has "
            f"{'sliding windows' if sliding else kernel}: hide pixels instead"
            f"{'' if sliding else ', or load it with attn_implementation=sdpa'}."
        )
    length = trace.ids.shape[1]
    start = min(int(trace.images[0].positions[-1]) + 1, trace.prompt_length - 1)
    vision = _see(model, trace, trace.pixel_values[None])
    _, prefix = _read(model, trace, vision, rows=1, end=start, use_cache=True)

    queries = torch.arange(start, length, device=trace.ids.device)
    future = torch.arange(length, device=trace.ids.device) > queries[:, None]
    image_end = torch.cat([image.positions[-1].expand(len(image)) for image in trace.images])
    after_image = queries[:, None] > image_end  # (query, patch)

    def forward(hidden: Bool[Tensor, "row patch"]) -> Float[Tensor, "row position dim"]:
        blocked = future.repeat(len(hidden), 1, 1)  # (row, query, key)
        blocked[:, :, trace.patches] |= hidden[:, None] & after_image
        dtype = vision.features.dtype
        mask = torch.zeros(blocked.shape, dtype=dtype, device=blocked.device)
        mask.masked_fill_(blocked, torch.finfo(dtype).min)
        cache = copy.deepcopy(prefix)
        cache.batch_repeat_interleave(len(hidden))
        options = {"attention_mask": mask[:, None], _cache_name(model): cache, "use_cache": True}
        return _read(model, trace, vision, len(hidden), start, **options)[0]

    return forward, length - start


METHODS: dict[str, Callable[[Model, _Trace], tuple[Forward, int]]] = {
    "pixels": _hide_pixels,
    "attention": _hide_from_attention,
}


def _log_probs(
    model: Model, states: Float[Tensor, "row token dim"], trace_ids: Int[Tensor, " token"]
) -> Float[Tensor, "row token"]:
    """Log-probs of the trace's tokens from the hidden states that predict them; logits a chunk at a time."""
    head = model.adapter.lm_head(model.hf)
    targets = trace_ids.to(states.device).repeat(len(states))
    size = max(1, LOGITS_AT_ONCE // model.adapter.text_config(model.hf).vocab_size)
    log_probs = []
    for chunk, ids in zip(states.flatten(0, 1).split(size), targets.split(size), strict=True):
        logits = head(chunk).float()
        log_probs.append(logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(dim=1))
    return torch.cat(log_probs).view(states.shape[:2])
