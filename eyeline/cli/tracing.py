"""Commands from data to what answers rest on through the thinking: collect-through, fit-through, evaluate-through."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from eyeline.cli.chosen_model import takes_model
from eyeline.cli.making import makes_examples
from eyeline.cli.options import DATA, FOLDER, LENGTH, LIMIT, OF_MODEL, PATH, SOURCE, out, subset_seed


def of_traces(folder: str, seed: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of a command that hides earlier text and lets the model think again; `folder` says what it writes to."""
    options = (
        takes_model,
        click.option(
            "--estimator",
            show_default=OF_MODEL,
            help="Folder of a fitted estimator, or its id on the Hub.",
        ),
        DATA,
        FOLDER,
        out(folder),
        SOURCE,
        click.option(
            "--subsets",
            type=click.IntRange(4),
            default=32,
            show_default=True,
            help="Number of random sets of earlier spans.",
        ),
        LENGTH,
        subset_seed(seed),
        LIMIT,
        makes_examples,
    )

    def apply(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return apply


@click.command("collect-through")
@of_traces("Folder of the collection; goes on where it holds one.", 0)
def collect_through(model, estimator, data, folder, out, limit, make, **settings) -> None:
    """Measure what spans take from earlier ones, and what answers rest on through them: hide, and let the model think again."""
    from eyeline.catalogue import examples_of
    from eyeline.evaluation.answers import means_the_same
    from eyeline.evaluation.evaluate import one_estimator
    from eyeline.training import traces
    from eyeline.training.spread import Work

    examples, known = examples_of(data, "fit", folder, limit)
    made_with = traces.Settings(**settings)

    def begin() -> Work:
        loaded = model.load()
        found, _ = one_estimator(loaded, estimator)
        return Work(lambda some: traces.collect(loaded, found, some, out, made_with, means_the_same))

    make(out, examples, known, begin)


@click.command("fit-through")
@click.argument("run", type=PATH)
@click.option(
    "--estimator", required=True, type=PATH, help="Folder of the estimator that the run was collected with."
)
@out(
    "Folder of the estimator to write: the same, and what it says of earlier text and of answers. May be the same folder."
)
def fit_through(run, estimator, out) -> None:
    """Fit what an estimator says of earlier text, and of answers through it, on a collection of traces."""
    from eyeline.estimator_files import read_estimator, save_estimator
    from eyeline.training.collect import read_run
    from eyeline.training.traces import check_run, fit, read_traced

    found = read_estimator(estimator)
    check_run(read_run(run), found)
    fitted = fit(read_traced(run), found)
    save_estimator(fitted, out)
    click.echo(f"Estimator: {out} ({fitted.card['traces']} traces)", err=True)


@click.command("evaluate-through")
@of_traces("Folder for measurements and totals.csv; goes on where it holds some.", 1)
def evaluate_through(model, estimator, data, folder, out, limit, make, **settings) -> None:
    """Measure how well it is predicted what answers rest on through the thinking, and sentences on earlier ones."""
    from eyeline.catalogue import examples_of
    from eyeline.evaluation.evaluate import one_estimator
    from eyeline.evaluation.totals import TABLE, check_estimator, measure_totals, write_totals
    from eyeline.training import traces
    from eyeline.training.spread import Work

    examples, known = examples_of(data, "test", folder, limit)
    made_with = traces.Settings(**settings)

    def begin() -> Work:
        loaded = model.load()
        found, _ = one_estimator(loaded, estimator)
        check_estimator(found)

        def finish() -> tuple[Path, ...]:
            write_totals(out, found)
            return (out / TABLE,)

        return Work(lambda some: measure_totals(loaded, found, some, out, made_with), finish)

    make(out, examples, known, begin)
