"""A stream of a loaded model, shown as it comes and kept where asked to."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from PIL import Image
from rich.console import Console

from eyeline.cli.chosen_model import ChosenModel
from eyeline.errors import EyelineError
from eyeline.events import Done, Error, Event, to_json

EXIT_CODES = {"cancelled": 130, "error": 1}  # of a stream, by the reason it ended for; otherwise 0


def follow(
    begin: Callable[[Any, list[Image.Image]], Any],
    model: ChosenModel,
    images: list[Any],
    prompt: str,
    as_json: bool,
    save: Path | None,
    report: Path | None,
) -> int:
    """Loads the model, shows the events of a stream as they come, keeps them where asked to; the exit code.

    What can be refused without the model is refused before it is loaded, and nothing is written before the
    stream has begun.
    """
    from eyeline.images import open_image
    from eyeline.report import write_report
    from eyeline.runs import Run, save_run

    pictures = [open_image(image) for image in images]
    saved = None if save is None else save_run(save, pictures, prompt)
    events: list[Event] = []
    with contextlib.ExitStack() as stack:
        stream = stack.enter_context(begin(model.load(), pictures))
        stack.enter_context(_interruptible(stream))
        takers: list[Callable[[Event], Any]] = [events.append]
        if saved is not None:
            takers.append(stack.enter_context(saved).write)
        takers.append(_print_json if as_json else _view(stack, pictures))
        for event in stream:
            for take in takers:
                take(event)
        if saved is not None:
            saved.keep(stream.games, stream.ids, stream.generation)
    if report is not None:
        write_report(Run(prompt, tuple(pictures), tuple(events)), report)
        click.echo(f"Report: {report}", err=True)
    done = events[-1]
    assert isinstance(done, Done), "always last"
    if done.reason == "error":
        raise EyelineError(next(event.message for event in reversed(events) if isinstance(event, Error)))
    return EXIT_CODES.get(done.reason, 0)


@contextlib.contextmanager
def _interruptible(stream: Any) -> Iterator[None]:
    """Ctrl-C ends generation, and what is on its way still comes; a second one ends the program."""
    default = signal.default_int_handler

    def close(*_: object) -> None:
        signal.signal(signal.SIGINT, default)
        stream.close()

    if signal.getsignal(signal.SIGINT) is not default:  # ignored, as in the background of a script
        yield
        return
    signal.signal(signal.SIGINT, close)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, default)


def _view(stack: contextlib.ExitStack, pictures: list[Image.Image]) -> Callable[[Event], None]:
    from eyeline.terminal import TerminalView

    return stack.enter_context(TerminalView(Console(), pictures)).show


def _print_json(event: Event) -> None:
    click.echo(to_json(event).encode("utf-8", "replace"))  # JSON is UTF-8, whatever the terminal's encoding


def one_or_each(regions: tuple[str, ...]) -> str | list[str]:
    return regions[0] if len(regions) == 1 else list(regions)
