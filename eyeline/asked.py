"""What a stream is asked, checked: all that a user can get wrong about it is found here, before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from eyeline import blind
from eyeline.ablation import Method, fill_pixels
from eyeline.errors import EstimatorError, PromptError, RegionError
from eyeline.estimator import Estimator
from eyeline.estimator_files import check_model, estimator_for
from eyeline.events import Grid, ImageInfo, Notice, Start
from eyeline.fills import FILLS
from eyeline.fingerprint import is_quantised
from eyeline.images import Picture, open_images
from eyeline.leak import spreads
from eyeline.model import Inputs, Model, Prompt
from eyeline.regions import check_source
from eyeline.version import __version__


@dataclass(frozen=True, slots=True)
class Hidden:
    """Regions that the model is not to see while it answers; `grids` are those of the stream they come from."""

    grids: tuple[Grid, ...]
    regions: tuple[int, ...]
    method: Method

    @property
    def cells(self) -> Bool[Tensor, " patch"]:
        """Which visual tokens are hidden."""
        labels = torch.cat([torch.tensor(grid).flatten() for grid in self.grids])
        return torch.isin(labels, torch.tensor(self.regions, dtype=labels.dtype))


@dataclass(frozen=True, eq=False)
class Asked:
    """One question to a model; nothing of it changes while it is answered."""

    model: Model
    inputs: Inputs  # of the prompt
    pictures: list[Image.Image]
    estimator: Estimator | None
    regions: str | Path | Sequence[str | Path]  # where they come from
    hidden: Hidden | None
    sources: bool = True  # whether earlier text is read as well
    measure_whole: bool = False  # whether the text is read once more without its images
    question: str = ""  # what the last turn of the user says
    notices: tuple[Notice, ...] = ()  # for whoever reads the numbers

    @property
    def prompt_tokens(self) -> int:
        return self.inputs["input_ids"].shape[1]

    @property
    def room(self) -> int:
        """Tokens that the model's context leaves after the prompt."""
        return self.model.context_length - self.prompt_tokens

    def _of_level(self) -> tuple[Notice, ...]:
        """That nothing was measured on the model, where that is so."""
        if self.estimator is None or self.estimator.level != "none":
            return ()
        said = (
            "Nothing was measured on this model: the order of regions and their shares come from weights learned on others, "
            "sizes (~) are not calibrated. Ten images of your own calibrate them: "
            f"eyeline calibrate --model {self.model.name} IMAGES"
        )
        return (Notice("general", said),)

    def _of_whole(self) -> tuple[Notice, ...]:
        """That what the whole image does is measured, where that is so."""
        return (blind.NOTICE,) if self.measure_whole else ()

    def start(self, regions: tuple[Grid, ...], notices: tuple[Notice, ...] = ()) -> Start:
        """The first event; `notices` came up since. Where images could not be read each is one region, for views."""
        model, estimator = self.model, self.estimator
        merge = model.adapter.merge_size(model.hf)
        grids = self.inputs["image_grid_thw"].tolist() if self.pictures else []
        images = tuple(
            ImageInfo(picture.width, picture.height, rows // merge, cols // merge)
            for picture, (_, rows, cols) in zip(self.pictures, grids, strict=True)
        )
        if not regions:
            regions = tuple(((number,) * info.cols,) * info.rows for number, info in enumerate(images))
        name = None
        if estimator is not None:
            name = estimator.id + (" (calibration not verified)" if is_quantised(model) else "")
        return Start(
            __version__,
            model.name,
            name,
            "attention" if estimator is None else estimator.unit,
            images,
            regions,
            hiding=None if estimator is None else estimator.hiding,
            level="none" if estimator is None else estimator.level,
            notices=(*self.notices, *self._of_level(), *self._of_whole(), *notices),
            family=model.adapter.family,
        )


def prepare(
    model: Model,
    images: Picture | Sequence[Picture],
    prompt: Prompt,
    estimator: str | Path | Estimator | None,
    regions: str | Path | Sequence[str | Path],
    hidden: Hidden | None = None,
    sources: bool = True,
    measure_whole: bool = False,
) -> Asked:
    """Raises `ImageError`, `PromptError`, `RegionError` or `EstimatorError` for what cannot work."""
    pictures = open_images(images)
    inputs = model.inputs(pictures, prompt)
    if hidden is not None:
        shapes = [(len(grid), len(grid[0])) for grid in hidden.grids]
        if shapes != [(grid.rows, grid.cols) for grid in model.image_grids(inputs)]:
            raise RegionError(
                "The hidden regions belong to other images; give those of a stream of the same images."
            )
        if hidden.method in FILLS:
            inputs = fill_pixels(model, inputs, hidden.cells, hidden.method)
    if isinstance(estimator, Estimator):
        check_model(estimator, model)
        estimator = estimator.to(model.device)
    else:
        estimator = estimator_for(model, estimator)
    if measure_whole:
        _check_measurable(estimator)
    check_source(pictures, model.image_grids(inputs), regions, model.device)
    return Asked(
        model, inputs, pictures, estimator, regions, hidden, sources, measure_whole, question_of(prompt)
    )


def are_believed(estimator: Estimator | None) -> TypeGuard[Estimator]:
    """Whether the sizes that an estimator predicts are calibrated, in nats."""
    return estimator is not None and estimator.unit == "nats"


def _check_measurable(estimator: Estimator | None) -> None:
    """Raises `EstimatorError` where what is measured could not stand beside what is predicted."""
    if not are_believed(estimator):
        raise EstimatorError(
            "What hiding the whole image does is measured in nats, and sizes are not calibrated here: calibrate the model with "
            "`eyeline calibrate`, or leave measure_whole out."
        )
    if not spreads(estimator.hiding):
        raise EstimatorError(
            f"The estimator {estimator.id!r} hides regions by {estimator.hiding}, and only filled images can be read "
            "once more: name another estimator, or leave measure_whole out."
        )


def question_of(prompt: Prompt) -> str:
    """The text of the user's last turn."""
    if isinstance(prompt, str):
        return prompt
    content = next((turn["content"] for turn in reversed(prompt) if turn["role"] == "user"), "")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def check_ids(model: Model, ids: Sequence[int], hint: str = "") -> None:
    """Raises `PromptError` for ids that are none of the model's; `hint` ends the sentence."""
    entries = int(model.adapter.text_config(model.hf).vocab_size)
    if ids and not 0 <= min(ids) <= max(ids) < entries:
        raise PromptError(
            f"The token ids reach from {min(ids)} to {max(ids)}; expected 0 to {entries - 1}{hint or '.'}"
        )


def random_generator(device: torch.device, seed: int | None) -> torch.Generator:
    """A stream's own. Raises `PromptError` for what is no seed."""
    rng = torch.Generator(device)
    try:
        rng.seed() if seed is None else rng.manual_seed(seed)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise PromptError(f"The seed is {seed}; expected a whole number of 63 bits.") from error
    return rng
