"""Contrast over HTTP: as the library measures it, and what is refused."""
# ruff: noqa: F811  (fixtures that are imported)

import pytest
from test_server_rests_on import Server, saved, server  # noqa: F401

import eyeline
from eyeline.runs import read_run


def contrast(server: Server, run: str, **fields):
    return [line for line in server.stream("/v1/contrast", run=run, **fields) if line["event"] != "waiting"]


def test_a_span_is_contrasted_as_the_library_does(server, saved):
    run, _ = saved
    asked = {"span": 2, "words": "24", "instead": "23"}
    told, done = contrast(server, run, **asked)
    assert (told.pop("event"), done) == ("contrast", {"event": "done"})
    here = eyeline.load("mini").contrast(read_run(server.data / "runs" / run), 2, "23", words="24")
    assert told["effects"] == pytest.approx(here.effects, abs=1e-3)
    assert (told["written"], told["instead"]) == (here.written, here.instead) == ("4.", "3.")
    assert told["difference"] > 3
    assert max(told["effects"]) > 1
    (event,) = contrast(server, run, **{**asked, "words": "nowhere to be seen"})
    assert event["event"] == "error"
    assert "do not stand in span 2" in event["message"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"span": 999, "instead": "x"}, 404),
        ({"span": 0, "instead": ""}, 400),
        ({"span": 0}, 400),
        ({"span": 0, "instead": "x", "words": ""}, 400),
        ({"span": 0, "instead": "x", "run": "run-none"}, 404),
    ],
)
def test_what_cannot_be_asked_is_refused_before_it_waits(server, saved, fields, status):
    answer = server.call("POST", "/v1/contrast", {"run": saved[0], **fields})
    assert answer.status == status
    assert answer.json["error"]["message"].endswith(".")
