"""Commands from data to an estimator and its measure: collect, fit, evaluate."""

from pathlib import Path

import click

from eyeline.cli.choices import AS_SET, FEATURES, WAYS
from eyeline.cli.chosen_model import takes_model
from eyeline.cli.making import makes_examples
from eyeline.cli.options import (
    DATA,
    FOLDER,
    HIDING,
    LENGTH,
    LIMIT,
    OF_MODEL,
    PATH,
    SOURCE,
    out,
    subset_seed,
    with_room,
)
from eyeline.cli.values import Joined, Real

SHARE_OF_HEADS = 0.1  # that are kept where another collection chooses them


@click.command()
@takes_model
@DATA
@FOLDER
@out("Folder of the collection; goes on where it holds one.")
@HIDING
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
    "--features",
    type=click.Choice(("heads", AS_SET)),
    default=AS_SET,
    show_default=True,
    help="Features of the heads as a set (eight numbers a token and region), or of every head (four numbers each).",
)
@click.option(
    "--heads-of",
    type=PATH,
    show_default="all",
    help="Collection of every head of ten images or more of this model: only those heads are kept that matter most there.",
)
@click.option(
    "--heads",
    type=Real(0, 1, min_open=True),
    show_default=str(SHARE_OF_HEADS),
    help="Share of the heads to keep, of those that the other collection chooses among.",
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
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave out examples of a data folder whose image or id cannot be used, and list them at the end.",
)
@makes_examples
def collect(
    model, data, folder, out, limit, make, rates, features, heads_of, heads, skip_bad, **settings
) -> None:
    """Measure what hiding regions does to the model's own traces: the data an estimator is fitted on."""
    from eyeline.catalogue import examples_of
    from eyeline.head_set import KINDS, SET
    from eyeline.training import checking
    from eyeline.training import collect as collection
    from eyeline.training.fit import ENOUGH_IMAGES, FEWEST_IMAGES
    from eyeline.training.spread import Work

    kept, in_all = heads_to_keep(heads_of, heads, features)
    examples, known = examples_of(data, "fit", folder, limit)
    here = f"; here are {known}" if known is not None else ""
    click.echo(
        f"To fit an estimator takes {FEWEST_IMAGES} images at the very least, {ENOUGH_IMAGES} for numbers to rely on{here}.",
        err=True,
    )
    bad = []
    if isinstance(examples, list):  # what comes from the Hub is looked at as it comes
        if skip_bad:
            examples, bad = checking.sort_out(examples)
            known = len(examples)
        else:
            checking.check(examples)
    kinds = {AS_SET: SET, "heads": KINDS}[features]
    made_with = collection.Settings(rates=rates, kinds=kinds, heads=kept, heads_in_all=in_all, **settings)

    def begin() -> Work:
        loaded = model.load()
        return Work(lambda some: collection.collect(loaded, some, out, made_with))

    make(out, examples, known, begin)
    for sentence in bad:
        click.echo(f"Left out: {sentence}", err=True)


def heads_to_keep(run: Path | None, share: float | None, features: str) -> tuple[tuple[int, ...], int]:
    """Those of `--heads-of`, and how many there are in all; without it all, none by number."""
    if run is None:
        if share is not None:
            raise click.UsageError(
                "A share of the heads is chosen on a collection of all of them; give --heads-of as well."
            )
        return (), 0
    from eyeline.training.heads import heads_of

    if features == AS_SET:
        raise click.UsageError(
            "Heads are chosen where each is kept by itself; give --features heads as well."
        )
    return heads_of(run, SHARE_OF_HEADS if share is None else share)


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "--out",
    type=PATH,
    callback=with_room,
    show_default="kept in your data folder, and used for the model from then on",
    help="Folder of the estimator to write.",
)
@click.option(
    "--kinds",
    type=Joined(click.Choice((*FEATURES, AS_SET))),
    show_default="set, or value,odds,change where the collection has those of every head",
    help="Features of every head, joined by commas, or `set`: those of all heads as a set, which fit with fewer images; "
    "'attention' alone is the paper's, with the link 'identity'.",
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
    show_default="32, and of heads as a set 0",
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
@click.option("--name", show_default="the name of --out, or of RUN", help="Id that the estimator carries.")
@click.option(
    "--device",
    show_default="cuda where there is one, else cpu",
    help="Where weights are learned: cpu, cuda:1, mps ...",
)
def fit(run, out, kinds, link, hidden, heads, layers, name, device) -> None:
    """Fit an estimator on a collection; features that memory does not hold are mapped in a file in $TMPDIR."""
    from eyeline.estimator_files import save_estimator
    from eyeline.estimator_store import place_of
    from eyeline.files import check_room
    from eyeline.head_set import is_set
    from eyeline.load_options import device_of
    from eyeline.training.collect import read_collected, read_run
    from eyeline.training.fit import fit as fit_estimator
    from eyeline.training.weights import FitSettings

    about = read_run(run)
    name = name or (out or run).resolve().name
    if out is None:
        out = place_of(about["fingerprint"], name)
        check_room(out)
    kinds = features_of(kinds, about)
    if hidden is None:
        hidden = 0 if is_set(kinds) else FitSettings().hidden
    settings = FitSettings(kinds=kinds, link=link, hidden=hidden, heads=heads)
    estimator, _ = fit_estimator(read_collected(run), about, settings, name, layers, device_of(device))
    save_estimator(estimator, out)
    click.echo(f"Estimator: {out} (loss {estimator.card['loss']})", err=True)


@click.command()
@takes_model
@click.option(
    "--estimator",
    "estimators",
    multiple=True,
    show_default=OF_MODEL,
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


def features_of(kinds, about) -> tuple[str, ...]:
    """The features that --kinds names; by default those that a collection, told by `about`, is for."""
    from eyeline.errors import DataError
    from eyeline.head_set import SET
    from eyeline.training.weights import FitSettings

    if kinds is None:
        return SET if tuple(about["settings"].get("kinds", ())) == SET else FitSettings().kinds
    if AS_SET not in kinds:
        return tuple(kinds)
    if len(kinds) > 1:
        raise DataError("Features of the heads as a set stand alone: --kinds set.")
    return SET
