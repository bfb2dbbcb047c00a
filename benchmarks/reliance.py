"""Does guessing, without image and thinking, tell answers that rest on the image from those that can be had without looking?

Drawn scenes are asked about as they are, and some with the answer given away in the question. How far each answer falls where it
is guessed is held against what hiding the whole image from the start does when the model thinks again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import torch
from scipy.stats import bootstrap, spearmanr
from sklearn.metrics import roc_auc_score

from eyeline import load
from eyeline.cli.progress import progress
from eyeline.evaluation.command_options import MODEL, TABLE
from eyeline.evaluation.reliance import Scored, Settings, filter_examples
from eyeline.evaluation.results import write_csv, writing
from eyeline.examples import Example
from eyeline.scenes import FAMILIES, sample

FIRST_SEED = 8_002_000  # that no other measurement uses
GIVEN_EVERY = 4  # of so many scenes one has its answer in the question


@dataclass(frozen=True, slots=True)
class Row:
    """One number of one group of scenes, with a 95 % interval over scenes where there is one."""

    scenes: str  # all, plain, given away
    measure: str
    value: float
    low: float | None
    high: float | None
    count: int


def examples(each: int) -> list[tuple[Example, bool]]:
    """So many scenes of every family, and of each whether its question gives the answer away."""
    found = []
    for at in range(each):
        given = at % GIVEN_EVERY == GIVEN_EVERY - 1
        for family in FAMILIES:
            one = sample(family, FIRST_SEED + at)
            prompt = f"{one.prompt} The answer is {one.answer}."
            found.append((replace(one, prompt=prompt) if given else one, given))
    return found


def table(scored: Sequence[Scored], given: Sequence[bool]) -> list[Row]:
    told = [(one, away) for one, away in zip(scored, given, strict=True) if one.measured is not None]
    groups = {
        "all": [one for one, _ in told],
        "plain": [one for one, away in told if not away],
        "given away": [one for one, away in told if away],
    }
    rows = []
    for name, some in groups.items():
        guessed = [one.reliance or 0.0 for one in some]
        rows.append(_rank(name, guessed, [one.measured for one in some]))
        for what in ("reliance", "measured", "measured_change"):
            values = torch.tensor([float(getattr(one, what)) for one in some])
            rows.append(Row(name, f"mean of {what}", float(values.mean()), None, None, len(some)))
    guessed = [one.reliance or 0.0 for one, _ in told]
    measured = [one.measured for one, _ in told]
    for what, is_so, by in (
        ("answers that change, by the guess", [one.measured_change for one, _ in told], guessed),
        ("plain questions, by the guess", [not away for _, away in told], guessed),
        ("plain questions, as measured", [not away for _, away in told], measured),
    ):
        rows.append(Row("all", f"AUC of {what}", float(roc_auc_score(is_so, by)), None, None, len(told)))
    return rows


def _rank(scenes: str, predicted: Sequence[float], measured: Sequence[float | None]) -> Row:
    def rank(*pairs: Sequence[float]) -> float:
        return float(spearmanr(*pairs).statistic)  # pyright: ignore

    ends = bootstrap(
        (predicted, measured), rank, paired=True, vectorized=False, n_resamples=1000, method="percentile",
        rng=0,
    ).confidence_interval  # fmt: skip
    label = "Spearman of guessed and measured falls"
    return Row(scenes, label, rank(predicted, measured), float(ends.low), float(ends.high), len(predicted))  # pyright: ignore


@click.command()
@MODEL
@click.option("--each", type=click.IntRange(4), default=12, show_default=True, help="Scenes of a family.")
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder of the scores; goes on where it holds some.",
)
@TABLE
def main(model_id, each, scores, out) -> None:
    """Measures the falls of some scenes' answers without their images, beside those of the same answers as a guess."""
    with writing(out, figure=False):
        model = load(model_id)
        asked = examples(each)
        done = filter_examples(model, (one for one, _ in asked), scores, Settings(), 0.0, len(asked))
        scored = list(progress(done, len(asked)))
        write_csv(Row, table(scored, [away for _, away in asked]), out)


if __name__ == "__main__":
    main()
