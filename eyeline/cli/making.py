"""How commands make the examples of a run: the option they share, progress, and what is said at the end."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from eyeline.cli.progress import progress
from eyeline.cli.values import Part

if TYPE_CHECKING:
    from eyeline.examples import Example
    from eyeline.training.spread import Work

SHARD = click.option(
    "--shard",
    type=Part(),
    default="0/1",
    show_default="0/1, all",
    help="Make each N-th example from the I-th on, counted from 0. N processes with one folder to write to make all; tables "
    "are written by the one that finds all there.",
)


def make(
    run: Path, examples: "Iterable[Example]", known: int | None, shard: tuple[int, int], begin: "Callable[[], Work]"
) -> None:  # fmt: skip
    """Makes the examples of a shard, and finishes the run where it then holds those of all.

    `known`: how many examples there are, where that is known. Says at the end, and on Ctrl-C, what the run holds.
    """
    from eyeline.training.spread import Shard, Spread

    spread = Spread(run, examples, Shard(*shard))
    try:
        work = begin()
        for notice in work.notices:
            click.echo(notice, err=True)
        for _ in progress(work.each(spread.ours()), None if known is None else spread.shard.count(known)):
            pass
    except KeyboardInterrupt:
        click.echo(f"Stopped. What is in {run} stays, and the same command goes on from it.", err=True)
        raise
    for reason, count in getattr(examples, "left_out", {}).items():  # rows of a public set
        click.echo(f"{count} rows left out: {reason}", err=True)
    every, missing = len(spread.ids), spread.missing()
    written = () if missing else work.finish()
    there = f"{every - missing} of {every} examples" if missing else f"{every} examples"
    click.echo(f"{there}: {', '.join(map(str, written))}" if written else f"{there} in {run}", err=True)
