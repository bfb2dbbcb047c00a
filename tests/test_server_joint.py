"""Joint falls over HTTP: any regions, any words, of runs that are on and of runs that are over; and real ablation beside them."""

import shutil
import threading

import pytest
import torch
from conftest import SPREADS, picture
from server_process import Server, eventually, running

import eyeline
from eyeline.ablation import ablate
from eyeline.estimator import Estimator
from eyeline.estimator_files import save_estimator
from eyeline.features import KINDS
from eyeline.fingerprint import fingerprint
from eyeline.kept_games import FILE
from eyeline.runs import read_run


@pytest.fixture(scope="module")
def server(model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("joint") / "model"
    shutil.copytree(model_folder, folder)
    model = eyeline.load(folder)
    heads = model.adapter.text_config(model.hf).num_attention_heads * len(model.adapter.layers(model.hf))
    weights = torch.randn(2, heads * len(KINDS), generator=torch.Generator().manual_seed(0))
    card = {"model": model.name, "fingerprint": fingerprint(model), "hiding": "pixels", "coverage": 0.9}
    save_estimator(Estimator("mine", weights, *SPREADS, card=card), folder / "estimator")
    with running(folder, tmp_path_factory.mktemp("joint-data")) as server:
        yield server


@pytest.fixture(scope="module")
def saved(server: Server):
    return server.ask(max_tokens=40, eyeline={"save": True}, return_token_ids=True).json


def spans_of(answer):
    return [event for event in answer["choices"][0]["message"]["eyeline"] if event["event"] == "span"]


def ask(server: Server, run: str, target, regions=()):
    return server.call("POST", "/v1/joint", {"run": run, "target": target, "regions": list(regions)})


def test_a_span_is_answered_as_its_event_says(server, saved):
    span = spans_of(saved)[-1]
    found = ask(server, saved["id"], span["index"], [1]).json
    assert found["fall"] == pytest.approx(span["effects"][1], abs=1e-6)
    assert found["effects"] == pytest.approx(span["effects"], abs=1e-6)
    assert found["contributions"] == pytest.approx(span["contributions"], abs=1e-6)
    assert found["whole_image"] == pytest.approx(span["whole_image"], abs=1e-6)
    assert ask(server, saved["id"], span["index"], range(6)).json["fall"] == pytest.approx(
        span["whole_image"], abs=1e-6
    )


def test_the_saved_run_answers_the_same(server, saved):
    run = read_run(server.data / "runs" / saved["id"])
    span = spans_of(saved)[0]
    here, there = run.joint(span["index"], [0, 3]), ask(server, saved["id"], span["index"], [0, 3]).json
    assert (here.fall, list(here.contributions)) == (there["fall"], there["contributions"])
    text = "".join(event.text for event in run.events if isinstance(event, eyeline.Text))
    assert ask(server, saved["id"], [0, len(text)]).json["whole_image"] == pytest.approx(
        run.joint((0, len(text))).whole_image
    )


def test_real_ablation_of_several_regions_stands_beside_their_joint_fall(server, saved, model_folder):
    span = spans_of(saved)[-1]
    lines = server.stream("/v1/verify", run=saved["id"], span=span["index"], regions=[0, 4], together=True)
    _, found, done = [line for line in lines if line["event"] != "waiting"]
    model = eyeline.load(model_folder)
    ids = torch.tensor(saved["choices"][0]["token_ids"][: span["end"]])
    hidden = torch.zeros(1, 6, dtype=torch.bool)
    hidden[0, [0, 4]] = True
    truth = ablate(model, model.inputs(picture(), "How many?"), ids, hidden, "pixels")
    assert found["actual"] == pytest.approx(float(truth.falls[0, span["start"] :].sum()), abs=1e-3)
    assert found["predicted"] == pytest.approx(ask(server, saved["id"], span["index"], [0, 4]).json["fall"])
    assert found["parts"] == pytest.approx(span["effects"][0] + span["effects"][4], abs=1e-6)
    assert done["event"] == "done"


def test_a_run_that_is_on_answers_from_what_is_attributed_so_far(server):
    seen = threading.Event()
    runs: list[str] = []

    def follow() -> None:
        for chunk in server.stream(max_tokens=4000, eyeline={"save": True}):
            if chunk == "[DONE]":
                return
            runs.append(chunk["id"])
            if (chunk.get("eyeline") or {}).get("event") == "span":
                seen.set()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    assert seen.wait(60)
    found = ask(server, runs[0], 0, [2])
    assert found.status == 200, found.body
    assert len(found.json["contributions"]) == 6
    resting = server.call("POST", "/v1/rests-on", {"run": runs[0]})
    assert (resting.status, resting.json["error"]["param"]) == (400, "run")
    assert "There is no answer" in resting.json["error"]["message"]
    missing = ask(server, runs[0], 2**20)
    assert (missing.status, missing.json["error"]["param"]) == (400, "target")
    thread.join(120)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"target": 999}, "target"),
        ({"target": "words that were not written"}, "target"),
        ({"target": "$.total"}, "target"),
        ({"target": [5, 5]}, "target"),
        ({"target": 0, "regions": [6]}, "regions"),
        ({"target": 0, "regions": [-1]}, None),
        ({"target": True}, None),
        ({"target": 1.5}, None),
        ({}, None),
    ],
)
def test_what_is_no_target_or_region_is_refused_with_a_sentence(server, saved, fields, param):
    answer = server.call("POST", "/v1/joint", {"run": saved["id"], **fields})
    assert answer.status == 400
    error = answer.json["error"]
    assert error["message"]
    assert param is None or error["param"] == param


def test_a_run_whose_numbers_are_gone_says_so(server):
    other = server.ask(eyeline={"save": True}).json
    eventually(lambda: (server.data / "runs" / other["id"] / FILE).exists())
    (server.data / "runs" / other["id"] / FILE).unlink()
    answer = ask(server, other["id"], 0)
    assert answer.status == 400
    assert "keeps no numbers" in answer.json["error"]["message"]
