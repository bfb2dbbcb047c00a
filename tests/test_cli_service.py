"""The command that serves, without a server."""

import queue
import sys
import webbrowser

import pytest
from click.testing import CliRunner

from eyeline.cli import main
from eyeline.server import serving


@pytest.mark.parametrize(
    ("words", "environment", "opened"),
    [
        ((), {"DISPLAY": ":0"}, False),
        (("--open",), {"DISPLAY": ":0"}, True),
        (("--open",), {"WAYLAND_DISPLAY": "wayland-0"}, True),
        (("--open",), {"BROWSER": "ours"}, True),
        (("--open",), {}, sys.platform in ("darwin", "win32")),
    ],
)
def test_serve_prints_its_url_and_opens_it_where_there_is_a_browser(
    here, monkeypatch, words, environment, opened
):
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    pages = queue.SimpleQueue()
    monkeypatch.setattr(webbrowser, "open", pages.put)
    monkeypatch.setattr(
        serving,
        "serve",
        lambda settings, model, estimator, ready, options, audit: ready("http://localhost:1"),
    )
    result = CliRunner(env=environment).invoke(main, ["serve", *words])
    assert result.exit_code == 0
    assert "Serving http://localhost:1\n" in result.stderr
    if opened:
        assert pages.get(timeout=60) == "http://localhost:1"
    assert pages.empty()


def test_serve_hands_on_how_the_model_is_to_be_loaded(here, monkeypatch):
    asked = []
    monkeypatch.setattr(serving, "serve", lambda *words, audit: asked.append((*words, audit)))
    words = ["serve", "--model", "some/model", "--dtype", "bfloat16", "--quantize", "8", "--revision", "v2"]
    for audit in ([], ["--audit"], ["--audit", "0.5"]):
        assert CliRunner().invoke(main, [*words, *audit]).exit_code == 0
    assert [audit for *_, audit in asked] == [None, 0.2, 0.5]
    _, model, _, _, options, _ = asked[0]
    assert (model, options) == ("some/model", {"dtype": "bfloat16", "quantize": 8, "revision": "v2"})
