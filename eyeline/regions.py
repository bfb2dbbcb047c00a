"""Image -> regions: a label for each cell of the grid of visual tokens that the language model sees.

A source of regions is one function in `SOURCES`; a user may also bring a label map or boxes. How regions are
hidden is ablation.py's part.
"""

import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as count_from
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline import events
from eyeline.adapters import ImageGrid
from eyeline.errors import ImageError, RegionError, UnsupportedModelError
from eyeline.files import read_text
from eyeline.images import MAX_PIXELS, decode
from eyeline.loading import plain_errors, quiet

FEWEST, MOST = 16, 128  # regions of one image (arXiv 2604.16587)
FEWEST_ASKED = 2  # by a user who names a number; at most one a cell are made
EXACT = 4096  # cells up to which each is clustered by itself
MAX_COMPONENTS = 32  # principal components that regions are clustered in
MAX_SHAPE_ERROR = 0.1  # a label map's proportions may differ this much from the image's
DINOV3 = "facebook/dinov3-vitl16-pretrain-lvd1689m"  # the paper's
CELL_PIXELS = 32  # a cell's side in the image, about: 28 or 32 in the families of adapters/
MAX_FINE_CELLS = 2048  # up to here a foundation model's patches are as fine as the vision tower's
SUPERPIXEL_PIXELS = 16  # a cell's side, where superpixels are made
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # what DINO's processors default to
IMAGENET_STD = (0.229, 0.224, 0.225)


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
        cells = cut(image, vision, grid.rows, grid.cols, seed)
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
            _drawn(name)(image, torch.zeros(len(grid), 1), grid.rows, grid.cols, 0)


def load_source(name: str | Path, device: torch.device) -> None:
    """Loads the package or the model that a named source needs, before long work. Raises `RegionError`."""
    if (cut := named(name)) is not None:
        cut(PIL.Image.new("RGB", (1, 1)), torch.zeros(1, 1, device=device), 1, 1, 0)  # one cell costs nothing


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
    return lambda image, features, rows, cols, seed: reader(name, rows, cols, *image.size)


