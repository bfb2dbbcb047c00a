"""The slow truth: hide parts of the images, teacher-force the same trace, measure the fall in log-prob.

`METHODS` are the ways of hiding; an estimator's card names the one it was fitted on. Three fill pixels (their image's mean
colour, a blur, what surrounds them), one fills visual tokens, one cuts attention to them; docs/evaluation.md compares them.
How pixels are filled is fills.py's, which parts make a region regions.py's, which subsets to hide the caller's, how prompt
and trace run through the model teacher_forcing.py's.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.errors import UnsupportedModelError
from eyeline.fills import FILLS
from eyeline.game import both_ways
from eyeline.model import Model, check_finite
from eyeline.spans import Span
from eyeline.teacher_forcing import (
    Trace,
    Vision,
    kernel_without_mask,
    mean_tokens,
    read,
    read_masked,
    see,
    teacher_force,
    trace_log_probs,
)

CACHED_TOO = (
    4  # times as many positions are held in a batch as run: a cached one takes its keys and values alone
)
Method = Literal["pixels", "blur", "inpaint", "tokens", "attention"]


@dataclass(frozen=True, slots=True)
class Ablation:
    """What hiding did to every token of a trace; nats, raw model distribution at temperature 1."""

    log_probs: Float[Tensor, " token"]  # nothing hidden, from the first batch
    falls: Float[Tensor, "subset token"]  # fall in log-prob against the unablated pass of the same batch


def ablate(
    model: Model,
    inputs: Mapping[str, Tensor],
    trace_ids: Int[Tensor, " token"],
    hidden: Bool[Tensor, "subset patch"],
    method: Method = "pixels",
    tokens_per_batch: int = 4096,
    watch: Callable[[Vision], None] | None = None,
) -> Ablation:
    """Hide each subset of visual tokens in turn, and see how far the log-prob of each written token falls.

    `inputs` is one prompt from `model.inputs`; `hidden` runs over the visual tokens of all its images in
    order. Every batch holds the unablated pass as its first row, and at least one ablated. `tokens_per_batch`
    bounds memory: so many positions run through the language model at once, and CACHED_TOO times as many are held, those
    that are cached included. Where pixels are filled, `watch` is shown what the tower makes of every batch, the unablated
    image first. Raises `UnsupportedModelError` for attention knockout in a model whose masks cannot be set, and for
    log-probs that are not finite.
    """
    with torch.inference_mode():
        trace = teacher_force(model, inputs, trace_ids)
        hidden = hidden.to(trace.ids.device)
        forward, length = METHODS[method](model, trace, watch)
        nothing = hidden.new_zeros(1, hidden.shape[1])
        log_probs, falls = [], []
        rows = min(tokens_per_batch // length, CACHED_TOO * tokens_per_batch // trace.ids.shape[1])
        for subsets in hidden.split(max(1, rows - 1)):
            states = forward(torch.cat([nothing, subsets]))
            batch = trace_log_probs(model, states[:, states.shape[1] - len(trace_ids) :], trace_ids)
            log_probs.append(batch[0])
            falls.append(batch[0] - batch[1:])
    check_finite(model, "log-probs", log_probs[0], *falls)
    return Ablation(log_probs[0].clone(), torch.cat(falls).clone())  # cloned: usable in autograd


def hidden_patches(
    subsets: Bool[Tensor, "subset region"], region_of_patch: Int[Tensor, " patch"]
) -> Bool[Tensor, "subset patch"]:
    """Subsets of regions as subsets of visual tokens."""
    return subsets[:, region_of_patch]


def prefixes(orders: Int[Tensor, "order region"]) -> Bool[Tensor, "subset region"]:
    """The sets that arise as regions are hidden one after the other, along each order and along its reverse, but for all regions.

    What hiding them does makes measured contributions, by `measured_contributions`.
    """
    both = torch.stack([orders, orders.flip(1)], dim=1)  # (order, way, step)
    place = both.argsort(-1)
    steps = torch.arange(1, orders.shape[1])
    return (place[:, :, None] < steps[:, None]).flatten(0, 2)


def measured_contributions(
    falls: Float[Tensor, "subset text"], whole: Float[Tensor, " text"], orders: Int[Tensor, "order region"]
) -> Float[Tensor, "order region text"]:
    """Each antithetic pair's Shapley values of measured falls: of the subsets of `prefixes`, and of everything hidden; nats.

    Their mean over the pairs is the contribution, their spread gives its standard error.
    """
    after = falls.unflatten(0, (len(orders), 2, -1))
    after = torch.cat([after, whole.expand(len(orders), 2, 1, -1)], dim=2)
    return both_ways(orders, after[:, 0], after[:, 1])


def by_span(falls: Float[Tensor, "subset token"], spans: Sequence[Span]) -> Float[Tensor, "span subset"]:
    """The falls of each span, summed over its tokens."""
    return torch.stack([falls[:, span.start : span.end].sum(1) for span in spans])


def fill_pixels(
    model: Model, inputs: Mapping[str, Tensor], hidden: Bool[Tensor, " patch"], method: str = "pixels"
) -> dict[str, Tensor]:
    """The same prompt with some visual tokens' pixels filled as `ablate` fills them, to generate from."""
    pixels = inputs["pixel_values"]
    fill = FILLS[method](model, pixels, model.image_grids(inputs))
    return {**inputs, "pixel_values": fill(hidden[None].to(pixels.device))[0]}


