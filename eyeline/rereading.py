"""What the language model would make of an image without each region: the keys and values of the tokens that it moves.

With a region filled the vision tower puts out other visual tokens (leak.py). Those that move most are run through the language
model again, in the place of what they were, on the keys and values of all others. It takes as many tokens as a few readings of
the image, once an image, however long the model then thinks. How a head's output changes by them is the feature `change`
(features.py).
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from eyeline.errors import UnsupportedModelError
from eyeline.leak import Fill, filled_together
from eyeline.model import Model
from eyeline.regions import Regions
from eyeline.teacher_forcing import Trace, cache_name, kernel_without_mask, prompt_alone, read, see

POSITIONS_AT_ONCE = 8192  # of keys and values that are held together, the cached ones of each row included


@dataclass(frozen=True, eq=False)
class Without:
    """Each region with the visual tokens that it moves, and what they would be without it.

    Where there are no keys, the region's own tokens are taken away, as attention knockout does.
    """

    count: int  # regions
    patches: int  # visual tokens
    region: Int[Tensor, " pair"]
    patch: Int[Tensor, " pair"]
    keys: Float[Tensor, "layer kv_head pair dim"] | None
    values: Float[Tensor, "layer kv_head pair dim"] | None

    def summed(self, values: Float[Tensor, "*row patch"]) -> Float[Tensor, "*row region"]:
        """The sum of values of visual tokens over those that each region moves."""
        return values @ self._moves.to(values)

    @cached_property
    def _moves(self) -> Float[Tensor, "patch region"]:
        """1 where a region moves a visual token."""
        moves = torch.zeros(self.patches, self.count, device=self.patch.device)
        moves[self.patch, self.region] = 1
        return moves

    def by_region(self, values: Float[Tensor, "*row pair"]) -> Float[Tensor, "*row region"]:
        """The sum of values of pairs over each region's."""
        return values @ self._of_region.to(values)

    @cached_property
    def _of_region(self) -> Float[Tensor, "pair region"]:
        """1 where a pair is of a region: a product of matrices is faster than adding at indices."""
        return functional.one_hot(self.region, self.count).float()

    def own(self, labels: Int[Tensor, " patch"]) -> Int[Tensor, " patch"]:
        """Of each visual token the pair with the region that it lies in."""
        mine = (labels[self.patch] == self.region).nonzero()[:, 0]
        return mine[self.patch[mine].argsort()]


def taken_away(labels: Int[Tensor, " patch"], count: int) -> Without:
    """Regions whose own tokens nobody can attend to."""
    every = torch.arange(len(labels), device=labels.device)
    return Without(count, len(labels), labels, every, None, None)


