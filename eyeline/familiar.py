"""Is an image one that the model can read? A linear check on its vision features, for models that know a few kinds alone.

A small model answers about anything, with confidence. Those that ship with Eyeline have a file beside their weights, fitted on
the images that they are trained on and on others (benchmarks/familiar.py); models without one are not checked.
"""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from eyeline.embedded import own_folders
from eyeline.events import Notice

FILE = "familiar.safetensors"
KIND = "unlike"  # of the notice
READS = "drawn scenes like those of the gallery"


@dataclass(frozen=True, eq=False)
class Familiar:
    """A linear map of the mean and the standard deviation of an image's visual tokens; above 0, the image is unlike its own."""

    weights: Float[Tensor, " feature"]
    bias: Float[Tensor, ""]

    def score(self, features: Float[Tensor, "patch dim"]) -> float:
        return float(describe(features) @ self.weights.to(features.device) + self.bias.to(features.device))

    def is_unlike(self, features: Float[Tensor, "patch dim"]) -> bool:
        return self.score(features) > 0


def describe(features: Float[Tensor, "patch dim"]) -> Float[Tensor, " feature"]:
    """What is looked at of an image, float32: of each dimension the mean over visual tokens, then the standard deviations."""
    values = features.float()
    return torch.cat([values.mean(0), values.std(0, correction=0)])


@cache
def familiar_of(name: str) -> Familiar | None:
    """That of a model that ships with Eyeline, or of a model's folder; None where there is none."""
    for folder in own_folders(name):
        if (folder / FILE).is_file():
            tensors = load_file(folder / FILE)
            return Familiar(tensors["weights"], tensors["bias"])
    return None


def notices(name: str, features: list[Float[Tensor, "_patch dim"]]) -> tuple[Notice, ...]:
    """What to say of the images of a prompt to a model, before it answers."""
    familiar = familiar_of(name)
    if familiar is None:
        return ()
    unlike = [number for number, each in enumerate(features, start=1) if familiar.is_unlike(each)]
    if not unlike:
        return ()
    numbers = " and ".join(map(str, unlike))
    which = (
        f"Images {numbers} are"
        if len(unlike) > 1
        else f"Image {numbers} is"
        if features[1:]
        else "The image is"
    )
    said = (
        f"{which} unlike what this model can read: {name} reads only {READS}. "
        "Expect an answer that sounds sure and is wrong."
    )
    return (Notice(KIND, said),)
