"""Traces of a model about many drawn scenes, and all that a study of right and wrong ones may ask of each.

Half of the scenes are as people photograph them; the other half is blurred and noisy besides, so that a quarter of all answers
is wrong. Of each greedy trace: whether its answer is right, what its spans' regions contribute, log-probs and entropies of its
tokens, last hidden states, and how many of five sampled answers agree.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageFilter
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from eyeline import load
from eyeline.cli.progress import progress
from eyeline.estimator import Estimator
from eyeline.evaluation.answers import is_right, means_the_same
from eyeline.evaluation.command_options import ESTIMATOR, MODEL
from eyeline.evaluation.evaluate import one_estimator
from eyeline.events import SpanAttribution, Start
from eyeline.examples import Example
from eyeline.files import make_folder, write_files
from eyeline.generation import Written, write
from eyeline.images import open_image
from eyeline.looking import centres
from eyeline.model import Inputs, Model
from eyeline.rewriting import Limits, Noise, write_again
from eyeline.scenes import FAMILIES, sample
from eyeline.stream import attribute
from eyeline.teacher_forcing import read, see, teacher_force
from eyeline.training.spread import Shard

FIRST_SEED = 8_010_000  # that no other measurement uses
BLUR = (1.1, 2.2)  # pixels, standard deviation, of every second scene
NOISE = 20.0  # of 255, standard deviation, at most
SAMPLES = 5
KINDS = tuple(FAMILIES)
PARTS = (0.25, 0.3, 0.5, 0.75, 1.0)  # of a trace's tokens
LIMITS = Limits(thinking=400, answer=112, all=512)


@dataclass(frozen=True, eq=False)
class Traced:
    """What is kept of one scene."""

    family: str
    blurred: bool
    right: bool
    agree: int  # of SAMPLES sampled answers, those that the rule of the scene takes for the greedy one
    spans: Tensor  # int (span, 2): tokens [start, end)
    contributions: Float[Tensor, "span region"]
    whole: Float[Tensor, " span"]  # fall with the whole image hidden, nats
    places: Float[Tensor, "region 2"]
    areas: Float[Tensor, " region"]
    log_probs: Float[Tensor, " token"]
    entropies: Float[Tensor, " token"]
    states: Float[Tensor, "part dim"]  # last hidden state at the end of each of PARTS
    means: Float[Tensor, "part dim"]  # and the mean of all up to there


def blurred(picture: Image.Image, seed: int) -> Image.Image:
    """Out of focus and noisy, by how much the seed says."""
    rng = np.random.default_rng(seed)
    soft = np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(*BLUR))), dtype=np.float32)
    noisy = soft + rng.normal(0, rng.uniform(0, NOISE), soft.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def scene(place: int) -> tuple[Example, Image.Image, bool]:
    """The example and its image, and whether that is blurred; families take turns."""
    seed = FIRST_SEED + place // len(KINDS)
    example = sample(KINDS[place % len(KINDS)], seed, wild=True)
    picture = open_image(example.images[0])
    return (example, blurred(picture, seed), True) if seed % 2 else (example, picture, False)


def parts_of(count: int) -> list[int]:
    """After how many of a trace's tokens each of PARTS ends; at least one."""
    return [max(1, round(part * count)) for part in PARTS]


@torch.inference_mode()
def trace(model: Model, estimator: Estimator, example: Example, picture: Image.Image, blur: bool) -> Traced:
    inputs = model.inputs([picture], example.prompt)
    (written,) = write(model, inputs, LIMITS.all)
    with attribute(model, picture, example.prompt, written.ids, estimator=estimator, sources=False) as stream:
        events = list(stream)
    (start,) = (event for event in events if isinstance(event, Start))
    spans = [event for event in events if isinstance(event, SpanAttribution)]
    states, log_probs, entropies = _reread(model, inputs, written)
    ends = [min(end, len(states) - 1) for end in parts_of(len(written.ids))]
    places, areas = centres(start)
    return Traced(
        example.family, blur, is_right(example, written.answer), _agreeing(model, inputs, example, written),
        torch.tensor([(span.start, span.end) for span in spans]),
        torch.tensor([span.shown for span in spans]), torch.tensor([span.whole_image or 0.0 for span in spans]),
        places.float(), areas.float(), log_probs, entropies,
        states[ends].half(), torch.stack([states[: end + 1].mean(0) for end in ends]).half(),
    )  # fmt: skip


def _reread(
    model: Model, inputs: Inputs, written: Written
) -> tuple[Float[Tensor, "token dim"], Float[Tensor, " token"], Float[Tensor, " token"]]:
    """Hidden states that predict each token, its log-prob, and the entropy of what was predicted; nats."""
    ids = torch.tensor(written.ids, device=model.device)
    forced = teacher_force(model, inputs, ids)
    states, _ = read(model, forced, see(model, forced, forced.pixel_values[None]), 1, use_cache=False)
    states = states[0, forced.prompt_length - 1 :]
    logits = model.adapter.lm_head(model.hf)(states).float().log_softmax(-1)
    entropies = torch.special.entr(logits.exp()).sum(-1)
    return states.float().cpu(), logits.gather(1, ids[:, None])[:, 0].cpu(), entropies.cpu()


def _agreeing(model: Model, inputs: Inputs, example: Example, written: Written) -> int:
    """Self-consistency (Wang et al. 2022): how many answers sampled at temperature 1 are the greedy one."""
    noise = Noise(tuple(range(SAMPLES)), tuple(range(SAMPLES)))
    again = write_again(
        model, inputs, inputs["pixel_values"][None].expand(SAMPLES, -1, -1), LIMITS,
        opened=model.prompt_opens_thinking(inputs["input_ids"]), generation={"do_sample": True, "temperature": 1.0}, noise=noise,
    ).written  # fmt: skip
    same = means_the_same(example)
    return sum(same(written.answer, each.answer) for each in again)


def keep(path: Path, traced: Traced) -> None:
    tensors = {name: value.contiguous() for name, value in vars(traced).items() if isinstance(value, Tensor)}
    rest = {name: value for name, value in vars(traced).items() if not isinstance(value, Tensor)}
    write_files({path: save(tensors, {"trace": json.dumps(rest)})})


def read_traced(folder: Path) -> list[Traced]:
    """All that is kept in a folder, in the order of the scenes."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found.append(Traced(**json.loads(file.metadata()["trace"]), **tensors))
    return found


@click.command()
@MODEL
@ESTIMATOR
@click.option("--scenes", default=5000, show_default=True, type=click.IntRange(1))
@click.option(
    "--shard", "part", default="0/1", show_default=True, help="The scenes of one process of several."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of traces; goes on where it holds some.",
)
def main(model_id: str, estimator: str | None, scenes: int, part: str, out: Path) -> None:
    """Let a model write about scenes, and keep what the study asks of each trace."""
    shard = Shard(*map(int, part.split("/")))
    model = load(model_id)
    known, _ = one_estimator(model, estimator)
    make_folder(out)
    files = {place: out / f"{place:05}.safetensors" for place in range(scenes) if shard.takes(place)}
    missing = [place for place, path in files.items() if not path.is_file()]
    for place in progress(missing, len(missing)):
        keep(files[place], trace(model, known, *scene(place)))


if __name__ == "__main__":
    main()