def read_again(
    model: Model,
    inputs: Mapping[str, Tensor],
    regions: Regions,
    fills: Sequence[Fill],
    layers: Sequence[int],
) -> Without:
    """Reads the tokens of each fill again; keys and values of some layers, in their order.

    Of regions that were filled together each has its own tokens. In a model with sliding windows tokens are taken away
    instead. Raises `UnsupportedModelError` for an attention kernel whose masks cannot be set.
    """
    labels = regions.of_patch.to(model.device)
    if not fills or any(model.adapter.sliding_windows(model.hf)):
        return taken_away(labels, regions.count)
    if kernel := kernel_without_mask(model):
        raise UnsupportedModelError(
            f"Reading an image without its regions needs a mask that can be set, and {kernel} has none: load the model "
            "with attn_implementation=sdpa."
        )
    with torch.inference_mode():
        prompt = prompt_alone(model, inputs)
        end = int(prompt.patches[-1]) + 1
        before = see(model, prompt, prompt.pixel_values[None])
        _, cache = read(model, prompt, before, rows=1, end=end, use_cache=True)
        together = filled_together(regions).to(labels.device)
        shared = torch.bincount(together) > 1  # of each fill: whether it has several regions
        by_size = sorted(range(len(fills)), key=lambda number: len(fills[number].patches))
        parts: list[tuple[Tensor, ...]] = []
        while by_size:
            most = len(fills[by_size[-1]].patches)
            rows = by_size[-max(1, POSITIONS_AT_ONCE // (end + most)) :]
            del by_size[-len(rows) :]
            found = _keys_and_values(model, prompt, cache, end, [fills[row] for row in rows], layers)
            for at, row in enumerate(rows):
                patches = fills[row].patches
                of = labels[patches] if shared[row] else (together == row).nonzero()[0].expand(len(patches))
                parts.append((of, patches, *(each[:, at, :, : len(patches)] for each in found)))
        region, patch, keys, values = zip(*parts, strict=True)
        return Without(
            regions.count,
            len(labels),
            torch.cat(region),
            torch.cat(patch),
            torch.cat(keys, dim=2),
            torch.cat(values, dim=2),
        )


def _keys_and_values(
    model: Model, prompt: Trace, cache: Any, end: int, fills: Sequence[Fill], layers: Sequence[int]
) -> tuple[Float[Tensor, "layer fill kv_head token dim"], Float[Tensor, "layer fill kv_head token dim"]]:
    """Of the tokens of some fills, each fill in a row of its own; beyond its tokens a row holds nothing of use."""
    text: Any = model.adapter.text_model(model.hf)
    device, rows = prompt.ids.device, len(fills)
    counts = torch.tensor([len(fill.patches) for fill in fills], device=device)
    there = torch.arange(int(counts.max()), device=device) < counts[:, None]  # (fill, token)
    positions = prompt.patches[0].repeat(there.shape)
    positions[there] = prompt.patches[torch.cat([fill.patches for fill in fills])]
    moved = torch.zeros(rows, end, dtype=torch.bool, device=device)
    moved[torch.arange(rows, device=device)[:, None].expand_as(there)[there], positions[there]] = True

    features, deepstack = _joined(fills)
    embeds = features.new_zeros(*there.shape, features.shape[-1])
    embeds[there] = features
    options: dict[str, Any] = {}
    if deepstack:
        options = {"visual_pos_masks": there, "deepstack_visual_embeds": deepstack}
    dtype = embeds.dtype
    mask = torch.zeros(rows, 1, there.shape[1], end + there.shape[1], dtype=dtype, device=device)
    mask.masked_fill_(_blocked(positions, there, moved)[:, None], torch.finfo(dtype).min)
    known = copy.deepcopy(cache)
    known.batch_repeat_interleave(rows)
    options |= {"attention_mask": mask, cache_name(model): known, "use_cache": True}
    text(inputs_embeds=embeds, position_ids=prompt.position_ids[:, 0][:, positions], **options)
    of_layers = [known.layers[layer] for layer in layers]
    return (
        torch.stack([layer.keys[:, :, end:].to(device) for layer in of_layers]),
        torch.stack([layer.values[:, :, end:].to(device) for layer in of_layers]),
    )


def _joined(fills: Sequence[Fill]) -> tuple[Float[Tensor, "token dim"], list[Float[Tensor, "token dim"]]]:
    """What enters the text model at the tokens of all fills, one fill after the other."""
    features = torch.cat([fill.vision.features[0] for fill in fills])
    deepstack = zip(*(fill.vision.deepstack for fill in fills), strict=True)
    return features, [torch.cat([layer[0] for layer in layers]) for layers in deepstack]


def _blocked(
    positions: Int[Tensor, "fill token"],
    there: Bool[Tensor, "fill token"],
    moved: Bool[Tensor, "fill position"],
) -> Bool[Tensor, "fill token key"]:
    """What each token may not attend to: of the cache what is later or has moved, of what has moved what is later."""
    cached = torch.arange(moved.shape[1], device=moved.device)
    before = (cached >= positions[:, :, None]) | moved[:, None]
    beside = (positions[:, None] > positions[:, :, None]) | ~there[:, None]
    return torch.cat([before, beside], dim=2)
