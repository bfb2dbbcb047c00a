"""Runs that the running server keeps: their list, downloads, verification and questions without regions."""

import pytest
from conftest import picture
from server_process import eventually, question, token_ids

import eyeline


def test_a_saved_run_is_listed_found_reopened_downloaded_and_deleted(server):
    chunks = list(server.stream(messages=question("What about the zebra_%?"), eyeline={"save": True}))
    run = chunks[0]["id"]
    assert chunks[-1] == "[DONE]"
    for query in ("zebra_%25", "ZEBRA", ""):
        assert run in [row["id"] for row in server.call("GET", f"/v1/runs?query={query}").json["runs"]]
    assert run not in [row["id"] for row in server.call("GET", "/v1/runs?query=zebra%25x").json["runs"]]
    found = server.call("GET", f"/v1/runs/{run}").json
    assert found["events"] == [chunk["eyeline"] for chunk in chunks if "eyeline" in chunk]
    assert (found["prompt"], found["reason"], found["running"]) == (
        "What about the zebra_%?",
        "length",
        False,
    )
    for path, kind in (
        (f"/v1/runs/{run}/images/0", "image/png"),
        (f"/v1/runs/{run}/report.html", "text/html"),
        (f"/v1/runs/{run}/events.jsonl", "application/jsonl"),
        (f"/v1/runs/{run}/gaze.gif", "image/gif"),
    ):
        answer = server.call("GET", path)
        assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, kind)
    assert server.call("DELETE", f"/v1/runs/{run}").json == {"id": run, "deleted": True}
    assert server.call("GET", f"/v1/runs/{run}").status == 404
    assert not (server.data / "runs" / run).exists()


def test_a_run_is_read_while_an_event_of_it_is_half_written(server):
    run = server.ask(eyeline={"save": True}).json["id"]
    events = server.call("GET", f"/v1/runs/{run}").json["events"]
    file = server.data / "runs" / run / "events.jsonl"
    whole = file.read_bytes()
    for cut in (1, 30, whole.find(b"\n") // 2):
        file.write_bytes(whole + whole[:cut])
        assert server.call("GET", f"/v1/runs/{run}").json["events"] == events
        assert server.call("GET", f"/v1/runs/{run}/events.jsonl").body == whole
        assert server.call("GET", f"/v1/runs/{run}/report.html").status == 200
        index = [event["index"] for event in events if event["event"] == "span"][-1]
        (*_, done) = server.stream("/v1/verify", run=run, span=index, regions=[0])
        assert done["event"] == "done"
    assert server.call("DELETE", f"/v1/runs/{run}").status == 200


def test_a_run_that_is_not_to_be_saved_leaves_nothing(server):
    run = server.ask().json["id"]
    eventually(lambda: not (server.data / "runs" / run).exists())
    assert server.call("GET", f"/v1/runs/{run}").status == 404


def test_runs_are_listed_page_by_page(server):
    made = [server.ask(messages=question("page me"), eyeline={"save": True}).json["id"] for _ in range(3)]
    first = server.call("GET", "/v1/runs?query=page%20me&limit=2").json
    second = server.call("GET", f"/v1/runs?query=page%20me&limit=2&before={first['next']}").json
    assert [row["id"] for row in first["runs"] + second["runs"]] == made[::-1]
    assert second["next"] is None
    assert server.call("GET", "/v1/runs?before=x").status == 400


def test_verification_is_the_real_ablation_of_every_region(server, saved, model_folder):
    import torch

    from eyeline.ablation import ablate

    spans = [event for event in saved["choices"][0]["message"]["eyeline"] if event["event"] == "span"]
    span = spans[-1]
    lines = list(server.stream("/v1/verify", run=saved["id"], span=span["index"], regions=None))
    baseline, *regions, done = [line for line in lines if line["event"] != "waiting"]
    model = eyeline.load(model_folder)
    ids = torch.tensor(saved["choices"][0]["token_ids"][: span["end"]])
    hidden = torch.eye(6, dtype=torch.bool)
    truth = ablate(model, model.inputs(picture(), "How many?"), ids, hidden, "pixels")
    assert baseline["method"] == "pixels"
    assert baseline["log_prob"] == pytest.approx(float(truth.log_probs[span["start"] :].sum()), abs=1e-3)
    assert {line["region"] for line in regions} == set(range(6))
    for line in regions:
        assert line["predicted"] == span["effects"][line["region"]]
        fall = float(truth.falls[line["region"], span["start"] :].sum())
        assert line["actual"] == pytest.approx(fall, abs=1e-3)
    predictions = [abs(line["predicted"]) for line in regions]
    assert predictions == sorted(predictions, reverse=True)
    assert [line["rank_agreement"] is None for line in regions] == [True, True, False, False, False, False]
    assert done == {"event": "done", "rank_agreement": regions[-1]["rank_agreement"], "done": 6, "total": 6}


def test_the_same_question_without_some_regions(server, saved, model_folder):
    from eyeline.asked import Hidden

    start = saved["choices"][0]["message"]["eyeline"][0]
    chunks = list(server.stream("/v1/ask-without", run=saved["id"], regions=[0, 4], return_token_ids=True))
    grids = tuple(tuple(tuple(row) for row in grid) for grid in start["regions"])
    stream = eyeline.load(model_folder).stream(
        picture(), "How many?", temperature=0, max_new_tokens=40, hidden=Hidden(grids, (0, 4), "pixels")
    )
    list(stream)
    assert token_ids(chunks) == stream.ids != saved["choices"][0]["token_ids"]
    assert chunks[0]["eyeline"]["regions"] == start["regions"]
    again = server.call("GET", f"/v1/runs/{chunks[0]['id']}").json
    assert again["hidden"] == {"run": saved["id"], "regions": [0, 4], "method": "pixels"}


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/v1/verify", {"run": "run-0", "span": 0}, 404),
        ("/v1/verify", {"span": 999}, 404),
        ("/v1/verify", {"span": 0, "regions": [6]}, 400),
        ("/v1/verify", {"span": 0, "regions": []}, 400),
        ("/v1/verify", {"span": -1}, 400),
        ("/v1/ask-without", {"regions": [6]}, 400),
        ("/v1/ask-without", {"regions": []}, 400),
        ("/v1/ask-without", {"run": "../x", "regions": [0]}, 404),
    ],
)
def test_what_cannot_be_measured_is_refused(server, saved, path, fields, status):
    assert server.call("POST", path, {"run": saved["id"], **fields}).status == status
