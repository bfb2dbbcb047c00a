"""Where regions come from, and how many they are: how well effects can be predicted for each source of regions.

For each source, effects are collected on the same images, to fit on and to test; an estimator fitted on native regions
is tested on the others' as well, because a user brings regions of their own to an estimator that is there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from benchmarks.learning import RATE, ByFamily, evaluate, of_images
from eyeline import load, metrics
from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.evaluation.command_options import MODEL, TABLE_AND_FIGURE
from eyeline.evaluation.results import (
    OURS,
    PLAIN,
    QUIET,
    error_bars,
    new_figure,
    write_csv,
    write_png,
    writing,
)
from eyeline.examples import Example, read_examples
from eyeline.features import KINDS
from eyeline.model import Model
from eyeline.regions import load_source, named
from eyeline.training.collect import ALONE, Collected, Settings, collect, read_collected
from eyeline.training.fit import FEWEST_IMAGES
from eyeline.training.heads import learn
from eyeline.training.weights import FitSettings, training_data

SOURCES = ("native", "native:8", "native:16", "native:48", "slic", "grid", "voronoi", "random")
FITTED, MOVED, EXHAUSTIVE = "fitted on this source", "fitted on native", "exhaustive"


@dataclass(frozen=True, slots=True)
class Row:
    """LDS of one predictor on one source's regions, with a 95 % interval over test images."""

    source: str
    regions: float  # of an image, mean
    predictor: str
    lds: float
    low: float | None
    high: float | None
    images: int


def gather(model: Model, examples: Sequence[Example], source: str, run: Path) -> list[Collected]:
    """Effects and features of the examples with regions of a source; what the run holds already is kept."""
    settings = Settings(hiding="attention", regions=source, rates=(RATE,), subsets=32, ordered_share=0.0)
    wanted = set(collect(model, examples, run, settings))
    return [one for one in read_collected(run) if one.id in wanted]


def exhaustive(images: Sequence[Collected]) -> ByFamily:
    """LDS of measured effects, added up, on the same spans as `evaluate`."""
    return of_images(images, lambda one, subsets: metrics.joint(one.falls[:, one.rates == ALONE], subsets))


def compare(
    model: Model, fit: Sequence[Example], test: Sequence[Example], sources: Sequence[str], runs: Path, settings: FitSettings
) -> list[Row]:  # fmt: skip
    """All rows; native regions are collected first, whatever the sources."""
    for source in sources:  # an unknown name or a missing package is told before the work
        if named(source) is None:
            raise DataError(
                f"No source of regions {source!r}; expected some of {', '.join(SOURCES)}, or others of --regions."
            )
        load_source(source, model.device)
    rows: list[Row] = []
    native: Estimator | None = None
    for source in dict.fromkeys(("native", *sources)):
        folder = runs / source.replace(":", "-").replace("/", "-")
        fitted = gather(model, fit, source, folder / "fit")
        tested = gather(model, test, source, folder / "test")
        estimator = learn(training_data(fitted, KINDS), settings)
        native = estimator if native is None else native
        measured = exhaustive(tested)
        if not measured:
            raise DataError(
                "No span of the test examples depends on its image; check that the model sees it."
            )
        count = sum(one.subsets.shape[1] for one in tested) / len(tested)
        for predictor, values in (
            (FITTED, evaluate(estimator, tested)),
            (MOVED, evaluate(native, tested)),
            (EXHAUSTIVE, measured),
        ):
            images = sum(map(len, values.values()))
            rows.append(Row(source, count, predictor, *metrics.bootstrap(values), images))
        click.echo(f"{source}: {count:.1f} regions", err=True)
    return rows


def draw(rows: Sequence[Row]) -> Any:
    """LDS of each predictor, a line for each source."""
    sources = list(dict.fromkeys(row.source for row in rows))
    figure = new_figure(6.8, 1.2 + 0.42 * len(sources))
    axes = figure.add_subplot()
    colours = {FITTED: OURS, MOVED: PLAIN, EXHAUSTIVE: QUIET}
    for place, predictor in enumerate(colours):
        mine = [row for row in rows if row.predictor == predictor]
        axes.errorbar(
            [row.lds for row in mine], [sources.index(row.source) + 0.2 * (place - 1) for row in mine],
            xerr=error_bars((row.lds, row.low, row.high) for row in mine),
            fmt="o", color=colours[predictor], capsize=2, markersize=4, label=predictor,
        )  # fmt: skip
    counts = {row.source: row.regions for row in rows}
    axes.set_yticks(range(len(sources)), [f"{source}, {counts[source]:.0f} regions" for source in sources])
    axes.invert_yaxis()
    axes.set(xlabel="LDS on test scenes, 95 % interval")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False)
    return figure


@click.command()
@MODEL
@click.option("--fit", type=click.Path(path_type=Path), required=True, help="Data folder to fit on.")
@click.option("--test", type=click.Path(path_type=Path), required=True, help="Data folder to test on.")
@click.option("--limit", type=(click.IntRange(FEWEST_IMAGES), click.IntRange(1)), default=(100, 50), show_default=True,
              help="Examples to fit on and to test on.")  # fmt: skip
@click.option("--sources", default=",".join(SOURCES), show_default=True, help="Joined by commas.")
@click.option(
    "--runs", type=click.Path(path_type=Path), required=True, help="Folder for the collections; goes on."
)
@TABLE_AND_FIGURE
def main(
    model_id: str, fit: Path, test: Path, limit: tuple[int, int], sources: str, runs: Path, out: Path
) -> None:
    """Compare sources and numbers of regions."""
    with writing(out):
        some, others = (
            list(islice(read_examples(data), count)) for data, count in zip((fit, test), limit, strict=True)
        )
        if twice := {one.id for one in some} & {one.id for one in others}:
            raise DataError(f"{len(twice)} examples are both to fit and to test on (first {min(twice)!r}).")
        if len(some) < FEWEST_IMAGES or not others:
            raise DataError(
                f"{len(some)} examples to fit on and {len(others)} to test are too few; expected {FEWEST_IMAGES} and one."
            )
        names = [name.strip() for name in sources.split(",")]
        rows = compare(load(model_id), some, others, names, runs, FitSettings())
        write_csv(Row, rows, out)
        write_png(draw(rows), out.with_suffix(".png"))
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
