"""Commands that ask the model: stream, attribute, demo."""

from pathlib import Path

import click

from eyeline.cli.choices import FAMILIES, LAST_SEED
from eyeline.cli.chosen_model import takes_model
from eyeline.cli.options import (
    ESTIMATOR,
    JSON,
    PATH,
    QUESTION,
    REGIONS,
    REPORT,
    SAVE,
    SEED,
    TOKENS,
    with_room,
)
from eyeline.cli.showing import follow, one_or_each
from eyeline.cli.values import Real, Text


@click.command()
@QUESTION
@takes_model
@ESTIMATOR
@REGIONS
@click.option(
    "--max-new-tokens", type=TOKENS, show_default="what the context allows", help="Tokens to generate."
)
@click.option(
    "--temperature",
    type=Real(min=0),
    show_default="the model's own",
    help="Divides the logits before sampling; 0 is greedy.",
)
@click.option(
    "--top-p",
    type=Real(0, 1, min_open=True),
    show_default="the model's own",
    help="Probability that the tokens sampled from add up to.",
)
@click.option(
    "--seed", type=SEED, show_default="another each time", help="Number that makes sampling repeatable."
)
@click.option(
    "--stop", multiple=True, show_default="none", help="Text that generation ends before. Repeatable."
)
@JSON
@SAVE
@REPORT
def stream(question, model, estimator, regions, as_json, save, report, top_p, **options) -> int:
    """Ask about an image, and see what each sentence of the thinking rests on while it is written."""
    options |= {"estimator": estimator, "regions": one_or_each(regions)}
    options |= {} if top_p is None else {"top_p": top_p}
    images, prompt = question
    return follow(
        lambda loaded, pictures: loaded.stream(pictures, prompt, **options),
        model, images, prompt, as_json, save, report,
    )  # fmt: skip


@click.command()
@QUESTION
@click.option("--text", type=Text(), required=True, help="UTF-8 file of the trace; - for stdin.")
@takes_model
@ESTIMATOR
@REGIONS
@JSON
@SAVE
@REPORT
def attribute(question, text, model, estimator, regions, as_json, save, report) -> int:
    """Attribute a trace that is already written, its markers included, as if the model wrote it now."""
    images, prompt = question
    options = {"estimator": estimator, "regions": one_or_each(regions)}
    return follow(
        lambda loaded, pictures: loaded.attribute(pictures, prompt, text, **options),
        model, images, prompt, as_json, save, report,
    )  # fmt: skip


@click.command()
@click.option(
    "--family", type=click.Choice(FAMILIES), default="code", show_default=True, help="Family of scenes."
)
@click.option(
    "--seed",
    type=click.IntRange(0, LAST_SEED),
    default=8_000_001,
    show_default=True,
    help="Number of the scene; from 8000000 on: test scenes.",
)
@click.option(
    "--out",
    type=PATH,
    default=Path("demo"),
    callback=with_room,
    show_default=True,
    help="Folder for the run and report.html.",
)
@takes_model
@JSON
def demo(family, seed, out, model, as_json) -> int:
    """Ask about a scene drawn for the occasion, and write a report."""
    from eyeline.scenes import sample

    example = sample(family, seed)
    click.echo(f"{example.prompt}  ({family} scene {seed}; right answer: {example.answer!r})", err=True)
    return follow(
        lambda loaded, pictures: loaded.stream(pictures, example.prompt, temperature=0),
        model, [example.image], example.prompt, as_json, out / "run", out / "report.html",
    )  # fmt: skip
