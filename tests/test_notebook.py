"""The view inside a notebook: what IPython is told to show, and what a browser makes of it."""

import html
import re

import pytest
import torch
from test_runs import HOSTILE, make_run

from eyeline import Model, notebook
from eyeline.adapters import ADAPTERS
from eyeline.errors import EyelineError
from eyeline.game import Game
from eyeline.kept_games import Games
from eyeline.notebook import frame, message, watch
from eyeline.report import render_view
from eyeline.runs import Run


class Script:
    """A stream of the events of a run; it may be interrupted after some."""

    def __init__(self, run, interrupt_after: int | None):
        self.events, self.interrupt_after, self.closed = list(run.events), interrupt_after, False
        self.games = Games()
        self.games.add(
            0,
            Game(torch.eye(1, 10), torch.zeros(1, 0, 10), *[torch.zeros(1, 0)] * 2, torch.zeros(1)),
            index=0,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def __iter__(self):
        return self

    def __next__(self):
        if self.interrupt_after == 0:
            self.interrupt_after = None
            raise KeyboardInterrupt
        if self.interrupt_after is not None:
            self.interrupt_after -= 1
        if not self.events:
            raise StopIteration
        return self.events.pop(0)

    def close(self):
        del self.events[:-1]  # what is on its way: the end


@pytest.fixture
def scripted(monkeypatch):
    """Makes models whose stream is the events of a run."""
    monkeypatch.setattr(notebook, "stream", lambda model, images, prompt, **options: model.hf)

    def make(run, interrupt_after: int | None = None) -> Model:
        return Model("scripted", Script(run, interrupt_after), None, None, ADAPTERS["qwen3_vl"], "")

    return make


@pytest.fixture
def shown(monkeypatch):
    """What an IPython shell publishes: (data, display id, whether it replaces) in order."""
    pytest.importorskip("IPython", reason="needs pip install ipython")
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    monkeypatch.setattr(notebook, "EACH_S", 0.0)
    shell = InteractiveShell.instance()
    publisher = CapturingDisplayPublisher(shell=shell)
    monkeypatch.setattr(shell, "display_pub", publisher)
    yield publisher.outputs
    InteractiveShell.clear_instance()


def test_watching_shows_a_frame_feeds_it_and_ends_with_the_whole_run(shown, scripted):
    run = make_run(extra=HOSTILE)
    watched = watch(scripted(run), run.images, run.prompt, temperature=0)
    assert (watched.run.prompt, watched.run.events) == (run.prompt, run.events)
    assert watched.answer == "It is 7."
    assert watched.run._games().joint([(0, 1)], [0]).fall > 0.5  # its numbers stay with it
    assert repr(watched) == "Watched(answer='It is 7.')"
    kinds = [next(iter(output["data"])) for output in shown]
    assert kinds[:2] == ["text/html", "text/html"]
    assert kinds[2:-2] == ["application/javascript"] * len(run.events)
    assert shown[-2]["data"]["text/html"] == ""  # the feed is emptied
    last = shown[-1]
    assert last["update"]
    assert last["transient"] == shown[0]["transient"]  # in the place of the first
    assert last["data"]["text/html"].count("<iframe") == 1
    assert "<script>" not in last["data"]["text/html"]


def test_an_interrupted_answer_keeps_what_came(shown, scripted):
    run = make_run()
    model = scripted(run, interrupt_after=4)
    watched = watch(model, run.images, run.prompt)
    assert watched.run.events == (*run.events[:4], run.events[-1])
    assert model.hf.closed


def test_outside_of_a_notebook_it_says_what_else_to_use(scripted):
    run = make_run()
    with pytest.raises(EyelineError, match=r"model\.stream\(\.\.\.\), or use .* `eyeline serve`"):
        watch(scripted(run), run.images, run.prompt)


def test_in_a_terminal_of_ipython_it_says_so_once_and_asks_nothing(monkeypatch, capsys, scripted):
    pytest.importorskip("IPython", reason="needs pip install ipython")
    from IPython.core import getipython
    from IPython.terminal.interactiveshell import TerminalInteractiveShell

    shell = TerminalInteractiveShell.__new__(
        TerminalInteractiveShell
    )  # itself it would take over the terminal
    monkeypatch.setattr(getipython, "get_ipython", lambda: shell)
    run = make_run()
    model = scripted(run)
    with pytest.raises(EyelineError, match=r"iterate over model\.stream") as caught:
        model.watch(run.images, run.prompt)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    assert len(model.hf.events) == len(run.events)


def test_a_finished_run_shows_itself():
    page = make_run()._repr_html_()
    assert page.startswith("<iframe")
    assert 'sandbox="allow-scripts"' in page
    inside = html.unescape(re.search(r'srcdoc="([^"]*)"', page)[1])
    assert inside.startswith("<!doctype html>")
    assert "default-src 'none'" in inside


def test_a_run_is_shown_by_the_view_that_is_registered_and_without_one_as_text(monkeypatch):
    monkeypatch.setattr(Run, "notebook_view", lambda run: f"<p>{run.prompt}</p>")
    run = make_run()
    assert run._repr_html_() == f"<p>{run.prompt}</p>"
    monkeypatch.setattr(Run, "notebook_view", None)
    assert run._repr_html_() is None
    assert repr(run).startswith("Run, read by")


@pytest.mark.browser
@pytest.mark.parametrize("late", [False, True])
def test_the_frame_shows_every_event_whether_it_loads_before_them_or_after(browser, late):
    run = make_run()
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    failed = []
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.set_content("<main></main>")
    put = "html => { document.querySelector('main').innerHTML = html; }"
    live = frame(render_view(run.prompt, run.images, [], live=True), "eyeline-1")
    inside = page.frame_locator("iframe")
    if not late:
        page.evaluate(put, live)
        inside.locator("h1").wait_for()
    for sent, end in ((0, 3), (3, 9), (9, len(run.events))):
        page.evaluate(message("eyeline-1", run.events[:end], sent))
        if late and not sent:
            page.evaluate(put, live)  # the first message found no frame
    inside.locator(".answer .span").wait_for()
    assert inside.locator(".answer .text").inner_text() == "It is 7."
    assert inside.locator(".span").count() == 3
    assert failed == []
    context.close()
