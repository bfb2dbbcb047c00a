"""How commands make the examples of a run: the options they share, progress, and what is said at the end."""

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from eyeline.cli.group import command_line
from eyeline.cli.options import Command
from eyeline.cli.progress import progress, several
from eyeline.cli.values import Part

if TYPE_CHECKING:
    from eyeline.examples import Example
    from eyeline.training.spread import Work

    Begin = Callable[[], Work]
OPTIONS = (
    click.option(
        "--shard",
        type=Part(),
        default="0/1",
        show_default="0/1, all",
        help="Make each N-th example from the I-th on, counted from 0. N processes with one folder to write to make all; tables "
        "are written by the one that finds all there.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(1),
        show_default="this process alone; on a cluster one a GPU",
        help="Number of processes that make examples at the same time, with a model each. Needs Ray.",
    ),
    click.option(
        "--ray",
        "address",
        metavar="HOST:PORT",
        show_default="this machine",
        help="Ray cluster that the workers run on; all its machines see the same folders.",
    ),
)


def makes_examples(command: Command) -> Command:
    """Gives a command `make`, the function below without its last three arguments, in place of options for these."""

    @functools.wraps(command)
    def with_make(shard, workers, address, **others) -> Any:
        return command(make=functools.partial(make, shard=shard, workers=workers, address=address), **others)

    for option in reversed(OPTIONS):
        with_make = option(with_make)
    return with_make  # pyright: ignore[reportReturnType]


def make(
    run: Path, examples: "Iterable[Example]", known: int | None, begin: "Begin", *, shard: tuple[int, int],
    workers: int | None, address: str | None,
) -> None:  # fmt: skip
    """Makes the examples of a shard, and finishes the run where it then holds those of all.

    `known`: how many examples there are, where that is known. Says at the end, and on Ctrl-C, what the run holds.
    """
    from eyeline.training.spread import Shard, Spread

    spread = Spread(run, examples, Shard(*shard))
    try:
        with _at_work(begin, workers, address) as work:
            for notice in work.notices:
                click.echo(notice, err=True)
            count = None if known is None else spread.shard.count(known)
            for _ in progress(work.each(spread.ours()), count):
                pass
            tell_left_out(examples)
            missing = spread.missing()
            written = () if missing else work.finish()
    except KeyboardInterrupt:
        kept = len(list(run.glob("examples/*.safetensors")))
        click.echo(
            f"Stopped: {several(kept, 'example')} kept in {run}. The same line goes on: {command_line()}",
            err=True,
        )
        raise click.exceptions.Exit(130) from None
    every = len(spread.ids)
    there = f"{every - missing} of {several(every, 'example')}" if missing else several(every, "example")
    click.echo(f"{there}: {', '.join(map(str, written))}" if written else f"{there} in {run}", err=True)


def tell_left_out(examples: "Iterable[Example]") -> None:
    """Rows of a public set that were no questions, by reason."""
    for reason, rows in getattr(examples, "left_out", {}).items():
        click.echo(f"{several(rows, 'row')} left out: {reason}", err=True)


@contextmanager
def _at_work(begin: "Begin", workers: int | None, address: str | None) -> "Iterator[Work]":
    """In this process, or in workers."""
    if workers is None and address is None:
        yield begin()
        return
    from eyeline.training.actors import actors

    with (
        redirect_stdout(sys.stderr),
        actors(begin, workers, address) as work,
    ):  # where Ray tells of its losses
        yield work
