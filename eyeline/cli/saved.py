"""Commands on a saved run: report, joint, rests-on, evidence, picture alone; verify, contrast and rethink with its model."""

from collections.abc import Callable
from typing import Any

import click

from eyeline.cli.choices import FORMS
from eyeline.cli.options import JSON, PATH, SEED, Command, with_room
from eyeline.cli.values import Joined
from eyeline.errors import EyelineError
from eyeline.events import Done, SpanAttribution

MOST = 8  # regions, and spans, that a command tells of without --json
SPAN = click.option("--span", type=click.IntRange(0), required=True, help="Number of the span.")


def hidden(default: str, how: str = "together") -> Callable[[Command], Command]:
    """Regions to hide."""
    help = f"Numbers of regions to hide {how}, joined by commas."
    return click.option("--regions", type=Joined(click.IntRange(0)), show_default=default, help=help)


def hidden_sets(default: str) -> Callable[[Command], Command]:
    """Sets of regions to hide, one after the other."""
    help = "Numbers of regions to hide together, joined by commas. Repeatable."
    sets = {"type": Joined(click.IntRange(0)), "multiple": True, "show_default": default, "help": help}
    return click.option("--regions", "sets", **sets)


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
@hidden("none")
@JSON
def joint(run, span, words, characters, regions, as_json) -> None:
    """Predict what hiding regions together would do to some words of a saved run; no model is needed."""
    import json
    from dataclasses import asdict

    from eyeline.report import ABOUT
    from eyeline.runs import read_run

    targets = [target for target in (span, words, characters) if target is not None]
    if len(targets) != 1:
        raise EyelineError("Give one of --span, --words or --characters, to say what is asked about.")
    read = read_run(run)
    found = read.joint(targets[0], regions or ())
    if as_json:
        return click.echo(json.dumps(asdict(found)))
    names = ", ".join(map(str, found.regions)) or "none"
    about = ABOUT[read.start.unit]
    click.echo(
        f"regions {names} hidden together: {about}{found.fall:.2f} nats (each alone, added up: {about}{found.parts:.2f})"
    )
    click.echo(f"everything hidden: {about}{found.whole_image:.2f} nats, of which each region contributes:")
    order = sorted(range(len(found.contributions)), key=lambda region: -found.contributions[region])
    for region in order[:MOST]:
        click.echo(
            f"  region {region}: {about}{found.contributions[region]:.2f} nats (alone {about}{found.effects[region]:.2f})"
        )
    _tell_rest(len(order))


@click.command("rests-on")
@click.argument("run", type=PATH)
@hidden_sets("each by itself")
@JSON
def rests_on(run, sets, as_json) -> None:
    """Predict how likely the answer of a saved run changes if regions are hidden before the model thinks; no model is needed."""
    import json
    from dataclasses import asdict

    from eyeline.report import ABOUT, name_regions
    from eyeline.runs import read_run

    read = read_run(run)
    found = read.rests_on(sets or None)
    if as_json:
        return click.echo(json.dumps({"sets": sets or None, **asdict(found)}))
    places, about = name_regions(read.start), ABOUT[read.start.unit]
    hidden = sets or tuple((region,) for region in range(len(places)))
    click.echo(f"without the whole image: {about}{100 * found.whole:.0f} % likely that the answer changes")
    order = range(len(hidden)) if sets else sorted(range(len(hidden)), key=lambda at: -found.changes[at])
    for at in order if sets else order[:MOST]:
        names = ", ".join(f"{region} ({places[region]})" for region in hidden[at])
        click.echo(
            f"without {'region' if len(hidden[at]) == 1 else 'regions'} {names}: {about}{100 * found.changes[at]:.0f} %, "
            f"a fall of {about}{found.total[at]:.2f} nats ({about}{found.direct[at]:.2f} with the thinking kept)"
        )
    if not sets:
        _tell_rest(len(order))
    spans = {event.index: event.text for event in read.events if isinstance(event, SpanAttribution)}
    for index, nats in found.sources[:MOST]:
        click.echo(f"comes from span {index}, {nats:.2f} nats: {' '.join(spans[index].split())}")
    _tell_rest(len(found.sources))


def of_part(whole: str) -> Callable[[Command], Command]:
    """Which part of a run a command is about: a span, the answer, or by default what `whole` says."""

    def apply(command: Command) -> Command:
        command = click.option(
            "--answer", is_flag=True, help="The answer, and what it rests on through the thinking."
        )(command)
        return click.option("--span", type=click.IntRange(0), show_default=whole, help="Number of a span.")(
            command
        )

    return apply


def _part(span: int | None, answer: bool) -> Any:
    if span is not None and answer:
        raise EyelineError("Give one of --span and --answer, to say what is asked about.")
    return "answer" if answer else span


