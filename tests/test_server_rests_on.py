"""What an answer rests on through the thinking, over HTTP."""

import pytest
from server_process import Server, data_url, eventually, question, running

from eyeline.kept_games import FILE
from eyeline.runs import read_run
from eyeline.scenes import sample

SCENE = sample("document", 7_000_004)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running("mini", tmp_path_factory.mktemp("rests-on-data")) as server:
        yield server


def ask(server: Server, **fields):
    """An answer of the embedded model whose run is kept, with its events."""
    kept = {"save": True, **fields.pop("eyeline", {})}
    messages = question(SCENE.prompt, data_url(SCENE.image))
    asked = server.ask(messages=messages, **{"max_tokens": 200, **fields}, eyeline=kept)
    assert asked.status == 200, asked.body
    return asked.json["id"], asked.json["choices"][0]["message"]["eyeline"]


@pytest.fixture(scope="module")
def saved(server):
    return ask(server)


def rests_on(server: Server, run: str, **fields):
    return server.call("POST", "/v1/rests-on", {"run": run, **fields})


def test_every_region_by_itself_is_answered_as_the_last_event_says(server, saved):
    run, events = saved
    done = events[-1]["rests_on"]
    assert max(done["changes"]) > 0.3
    found = rests_on(server, run).json
    assert found["sets"] is None
    assert {name: found[name] for name in ("changes", "total", "direct")} == {
        name: pytest.approx(done[name], abs=1e-5) for name in ("changes", "total", "direct")
    }
    assert found["whole"] == pytest.approx(done["whole"], abs=1e-5)
    assert [index for index, _ in found["sources"]] == [index for index, _ in done["sources"]]


def test_sets_of_regions_are_answered_as_the_library_does(server, saved):
    run, _ = saved
    sets = [[0, 1, 2], [3]]
    found = rests_on(server, run, sets=sets).json
    here = read_run(server.data / "runs" / run).rests_on(sets)
    assert found["sets"] == sets
    assert found["changes"] == pytest.approx(here.changes)
    assert found["total"] == pytest.approx(here.total)
    assert len(found["changes"]) == 2


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"sets": [[0], [999]]}, "sets"),
        ({"sets": [[-1]]}, "sets.0.0"),
        ({"sets": [[]]}, "sets.0"),
        ({"sets": []}, "sets"),
        ({"sets": [3, 4]}, "sets.0"),
        ({"regions": [3]}, "regions"),
    ],
)
def test_what_are_no_sets_of_regions_is_refused_with_a_sentence(server, saved, fields, param):
    answer = rests_on(server, saved[0], **fields)
    assert answer.status == 400
    assert answer.json["error"]["param"] == param
    assert answer.json["error"]["message"].endswith(".")


def test_without_sources_nothing_is_said_of_them_and_nothing_can_be_asked(server):
    run, events = ask(server, eyeline={"sources": False})
    spans = [event for event in events if event["event"] == "span"]
    assert spans
    assert {event["sources"] for event in spans} == {None}
    assert events[-1]["rests_on"] is None
    answer = rests_on(server, run)
    assert (answer.status, answer.json["error"]["param"]) == (400, "run")
    assert "written without sources" in answer.json["error"]["message"]


def test_thinking_that_was_cut_off_has_no_answer_that_could_rest_on_something(server):
    run, events = ask(server, max_tokens=6)
    assert events[-1]["rests_on"] is None
    answer = rests_on(server, run)
    assert answer.status == 400
    assert "the thinking was cut off" in answer.json["error"]["message"]


def test_an_answer_to_a_prompt_without_an_image_rests_on_none(server):
    asked = server.ask(messages=[{"role": "user", "content": "Two and two?"}], eyeline={"save": True}).json
    answer = rests_on(server, asked["id"])
    assert answer.status == 400
    assert "the prompt has no image" in answer.json["error"]["message"]


def test_a_run_whose_numbers_are_gone_and_one_that_never_was_say_so(server):
    run, _ = ask(server, max_tokens=6)
    kept = server.data / "runs" / run / FILE
    eventually(kept.exists)
    kept.unlink()
    answer = rests_on(server, run)
    assert answer.status == 400
    assert "keeps no numbers" in answer.json["error"]["message"]
    assert rests_on(server, "run-none").status == 404