@contextmanager
def tokens_filled(
    model: Model, inputs: Mapping[str, Tensor], hidden: Bool[Tensor, " patch"]
) -> Iterator[None]:
    """Fills some visual tokens in all that the vision tower puts out inside the block, as `ablate` fills them."""
    images = model.image_grids(inputs)

    def fill(_: Any, __: Any, output: Any) -> None:
        layers = [output.pooler_output, *(output.deepstack_features if model.adapter.deepstack else ())]
        for layer in layers:
            at = hidden.to(layer.device)
            layer[at] = mean_tokens(layer[None], images)[0, at]

    handle = model.adapter.vision_tower(model.hf).register_forward_hook(fill)
    try:
        yield
    finally:
        handle.remove()


def read_trace(
    model: Model, inputs: Mapping[str, Tensor], trace_ids: Int[Tensor, " token"]
) -> Float[Tensor, "1 position dim"]:
    """One pass over prompt and trace with nothing hidden, for an `AttentionCapture` to record; the last hidden states."""
    with torch.inference_mode():
        trace = teacher_force(model, inputs, trace_ids)
        return read(model, trace, see(model, trace, trace.pixel_values[None]), 1, use_cache=False)[0]


def leak(pixels: Float[Tensor, "*fall"], other: Float[Tensor, "*fall"]) -> float:
    """Share of the pixels' effect that another way of hiding misses; behind the vision tower, that is what its own
    attention has carried from hidden into other visual tokens, and also what the fill of pixels does of its own.

    One minus the least-squares slope of the other's falls on the pixels' falls: 0 if it does as much, 1 if it does
    nothing, negative if it does more; 0 where pixels have no effect.
    """
    power = float((pixels * pixels).sum())
    return 1 - float((pixels * other).sum()) / power if power else 0.0


Forward = Callable[[Tensor], Tensor]  # hidden (row, patch) -> last hidden states (row, position, dim)
Watch = Callable[[Vision], None] | None


def _hide_pixels(method: Method) -> Callable[[Model, Trace, Watch], tuple[Forward, int]]:
    """Fill hidden cells on `pixel_values`, whole cells at a time: no bleeding on resize."""

    def prepare(model: Model, trace: Trace, watch: Watch) -> tuple[Forward, int]:
        fill = FILLS[method](model, trace.pixel_values, trace.images)

        def forward(hidden: Bool[Tensor, "row patch"]) -> Float[Tensor, "row position dim"]:
            vision = see(model, trace, fill(hidden))
            if watch is not None:
                watch(vision)
            return read(model, trace, vision, len(hidden), use_cache=False)[0]

        return forward, trace.ids.shape[1]

    return prepare


def _hide_tokens(model: Model, trace: Trace, _: Watch = None) -> tuple[Forward, int]:
    """Hidden visual tokens become their image's mean visual token, those that DeepStack adds later too.

    The vision tower runs once, and has already mixed what is hidden into other tokens.
    """
    seen = see(model, trace, trace.pixel_values[None])
    layers = (seen.features, *seen.deepstack)
    means = [mean_tokens(layer, trace.images) for layer in layers]

    def forward(hidden: Bool[Tensor, "row patch"]) -> Float[Tensor, "row position dim"]:
        filled = [torch.where(hidden[..., None], *pair) for pair in zip(means, layers, strict=True)]
        return read(model, trace, Vision(filled[0], filled[1:]), len(hidden), use_cache=False)[0]

    return forward, trace.ids.shape[1]


def _hide_from_attention(model: Model, trace: Trace, _: Watch = None) -> tuple[Forward, int]:
    """Every position after an image, the question included, cannot attend to its hidden visual tokens.

    That holds for the visual tokens of later images too; an image's own tokens go on seeing each other. So
    all up to the end of the first image is the same in every row and is computed once.
    """
    kernel, sliding = kernel_without_mask(model), any(model.adapter.sliding_windows(model.hf))
    if sliding or kernel:
        raise UnsupportedModelError(
            "Attention knockout needs full attention with a mask that can be set, but this model has "
            f"{'sliding windows' if sliding else kernel}: hide pixels instead"
            f"{'' if sliding else ', or load it with attn_implementation=sdpa'}."
        )
    length = trace.ids.shape[1]
    start = min(int(trace.images[0].positions[-1]) + 1, trace.prompt_length - 1)
    vision = see(model, trace, trace.pixel_values[None])
    prefix = read(model, trace, vision, rows=1, end=start, use_cache=True)[1]

    queries = torch.arange(start, length, device=trace.ids.device)
    future = torch.arange(length, device=trace.ids.device) > queries[:, None]
    image_end = torch.cat([image.positions[-1].expand(len(image)) for image in trace.images])
    after_image = queries[:, None] > image_end  # (query, patch)

    def forward(hidden: Bool[Tensor, "row patch"]) -> Float[Tensor, "row position dim"]:
        blocked = future.repeat(len(hidden), 1, 1)  # (row, query, key)
        blocked[:, :, trace.patches] |= hidden[:, None] & after_image
        return read_masked(model, trace, vision, start, prefix, blocked)

    return forward, length - start


METHODS: dict[str, Callable[[Model, Trace, Watch], tuple[Forward, int]]] = {
    **{method: _hide_pixels(method) for method in ("pixels", "blur", "inpaint")},
    "tokens": _hide_tokens,
    "attention": _hide_from_attention,
}