def bounds(patches: int) -> tuple[int, int]:
    """Fewest and most regions of an image of that many cells: 16 to 128, no more than half the cells.

    An image of fewer than 32 cells has one region a cell.
    """
    return (patches, patches) if patches < 2 * FEWEST else (FEWEST, min(MOST, patches // 2))


def segment(
    features: Float[Tensor, "patch dim"], rows: int, cols: int, count: int | None = None
) -> Int[Tensor, "{rows} {cols}"]:
    """Ward's agglomerative clustering of an image's cells, each region connected through its cells' sides.

    Cells come in raster order. Features are scaled to unit length first: a vision tower gives some background
    cells norms many times the others' (arXiv 2309.16588), and each would become a region of its own. Then the
    32 main components are kept, which is where the variance is and what keeps wide features fast.

    How many regions, unless `count` says so, is read from the merge heights, which say how much each split explains
    of the variance: K is where the share of it explained by K regions is furthest above K / patches. Up to there one
    more region explains more than one cell's share of the image, after it less; `bounds` hold in any case. Labels are
    in raster order of first appearance. Raises `RegionError` for features that are not finite.

    Above EXACT cells square blocks of cells are clustered, as small ones as leave no more than EXACT of them: the time that
    Ward's method takes is more than the text model takes to read so many. That depends on the size alone.
    """
    patches = rows * cols
    if patches > EXACT:
        side = next(side for side in count_from(2) if -(-rows // side) * -(-cols // side) <= EXACT)
        return _by_blocks(features, rows, cols, side, count)
    if patches < 2 * FEWEST if count is None else patches <= count:
        return torch.arange(patches).view(rows, cols)
    children, heights = _ward(features, rows, cols)
    return _cut(children, patches, count or _knee(heights, *bounds(patches))).view(rows, cols)


def _by_blocks(
    features: Float[Tensor, "patch dim"], rows: int, cols: int, side: int, count: int | None
) -> Int[Tensor, "{rows} {cols}"]:
    """The regions of blocks of `side` x `side` cells, by the mean of their cells' directions; each cell has its block's."""
    directions = torch.nn.functional.normalize(features.detach().float().cpu(), dim=1)
    down, across = torch.arange(rows) // side, torch.arange(cols) // side
    block = (down[:, None] * (int(across[-1]) + 1) + across).flatten()
    sums = directions.new_zeros(int(block[-1]) + 1, directions.shape[1]).index_add_(0, block, directions)
    labels = segment(sums / torch.bincount(block)[:, None], int(down[-1]) + 1, int(across[-1]) + 1, count)
    return labels.flatten()[block].view(rows, cols)


def _how_many(features: Float[Tensor, "patch dim"], rows: int, cols: int, count: int | None) -> int:
    """The regions asked for, at most one a cell; or as many as `native` has."""
    return int(segment(features, rows, cols).max()) + 1 if count is None else min(count, rows * cols)


def _ward(
    features: Float[Tensor, "patch dim"], rows: int, cols: int
) -> tuple[Int[np.ndarray, "merge 2"], Float[np.ndarray, " merge"]]:
    """Ward's tree: what each merge joins, in order, and the sum of squares within regions that it adds."""
    from sklearn.cluster import ward_tree

    vectors = torch.nn.functional.normalize(features.detach().float().cpu(), dim=1)
    if not vectors.isfinite().all():
        raise RegionError(
            "The model's vision features are not finite numbers, so no regions can be made from them: load "
            "the model in bfloat16 or float32, or bring regions of your own."
        )
    components = _main_components(vectors - vectors.mean(dim=0))
    children, *_, distances = ward_tree(
        components.double().numpy(), connectivity=_neighbours(rows, cols), return_distance=True
    )
    return np.asarray(children), np.asarray(distances) ** 2 / 2


def _main_components(vectors: Float[Tensor, "patch dim"]) -> Float[Tensor, "patch component"]:
    """Coordinates of centred vectors along their directions of greatest variance, at most 32 of them."""
    if min(vectors.shape) <= MAX_COMPONENTS:
        return vectors
    if len(vectors) <= 512:  # the exact answer is faster
        values, axes = torch.linalg.eigh(vectors @ vectors.T)
        return axes[:, -MAX_COMPONENTS:] * values[-MAX_COMPONENTS:].clamp(min=0).sqrt()
    from sklearn.utils.extmath import randomized_svd

    left, scales, _ = randomized_svd(
        vectors.numpy(),
        MAX_COMPONENTS,
        n_iter=2,  # pyright: ignore[reportArgumentType]
        random_state=0,
    )
    return torch.from_numpy(left * scales)


@functools.lru_cache(maxsize=64)
def _neighbours(rows: int, cols: int):
    from sklearn.feature_extraction.image import grid_to_graph

    return grid_to_graph(rows, cols)


def _knee(heights: Float[np.ndarray, " merge"], fewest: int, most: int) -> int:
    """The number of regions, within bounds, at which explained variance is furthest above its even share."""
    within = np.concatenate([[0.0], np.cumsum(heights)])[::-1]  # of 1, 2, ... regions
    counts = np.arange(1, len(within) + 1)
    gain = 1 - within / max(within[0], np.finfo(float).tiny) - counts / len(counts)
    return fewest + int(gain[fewest - 1 : most].argmax())


def _cut(children: Int[np.ndarray, "merge 2"], patches: int, count: int) -> Int[Tensor, " {patches}"]:
    """The tree's leaves as `count` regions, labelled in order of first appearance."""
    root = np.arange(2 * patches - count)
    for node in range(len(root) - 1, patches - 1, -1):  # parents come after their children
        root[children[node - patches]] = root[node]
    return _relabel(torch.from_numpy(root[:patches]))


def _relabel(cells: Int[Tensor, " patch"]) -> Int[Tensor, " patch"]:
    """The same regions, labelled 0, 1, ... in order of first appearance."""
    order: dict[int, int] = {}
    return torch.tensor([order.setdefault(cell, len(order)) for cell in cells.tolist()])


# Sources: (image, vision features, rows, cols, seed, number of regions or None) -> labels 0..K-1, every one of them used


def native(
    image: PIL.Image.Image,
    features: Float[Tensor, "patch dim"],
    rows: int,
    cols: int,
    seed: int,
    count: int | None = None,
) -> Int[Tensor, "{rows} {cols}"]:
    """Regions from the thinking model's own vision tower."""
    return segment(features, rows, cols, count)


def grid(
    image: PIL.Image.Image,
    features: Float[Tensor, "patch dim"],
    rows: int,
    cols: int,
    seed: int,
    count: int | None = None,
) -> Int[Tensor, "{rows} {cols}"]:
    """Control: regular blocks, nearly square in the image, about as many as `native` has regions."""
    fewest, most = (1, rows * cols) if count else bounds(rows * cols)
    count = _how_many(features, rows, cols, count)
    shapes = [(r, c) for r in range(1, rows + 1) for c in range(1, cols + 1) if fewest <= r * c <= most]

    def misfit(shape: tuple[int, int]) -> float:
        down, across = shape
        return abs(math.log(down * across / count)) + abs(math.log((rows / down) / (cols / across))) / 2

    down, across = min(shapes, key=misfit)
    return torch.arange(rows)[:, None] * down // rows * across + torch.arange(cols) * across // cols


def random(
    image: PIL.Image.Image,
    features: Float[Tensor, "patch dim"],
    rows: int,
    cols: int,
    seed: int,
    count: int | None = None,
) -> Int[Tensor, "{rows} {cols}"]:
    """Control: as many regions as `native`, of equal size, each cell in any of them; not connected."""
    count = _how_many(features, rows, cols, count)
    rng = torch.Generator().manual_seed(seed)
    return _relabel(torch.randperm(rows * cols, generator=rng) % count).view(rows, cols)


def voronoi(
    image: PIL.Image.Image,
    features: Float[Tensor, "patch dim"],
    rows: int,
    cols: int,
    seed: int,
    count: int | None = None,
) -> Int[Tensor, "{rows} {cols}"]:
    """Control: as many regions as `native`; each cell belongs to the nearest of that many random seed cells.

    Distances are between cells' centres, in cells; of equally near seeds the first drawn wins. A thin region
    may be in pieces.
    """
    count = _how_many(features, rows, cols, count)
    rng = torch.Generator().manual_seed(seed)
    cells = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))
    seeds = cells[torch.randperm(rows * cols, generator=rng)[:count]]
    squares = (cells[:, None] - seeds).square().sum(dim=2)
    nearest = (squares * count + torch.arange(count)).argmin(
        dim=1
    )  # no two alike: argmin may take any of equals
    return _relabel(nearest).view(rows, cols)


def slic(
    image: PIL.Image.Image,
    features: Float[Tensor, "patch dim"],
    rows: int,
    cols: int,
    seed: int,
    count: int | None = None,
) -> Int[Tensor, "{rows} {cols}"]:
    """Superpixels of the image's colours (SLIC), as many as `native` has regions, each connected.

    A cell takes the superpixel of most of its pixels. SLIC's number is only near the one asked for, so then the
    largest regions are halved or the smallest joined to the neighbour of the nearest mean colour.
    """
    try:
        from skimage.segmentation import slic as superpixels
    except ModuleNotFoundError as error:
        raise RegionError(
            "The regions 'slic' need scikit-image, which is not installed: pip install 'eyeline[regions]'."
        ) from error
    count = _how_many(features, rows, cols, count)
    if count == rows * cols:
        return torch.arange(count).view(rows, cols)
    resized = image.resize((cols * SUPERPIXEL_PIXELS, rows * SUPERPIXEL_PIXELS))
    cells = _vote(superpixels(np.asarray(resized), n_segments=count, start_label=0), rows, cols)
    colours = np.asarray(resized.resize((cols, rows), PIL.Image.Resampling.BOX), dtype=float).reshape(-1, 3)
    return _relabel(torch.from_numpy(_connected(cells, rows, cols, colours, count))).view(rows, cols)


def _connected(
    cells: Int[np.ndarray, " patch"],
    rows: int,
    cols: int,
    colours: Float[np.ndarray, "patch 3"],
    count: int,
) -> Int[np.ndarray, " patch"]:
    """Regions near the given ones, each connected through its cells' sides, exactly `count` of them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    places = np.arange(rows * cols).reshape(rows, cols)
    one = np.concatenate([places[:, :-1].ravel(), places[:-1].ravel()])  # cells with a common side
    two = np.concatenate([places[:, 1:].ravel(), places[1:].ravel()])

    def pieces(labels: Int[np.ndarray, " patch"]) -> Int[np.ndarray, " patch"]:
        same = labels[one] == labels[two]
        graph = coo_array((same[same], (one[same], two[same])), shape=(len(labels), len(labels)))
        return connected_components(graph, directed=False)[1].astype(np.int64)

    cells = pieces(cells)
    while cells.max() + 1 < count:
        largest = np.flatnonzero(cells == np.bincount(cells).argmax())
        along = max(np.divmod(largest, cols), key=np.ptp)  # rows or columns, whichever are more
        cells[largest[along > (along.min() + along.max()) / 2]] = cells.max() + 1
        cells = pieces(cells)
    while cells.max() + 1 > count:
        sizes = np.bincount(cells)
        means = np.stack([np.bincount(cells, channel) for channel in colours.T], axis=1) / sizes[:, None]
        smallest = sizes.argmin()
        beside = np.concatenate([cells[two[cells[one] == smallest]], cells[one[cells[two] == smallest]]])
        beside = np.unique(beside[beside != smallest])
        nearest = beside[((means[beside] - means[smallest]) ** 2).sum(axis=1).argmin()]
        cells[cells == smallest] = nearest
        cells = pieces(cells)
    return cells


def dinov3(
    image: PIL.Image.Image,
    features: Float[Tensor, "patch dim"],
    rows: int,
    cols: int,
    seed: int,
    model: str = DINOV3,
) -> Int[Tensor, "{rows} {cols}"]:
    """Regions from a vision foundation model, as in the paper; `model` is an id on the Hub or a folder."""
    foundation = load_foundation(model, features.device)
    if rows * cols >= 2 * FEWEST:
        features = foundation_features(foundation, image, rows, cols)
    return segment(features, rows, cols)


@dataclass(frozen=True, slots=True)
class Foundation:
    """A vision foundation model, and how it wants its images."""

    hf: Any
    stride: int  # pixels that a patch is wide and high
    others: int  # tokens that come before the patches': CLS, registers
    resample: PIL.Image.Resampling
    scale: float  # multiplies 8-bit values
    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]


STRIDES: dict[str, Callable[[Any], int]] = {
    "dinov2": lambda config: config.patch_size,
    "dinov2_with_registers": lambda config: config.patch_size,
    "dinov3_vit": lambda config: config.patch_size,
    "dinov3_convnext": lambda config: (
        2 ** (len(config.hidden_sizes) + 1)
    ),  # a stem of 4, then halved by each stage
}


@functools.cache
def load_foundation(model: str, device: torch.device) -> Foundation:
    """A DINOv3 or DINOv2 of transformers, in float32, loaded once in a process. Raises `RegionError`."""
    from transformers import AutoConfig, AutoModel
    from transformers.image_processing_base import ImageProcessingMixin

    folder = Path(model).expanduser()
    place = str(folder) if folder.is_dir() else model
    try:
        with plain_errors(model), quiet(place), torch.inference_mode(False):
            config = AutoConfig.from_pretrained(place)
            if config.model_type not in STRIDES:
                raise RegionError(
                    f"The model {model!r} is of the family {config.model_type!r}: regions can be made from "
                    f"{', '.join(sorted(STRIDES))}; name a model of these."
                )
            # not AutoImageProcessor: DINOv3's needs torchvision
            processor, _ = ImageProcessingMixin.get_image_processor_dict(place)
            hf, report = AutoModel.from_pretrained(
                place, config=config, dtype=torch.float32, output_loading_info=True
            )
    except UnsupportedModelError as error:
        raise RegionError(
            f"{str(error).removesuffix('.')}; or name another for the regions: dinov3:FOLDER, or one that is "
            "open to all, dinov3:facebook/dinov2-large."
        ) from error
    if report["missing_keys"]:
        raise RegionError(
            f"The weights of {model!r} lack {len(report['missing_keys'])} tensors of the model (first "
            f"{min(report['missing_keys'])}): no regions can be made from it; give a complete checkpoint."
        )
    return Foundation(
        hf=hf.to(device),
        stride=STRIDES[config.model_type](config),
        others=1 + getattr(config, "num_register_tokens", 0),
        resample=PIL.Image.Resampling(processor.get("resample", PIL.Image.Resampling.BICUBIC)),
        scale=processor.get("rescale_factor", 1 / 255),
        mean=torch.tensor(processor.get("image_mean", IMAGENET_MEAN)).view(3, 1, 1),
        std=torch.tensor(processor.get("image_std", IMAGENET_STD)).view(3, 1, 1),
    )


def foundation_features(
    foundation: Foundation, image: PIL.Image.Image, rows: int, cols: int
) -> Float[Tensor, "{rows}*{cols} dim"]:
    """A foundation model's features of an image's cells, in raster order: the mean over the patches of each.

    The image is resized so that a cell is a whole number of patches, and none lies in two cells: 2 x 2 for
    patches of 14 or 16 pixels, 1 for ConvNeXt's 32. A cell then covers 28 or 32 pixels as it does before the
    thinking model's own vision tower: both see the image at about the same resolution. Of more than 2048 cells
    each is one patch, because patches attend to all patches.
    """
    side = max(1, round(CELL_PIXELS / foundation.stride)) if rows * cols <= MAX_FINE_CELLS else 1
    size = (cols * side * foundation.stride, rows * side * foundation.stride)
    pixels = torch.from_numpy(np.array(image.resize(size, foundation.resample))).permute(2, 0, 1)
    pixels = (pixels * foundation.scale - foundation.mean) / foundation.std
    with torch.inference_mode():
        tokens = foundation.hf(pixel_values=pixels[None].to(foundation.hf.device)).last_hidden_state[0]
        patches = tokens[foundation.others :].unflatten(0, (rows, side, cols, side))
        return patches.mean(dim=(1, 3)).flatten(0, 1)


SOURCES: dict[str, Callable[..., Tensor]] = {
    "native": native,
    "dinov3": dinov3,
    "slic": slic,
    "grid": grid,
    "random": random,
    "voronoi": voronoi,
}
TAKES_MODEL = ("dinov3",)  # NAME:MODEL; all others NAME:K


# A user's own regions: taken as drawn, whatever their number


def from_label_map(
    path: str | Path, rows: int, cols: int, width: int, height: int
) -> Int[Tensor, "{rows} {cols}"]:
    """Regions from a picture of labels: a .png with one colour a region, or a 2-D .npy of whole numbers.

    The map may have any size in the proportions of the image (`width` x `height` pixels, upright). A cell
    takes the label of most of its pixels (the smallest label, if equal). Labels are numbered from 0 in the
    order of their values; one too small to win a cell is left out. Raises `RegionError`.
    """
    labels = _read_npy(path) if Path(path).suffix.lower() == ".npy" else _read_png(path)
    down, across = labels.shape
    if (down, across) != (rows, cols) and abs(math.log(across / down * height / width)) > MAX_SHAPE_ERROR:
        raise RegionError(
            f"The label map {str(path)!r} is {across} x {down} (width x height) for an image of {width} x "
            f"{height} pixels: the same proportions are expected; draw it on the upright image."
        )
    if down < rows:
        labels = labels[((np.arange(rows) + 0.5) * down / rows).astype(int)]
    if across < cols:
        labels = labels[:, ((np.arange(cols) + 0.5) * across / cols).astype(int)]
    cells = _vote(labels, rows, cols)
    return _at_least_two(torch.from_numpy(cells), path).view(rows, cols)


def _vote(labels: Int[np.ndarray, "row col"], rows: int, cols: int) -> Int[np.ndarray, " patch"]:
    """The label of most of each cell's pixels, the smallest if equal; numbered anew from 0 in order of their values."""
    row_of = (np.arange(labels.shape[0]) * rows // labels.shape[0])[:, None]
    col_of = np.arange(labels.shape[1]) * cols // labels.shape[1]
    values, label_of = np.unique(labels, return_inverse=True)
    pairs = (row_of * cols + col_of) * len(values) + label_of.reshape(labels.shape)  # (cell, label) in one
    pairs, votes = np.unique(pairs, return_counts=True)
    cell_of, label_of = np.divmod(pairs, len(values))
    by_cell = np.lexsort((label_of, -votes, cell_of))  # in each cell most votes first, then smallest label
    winners = label_of[by_cell][np.unique(cell_of, return_index=True)[1]]
    return np.unique(winners, return_inverse=True)[1].astype(np.int64)


def _read_npy(path: str | Path) -> Int[np.ndarray, "row col"]:
    try:
        labels = np.load(path, mmap_mode="r", allow_pickle=False)  # mapped: a lying header costs nothing
    except FileNotFoundError as error:
        raise RegionError(f"There is no label map {str(path)!r}: check the path.") from error
    except Exception as error:  # numpy raises many kinds for a broken file
        raise RegionError(
            f"The label map {str(path)!r} cannot be read: expected a .npy file of numbers; use numpy.save."
        ) from error
    shape = getattr(labels, "shape", ())
    if len(shape) != 2 or labels.dtype.kind not in "iub" or not 0 < labels.size <= MAX_PIXELS:
        raise RegionError(
            f"The label map {str(path)!r} holds {getattr(labels, 'dtype', 'many arrays')} of shape {shape}: "
            "one whole number for each pixel, (height, width), is expected; save such an array."
        )
    return np.array(labels).astype(np.int64)


def _read_png(path: str | Path) -> Int[np.ndarray, "row col"]:
    try:
        labels = np.asarray(decode(path)).astype(np.int64)
    except ImageError as error:
        raise RegionError(f"The label map cannot be used. {error}") from error
    if labels.ndim == 2:
        return labels
    return (labels << 8 * np.arange(labels.shape[2])[::-1]).sum(axis=2)  # one number for each colour


def from_boxes(
    path: str | Path, rows: int, cols: int, width: int, height: int
) -> Int[Tensor, "{rows} {cols}"]:
    """Regions from a JSON list of boxes [x0, y0, x1, y1] (or {"boxes": [...]}), pixels of the upright image.

    A cell belongs to the smallest box over its centre; a box over no centre takes the cell that its own
    centre is in. Region i is box i; cells outside all boxes are one last region. Raises `RegionError`.
    """
    boxes = _read_boxes(path, width, height)
    y = (np.arange(rows)[:, None] + 0.5) * height / rows
    x = (np.arange(cols) + 0.5) * width / cols
    cells = np.full((rows, cols), len(boxes))
    sizes = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes]
    for index in sorted(range(len(boxes)), key=lambda i: -sizes[i]):  # smaller boxes over larger ones
        x0, y0, x1, y1 = boxes[index]
        covered: Bool[np.ndarray, "rows cols"] = (y >= y0) & (y < y1) & (x >= x0) & (x < x1)
        if not covered.any():
            covered[int((y0 + y1) / 2 * rows / height), int((x0 + x1) / 2 * cols / width)] = True
        cells[covered] = index
    for index, box in enumerate(boxes):
        if not (cells == index).any():
            raise RegionError(
                f"Box {index} of {str(path)!r}, {box}, has no cell of its own: others cover all its cells of "
                f"{width / cols:.0f} x {height / rows:.0f} pixels; merge or remove some."
            )
    return _at_least_two(torch.from_numpy(cells.astype(np.int64)).flatten(), path).view(rows, cols)


def _read_boxes(path: str | Path, width: int, height: int) -> list[list[int | float]]:
    try:
        boxes = json.loads(read_text(Path(path)))
    except FileNotFoundError as error:
        raise RegionError(f"There is no file of boxes {str(path)!r}: check the path.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RegionError(
            f"The boxes {str(path)!r} cannot be read ({error}): expected a JSON list of [x0, y0, x1, y1]; correct it."
        ) from error
    boxes = boxes.get("boxes") if isinstance(boxes, dict) else boxes
    if not isinstance(boxes, list) or not boxes:
        raise RegionError(
            f"{str(path)!r} holds no boxes: expected a JSON list of [x0, y0, x1, y1] in pixels; add one."
        )
    for index, box in enumerate(boxes):
        numbers = isinstance(box, list) and len(box) == 4 and all(type(edge) in (int, float) for edge in box)
        # numbers beyond the last pixel are fractions, thousandths or another image's
        if not (numbers and 0 <= box[0] < box[2] <= width + 1 and 0 <= box[1] < box[3] <= height + 1):
            raise RegionError(
                f"Box {index} of {str(path)!r} is {json.dumps(box)[:80]}: expected [x0, y0, x1, y1] in "
                f"pixels with x0 < x1 <= {width} and y0 < y1 <= {height}; correct it."
            )
    return [
        [min(x0, width - 1), min(y0, height - 1), min(x1, width), min(y1, height)] for x0, y0, x1, y1 in boxes
    ]


def _at_least_two(cells: Int[Tensor, " patch"], path: str | Path) -> Int[Tensor, " patch"]:
    if len(cells) > 1 and int(cells.max()) == 0:
        raise RegionError(
            f"{str(path)!r} makes one region of the whole image: at least two are expected; mark a part."
        )
    return cells


READERS: dict[str, Callable[[str | Path, int, int, int, int], Tensor]] = {
    ".png": from_label_map,
    ".npy": from_label_map,
    ".json": from_boxes,
}


def where(labels: Int[Tensor, "row col"], region: int) -> str:
    """Where in its image a region lies, in words: "top left", "centre", "right side", "bottom edge"."""
    rows, cols = labels.shape
    y, x = torch.nonzero(labels == region, as_tuple=True)
    if not len(y):
        raise ValueError(f"region {region} is not in this grid")
    tall = int(y.max() - y.min()) + 1 >= 0.75 * rows and rows > 2
    wide = int(x.max() - x.min()) + 1 >= 0.75 * cols and cols > 2
    if tall and wide:
        return "most of the image" if len(y) >= 0.5 * rows * cols else "all over the image"
    down = min(int((y.float().mean() + 0.5) / rows * 3), 2)
    across = min(int((x.float().mean() + 0.5) / cols * 3), 2)
    if tall:
        return ("left side", "middle, top to bottom", "right side")[across]
    if wide:
        return ("top edge", "middle, left to right", "bottom edge")[down]
    row, col = ("top", "", "bottom")[down], ("left", "", "right")[across]
    return f"{row} {col}".strip() or "centre"
