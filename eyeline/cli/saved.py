"""Commands on a saved run: report and joint, which need no model, and rethink, which loads the run's own."""

import click

from eyeline.cli.options import JSON, PATH, SEED, with_room
from eyeline.cli.values import Joined
from eyeline.errors import EyelineError


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "--out", type=PATH, callback=with_room, show_default="RUN/report.html", help="HTML file to write."
)
def report(run, out) -> None:
    """Write a self-contained HTML report of a saved run."""
    from eyeline.report import write_report
    from eyeline.runs import read_run

    out = out or run / "report.html"
    write_report(read_run(run), out)
    click.echo(f"Report: {out}", err=True)


@click.command()
@click.argument("run", type=PATH)
@click.option("--span", type=click.IntRange(0), show_default="none", help="Number of the span to ask about.")
@click.option(
    "--words",
    show_default="none",
    help="Words to ask about, that stand in the text once; $.total: a JSON field of the answer.",
)
@click.option(
    "--characters",
    type=Joined(click.IntRange(0)),
    show_default="none",
    help="Characters to ask about, START,END, of all text joined.",
)
@click.option(
    "--regions",
    type=Joined(click.IntRange(0)),
    show_default="none",
    help="Numbers of regions to hide together, joined by commas.",
)
@JSON
def joint(run, span, words, characters, regions, as_json) -> None:
    """Predict what hiding regions together would do to some words of a saved run; no model is needed."""
    import json
    from dataclasses import asdict

    from eyeline.runs import read_run

    targets = [target for target in (span, words, characters) if target is not None]
    if len(targets) != 1:
        raise EyelineError("Give one of --span, --words or --characters, to say what is asked about.")
    found = read_run(run).joint(targets[0], regions or ())
    if as_json:
        return click.echo(json.dumps(asdict(found)))
    names = ", ".join(map(str, found.regions)) or "none"
    click.echo(
        f"regions {names} hidden together: {found.fall:.2f} nats (each alone, added up: {found.parts:.2f})"
    )
    click.echo(f"everything hidden: {found.whole_image:.2f} nats, of which each region contributes:")
    order = sorted(range(len(found.contributions)), key=lambda region: -found.contributions[region])
    for region in order[:8]:
        click.echo(
            f"  region {region}: {found.contributions[region]:.2f} nats (alone {found.effects[region]:.2f})"
        )


@click.command()
@click.argument("run", type=PATH)
@click.option(
    "--regions",
    "sets",
    type=Joined(click.IntRange(0)),
    multiple=True,
    show_default="each by itself, and all of them",
    help="Numbers of regions to hide together, joined by commas. Repeatable.",
)
@click.option(
    "--samples",
    type=click.IntRange(1),
    show_default="8 of a sampled run",
    help="Times that a sampled run is thought again, 8 at least; a greedy one is once.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Number that the samples depend on.")
@click.option(
    "--model",
    "model_id",
    show_default="the run's own",
    help="'mini', a folder, or an id on the Hub, where the run's model lies now.",
)
@JSON
def rethink(run, sets, samples, seed, model_id, as_json) -> None:
    """Hide regions of a saved run, let its model think again, and show both traces and what the answer rests on."""
    import json

    from rich.console import Console

    from eyeline import load
    from eyeline.cli.side_by_side import show
    from eyeline.runs import read_run
    from eyeline.thinking_again import think_again

    read = read_run(run)
    read.trace()  # refused before the model is loaded
    told = think_again(load(model_id or read.start.model), read, sets or None, samples=samples, seed=seed)
    if as_json:
        return click.echo(json.dumps(told.as_json(), ensure_ascii=False).encode("utf-8", "replace"))
    show(Console(), told, every=bool(sets))
