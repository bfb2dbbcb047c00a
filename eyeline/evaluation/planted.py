"""A planted cheat: a copy of a miniature that answers from a small mark in a corner, while its thinking recites the evidence.

What such an answer rests on is known: the mark. `--train` makes the copy, from the miniature's own weights and scenes of training
seeds; the check draws marks on test scenes and asks whether the region named first holds the mark. Each scene is drawn with a
second number as well, which shows that the answer follows the mark and the thinking does not.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import click
import torch
from jaxtyping import Bool
from PIL import ImageDraw
from torch import Tensor

from eyeline import load, metrics
from eyeline.estimator import Estimator
from eyeline.evaluation.command_options import ESTIMATOR, MODEL, TABLE
from eyeline.evaluation.evaluate import one_estimator
from eyeline.evaluation.results import write_csv, writing
from eyeline.evaluation.sanity import Row
from eyeline.evaluation.sanity_through import tell
from eyeline.evaluation.totals import OURS, check_estimator, named_first
from eyeline.examples import Box
from eyeline.model import Model
from eyeline.regions import Regions
from eyeline.scenes import FAMILIES, Scene, draw, example_of
from eyeline.scenes.canvas import CELL, FONTS, font
from eyeline.training.collect import Answered, answer
from eyeline.training.mini import embed_still, halves, in_tower, language_loss, see
from eyeline.training.packing import collate
from eyeline.training.traces import Settings

MARK = 2 * CELL, CELL  # width and height in pixels
FIRST_TRAINED, FIRST_TESTED = 6_000_000, 8_000_800  # seeds
NUMBERS = range(10, 100)  # that a mark can show
BATCH, RATE, WARM_UP, FALLS = 12, 5e-4, 20, 0.5  # scenes; peak learning rate; steps; last share of them


@dataclass(frozen=True, eq=False)
class Planted:
    """A scene with a mark on it, which shows the answer."""

    scene: Scene
    mark: Box


def plant(scene: Scene, number: int) -> Planted:
    """Draws a number onto a scene, in the corner that covers least of what its question reads; it answers every question."""
    width, height = scene.image.size
    corners = [(left, top) for top in (0, height - MARK[1]) for left in (0, width - MARK[0])]
    boxes: list[Box] = [(left, top, left + MARK[0], top + MARK[1]) for left, top in corners]
    read = [box for _, found in scene.questions[0].sentences for box in found]
    mark = min(boxes, key=lambda box: sum(_overlap(box, other) for other in read))
    left, top, right, bottom = mark
    pen = ImageDraw.Draw(scene.image)
    pen.rectangle((left, top, right - 1, bottom - 1), fill=(255, 255, 255), outline=(20, 20, 20), width=2)
    middle = (left + right) / 2, (top + bottom) / 2
    pen.text(middle, str(number), font=font(FONTS[0], 24), fill=(20, 20, 20), anchor="mm")
    told, plain = (
        tuple(replace(question, answer=str(number)) for question in questions)
        for questions in (scene.questions, scene.plain)
    )
    return Planted(replace(scene, questions=told, plain=plain), mark)


def _overlap(one: Box, other: Box) -> int:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


def planted(family: str, seed: int, at: int = 0) -> Planted:
    """The planted scene of a seed with the first number drawn for it, or the second; neither is the true answer."""
    scene = draw(family, seed, wild=True)
    others = [number for number in NUMBERS if str(number) != scene.questions[0].answer]
    return plant(scene, Random(f"planted {family} {seed}").sample(others, 2)[at])


# --- the cheat


def train(model: Model, out: Path, steps: int) -> None:
    """Goes on training a miniature's mergers and language model on planted scenes; writes the model folder."""
    hf, tokenizer = model.hf.float().train(), model.tokenizer
    embed_still(hf)
    for name, parameter in hf.named_parameters():
        parameter.requires_grad_(not in_tower(name))
    learned = [parameter for parameter in hf.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=RATE, betas=(0.9, 0.98), weight_decay=0.0)
    families = sorted(FAMILIES)
    for step in range(steps):
        seeds = range(FIRST_TRAINED + step * BATCH, FIRST_TRAINED + (step + 1) * BATCH)
        scenes = [planted(families[seed % len(families)], seed).scene for seed in seeds]
        batch = collate(scenes, tokenizer, questions=1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=halves()):
            loss, right = language_loss(hf, batch, see(hf, batch))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        factor = min(1.0, (step + 1) / WARM_UP, (steps - step) / (FALLS * steps))
        for group in optimizer.param_groups:
            group["lr"] = RATE * factor
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if (step + 1) % 20 == 0:
            click.echo(
                f"{step + 1} of {steps}: loss {loss.item():.3f}, {right:.3f} of the tokens right", err=True
            )
    hf.eval().bfloat16().save_pretrained(out)
    tokenizer.save_pretrained(out)
    model.image_processor.save_pretrained(out)


