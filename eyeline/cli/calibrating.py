"""Commands for estimators of models that were not measured yet, or hardly: calibrate, fit-general."""

import hashlib
from pathlib import Path

import click

from eyeline.cli.chosen_model import takes_model
from eyeline.cli.making import tell_left_out
from eyeline.cli.options import FOLDER, HIDING, LENGTH, PATH, SOURCE, out, subset_seed, with_room
from eyeline.cli.progress import progress, several
from eyeline.errors import EyelineError


@click.command()
@takes_model
@click.argument("images", nargs=-1, type=PATH)
@click.option(
    "--data", show_default="the images", help="Data folder, or a public set by name, instead of images."
)
@FOLDER
@click.option(
    "--from-audit", "audited", type=PATH, show_default="the images",
    help="Folder with runs that a server has audited, instead of images; what it measured is not measured again.",
)  # fmt: skip
@click.option(
    "--prompt", show_default="what the image shows, step by step", help="What to ask of each image."
)
@click.option(
    "--count", type=click.IntRange(3), show_default="10; of an audit all", help="Number of images, at most."
)
@HIDING
@SOURCE
@LENGTH
@subset_seed(0)
@click.option(
    "--collection", type=PATH, callback=with_room, show_default="with your own estimators",
    help="Folder of what is measured; the same command goes on from it.",
)  # fmt: skip
@click.option(
    "--out", type=PATH, callback=with_room, show_default="with your own, where it is found from now on",
    help="Folder of the estimator to write.",
)  # fmt: skip
@click.option("--name", default="calibrated", show_default=True, help="Id that the estimator carries.")
def calibrate(model, images, data, folder, audited, prompt, count, collection, out, name, **settings) -> None:
    """Measure a few images of your own, and make an estimator of the model's from the general one."""
    from eyeline.estimator_files import general_estimator, save_estimator
    from eyeline.estimator_store import place_of
    from eyeline.fingerprint import fingerprint
    from eyeline.training.calibrate import calibrate as steps_of
    from eyeline.training.collect import read_run

    if (bool(images), bool(data), bool(audited)).count(True) != 1:
        raise EyelineError(
            "Expected images, --data or --from-audit, one of them: eyeline calibrate --model M A.png B.png C.png"
        )
    examples = () if audited else _examples(images, data, folder, prompt, count or COUNT)
    loaded = model.load()
    of_model = fingerprint(loaded)
    out = out or place_of(of_model, name)
    if audited:
        collection = collection or _place(of_model, "audit")
        measured = _audited(loaded, audited, count, collection)
    else:
        collection = collection or _place(of_model, repr(_settings(settings)))
        count = min(count or COUNT, len(images)) if images else count or COUNT
        measured = _measured(loaded, examples, count, collection, _settings(settings))
    click.echo(f"Fitting on {len(measured)} images, and without each of them.", err=True)
    steps = steps_of(measured, read_run(collection), general_estimator(), name)
    *_, (_, estimator) = progress(steps, len(measured) + 2)
    assert estimator is not None, "the last step has it"
    save_estimator(estimator, out)
    tell_left_out(examples)
    levels = estimator.card["lds_by_level"]
    click.echo(
        f"Estimator: {out}. On images left out its LDS is {levels['calibrated']:.2f}, that of the general weights "
        f"{levels['general']:.2f}; the better ones are in it.",
        err=True,
    )
    if not estimator.has_intervals:
        click.echo("Too few images for intervals; nine or more give them.", err=True)


COUNT = 10  # images, where nobody says how many


def _settings(chosen):
    from eyeline.training.collect import Settings

    return Settings(ordered_share=0.0, **chosen)


def _place(of_model, made_with):
    """Where what is measured of a model is kept, one folder for each way of measuring."""
    from eyeline.data_folder import data_folder

    of_settings = hashlib.sha256(made_with.encode()).hexdigest()[:8]
    return data_folder() / "calibrations" / f"{of_model[:12]}-{of_settings}"


def _measured(model, examples, count, collection, settings):
    """What was collected of each image."""
    from eyeline.training import collect as collection_of

    click.echo(f"Measuring {several(count, 'image')}, kept in {collection}.", err=True)
    done = list(progress(collection_of.collect(model, examples, collection, settings), count))
    return [[one] for one in collection_of.read_collected(collection) if one.id in done]


def _audited(model, folder, count, collection):
    """What was collected of each audited run, span by span."""
    from itertools import islice

    from eyeline.training.audited import collect_audited, find_audited, run_of
    from eyeline.training.collect import read_collected

    runs = dict(islice(find_audited(folder, model).items(), count))
    spans = sum(map(len, runs.values()))
    click.echo(f"Reading {len(runs)} runs with {spans} audited spans, kept in {collection}.", err=True)
    done = list(progress(collect_audited(model, runs, collection), len(runs)))
    collected = read_collected(collection)
    return [[one for one in collected if run_of(one) == run] for run in done]


def _examples(images, data, folder, prompt, count):
    """Examples of a data set, or of plain images."""
    from itertools import islice

    from eyeline.catalogue import examples_of
    from eyeline.examples import OWN, QUESTION, Example

    if data:
        examples, _ = examples_of(data, "fit", folder, count)
        return examples
    stems = [Path(image).stem for image in images]
    names = [f"{number:03}-{stem}" for number, stem in enumerate(stems)]
    return list(islice(
        (Example(name, image, prompt or QUESTION, "", OWN, OWN) for name, image in zip(names, images, strict=True)),
        count,
    ))  # fmt: skip


@click.command("fit-general")
@click.argument("runs", nargs=-1, required=True, type=PATH)
@click.option(
    "--traces", multiple=True, type=PATH, show_default="none, and nothing is said of earlier text",
    help="Folder that `eyeline collect-through` wrote. Repeatable, one of each model.",
)  # fmt: skip
@out("Folder of the estimator to write.")
@click.option("--name", default="general", show_default=True, help="Id that the estimator carries.")
def fit_general(runs, traces, out, name) -> None:
    """Learn general weights over the collections RUNS, one of each model, for models that none of them is."""
    from eyeline.estimator_files import save_estimator
    from eyeline.training.collect import read_collected, read_run
    from eyeline.training.general_weights import learn_general
    from eyeline.training.traces import read_traced

    collected = [(read_collected(run), read_run(run)) for run in runs]
    estimator = learn_general(collected, name, [read_traced(folder) for folder in traces])
    save_estimator(estimator, out)
    click.echo(f"Estimator: {out}, of {', '.join(estimator.card['models'])}", err=True)
