"""Commands for estimators of models that were not measured yet, or hardly: calibrate, fit-general."""

import hashlib
from pathlib import Path

import click

from eyeline.cli.chosen_model import takes_model
from eyeline.cli.making import tell_left_out
from eyeline.cli.options import FOLDER, HIDING, LENGTH, PATH, SOURCE, out, subset_seed, with_room
from eyeline.cli.progress import progress


@click.command()
@takes_model
@click.argument("images", nargs=-1, type=PATH)
@click.option(
    "--data", show_default="the images", help="Data folder, or a public set by name, instead of images."
)
@FOLDER
@click.option(
    "--prompt", show_default="what the image shows, step by step", help="What to ask of each image."
)
@click.option(
    "--count", type=click.IntRange(3), default=10, show_default=True, help="Number of images, at most."
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
def calibrate(model, images, data, folder, prompt, count, collection, out, name, **settings) -> None:
    """Measure a few images of your own, and make an estimator of the model's from the general one."""
    from eyeline.data_folder import data_folder
    from eyeline.estimator_files import general_estimator, save_estimator
    from eyeline.estimator_store import place_of
    from eyeline.fingerprint import fingerprint
    from eyeline.training import collect as collection_of
    from eyeline.training.calibrate import calibrate as steps_of

    examples = _examples(images, data, folder, prompt, count)
    loaded = model.load()
    of_model = fingerprint(loaded)
    made_with = collection_of.Settings(ordered_share=0.0, **settings)
    if collection is None:
        of_settings = hashlib.sha256(repr(made_with).encode()).hexdigest()[:8]
        collection = data_folder() / "calibrations" / f"{of_model[:12]}-{of_settings}"
    out = out or place_of(of_model, name)
    count = min(count, len(images)) if images else count
    click.echo(f"Measuring {count} images, which are kept in {collection}.", err=True)
    done = list(progress(collection_of.collect(loaded, examples, collection, made_with), count))
    run = collection_of.read_run(collection)
    measured = [one for one in collection_of.read_collected(collection) if one.id in done]
    click.echo(f"Fitting on {len(measured)} images, and without each of them.", err=True)
    steps = steps_of(measured, run, general_estimator(), name)
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


def _examples(images, data, folder, prompt, count):
    """Examples of a data set, or of plain images."""
    from itertools import islice

    from eyeline.catalogue import examples_of
    from eyeline.errors import DataError
    from eyeline.examples import OWN, QUESTION, Example

    if bool(images) == bool(data):
        raise DataError(
            "Expected images or --data, one of them: eyeline calibrate --model M A.png B.png C.png"
        )
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
@out("Folder of the estimator to write.")
@click.option("--name", default="general", show_default=True, help="Id that the estimator carries.")
def fit_general(runs, out, name) -> None:
    """Learn general weights over the collections RUNS, one of each model, for models that none of them is."""
    from eyeline.estimator_files import save_estimator
    from eyeline.training.collect import read_collected, read_run
    from eyeline.training.general_weights import learn_general

    estimator = learn_general([(read_collected(run), read_run(run)) for run in runs], name)
    save_estimator(estimator, out)
    click.echo(f"Estimator: {out}, of {', '.join(estimator.card['models'])}", err=True)
