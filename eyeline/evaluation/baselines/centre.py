"""The centre prior: what lies in the middle of an image counts, whatever is asked. What no method may be worse than."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline.features import pool
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.spans import Span

SIGMA = 0.25  # of the Gaussian, as a share of each side


def centre_prior(
    model: Model, inputs: Inputs, trace_ids: Int[Tensor, " token"], spans: Sequence[Span], regions: Regions
) -> Float[Tensor, "span region"]:
    """A Gaussian centred on each image and as wide as it, summed over the middles of a region's cells; the same for every span.

    The centre baseline of saliency benchmarks, stretched to the image's proportions (Judd et al. 2012, MIT-CSAIL-TR-2012-001).
    """
    heights = torch.cat([gaussian(*grid.shape).flatten() for grid in regions.labels])
    return pool(heights, regions.of_patch, regions.count).expand(len(spans), -1).to(model.device)


def gaussian(rows: int, cols: int) -> Float[Tensor, "{rows} {cols}"]:
    """1 in the middle of the image."""
    along = [((torch.arange(count) + 0.5) / count - 0.5) / SIGMA for count in (rows, cols)]
    down, across = (torch.exp(-places.square() / 2) for places in along)
    return down[:, None] * across
