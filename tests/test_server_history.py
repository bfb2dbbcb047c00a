"""Runs that the running server keeps: their list, downloads, verification and questions without regions."""

import asyncio
import json
import threading

import httpx2
import pytest
from conftest import picture
from server_process import eventually, question, token_ids
from test_server_audit import Clocked, a_run

import eyeline
from eyeline.events import Done
from eyeline.runs import save_run
from eyeline.server.app import create_app
from eyeline.server.asking import Asking, Desk
from eyeline.server.engine import EngineDiedError
from eyeline.server.line import Line
from eyeline.server.request_error import not_found
from eyeline.server.response import Wanted, gather
from eyeline.server.safety import Settings
from eyeline.server.store import Log, Store


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


class Opened(Clocked):
    """An engine without a process, which an application can open."""

    async def open(self):
        self.ready = asyncio.Event()

    async def close(self):
        pass


def request(tmp_path, method, path, meanwhile=lambda store, run: None, **fields):
    """The answer of a server in this process to a request about a run of three spans."""
    return requests(1, tmp_path, method, path, meanwhile, **fields)[0]


def requests(count, tmp_path, method, path, meanwhile=lambda store, run: None, **fields):
    """Those to some at once; two streams are open at most."""

    async def play():
        store = Store(tmp_path)
        run = a_run(store, 1).id
        app = create_app(Settings(tmp_path, max_streams=2), Opened(1.0), store)
        transport = httpx2.ASGITransport(app)
        async with (
            app.app.router.lifespan_context(app.app),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
        ):
            meanwhile(store, run)
            body = {"run": run, **fields} if method == "POST" else None
            asked = [client.request(method, f"/v1/{path.format(run=run)}", json=body) for _ in range(count)]
            return await asyncio.gather(*asked)

    return asyncio.run(play())


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("verify", {"span": 0}),
        ("verify", {"span": 0, "regions": [1], "together": True}),
        ("contrast", {"span": 0, "instead": "x"}),
        ("rethink", {"regions": [1]}),
    ],
)
def test_what_goes_wrong_while_it_is_measured_is_the_last_event(tmp_path, monkeypatch, path, fields):
    async def fail(*_, **__):
        raise RuntimeError("OutOfMemoryError: CUDA out of memory")

    def gone(self, run):
        raise not_found("such run")

    def last(meanwhile):
        answer = request(tmp_path / str(len(list(tmp_path.iterdir()))), "POST", path, meanwhile, **fields)
        return answer.status_code, json.loads(answer.text.split("data: ")[-1])

    failed = {"event": "error", "message": "Measuring failed: RuntimeError."}
    assert last(lambda *_: monkeypatch.setattr(Opened, "call", fail)) == (200, failed)

    async def deleted(desk, run):  # between the answer's begin and the measuring
        monkeypatch.setattr(Store, "get", gone)
        return
        yield

    status, event = last(lambda *_: monkeypatch.setattr(Desk, "finished", deleted))
    assert (status, event["event"], "no such run" in event["message"]) == (200, "error", True)


ABOUT_A_RUN = [
    ("GET", "runs/{run}", {}),
    ("GET", "runs/{run}/images/0", {}),
    ("GET", "runs/{run}/events.jsonl", {}),
    ("GET", "runs/{run}/report.html", {}),
    ("POST", "evidence", {}),
    ("POST", "joint", {"target": 0, "regions": [1]}),
    ("POST", "ask-without", {"regions": [1]}),
]


@pytest.mark.parametrize(("method", "path", "fields"), ABOUT_A_RUN)
def test_a_run_that_is_deleted_while_it_is_read_is_not_found(tmp_path, monkeypatch, method, path, fields):
    def meanwhile(store, run):
        async def after_deleting(call, *given, in_thread=asyncio.to_thread):
            store.discard(run)
            return await in_thread(call, *given)

        monkeypatch.setattr(asyncio, "to_thread", after_deleting)

    answer = request(tmp_path, method, path, meanwhile, **fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_measurements_that_are_asked_for_at_once_are_no_more_than_may_be_open(tmp_path, monkeypatch):
    async def wait(*_, **__):
        await asyncio.sleep(0.5)  # all are there
        raise EngineDiedError

    monkeypatch.setattr(Opened, "call", wait)
    answers = requests(6, tmp_path, "POST", "verify", span=0)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429, 429]


@pytest.fixture
def parsers(monkeypatch):
    """The threads in which events are parsed."""
    found, loads = set(), json.loads

    def noted(text, *given, **options):
        if '"event"' in str(text):
            found.add(threading.get_ident())
        return loads(text, *given, **options)

    monkeypatch.setattr(json, "loads", noted)
    return found


@pytest.mark.parametrize(
    ("method", "path", "fields", "status"),
    [
        ("GET", "runs/{run}", {}, 200),
        ("POST", "verify", {"span": 9}, 404),
        ("POST", "contrast", {"span": 9, "instead": "x"}, 404),
        ("POST", "rethink", {"regions": [99]}, 400),
        ("POST", "ask-without", {"regions": [99]}, 400),
    ],
)
def test_a_large_run_is_parsed_where_it_holds_nobody_up(tmp_path, parsers, method, path, fields, status):
    assert request(tmp_path, method, path, lambda *_: parsers.clear(), **fields).status_code == status
    assert parsers
    assert threading.get_ident() not in parsers


def test_a_large_completion_is_put_together_where_it_holds_nobody_up(tmp_path, parsers):
    async def play():
        store = Store(tmp_path)
        row = a_run(store, 1)
        log = Log(save_run(store.folder_of(row), [], ""))
        log.closed = True
        asking = Asking(row, log, Line(1).enter("client"), 1, ())
        asking.done = next(event for event in log.read() if isinstance(event, Done))
        asking.over.set()
        parsers.clear()
        assert len((await gather(asking, Wanted()))["choices"][0]["message"]["eyeline"]) == 5
        store.close()

    asyncio.run(play())
    assert parsers
    assert threading.get_ident() not in parsers


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
