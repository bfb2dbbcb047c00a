"""The leak map: in what parts each visual token shows each region, measured on the vision tower alone.

A vision tower's attention carries what a region shows into other tokens, and filling the region's pixels takes it from there
too. So with each region filled in turn the tower is run again, and how far it moves a token says what part of the token
is the region's. It takes a pass of the tower a region, once an image, and none of the language model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.fills import FILLS
from eyeline.model import Model
from eyeline.regions import Regions
from eyeline.teacher_forcing import Vision, prompt_alone, see

EXACT = 4096  # visual tokens up to which each region is filled by itself; above, regions near each other are filled together
GROUPS = 16  # of regions then
CELLS_AT_ONCE = 4096  # visual tokens that the tower works on together
READ_AGAIN = 5 * 1024  # visual tokens that all fills keep together; more where regions hold more
NOTHING = 1e-9


def spreads(hiding: str) -> bool:
    """Whether a way of hiding hides what has spread, too: then regions have parts of all tokens, else whole ones of their own."""
    return hiding in FILLS


@dataclass(frozen=True, eq=False)
class Fill:
    """What the vision tower makes of an image with a region filled, or with several that were filled together."""

    moved: Float[Tensor, " patch"]  # how far it moves each visual token, all images'
    patches: Int[Tensor, " some"]  # those that lie in what is filled, and others that move most, in order
    vision: Vision  # of these, in one row


def filled_together(regions: Regions) -> Int[Tensor, " region"]:
    """Which fill has each region: one of its own, and in images of more than EXACT tokens that of a group (`groups_of`)."""
    return torch.arange(regions.count) if len(regions.of_patch) <= EXACT else groups_of(regions)


def fill_regions(
    model: Model,
    inputs: Mapping[str, Tensor],
    regions: Regions,
    hiding: str = "pixels",
    stopped: Callable[[], bool] = lambda: False,
) -> list[Fill]:
    """Runs the tower with each region filled in turn, or each group of them.

    `hiding` is the way in `FILLS` that pixels are filled in. Between passes it is asked whether to stop; then there is none.
    """
    with torch.inference_mode():
        prompt = prompt_alone(model, inputs)
        labels = regions.of_patch.to(prompt.pixel_values.device)
        together = filled_together(regions).to(labels.device)
        filled = torch.arange(int(together.max()) + 1, device=labels.device)[:, None] == together[labels]
        fill = FILLS[hiding](model, prompt.pixel_values, prompt.images)
        before = see(model, prompt, prompt.pixel_values[None])
        fills: list[Fill] = []
        for some in filled.split(max(1, CELLS_AT_ONCE // len(labels))):
            if stopped():
                return []
            fills += fills_of(before, see(model, prompt, fill(some)), some, len(filled))
        return fills


def fills_of(before: Vision, filled: Vision, hidden: Bool[Tensor, "row patch"], count: int) -> list[Fill]:
    """What is kept of a batch of passes, of `count` in all; `hidden` are the visual tokens that each row has filled."""
    found = []
    for row, moved in enumerate(movement(before, filled)):
        own = hidden[row]
        kept = tokens_kept(len(moved), int(own.sum()), count)
        patches = moved.masked_fill(own, torch.inf).topk(kept).indices.sort().values
        deepstack = [layer[row : row + 1, patches] for layer in filled.deepstack]
        found.append(Fill(moved, patches, Vision(filled.features[row : row + 1, patches], deepstack)))
    return found


def tokens_kept(patches: int, own: int, count: int) -> int:
    """How many of an image's visual tokens one of `count` fills keeps; `own` of them lie in what it fills."""
    return min(patches, max(own, READ_AGAIN // count)) if patches <= EXACT else own


def leak_map(fills: Sequence[Fill], regions: Regions) -> Float[Tensor, "region patch"]:
    """The share that each region has in every visual token; a token's shares add up to 1.

    Without fills tokens are left where they lie. Of a group of regions each has a share by where it lies (`split_groups`).
    """
    if not fills:
        return (torch.arange(regions.count)[:, None] == regions.of_patch).float()
    moved = torch.stack([fill.moved for fill in fills])
    together = filled_together(regions).to(moved.device)
    return shares(moved[together] if len(moved) == regions.count else split_groups(moved, together, regions))


def movement(before: Vision, filled: Vision) -> Float[Tensor, "row patch"]:
    """How far the tower's output moves each token: of all its features, DeepStack's too, by their mean norm; mean over them."""
    pairs = zip((before.features, *before.deepstack), (filled.features, *filled.deepstack), strict=True)
    return torch.stack([
        (now.float() - was.float()).norm(dim=-1) / was.float().norm(dim=-1).mean().clamp(min=NOTHING)
        for was, now in pairs
    ]).mean(0)  # fmt: skip


def shares(moved: Float[Tensor, "region patch"]) -> Float[Tensor, "region patch"]:
    """Movements of a token as shares of all that moved it."""
    return moved / moved.sum(0, keepdim=True).clamp(min=NOTHING)


def groups_of(regions: Regions) -> Int[Tensor, " region"]:
    """At most GROUPS groups of regions near each other, of one image each: Ward clustering of their centres."""
    from sklearn.cluster import AgglomerativeClustering

    groups, count = torch.zeros(regions.count, dtype=torch.long), 0
    each = max(1, GROUPS // len(regions.labels))
    for grid in regions.labels:
        here = grid.unique()
        found = torch.zeros(len(here), dtype=torch.long)
        if each > 1 and len(here) > 1:
            clustering = AgglomerativeClustering(min(each, len(here)))
            found = torch.from_numpy(clustering.fit_predict(_centres(grid, here)[0].numpy()))
        groups[here] = found + count
        count += int(found.max()) + 1
    return groups


def split_groups(
    moved: Float[Tensor, "group patch"], groups: Int[Tensor, " region"], regions: Regions
) -> Float[Tensor, "region patch"]:
    """What a group moves, among its regions: of a token inside the group all is its own region's; of one outside by nearness.

    The weight of a region is its area over its area plus the squared distance of its centre, in cells.
    """
    parts, first = torch.zeros(regions.count, moved.shape[1], device=moved.device), 0
    for grid in regions.labels:
        here = grid.unique()
        centres, areas = _centres(grid, here)
        places = torch.cartesian_prod(torch.arange(grid.shape[0]), torch.arange(grid.shape[1])).float()
        near = areas[:, None] / (
            areas[:, None] + (places - centres[:, None]).square().sum(-1)
        )  # (region, patch)
        own = here[:, None] == grid.flatten()
        of_group = groups[here].cpu()
        alike = (of_group[:, None] == of_group).float()
        inside = alike @ own.float() > 0
        weight = torch.where(inside, own.float(), near)
        together = alike @ weight
        parts[here, first : first + grid.numel()] = (weight / together.clamp(min=NOTHING)).to(parts)
        first += grid.numel()
    return parts * moved[groups]


def _centres(
    grid: Int[Tensor, "row col"], here: Int[Tensor, " region"]
) -> tuple[Float[Tensor, "region 2"], Float[Tensor, " region"]]:
    """Where regions of a grid lie in the mean, and how many cells they have."""
    cells = [(grid == region).nonzero().float() for region in here]
    return torch.stack([each.mean(0) for each in cells]), torch.tensor([float(len(each)) for each in cells])
