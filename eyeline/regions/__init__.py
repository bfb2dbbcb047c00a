"""Image -> regions: a label for each cell of the grid of visual tokens that the language model sees.

A source of regions is one function in `SOURCES`; a user may also bring a label map or boxes. How regions are
hidden is ablation.py's part.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import torch
from jaxtyping import Float, Int
from torch import Tensor

from eyeline import events
from eyeline.adapters import ImageGrid
from eyeline.errors import RegionError
from eyeline.regions import controls
from eyeline.regions.foundation import dinov3
from eyeline.regions.given import READERS
from eyeline.regions.native import native
from eyeline.regions.superpixels import slic
from eyeline.regions.view import View

FEWEST_ASKED = 2  # by a user who names a number; at most one a cell are made
# (view, seed, number of regions or None) -> labels 0..K-1, every one of them used
SOURCES: dict[str, Callable[..., Tensor]] = {
    "native": native,
    "dinov3": dinov3,
    "slic": slic,
    "grid": controls.grid,
    "random": controls.random,
    "voronoi": controls.voronoi,
}
TAKES_MODEL = ("dinov3",)  # NAME:MODEL; all others NAME:K


@dataclass(frozen=True, slots=True)
class Regions:
    """The regions of a prompt's images; labels run on over the images, from 0 to `count` - 1."""

    labels: tuple[Int[Tensor, "_rows _cols"], ...]  # one grid for each image
    count: int

    @property
    def of_patch(self) -> Int[Tensor, " patch"]:
        """The region of every visual token of the prompt, images in order, each in raster order."""
        return torch.cat([grid.flatten() for grid in self.labels])

    @property
    def grids(self) -> tuple[events.Grid, ...]:
        """The labels as plain numbers, as the start event holds them."""
        return tuple(tuple(map(tuple, grid.tolist())) for grid in self.labels)


def regions_for(
    images: Sequence[PIL.Image.Image],
    grids: Sequence[ImageGrid],
    features: Sequence[Float[Tensor, "_patch dim"]],
    source: str | Path | Sequence[str | Path] = "native",
    seed: int = 0,
) -> Regions:
    """The regions of a prompt's images, in the order of the prompt.

    `features` are the vision tower's, one row for each cell. `source` is a name in `SOURCES`, alone or with a number
    of regions for each image (`native:32`), `dinov3:` and a model, or the path of a label map (.png, .npy) or boxes
    (.json); one for all images, or one for each. Raises `RegionError`.
    """
    labels, count = [], 0
    for image, grid, vision, name in zip(images, grids, features, _for_each(images, source), strict=True):
        cut = named(name) or _drawn(name)
        cells = cut(View(image, vision, grid.rows, grid.cols), seed)
        labels.append(cells + count)
        count += int(cells.max()) + 1
    return Regions(tuple(labels), count)


def check_source(
    images: Sequence[PIL.Image.Image],
    grids: Sequence[ImageGrid],
    source: str | Path | Sequence[str | Path],
    device: torch.device,
) -> None:
    """Raises `RegionError` as `regions_for` would, before the vision tower has read the images."""
    for image, grid, name in zip(images, grids, _for_each(images, source), strict=True):
        load_source(name, device)
        if named(name) is None:
            _drawn(name)(View(image, torch.zeros(len(grid), 1), grid.rows, grid.cols), 0)


def load_source(name: str | Path, device: torch.device) -> None:
    """Loads the package or the model that a named source needs, before long work. Raises `RegionError`."""
    if (cut := named(name)) is not None:
        one_cell = View(PIL.Image.new("RGB", (1, 1)), torch.zeros(1, 1, device=device), 1, 1)
        cut(one_cell, 0)  # costs nothing


def _for_each(
    images: Sequence[PIL.Image.Image], source: str | Path | Sequence[str | Path]
) -> list[str | Path]:
    sources = [source] * len(images) if isinstance(source, str | Path) else list(source)
    if len(sources) != len(images):
        raise RegionError(
            f"{len(sources)} region sources were given for {len(images)} images: one for all of them or one "
            "for each is expected."
        )
    return sources


def named(name: str | Path) -> Callable[..., Tensor] | None:
    """The function of a named source; None for a file."""
    source, colon, more = str(name).partition(":")
    if source not in SOURCES or isinstance(name, Path):
        return None
    if not colon:
        return SOURCES[source]
    if source in TAKES_MODEL:
        return functools.partial(SOURCES[source], model=more) if more else None
    fits = more.isascii() and more.isdecimal() and int(more) >= FEWEST_ASKED
    return functools.partial(SOURCES[source], count=int(more)) if fits else None


def _drawn(name: str | Path) -> Callable[..., Tensor]:
    """A user's own regions, as a source."""
    reader = READERS.get(Path(name).suffix.lower())
    if reader is None:
        raise RegionError(
            f"Unknown source of regions {str(name)!r}: expected {', '.join(SOURCES)}, one of these but dinov3 with a "
            f"number of regions from {FEWEST_ASKED} on (native:32), dinov3:MODEL (an id on the Hub or a folder), or the "
            "path of a label map (.png, .npy) or of boxes (.json)."
        )
    return lambda view, seed: reader(name, view.rows, view.cols, *view.image.size)
