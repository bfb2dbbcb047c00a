"""Commands from data to an estimator and its measure: collect, fit, evaluate."""

from pathlib import Path

import click

from eyeline.cli.choices import FEATURES, WAYS
from eyeline.cli.chosen_model import takes_model
from eyeline.cli.making import makes_examples
from eyeline.cli.options import DATA, FOLDER, LENGTH, LIMIT, PATH, SOURCE, out, subset_seed
from eyeline.cli.values import Joined, Real


@click.command()
@takes_model
@DATA
@FOLDER
@out("Folder of the collection; goes on where it holds one.")
@click.option(
    "--hiding",
    type=click.Choice(WAYS),
    default="pixels",
    show_default=True,
    help="How a region is hidden; `attention` (knockout) is several times faster and leaves what has spread to neighbours.",
)
@SOURCE
@click.option(
    "--rates",
    type=Joined(Real(0, 1, min_open=True, max_open=True)),
    default="0.5,0.25,0.1",
    show_default=True,
    help="Probabilities of hiding a region, joined by commas.",
)
@click.option(
    "--subsets", type=click.IntRange(2), default=12, show_default=True, help="Random subsets at each rate."
)
@click.option(
    "--max-spans",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Spans to keep of a trace, spread evenly; features of their tokens are what fills the disk.",
)
@LENGTH
@subset_seed(0)
@LIMIT
@makes_examples
def collect(model, data, folder, out, limit, make, rates, **settings) -> None:
    """Measure what hiding regions does to the model's own traces: the data an estimator is fitted on."""
    from eyeline.catalogue import examples_of
    from eyeline.training import collect as collection
    from eyeline.training.spread import Work

    examples, known = examples_of(data, "fit", folder, limit)
    made_with = collection.Settings(rates=rates, **settings)

    def begin() -> Work:
        loaded = model.load()
        return Work(lambda some: collection.collect(loaded, some, out, made_with))

    make(out, examples, known, begin)


@click.command()
@click.argument("run", type=PATH)
@out("Folder of the estimator to write.")
@click.option(
    "--kinds",
    type=Joined(click.Choice(FEATURES)),
    default="value,odds,change",
    show_default=True,
    help="Features, joined by commas; 'attention' alone is the paper's, with the link 'identity'.",
)
@click.option(
    "--link",
    type=click.Choice(["log-odds", "identity"]),
    default="log-odds",
    show_default=True,
    help="What scores are: falls in a token's log-odds, or in its log-prob itself.",
)
@click.option(
    "--hidden",
    type=click.IntRange(0),
    default=32,
    show_default=True,
    help="Number of hidden units of the network beside the linear map; 0 for none, as with the link 'identity'.",
)
@click.option(
    "--heads",
    type=Real(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the heads to keep, those that matter most; layers without any of them are not captured.",
)
@click.option(
    "--layers",
    type=click.IntRange(1),
    show_default="from the model's configuration",
    help="Number of layers of the language model, to tell by layer which heads are kept.",
)
@click.option("--name", show_default="the folder's name", help="Id that the estimator carries.")
def fit(run, out, kinds, link, hidden, heads, layers, name) -> None:
    """Fit an estimator on a collection."""
    from eyeline.estimator import save_estimator
    from eyeline.training.collect import read_collected, read_run
    from eyeline.training.fit import fit as fit_estimator
    from eyeline.training.weights import FitSettings

    about = read_run(run)
    name = name or out.resolve().name
    settings = FitSettings(kinds=kinds, link=link, hidden=hidden, heads=heads)
    estimator, _ = fit_estimator(read_collected(run), about, settings, name, layers)
    save_estimator(estimator, out)
    click.echo(f"Estimator: {out} (loss {estimator.card['loss']})", err=True)


@click.command()
@takes_model
@click.option(
    "--estimator",
    "estimators",
    multiple=True,
    show_default="the one in the model's folder",
    help="Folder of a fitted estimator, or its id on the Hub. Repeatable.",
)
@DATA
@FOLDER
@out("Folder for measurements, table.csv, page.html and its figures; goes on where it holds some.")
@click.option(
    "--methods",
    default="eyeline,random,raw-attention,exhaustive",
    show_default=True,
    help="Rivals, joined by commas; 'eyeline' stands for the estimators, 'all' for everything.",
)
@click.option(
    "--hiding",
    type=click.Choice(WAYS),
    show_default="as the first estimator's card says, or pixels",
    help="How a region is hidden.",
)
@SOURCE
@click.option(
    "--ordered",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of orders, and their reverses, by which contributions are measured: twice so many passes for each region.",
)
@click.option(
    "--answers",
    is_flag=True,
    help="Read whole answers too: marks by the set's rule, heat against its evidence, deletion and insertion; 20 more passes for "
    "each method, and two more answers.",
)
@LENGTH
@subset_seed(1)
@LIMIT
@makes_examples
def evaluate(model, estimators, data, folder, out, methods, hiding, limit, make, **settings) -> None:
    """Measure how well estimators and their rivals predict what hiding regions really does."""
    from eyeline.catalogue import examples_of
    from eyeline.evaluation.evaluate import Settings, choose_methods
    from eyeline.evaluation.evaluate import evaluate as measure
    from eyeline.evaluation.page import write_results
    from eyeline.training.spread import Work

    examples, known = examples_of(data, "test", folder, limit)

    def begin() -> Work:
        loaded = model.load()
        chosen = choose_methods(loaded, methods.split(","), estimators, hiding)
        made_with = Settings(methods=tuple(chosen.methods), hiding=chosen.hiding, **settings)
        fitted = {
            name: each.card.get("regions", made_with.regions) for name, each in chosen.estimators.items()
        }
        notices = (
            f"{name} was fitted on {regions} regions and is measured on {made_with.regions}."
            for name, regions in fitted.items()
            if regions != made_with.regions
        )

        def finish() -> tuple[Path, ...]:
            write_results(loaded, chosen, out)
            return out / "table.csv", out / "page.html"

        return Work(
            lambda some: measure(loaded, some, chosen.methods, out, made_with, chosen.cards),
            finish,
            tuple(notices),
        )

    make(out, examples, known, begin)
