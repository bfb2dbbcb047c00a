"""Thinking again over HTTP: both traces of a run and what they differ in, and what is refused."""
# ruff: noqa: F811  (fixtures that are imported)

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import build_tiny, picture
from server_process import Server, model_folder, saved, server  # noqa: F401

from eyeline.events import Text, to_json
from eyeline.runs import EVENTS, TRACE, read_run
from eyeline.thinking_again import think_again


@contextmanager
def answered(folder: Path, model):
    """Meanwhile the run says that it thought and answered, in its ids and in its events."""
    before = {path: path.read_bytes() for path in (folder / TRACE, folder / EVENTS)}
    thinking, answer = (
        model.tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("It is so.", "</think>Left.")
    )
    start, *_, done = read_run(folder).events
    count = len(thinking + answer)
    texts = (Text("thinking", "It is so.", 0, len(thinking)), Text("answer", "Left.", len(thinking), count))
    events = (start, *texts, replace(done, answer="Left.", tokens=count))
    (folder / TRACE).write_text(json.dumps({**json.loads(before[folder / TRACE]), "ids": thinking + answer}))
    (folder / EVENTS).write_text("".join(to_json(event) + "\n" for event in events))
    try:
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def rethink(server: Server, run: str, **fields):
    return list(server.stream("/v1/rethink", run=run, **{"regions": [1], **fields}))


def test_a_run_is_thought_again_as_the_library_does(server, saved):
    model = build_tiny("qwen3_vl", max_position_embeddings=16384)
    folder = server.data / "runs" / saved["id"]
    kept = json.loads((folder / TRACE).read_text())
    assert kept["ids"] == saved["choices"][0]["token_ids"]
    assert kept["generation"]["do_sample"] is False
    with answered(folder, model):
        told, done = rethink(server, saved["id"], regions=[1, 2])
    assert (told["event"], done) == ("rethought", {"event": "done"})
    assert (told["thinking"], told["answer"]) == ("It is so.", "Left.")
    (found,) = told["sets"]
    assert found["regions"] == [1, 2]
    assert found["again"][0]["differences"][0][0] in ("same", "first", "again")
    run = read_run(folder)
    assert run.images[0].size == picture().size
    assert found["total"] == pytest.approx(
        found["direct"] + found["through"] + found["interaction"], abs=1e-4
    )


def test_a_run_without_an_answer_is_told_in_one_sentence(server, saved):
    (event,) = rethink(server, saved["id"])
    assert event["event"] == "error"
    assert "thinking was cut off" in event["message"]
    (event,) = rethink(server, saved["id"], samples=9)
    assert event["event"] == "error"


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"regions": [999]}, 400, "regions"),
        ({"regions": []}, 400, "regions"),
        ({"samples": 0}, 400, "samples"),
        ({"run": "run-none"}, 404, None),
    ],
)
def test_what_cannot_be_asked_is_refused_before_it_waits(server, saved, fields, status, param):
    answer = server.call("POST", "/v1/rethink", {"run": saved["id"], "regions": [1], **fields})
    assert answer.status == status
    if param is not None:
        assert answer.json["error"]["param"] == param


def test_regions_that_a_run_was_asked_without_stay_hidden(server, saved, model_folder):
    import eyeline

    folder = server.data / "runs" / saved["id"]
    model = eyeline.load(model_folder)
    with answered(folder, model):
        run = read_run(folder)
        both = think_again(model, run, [[0], [0, 1]])
        beside = think_again(model, run, [[1]], hidden=[0])
    direct = both.found.falls[:, 0] + both.found.nulls[:, 0].mean()
    expected = float(direct[1] - direct[0])
    assert float(beside.found.direct[0] + beside.found.nulls[:, 0].mean()) == pytest.approx(
        expected, abs=1e-3
    )
