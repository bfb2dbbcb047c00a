"""Commands that ask the model: stream, attribute, demo."""

from pathlib import Path

import click

from eyeline.cli.choices import FAMILIES, LAST_SEED, SOURCES
from eyeline.cli.chosen_model import takes_model
from eyeline.cli.options import (
    EARLIER,
    ESTIMATOR,
    JSON,
    PATH,
    QUESTION,
    REGIONS,
    REPORT,
    SAVE,
    SEED,
    TOKENS,
    WHOLE,
    with_room,
)
from eyeline.cli.progress import progress, several
from eyeline.cli.showing import follow, one_or_each
from eyeline.cli.values import Real, Text
from eyeline.errors import EyelineError


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
@EARLIER
@WHOLE
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
@click.option(
    "--data",
    type=PATH,
    is_eager=True,
    show_default="one question",
    help="File of many traces in place of a question, one JSON object a line: image, prompt, text.",
)
@QUESTION
@click.option(
    "--text", type=Text(), show_default="needed for a question", help="UTF-8 file of the trace; - for stdin."
)
@click.option(
    "--out",
    type=PATH,
    callback=with_room,
    show_default="none",
    help="Of many traces: folder of the table; goes on where it holds some.",
)
@click.option(
    "--traces",
    type=click.IntRange(1),
    default=64,
    show_default=True,
    help="Of many traces: number of them in a file.",
)
@takes_model
@ESTIMATOR
@REGIONS
@EARLIER
@WHOLE
@JSON
@SAVE
@REPORT
def attribute(
    question, text, data, out, traces, model, estimator, regions, as_json, save, report, **options
) -> int | None:
    """Attribute a trace that is already written, its markers included, as if the model wrote it now; or many, to a table."""
    if data is not None:
        others = [
            text is not None and "--text",
            save and "--save",
            report and "--report",
            as_json and "--json",
            not options["sources"] and "--no-sources",
            options["measure_whole"] and "--measure-whole",
        ]
        _refuse_mixed(question, others, out, regions)
        return _attribute_log(data, out, model, estimator, regions[0], traces)
    if text is None:
        raise click.UsageError("Missing option '--text'.", click.get_current_context())
    if out is not None:
        raise EyelineError("--out is where --data goes to; for one trace there are --save and --report.")
    images, prompt = question
    options |= {"estimator": estimator, "regions": one_or_each(regions)}
    return follow(
        lambda loaded, pictures: loaded.attribute(pictures, prompt, text, **options),
        model, images, prompt, as_json, save, report,
    )  # fmt: skip


def _refuse_mixed(question, others, out, regions) -> None:
    given = ["a question"] * bool(question[0]) + [name for name in others if name]
    if given:
        raise EyelineError(
            f"--data brings its own questions and goes to --out: leave out {' and '.join(given)}."
        )
    if out is None:
        raise EyelineError("Give --out, the folder that the table of --data goes to.")
    if len(regions) > 1 or regions[0].partition(":")[0] not in SOURCES:
        raise EyelineError(
            f"With --data regions come from one source for all images: give one of {', '.join(SOURCES)}."
        )


def _attribute_log(log, out, model, estimator, regions, traces) -> None:
    from eyeline.bulk import attribute_log, count_lines

    total = count_lines(log)
    done = attribute_log(model.load(), log, out, estimator=estimator, regions=regions, traces=traces)
    count = sum(1 for _ in progress(done, total))
    click.echo(f"{several(count, 'trace')} in {out}", err=True)


@click.command()
@click.option(
    "--family", type=click.Choice(FAMILIES), default="code", show_default=True, help="Family of scenes."
)
@click.option(
    "--seed",
    type=click.IntRange(0, LAST_SEED),
    default=8_000_010,
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
@EARLIER
@click.option(
    "--measure-whole/--predict-whole",
    default=None,
    show_default="measured where sizes are calibrated",
    help="Read the text once more without its image: what hiding all of it does is then measured.",
)
@JSON
def demo(family, seed, out, model, sources, measure_whole, as_json) -> int:
    """Ask about a scene drawn for the occasion, and write a report."""
    from eyeline.asked import are_believed
    from eyeline.estimator_files import estimator_for
    from eyeline.scenes import sample

    example = sample(family, seed)
    click.echo(f"{example.prompt}  ({family} scene {seed}; right answer: {example.answer!r})", err=True)

    def ask(loaded, pictures):
        estimator = estimator_for(loaded, None)
        whole = are_believed(estimator) if measure_whole is None else measure_whole
        options = {"estimator": estimator, "sources": sources, "measure_whole": whole}
        return loaded.stream(pictures, example.prompt, temperature=0, **options)

    report = out / "report.html"
    return follow(ask, model, [example.image], example.prompt, as_json, out / "run", report)
