"""Commands on a saved run, which need no model: report, joint."""

import click

from eyeline.cli.options import JSON, PATH, with_room
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