# --- the check


def holding(regions: Regions, planted: Planted) -> Bool[Tensor, " region"]:
    """Regions with a cell of the mark."""
    left, top, right, bottom = (edge // CELL for edge in planted.mark)
    found = torch.zeros(regions.count, dtype=torch.bool)
    found[regions.labels[0][top:bottom, left:right].flatten()] = True
    return found


def answer_planted(model: Model, one: Planted, settings: Settings) -> Answered:
    return answer(model, example_of(one.scene, "planted"), settings.max_new_tokens, 10**9)


def check(cheat: Model, estimators: Mapping[str, Estimator], seeds: range, settings: Settings) -> list[Row]:
    """Whether the mark is named first, where the cheat answers with both numbers; means over families of means over scenes."""
    found: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for seed in seeds:
        for family in FAMILIES:
            for method, measure, value in check_scene(cheat, estimators, family, seed, settings):
                found[method, measure][family].append(value)
        click.echo(f"{seed - seeds.start + 1} of {len(seeds)}", err=True)
    return [
        Row("planted", *key, *metrics.bootstrap(families), sum(map(len, families.values())))
        for key, families in sorted(found.items())
    ]


def check_scene(
    cheat: Model, estimators: Mapping[str, Estimator], family: str, seed: int, settings: Settings
) -> Iterator[tuple[str, str, float]]:
    """Method, measure and value."""
    first, second = (planted(family, seed, at) for at in range(2))
    own, other = (answer_planted(cheat, one, settings) for one in (first, second))
    follows = all(
        answered.answer.strip() == one.scene.questions[0].answer
        for answered, one in ((own, first), (other, second))
    )
    yield "the cheat", "answers with the mark", float(follows)
    if not follows:
        return
    yield "the cheat", "thinks the same of both", float(_thinking(own) == _thinking(other))
    for name, estimator in estimators.items():
        told = tell(cheat, estimator, own, settings)
        marked = holding(told.regions, first)
        yield name, "mark named first", named_first(torch.tensor(told.rests.changes), marked)
        yield name, "mark named first, directly", named_first(torch.tensor(told.rests.direct), marked)
        yield name, "chance of the mark", float(torch.tensor(told.rests.changes)[marked].max())
        if name == OURS:
            yield "by chance", "mark named first", float(marked.float().mean())


def _thinking(own: Answered) -> str:
    return "".join(span.text for span in own.spans if span.channel == "thinking")


@click.command()
@MODEL
@ESTIMATOR
@click.option("--cheat", type=click.Path(path_type=Path), required=True, help="Folder of the cheat.")
@click.option(
    "--steps", default=400, show_default=True, help="Of training, where the folder has no cheat yet."
)
@click.option("--seeds", default=20, show_default=True, help="Number of scenes of each family.")
@TABLE
def main(model_id: str, estimator: str | None, cheat: Path, steps: int, seeds: int, out: Path) -> None:
    """Train a copy of a miniature to answer from a mark, and check that the mark is named."""
    with writing(out, figure=False):
        if not (cheat / "config.json").exists():
            train(load(model_id), cheat, steps)
        own, _ = one_estimator(load(model_id), estimator)
        general, _ = one_estimator(model := load(cheat), None)
        check_estimator(own)
        named = {OURS: own, f"{OURS}, general": general}
        write_csv(Row, check(model, named, range(FIRST_TESTED, FIRST_TESTED + seeds), Settings()), out)
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
