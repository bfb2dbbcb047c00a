"""LDS against images, without any, with a few and with hundreds: general weights of other models, calibrated ones, fitted ones.

For each model the general weights come from the others' collections alone. Images are drawn from those that a fit learns weights
from (`weights.split`), and all are scored on the rest of the collection, which nothing here has seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import click
import torch

from benchmarks.learning import draw, of_images
from eyeline import metrics
from eyeline.estimator import Estimator, interval, sum_spans
from eyeline.evaluation.results import OURS, PLAIN, error_bars, new_figure, write_csv, write_png, writing
from eyeline.head_set import SET
from eyeline.training.calibrate import calibrate, move
from eyeline.training.collect import Collected, read_collected, read_run
from eyeline.training.fit import effect_pairs, game_of, r2_nats, scale, with_features
from eyeline.training.general_weights import learn_general
from eyeline.training.weights import FitSettings, learn_weights, split, training_data

COUNTS = (3, 5, 10, 20, 60, 100)  # images
# Of these, with times as many draws: leaving each image out in turn takes as many fits
WITH_INTERVALS = {10: 5}
STEPS = 400  # of the fit on all
# The map of arXiv 2604.16587: attention of every head, linear
PAPER = FitSettings(kinds=("attention",), link="identity")
PAPER_COUNTS = (10, 60)  # images it is fitted on, and on all


@dataclass(frozen=True, slots=True)
class Row:
    """One level of one model's estimator, at one number of images; with the 95 % interval over scored images, or over draws."""

    model: str
    level: str  # none, calibrated, fitted; or the paper's map
    images: int  # of this model that it has seen
    draws: int  # for coverage WITH_INTERVALS times as many
    lds: float
    low: float | None
    high: float | None
    r2_nats: float | None  # of single regions' effects; none where sizes mean nothing
    scored: int  # images
    coverage: float | None = (
        None  # of 90 % intervals of effects, where they were asked for: the mean over draws
    )
    coverage_low: float | None = None  # its 10th percentile over draws


def score(estimator: Estimator, images: Sequence[Collected]) -> tuple[float, float | None, float | None]:
    """LDS of joint falls at the rate 0.5, with its interval over images."""
    values = of_images(
        images,
        lambda one, subsets: sum_spans(game_of(one, estimator).falls(subsets.T.float()), one.lengths),
    )
    return metrics.bootstrap(values)


def effects_of(estimator: Estimator, images: Sequence[Collected]) -> float:
    return r2_nats(*effect_pairs(images, estimator)[:2])


def intervals(drawn: Sequence[Collected], run: dict[str, Any], others: Estimator) -> Estimator:
    """What a user gets of so many images."""
    *_, (_, found) = calibrate([[one] for one in drawn], run, others, "calibrated")
    assert found is not None, "the last step has it"
    return found


def covers(estimator: Estimator, images: Sequence[Collected]) -> float:
    """Share of measured effects that lie in their intervals, images weighing the same."""
    predicted, actual, image = effect_pairs(images, estimator)
    low, high = interval(predicted, estimator.effect_spread).T
    return metrics.coverage(low, high, actual, image)


def _of_draws(covered: Sequence[float]) -> tuple[float | None, float | None]:
    return (fmean(covered), float(torch.tensor(covered).quantile(0.1))) if covered else (None, None)


