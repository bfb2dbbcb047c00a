"""The command that leaves out questions that can be answered without looking: filter."""

import click

from eyeline.cli.chosen_model import takes_model
from eyeline.cli.making import tell_left_out
from eyeline.cli.options import FOLDER, LENGTH, LIMIT, out
from eyeline.cli.progress import progress
from eyeline.cli.values import Real


@click.command("filter")
@click.argument("data")
@takes_model
@FOLDER
@out("Data folder of the examples kept, with the scores of all; goes on where it holds some.")
@click.option(
    "--min-reliance",
    type=Real(),
    required=True,
    help="Nats that the answer's log-prob falls by with the whole image hidden from the start, at least: as it is measured where "
    "it is, or else where the answer is guessed at once.",
)
@click.option(
    "--measure",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Number of examples, the first ones, of which that is measured: the model thinks again.",
)
@LENGTH
@LIMIT
def filter_data(model, data, folder, out, min_reliance, measure, max_new_tokens, limit):
    """Keep the examples of DATA, a folder or a public set by name, whose answers rest on their images."""
    from eyeline.catalogue import examples_of
    from eyeline.evaluation.reliance import Settings, agreement, filter_examples

    examples, known = examples_of(data, "all", folder, limit)
    scores = filter_examples(model.load(), examples, out, Settings(max_new_tokens), min_reliance, measure)
    scored = list(progress(scores, known))
    tell_left_out(examples)
    kept = sum(each.rests is not None and each.rests >= min_reliance for each in scored)
    silent = sum(each.rests is None for each in scored)
    click.echo(f"{kept} of {len(scored)} examples kept in {out}", err=True)
    if silent:
        click.echo(f"{silent} without an answer that anything is known of, not kept", err=True)
    measured = [each for each in scored if each.measured is not None]
    if measured:
        rank = agreement(measured)
        told = "" if rank is None else f"; Spearman of guessed and measured falls {rank:.2f}"
        click.echo(f"{len(measured)} measured{told}", err=True)
