"""Boxes and masks of the evidence, and what the model claims, over HTTP."""
# ruff: noqa: F811  (fixtures that are imported)

import json

import pytest
from test_server_rests_on import ask, saved, server  # noqa: F401

from eyeline.boxes import as_json
from eyeline.runs import EVENTS, read_run


def evidence(server, run: str, **fields):
    return server.call("POST", "/v1/evidence", {"run": run, **fields})


@pytest.mark.parametrize(
    ("fields", "of"), [({"span": 2}, 2), ({"answer": True}, "answer"), ({}, None), ({"span": None}, None)]
)
@pytest.mark.parametrize("form", ["pixels", "thousand", "coco"])
def test_boxes_are_those_of_the_library(server, saved, fields, of, form):
    run, _ = saved
    found = evidence(server, run, **fields, **{"as": form})
    assert found.status == 200, found.body
    events = read_run(server.data / "runs" / run).events
    assert found.json == json.loads(json.dumps(as_json(events, of, form)))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"span": 999}, "span"),
        ({"span": -1}, "span"),
        ({"span": 0, "answer": True}, "answer"),
        ({"as": "inches"}, "as"),
        ({"form": "pixels"}, "form"),
    ],
)
def test_what_has_no_evidence_is_refused_with_a_sentence(server, saved, fields, param):
    answer = evidence(server, saved[0], **fields)
    assert answer.status == 400
    assert answer.json["error"]["param"] == param
    assert answer.json["error"]["message"].endswith(".")
    if param == "form":
        assert "expected run, span, answer, as" in answer.json["error"]["message"]


def test_an_answer_that_was_cut_off_has_none_and_a_run_that_never_was_is_not_found(server):
    run, _ = ask(server, max_tokens=6)
    answer = evidence(server, run, answer=True)
    assert (answer.status, answer.json["error"]["param"]) == (400, "run")
    assert "What the answer rests on is not known" in answer.json["error"]["message"]
    assert evidence(server, "run-none").status == 404


def test_a_saved_run_comes_with_the_boxes_that_the_model_claims(server, saved):
    run, _ = saved
    path = server.data / "runs" / run / EVENTS
    before = path.read_text(encoding="utf-8")
    assert server.call("GET", f"/v1/runs/{run}").json["claims"] == []
    lines = [json.loads(line) for line in before.splitlines()]
    last = max(number for number, line in enumerate(lines) if line["event"] == "text")
    lines[last]["text"] += '{"point_2d": [250, 500], "label": "here"}'
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (claim,) = server.call("GET", f"/v1/runs/{run}").json["claims"]
    path.write_text(before, encoding="utf-8")
    assert (claim["label"], claim["box"]) == ("here", pytest.approx([0.25, 0.5, 0.25, 0.5]))
