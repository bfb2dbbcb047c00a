"""The view of a run inside a notebook: live while the model writes, and as a picture of a finished run.

The view is the report's page in a frame. While it is live, a second output, replaced each time, is a script that
hands new events to the notebook's window and from there to the frame; a frame that loaded late asks for those it
missed. At the end the frame is replaced by one that holds the whole run, so that a saved notebook still shows it.
Nothing is fetched from anywhere.
"""

import html
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, ParamSpec

from eyeline.errors import EyelineError
from eyeline.events import Event, Text, to_json
from eyeline.images import Picture, open_images
from eyeline.model import Model
from eyeline.report import json_in_script, render_report, render_view
from eyeline.runs import Run, text_of
from eyeline.stream import Stream, stream

HEIGHT = 820  # CSS pixels of the frame
Options = ParamSpec("Options")  # of `stream`
EACH_S = 0.1  # between two messages to the frame


@dataclass(frozen=True)
class Watched:
    """A run that was watched. It stands in the notebook already, so that it shows only its answer when it is a cell's value."""

    run: Run = field(repr=False)
    answer: str


def _as_streamed(
    of: Callable[Options, Stream],
) -> Callable[[Callable[..., Watched]], Callable[Options, Watched]]:
    """Gives a function with `**options` the signature of another, for who reads or completes it."""

    def signed(function: Any) -> Any:
        function.__signature__ = signature(of).replace(return_annotation=Watched)
        return function

    return signed


@_as_streamed(stream)
def watch(model: Model, images: Picture | Sequence[Picture], prompt: str, **options: Any) -> Watched:
    """Asks the model and shows its view in the notebook while it answers; returns what came.

    `options` are those of `model.stream`. Interrupting the kernel ends the answer; what came until then stays.
    Raises `EyelineError` outside of a notebook, and as `model.stream` does.
    """
    try:
        from IPython.core.getipython import get_ipython
        from IPython.display import display
        from IPython.terminal.interactiveshell import TerminalInteractiveShell
    except ImportError as error:
        raise EyelineError(NO_NOTEBOOK) from error
    if isinstance(get_ipython(), TerminalInteractiveShell | None):
        raise EyelineError(NO_NOTEBOOK)
    pictures = open_images(images)
    name = f"eyeline-{secrets.token_hex(6)}"
    events: list[Event] = []
    with stream(model, pictures, prompt, **options) as coming:
        view = display(
            _html(frame(render_view(prompt, pictures, [], live=True), name)), raw=True, display_id=True
        )
        feed = display(_html(""), raw=True, display_id=True)
        assert view is not None, "display_id asks for a handle"
        assert feed is not None, "display_id asks for a handle"
        sent, sent_at = 0, time.monotonic()
        try:
            for event in coming:
                events.append(event)
                if time.monotonic() - sent_at >= EACH_S or not isinstance(event, Text):
                    feed.update({"application/javascript": message(name, events, sent)}, raw=True)
                    sent, sent_at = len(events), time.monotonic()
        except KeyboardInterrupt:
            coming.close()
            events.extend(coming)
    run = Run(prompt, tuple(pictures), tuple(events), games=coming.games)
    feed.update(_html(""), raw=True)
    view.update(_html(frame(render_report(run), name)), raw=True)
    return Watched(run, text_of(events, "answer").strip())


NO_NOTEBOOK = (
    "model.watch shows its view in a notebook, and this is none; iterate over model.stream(...), or use `eyeline stream` for "
    "a view in the terminal or `eyeline serve` for a page."
)


def frame(page: str, name: str = "") -> str:
    """A page inside another: without access to it, and without any to the network."""
    return (
        f'<iframe id="{html.escape(name)}" title="Eyeline" sandbox="allow-scripts" '
        f'srcdoc="{html.escape(page)}" style="width: 100%; height: {HEIGHT}px; border: 0; border-radius: 12px"></iframe>'
    )


def show_run(run: Run) -> str:
    """What a notebook shows of a finished run."""
    return frame(render_report(run))


Run.notebook_view = show_run


def _html(content: str) -> dict[str, str]:
    return {
        "text/html": content,
        "text/plain": "Eyeline's view needs a notebook in a browser; elsewhere iterate over model.stream(...)."
        if content
        else "",
    }


def message(name: str, events: Sequence[Event], sent: int) -> str:
    """A script that gives the events from `sent` on to the frame `name`."""
    lines = json_in_script([json.loads(to_json(event)) for event in events[sent:]])
    return f"({HAND_OVER})({json.dumps(name)}, {sent}, {lines});"


# The frame says how many events it has: when it has loaded, and when some are missing before those that came.
HAND_OVER = """(name, first, events) => {
  const kept = (window.eyeline ??= {});
  const page = () => document.getElementById(name)?.contentWindow;
  const give = have => page()?.postMessage({eyeline: kept[name].slice(have), first: have}, "*");
  if (!kept[name]) {
    kept[name] = [];
    addEventListener("message", event => {
      if (event.source === page() && Number.isInteger(event.data?.eyelineHas)) give(event.data.eyelineHas);
    });
  }
  kept[name].splice(first, Infinity, ...events);
  give(first);
}"""