@click.command()
@click.argument("run", type=PATH)
@of_part("all spans, and the answer")
@click.option(
    "--as",
    "form",
    type=click.Choice(FORMS),
    default="pixels",
    show_default=True,
    help="Pixels of the image, thousandths of its sides, or a COCO file with masks.",
)
@click.option("--out", type=PATH, callback=with_room, show_default="stdout", help="JSON file to write.")
def evidence(run, span, answer, form, out) -> None:
    """Write the boxes and masks of what a saved run rests on, as JSON; no model is needed."""
    import json

    from eyeline.boxes import as_json, changing
    from eyeline.files import write_files
    from eyeline.report import none_alone, number_regions
    from eyeline.runs import read_run

    read, of = read_run(run), _part(span, answer)
    told = as_json(read.events, of, form)
    rests_on = next((event.rests_on for event in read.events if isinstance(event, Done)), None)
    if span is None and rests_on is not None and not changing(rests_on.changes):
        click.echo(
            f"The answer: {none_alone(rests_on, number_regions(read.start), read.start.unit)}", err=True
        )
    text = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
    if out is None:
        return click.echo(text)
    write_files({out: text + b"\n"})
    count = len(told["annotations"]) if form == "coco" else sum(len(each["boxes"]) for each in told)
    click.echo(f"{count} box{'es' * (count != 1)} in {out}", err=True)


@click.command()
@click.argument("run", type=PATH)
@of_part("all spans, added up")
@click.option(
    "--out", type=PATH, callback=with_room, show_default="RUN/picture.png", help="PNG file to write."
)
def picture(run, span, answer, out) -> None:
    """Draw a span, the answer or all of a saved run: the image with its heat, the text, and what the colours mean."""
    from eyeline.files import write_files
    from eyeline.runs import read_run
    from eyeline.still import render_still

    out = out or run / "picture.png"
    write_files({out: render_still(read_run(run), _part(span, answer))})
    click.echo(f"Picture: {out}", err=True)


def _tell_rest(count: int) -> None:
    """Where there are more regions than are told, that there are."""
    if count > MOST:
        click.echo(f"  {count - MOST} more with less; --json tells of all {count}")


MODEL = click.option(
    "--model",
    "model_id",
    show_default="the run's own",
    help="'mini', a folder, or an id on the Hub, where the run's model lies now.",
)


@click.command()
@click.argument("run", type=PATH)
@SPAN
@hidden("all", "each by itself")
@MODEL
@JSON
def verify(run, span, regions, model_id, as_json) -> None:
    """Measure a span of a saved run with each region hidden, and the whole image, beside what was predicted; loads the model."""
    import json

    from rich.console import Console

    from eyeline import load
    from eyeline.cli.beside_predictions import show
    from eyeline.kept_games import check_regions
    from eyeline.runs import read_run, span_of
    from eyeline.span_check import verify

    read = read_run(run)
    asked = span_of(read.events, span)
    check_regions(regions or (), len(asked.effects))
    read.trace()  # refused before the model is loaded
    events = verify(load(model_id or read.start.model), read, span, regions)
    if not as_json:
        return show(Console(), read.start, asked.text, events)
    for event in events:
        click.echo(json.dumps(event))


@click.command()
@click.argument("run", type=PATH)
@SPAN
@click.option("--instead", required=True, help="Other words, as the model might have written them.")
@click.option(
    "--words",
    show_default="all of the span",
    help="Words of the span that they stand for; they stand in it once.",
)
@MODEL
@JSON
def contrast(run, span, instead, words, model_id, as_json) -> None:
    """Measure why a span of a saved run says these words and not others: hide each region, and compare both; loads the model."""
    import json

    from eyeline import load
    from eyeline.report import name_regions
    from eyeline.runs import read_run, span_of

    read = read_run(run)
    read.trace()  # refused before the model is loaded
    found = load(model_id or read.start.model).contrast(read, span, instead, words=words)
    if as_json:
        return click.echo(json.dumps(found.as_json(), ensure_ascii=False).encode("utf-8", "replace"))
    names = name_regions(read.start)
    asked = span_of(read.events, span).text.strip()
    likelier = "likelier" if found.difference >= 0 else "less likely"
    click.echo(
        f"{words or asked!r} is {abs(found.difference):.2f} nats {likelier} than {instead!r} "
        f"(log-probabilities {found.log_prob:.2f} and {found.log_prob_instead:.2f}), measured from where their tokens part: "
        f"{found.written!r} against {found.instead!r}"
    )
    click.echo(
        f"hiding the whole image takes {found.whole_image:.2f} nats off that; "
        "hiding one region alone, which need not add up to it:"
    )
    order = sorted(range(len(found.effects)), key=lambda region: -abs(found.effects[region]))
    for region in order[:MOST]:
        click.echo(f"  region {region} ({names[region]}): {found.effects[region]:.2f} nats")
    _tell_rest(len(order))


@click.command()
@click.argument("run", type=PATH)
@hidden_sets("each by itself, and all of them")
@click.option(
    "--samples",
    type=click.IntRange(1),
    show_default="8 of a sampled run",
    help="Number of times that a sampled run is thought again, 8 at least; a greedy one is once.",
)
@click.option("--seed", type=SEED, default=0, show_default=True, help="Number that the samples depend on.")
@MODEL
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