def measure(
    name: str, images: Sequence[Collected], run: dict[str, Any], others: Estimator, draws: int
) -> list[Row]:
    """All levels of one model."""
    parts = split(images)
    pool, held = parts["fit"], [*parts["scale"], *parts["cover"]]
    rows = [Row(name, "none", 0, 1, *score(others, held), None, len(held))]
    for count in (count for count in COUNTS if count <= len(pool)):
        found, sizes = [], []
        for seed in range(draws):
            drawn = draw(pool, count, seed) if count >= 5 else draw(pool, 5, seed)[:count]
            moved = move(training_data(drawn, SET), count, others)
            found.append(score(moved, held)[0])
            sizes.append(effects_of(scale(drawn, moved), held))
        covered = [
            covers(intervals(draw(pool, count, seed), run, others), held)
            for seed in range(draws * WITH_INTERVALS.get(count, 0))
        ]
        low, high = torch.tensor(found).quantile(torch.tensor([0.025, 0.975])).tolist()
        about = (fmean(found), low, high, fmean(sizes), len(held), *_of_draws(covered))
        rows.append(Row(name, "calibrated", count, draws, *about))
        click.echo(f"{name}, {count} images: {rows[-1].lds:.3f}", err=True)
    learned, _ = learn_weights(training_data(pool, SET), FitSettings(kinds=SET, hidden=0, steps=STEPS))
    fitted = scale(pool, learned)
    rows.append(Row(name, "fitted", len(pool), 1, *score(fitted, held), effects_of(fitted, held), len(held)))
    return rows


def of_paper(name: str, images: Sequence[Collected], draws: int) -> list[Row]:
    """The paper's map, fitted on some images alone; `images` have the features of every head."""
    parts = split(images)
    pool, held = parts["fit"], [*parts["scale"], *parts["cover"]]
    rows = []
    for count in (*PAPER_COUNTS, len(pool)):
        of_draws = [draw(pool, count, seed) for seed in range(draws)] if count < len(pool) else [pool]
        found = [score(learn_weights(training_data(some, PAPER.kinds), PAPER)[0], held) for some in of_draws]
        low, high = found[0][1:]
        if count < len(pool):
            low, high = (
                torch.tensor([one for one, *_ in found]).quantile(torch.tensor([0.025, 0.975])).tolist()
            )
        rows.append(
            Row(name, "paper", count, len(found), fmean(one for one, *_ in found), low, high, None, len(held))
        )
    return rows


def figure_of(rows: Sequence[Row]) -> Any:
    """LDS against images; no image stands at the left."""
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    for model, colour in zip(
        dict.fromkeys(row.model for row in rows), (OURS, PLAIN, "tab:green"), strict=False
    ):
        for level, style in (("ours", "o-"), ("the paper's map", "s:")):
            own = [row for row in rows if row.model == model and (row.level == "paper") == (level != "ours")]
            places = [max(row.images, 1) for row in own]
            bars = error_bars((row.lds, row.low, row.high) for row in own)
            label = f"{model}, {level}"
            axes.errorbar(
                places, [row.lds for row in own], yerr=bars, fmt=style, color=colour, capsize=2, label=label
            )
    counts = sorted({row.images for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(
        [max(count, 1) for count in counts], ["none" if not count else f"{count}" for count in counts]
    )
    axes.minorticks_off()
    axes.set(xlabel="images of this model that were measured", ylabel="LDS on other images, by pixels")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return figure


@click.command()
@click.option(
    "--collection", "collections", multiple=True, required=True, metavar="NAME=DIR", help="One of each model. Repeatable.",
)  # fmt: skip
@click.option(
    "--draws", type=click.IntRange(1), default=10, show_default=True, help="Of the images, at each number."
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV to write; a PNG beside it.")
def main(collections: tuple[str, ...], draws: int, out: Path) -> None:
    """Measure how good an estimator is by how many images of its model it has seen."""
    with writing(out):
        runs, raw = {}, {}
        for each in collections:
            name, _, folder = each.partition("=")
            if not folder:
                raise click.BadParameter(f"{each!r} is no NAME=DIR.")
            about = read_run(Path(folder))
            images = with_features(read_collected(Path(folder)), about, SET)
            kept = [replace(one, features=one.features.half()) for one in images]
            runs[name] = (kept, {**about, "settings": {**about["settings"], "kinds": list(SET)}})
            raw[name] = read_collected(Path(folder))
        rows: list[Row] = []
        for name, (images, about) in runs.items():
            others = learn_general([run for other, run in runs.items() if other != name], "general")
            rows += measure(name, images, about, others, draws) + of_paper(name, raw[name], draws)
            write_csv(Row, rows, out)
        write_png(figure_of(rows), out.with_suffix(".png"))
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
