"""Fits and tests the check of whether a miniature can read an image: on its own scenes, and on charts, photographs and QR codes.

Other images are seen in the fit, too (outlier exposure, Hendrycks et al. 2019, arXiv 1812.04606): charts of other styles and
data, parts of other photographs, other codes than those that it is tested on. Needs scikit-image, matplotlib and segno.
"""

import io
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from eyeline import load
from eyeline.evaluation.command_options import MODEL, TABLE
from eyeline.evaluation.results import write_csv, writing
from eyeline.familiar import Familiar, describe
from eyeline.files import write_files
from eyeline.model import Model
from eyeline.scenes import FAMILIES, draw

FIT, TEST = 6_000_000, 8_000_300  # first seeds of own scenes
STYLES = ("default", "ggplot", "bmh", "seaborn-v0_8", "fivethirtyeight", "dark_background", "grayscale")
PHOTOGRAPHS = (
    "astronaut", "coffee", "chelsea", "camera", "rocket", "brick", "grass", "gravel", "moon", "page", "clock", "coins",
    "text", "immunohistochemistry", "colorwheel", "horse",
)  # fmt: skip
PENALTY = 0.001  # inverse strength of the ridge prior: strong, so that kinds never seen are told as well


@dataclass(frozen=True, slots=True)
class Row:
    """How many images of a kind are said to be unlike the model's own."""

    kind: str
    share: float
    count: int


def own(first: int) -> Callable[[int], Image.Image]:
    """Scenes of all families: photographed and drawn, short and long."""
    return lambda at: (
        draw(list(FAMILIES)[at % 5], first + at, wild=at // 5 % 4 < 2, is_long=at // 5 % 2 == 1).image
    )


def chart(seed: int) -> Image.Image:
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rng = np.random.default_rng(seed)
    with style.context(STYLES[seed % len(STYLES)]):
        figure = Figure(figsize=(rng.uniform(3, 8), rng.uniform(2.5, 6)), dpi=int(rng.choice([60, 100, 150])))
        axes, count = figure.subplots(), int(rng.integers(3, 12))
        match seed // 2 % 6:
            case 0:
                axes.bar([f"c{at}" for at in range(count)], rng.uniform(1, 99, count))
            case 1:
                for run in range(int(rng.integers(1, 4))):
                    axes.plot(rng.normal(size=count * 5).cumsum(), label=f"run {run}")
                axes.legend()
            case 2:
                axes.scatter(rng.normal(size=60), rng.normal(size=60), c=rng.uniform(size=60))
            case 3:
                axes.pie(rng.uniform(1, 5, count), labels=[f"part {at}" for at in range(count)])
            case 4:
                axes.hist(rng.normal(size=400), bins=20)
            case _:
                axes.imshow(rng.uniform(size=(8, 8)))
        if rng.random() < 0.7:
            axes.set_title("Revenue by quarter")
            axes.set_xlabel("time")
            axes.set_ylabel("value")
        page = io.BytesIO()
        FigureCanvasAgg(figure).print_png(page)
    return Image.open(page).convert("RGB")


def photograph(seed: int) -> Image.Image:
    """A part of one; those of even seeds show other things than those of odd ones."""
    import skimage.data
    from sklearn.datasets import load_sample_images

    names = (*PHOTOGRAPHS, "china", "flower")
    rng, name = random.Random(seed), names[seed % len(names)]
    if name in PHOTOGRAPHS:
        values = np.asarray(getattr(skimage.data, name)())
    else:
        values = load_sample_images().images[("china", "flower").index(name)]
    if values.dtype == bool:
        values = values * np.uint8(255)
    whole = Image.fromarray(values[..., :3] if values.ndim == 3 else values).convert("RGB")
    share = rng.uniform(0.4, 1)
    width, height = int(whole.width * share), int(whole.height * share)
    left, top = rng.randint(0, whole.width - width), rng.randint(0, whole.height - height)
    return whole.crop((left, top, left + width, top + height))


def code(seed: int) -> Image.Image:
    import segno

    rng, page = random.Random(seed), io.BytesIO()
    text = "".join(rng.choices("abcdefghij/:.0123456789", k=rng.randint(8, 90)))
    segno.make(text).save(page, kind="png", scale=rng.randint(3, 10), border=rng.randint(1, 5))
    return Image.open(page).convert("RGB")


OTHERS: Mapping[str, Callable[[int], Image.Image]] = {
    "charts by matplotlib": chart, "photographs": photograph, "QR codes": code,
}  # fmt: skip


def features_of(model: Model, image: Image.Image) -> Tensor:
    """(patch, dim): what the vision tower makes of an image."""
    inputs = model.inputs(image, "?")
    with torch.inference_mode():
        output = model.adapter.vision_tower(model.hf)(
            inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]
        )
        (features,) = model.adapter.visual_features(output, model.image_grids(inputs))
    return features.cpu().clone()


def fit(ours: Tensor, others: Tensor) -> Familiar:
    """By logistic regression, both kinds weighing the same; the scaling of features is folded in."""
    from sklearn.linear_model import LogisticRegression

    every = torch.cat([ours, others])
    mean, spread = every.mean(0), every.std(0).clamp(min=1e-6)
    labels = np.r_[np.zeros(len(ours)), np.ones(len(others))]
    found = LogisticRegression(C=PENALTY, class_weight="balanced", max_iter=2000)
    found.fit(((every - mean) / spread).numpy(), labels)
    weights = torch.tensor(found.coef_[0], dtype=torch.float32) / spread
    return Familiar(weights, torch.tensor(found.intercept_, dtype=torch.float32)[0] - weights @ mean)


@click.command()
@MODEL
@click.option(
    "--count",
    type=click.IntRange(4),
    default=100,
    show_default=True,
    help="Number of images of a kind to test on.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    required=True,
    help="File to write: familiar.safetensors in the model's folder.",
)
@TABLE
def main(model_id: str, count: int, weights: Path, out: Path) -> None:
    """Fit the check on own scenes and others, and test it on other ones."""
    with writing(out, figure=False):
        loaded = load(model_id)
        ours = torch.stack([describe(features_of(loaded, own(FIT)(at))) for at in range(4 * count)])
        seen = torch.stack(
            [
                describe(features_of(loaded, kind(2 * at)))
                for kind in OTHERS.values()
                for at in range(count // 2)
            ]
        )
        familiar = fit(ours, seen)
        tested = {"own scenes": own(TEST)} | {
            name: (lambda at, kind=kind: kind(2 * at + 1)) for name, kind in OTHERS.items()
        }
        rows = []
        for name, kind in tested.items():
            unlike = [familiar.is_unlike(features_of(loaded, kind(at))) for at in range(count)]
            rows.append(Row(name, sum(unlike) / count, count))
        write_files({weights: save({"weights": familiar.weights.contiguous(), "bias": familiar.bias})})
        write_csv(Row, rows, out)


if __name__ == "__main__":
    main()
