"""How far a long command has come, on stderr."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import click
from rich.console import Console


def several(count: int, thing: str) -> str:
    """So many of a thing: "1 example", "2 examples"."""
    return f"{count} {thing}{'s' * (count != 1)}"


def progress(items: Iterable[Any], total: int | None) -> Iterator[Any]:
    """The same items, with a bar and the time left on stderr; in a log a line each half minute and at the end.

    Without a total, how many there were.
    """
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal and not console.no_color:
        from rich import progress

        columns = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeElapsedColumn())
        columns = (*columns, progress.TextColumn("left"), progress.TimeRemainingColumn())
        with progress.Progress(*columns, console=console) as bar:
            yield from bar.track(items, total=total)
        return
    told = time.monotonic()
    times = deque([told], maxlen=30)  # of the last items: what an earlier run had done took no time
    for number, item in enumerate(items, start=1):
        yield item
        times.append(time.monotonic())
        if times[-1] - told >= 30 or number == total:
            told = times[-1]
            if total is None:
                click.echo(f"{number} so far", err=True)
                continue
            left = (told - times[0]) / (len(times) - 1) * (total - number)
            click.echo(f"{number} of {total}, {left / 60:.0f} min left", err=True)
