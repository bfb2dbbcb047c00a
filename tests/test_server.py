"""The running server, as its clients see it."""
# ruff: noqa: F811  (fixtures that are imported)

import asyncio
import json
import os
import signal
import socket
import threading

import openai
import pytest
import uvicorn
from click.testing import CliRunner
from conftest import picture
from server_process import CONTEXT, data_url, eventually, free_port, model_folder, question, running, server  # noqa: F401

import eyeline
from eyeline.cli import main
from eyeline.errors import EyelineError
from eyeline.events import Done, SpanAttribution, Text, from_json
from eyeline.server.app import _Server, bind


def events_of(chunks):
    return [
        from_json(json.dumps(chunk["eyeline"]))
        for chunk in chunks
        if isinstance(chunk, dict) and "eyeline" in chunk
    ]


def assert_same_spans(ours, theirs):
    """But for latencies, which no two runs share; numbers up to rounding, which no two processes share."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        for name in ("index", "start", "end", "text"):
            assert getattr(one, name) == getattr(other, name)
        numbers = (*one.effects, one.log_prob)
        assert numbers == pytest.approx((*other.effects, other.log_prob), rel=1e-4, abs=1e-4)


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0)


# --- OpenAI's own client


def test_openais_client_gets_an_answer_with_its_attribution(client, server, model_folder):
    found = client.chat.completions.create(
        model=client.models.list().data[0].id,
        messages=question("How many?"),
        max_tokens=24,
        temperature=0,
        extra_body={"return_token_ids": True},
    )
    choice = found.choices[0]
    assert choice.finish_reason == "length"
    assert (found.usage.completion_tokens, found.usage.total_tokens) == (24, found.usage.prompt_tokens + 24)
    assert choice.message.reasoning == choice.message.reasoning_content
    stream = eyeline.load(model_folder).stream(picture(), "How many?", temperature=0, max_new_tokens=24)
    alone = list(stream)
    assert choice.token_ids == stream.ids
    kinds = [event["event"] for event in choice.message.eyeline]
    assert (kinds[0], kinds[-1]) == ("start", "done")
    spans = [from_json(json.dumps(each)) for each in choice.message.eyeline if each["event"] == "span"]
    expected = [event for event in alone if isinstance(event, SpanAttribution)]
    assert_same_spans(spans, expected)


def test_openais_client_streams_text_events_and_usage(client):
    chunks = list(
        client.chat.completions.create(
            model=client.models.list().data[0].id,
            messages=question(),
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].usage.completion_tokens == 24
    assert [chunk.to_dict()["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-2].choices[0].finish_reason == "length"
    kinds = [chunk.eyeline["event"] for chunk in chunks[:-2]]
    assert kinds[0] == "start"
    assert kinds[-1] == "done"
    assert "span" in kinds
    written = "".join(getattr(chunk.choices[0].delta, "reasoning", None) or "" for chunk in chunks[:-2])
    assert written == "".join(
        chunk.eyeline["text"] for chunk in chunks[:-2] if chunk.eyeline["event"] == "text"
    )


def test_openais_client_raises_its_own_errors(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="x", messages=question(), temperature=-1)
    assert caught.value.param == "temperature"
    assert caught.value.request_id.startswith("req-")
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.chat.completions.create(model="gpt-4o", messages=question())


def test_a_key_is_asked_for_where_there_is_one(model_folder, tmp_path):
    with running(model_folder, tmp_path, key="a-secret-key") as server:
        ask = {"model": str(model_folder), "messages": question(), "max_tokens": 4}
        right = openai.OpenAI(base_url=f"{server.url}/v1", api_key="a-secret-key", max_retries=0)
        assert right.chat.completions.create(**ask).usage.completion_tokens == 4
        wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="a-secret-kez", max_retries=0)
        with pytest.raises(openai.AuthenticationError):
            wrong.chat.completions.create(**ask)
        server.key = None
        for path in ("/v1/models", "/v1/runs", "/metrics", "/v1/gallery"):
            answer = server.call("GET", path)
            assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
        for path in ("/", "/healthz", "/openapi.json", "/static/page.js"):
            assert server.call("GET", path).status == 200
        assert "a-secret-key" not in server.log.read_text()


# --- conversations


def test_several_turns_images_and_a_system_prompt(server):
    turns = [
        {"role": "system", "content": "Be brief."},
        *question("How many?"),
        {"role": "assistant", "content": "Three."},
        *question("And here?", data_url(picture(64, 64, seed=1)), data_url(kind="JPEG")),
    ]
    start = server.ask(messages=turns).json["choices"][0]["message"]["eyeline"][0]
    assert [(image["width"], image["height"]) for image in start["images"]] == [(96, 64), (64, 64), (96, 64)]


def test_a_request_without_an_image_is_answered_and_says_that_nothing_is_attributed(server):
    message = server.ask(messages=[{"role": "user", "content": "How many?"}]).json["choices"][0]["message"]
    assert message["eyeline"][0]["images"] == []
    assert "without attribution" in message["eyeline"][1]["message"]
    assert message["reasoning"] + message["content"]


@pytest.mark.parametrize("seed", [5, -1, -(2**63), 2**63 - 1])  # all that OpenAI's clients may send
def test_the_same_seed_gives_the_same_answer_and_another_one_another(server, seed):
    first, second, third = (
        server.ask(temperature=1.5, seed=each, return_token_ids=True).json["choices"][0]["token_ids"]
        for each in (seed, seed, 6)
    )
    assert first == second != third


def test_text_ends_before_a_stop_string(server):
    whole = server.ask(max_tokens=48).json["choices"][0]["message"]
    text = whole["reasoning"] + whole["content"]
    stop = text[8:10]
    cut = server.ask(max_tokens=48, stop=[stop]).json["choices"][0]
    assert cut["message"]["reasoning"] + cut["message"]["content"] == text[: text.index(stop)]
    assert cut["finish_reason"] == "stop"


# --- what is refused

IMAGE = data_url()
REFUSED = {
    "no JSON": (b"{", 400, "invalid_json"),
    "no object": (b"[]", 400, "invalid_value"),
    "deep JSON": (b"[" * 100_000, 400, "invalid_json"),
    "no messages": ({"messages": []}, 400, "invalid_value"),
    "other model": ({"model": "gpt-4o"}, 404, "model_not_found"),
    "negative temperature": ({"temperature": -0.1}, 400, "invalid_value"),
    "temperature that is no number": (b'{"messages":[{"role":"user","content":"?"}],"temperature":NaN}', 400, None),
    "no tokens": ({"max_tokens": 0}, 400, "invalid_value"),
    "too many tokens": ({"max_tokens": 4097}, 400, "invalid_value"),
    "two answers": ({"n": 2}, 400, "invalid_value"),
    "tools": ({"tools": [{"type": "function"}]}, 400, "invalid_value"),
    "a seed of 65 bits": ({"seed": 2**64}, 400, "invalid_value"),
    "empty stop": ({"stop": ""}, 400, "invalid_value"),
    "text that is no image": ({"messages": question("?", "data:image/png;base64,aGVsbG8=")}, 400, "invalid_image"),
    "no base64": ({"messages": question("?", "data:image/png;base64,***")}, 400, "invalid_image"),
    "half an image": ({"messages": question("?", IMAGE[: len(IMAGE) // 2 // 4 * 4])}, 400, "invalid_image"),
    "a file": ({"messages": question("?", "file:///etc/passwd")}, 400, "invalid_image"),
    "a path": ({"messages": question("?", "/etc/passwd")}, 400, "invalid_image"),
    "a remote image": ({"messages": question("?", "http://example.com/a.png")}, 400, "remote_image_refused"),
    "loopback": ({"messages": question("?", "http://127.0.0.1/a.png")}, 400, "remote_image_refused"),
    "a thousand images": ({"messages": question("?", *[IMAGE] * 1000)}, 400, "too_many_images"),
    "an image of the system": ({"messages": [{**question()[0], "role": "system"}, *question()]}, 400, "invalid_value"),
    "a last word of the model's": ({"messages": [{"role": "assistant", "content": "3"}]}, 400, "invalid_value"),
    "an empty question": ({"messages": question(" ")}, 400, "invalid_value"),
    "the model's image token": ({"messages": question("<|image_pad|>")}, 400, "invalid_value"),
    "a prompt beyond the context": ({"messages": question("x" * CONTEXT)}, 400, "context_length_exceeded"),
    "no room for the answer": ({"messages": question("x" * (CONTEXT - 200)), "max_tokens": 300}, 400, "context_length_exceeded"),
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_a_sentence_and_the_right_status(server, case, stream):
    body, status, code = REFUSED[case]
    if isinstance(body, dict):
        body = {"messages": question(), "max_tokens": 4, "stream": stream, **body}
    answer = server.call("POST", "/v1/chat/completions", body)
    error = answer.json["error"]
    assert answer.status == status
    assert code in (None, error["code"])
    assert error["message"].endswith((".", "page"))
    assert error["request_id"] == answer.headers["x-request-id"]
    eventually(lambda: error["request_id"] in server.log.read_text())


def test_an_image_bomb_is_refused_from_its_header(server):
    from PIL import Image

    for size in ((7100, 7100), (20_000, 20_000)):
        answer = server.ask(messages=question("?", data_url(Image.new("1", size))))
        assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_image")
    many = [data_url(Image.new("1", (4900, 4900)))] * 3
    answer = server.ask(messages=question("?", *many))
    assert "50 megapixels at most, all images together" in answer.json["error"]["message"]


def test_the_server_states_the_limits_that_it_keeps_and_the_librarys_limit_is_its_own(server):
    from eyeline.images import MAX_PIXELS

    limits = server.call("GET", "/v1/models").json["data"][0]["eyeline"]["limits"]
    assert limits == {"images": 16, "pixels": MAX_PIXELS, "body": 32 * 2**20}


def test_a_body_that_is_too_large_is_refused_before_it_is_read(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 999999999\r\n\r\n"
        )
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_bodies_must_be_json_and_methods_the_paths_own(server):
    answer = server.call("POST", "/v1/chat/completions", b"x", **{"Content-Type": "text/plain"})
    assert (answer.status, answer.json["error"]["code"]) == (415, "unsupported_media_type")
    answer = server.call("GET", "/v1/chat/completions")
    assert (answer.status, answer.json["error"]["code"]) == (405, "method_not_allowed")
    assert server.call("GET", "/nothing").json["error"]["code"] == "not_found"


PARTS = {
    "image_url": ({"type": "image_url", "image_url": IMAGE}, ".image_url", "not a text"),
    "input_audio": ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "", "not 'input_audio'"),
    "file": ({"type": "file", "file": {"file_id": "x"}}, "", "not 'file'"),
    "no type": ({"text": "?"}, "", "type text or image_url"),
    "no text": ({"type": "text", "text": None}, ".text", "valid string"),
    "no url": ({"type": "image_url", "image_url": {}}, ".image_url.url", "required"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_a_part_that_cannot_be_read_is_named(server, name):
    part, place, why = PARTS[name]
    messages = [*question(), {"role": "user", "content": [{"type": "text", "text": "?"}, part]}]
    answer = server.ask(messages=messages)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["param"]) == (
        400,
        "invalid_value",
        f"messages.1.content.1{place}",
    )
    assert error["message"].startswith(f"messages.1.content.1{place}: ")
    assert why in error["message"]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/chat/completions", {"messages": question(), "eyeline": {"saved": True}}, "eyeline.saved"),
        ("/v1/verify", {"run": "run-0", "span": 0, "region": [1]}, "region"),
        ("/v1/ask-without", {"run": "run-0", "regions": [1], "temperature": 1}, "temperature"),
    ],
)
def test_a_field_that_we_do_not_know_is_refused_where_the_request_is_ours_alone(server, path, fields, param):
    answer = server.call("POST", path, fields)
    error = answer.json["error"]
    assert (answer.status, error["param"]) == (400, param)
    assert "There is no such field; expected " in error["message"]


def test_other_ways_of_asking_point_to_the_one_that_is_offered(server):
    for path in ("/v1/responses", "/v1/responses/resp_1", "/v1/completions"):
        for method, body in (("POST", {"model": "x", "input": "?"}), ("GET", None)):
            answer = server.call(method, path, body)
            assert (answer.status, answer.json["error"]["code"]) == (404, "not_found")
            assert "POST /v1/chat/completions" in answer.json["error"]["message"]


def test_head_is_answered_as_get_is_but_for_the_body(server):
    for path in ("/", "/static/page.js", "/v1/models", "/healthz", "/nothing", "/v1/chat/completions"):
        get, head = server.call("GET", path), server.call("HEAD", path)
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["content-length"] == str(len(get.body))
        assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost"}, 200),
        ({"Host": "127.0.0.1:1"}, 200),
        ({"Host": "[::1]:80"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost"}, 200),
        ({"Host": "localhost", "Origin": "http://evil.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
        ({"Host": "localhost", "Origin": "http://localhost:81"}, 403),
    ],
)
def test_other_hosts_and_other_sites_are_refused(server, headers, status):
    assert server.call("GET", "/v1/models", **headers).status == status


def test_every_answer_has_the_headers_that_bind_a_browser(server):
    for path in ("/", "/static/page.js", "/v1/runs", "/nothing"):
        headers = server.call("GET", path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_names_in_a_path_open_no_files(server):
    for path in (
        "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/v1/runs/..", "/v1/runs/..%2f..%2fruns.sqlite",
        "/v1/gallery/..%2f..%2fx.png", "/v1/gallery/math-8000001.png", "/v1/runs/run-0/images/..%2frun.json",
    ):  # fmt: skip
        assert server.call("GET", path).status == 404


def test_logs_hold_no_prompt_and_no_answer(server):
    answer = server.ask(messages=question("A secret about xylophones"))
    assert answer.status == 200
    server.call("GET", "/v1/runs?query=xylophones")
    eventually(lambda: answer.headers["x-request-id"] in server.log.read_text())
    log = server.log.read_text()
    assert "xylophones" not in log
    assert "base64" not in log


# --- runs


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


# --- verification and hidden regions


@pytest.fixture(scope="module")
def saved(server):
    return server.ask(max_tokens=40, eyeline={"save": True}, return_token_ids=True).json


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
        drop = float(truth.drops[line["region"], span["start"] :].sum())
        assert line["actual"] == pytest.approx(drop, abs=1e-3)
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
    assert chunks[-2]["choices"][0]["token_ids"] == stream.ids != saved["choices"][0]["token_ids"]
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


# --- one at a time, clients that leave, processes that die


def test_a_client_that_leaves_ends_its_generation_and_the_next_is_answered(server):
    connection = server.open(
        "POST",
        "/v1/chat/completions",
        {"messages": question("Leave"), "max_tokens": 4096, "temperature": 0, "stream": True, "eyeline": {"save": True}},
    )  # fmt: skip
    response = connection.getresponse()
    assert any(b'"text"' in response.readline() for _ in range(40))
    sock = connection.sock
    response.close()
    connection.close()
    if sock is not None:
        sock.close()
    eventually(lambda: _reason(server, "Leave") == "cancelled")
    assert server.ask().status == 200


def _reason(server, query):
    rows = server.call("GET", f"/v1/runs?query={query}").json["runs"]
    return rows[0]["reason"] if rows else None


def test_a_waiting_stream_hears_of_it_and_verification_waits_behind_it(server, saved):
    order = []

    def follow(name, chunks):
        for _ in chunks:
            pass
        order.append(name)

    first = server.stream(max_tokens=4096)
    next(first)  # it is its turn
    verify = server.stream("/v1/verify", run=saved["id"], span=0)
    assert next(verify) == {"event": "waiting"}
    verifying = threading.Thread(target=follow, args=("verify", verify))
    asking = threading.Thread(target=follow, args=("question", server.stream(max_tokens=30)))
    verifying.start()
    asking.start()
    eventually(lambda: server.metric("eyeline_queue_length") == 1)
    assert order == []
    first.close()
    asking.join()
    verifying.join()
    assert order == ["question", "verify"]


def test_beyond_the_queue_a_request_is_told_to_come_back(model_folder, tmp_path):
    with running(model_folder, tmp_path, "--queue", "2") as server:
        streams = [server.stream(max_tokens=4096) for _ in range(1)]
        next(streams[0])
        waiting = [
            server.open(
                "POST",
                "/v1/chat/completions",
                {"messages": question(), "max_tokens": 4, "stream": True},
            )
            for _ in range(2)
        ]
        for connection in waiting:
            connection.getresponse().readline()
        eventually(lambda: server.metric("eyeline_queue_length") == 2)
        answer = server.ask()
        assert (answer.status, answer.json["error"]["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
        streams[0].close()
        for connection in waiting:
            connection.close()
        eventually(lambda: server.metric("eyeline_queue_length") == 0)
        assert server.ask().status == 200


def test_a_question_survives_the_death_of_the_models_process(server):
    restarts = server.metric("eyeline_model_restarts_total")
    fields = {"max_tokens": 300, "temperature": 1.0, "seed": 11, "return_token_ids": True}
    whole = list(server.stream(**fields))
    killed = []
    for chunk in server.stream(**fields):
        killed.append(chunk)
        if len(killed) == 60:
            os.kill(server.model_process(), signal.SIGKILL)
    assert killed[-1] == "[DONE]"
    assert killed[-2]["choices"][0]["token_ids"] == whole[-2]["choices"][0]["token_ids"]
    ours, theirs = events_of(killed), events_of(whole)
    texts = [[event for event in events if isinstance(event, Text)] for events in (ours, theirs)]
    assert texts[0] == texts[1]
    spans = [[event for event in events if isinstance(event, SpanAttribution)] for events in (ours, theirs)]
    assert_same_spans(*spans)
    assert server.metric("eyeline_model_restarts_total") == restarts + 1


@pytest.mark.parametrize("grace", ["0", "1"])
def test_stopping_ends_what_runs_and_what_waits_and_says_so(model_folder, tmp_path, grace):
    with running(model_folder, tmp_path, "--grace", grace) as server:
        running_one = server.stream(max_tokens=4096)
        chunks = [next(running_one) for _ in range(10)]
        waiting = server.open("POST", "/v1/chat/completions", {"messages": question()})
        eventually(lambda: server.metric("eyeline_queue_length") == 1)
        server.process.send_signal(signal.SIGTERM)
        chunks += running_one
        *_, error, done = events_of(chunks)
        assert "stopping" in error.message
        assert isinstance(done, Done)
        assert done.reason == "cancelled"
        answer = waiting.getresponse()
        refused = json.load(answer)["error"]
        waiting.close()
        assert answer.status == 503
        for told in (chunks[-1]["error"], refused):  # streamed or not, an error and no finish_reason
            assert (told["code"], told["message"]) == ("stopping", error.message)
        assert not any(choice["finish_reason"] for chunk in chunks[:-1] for choice in chunk["choices"])
        assert server.process.wait(30) in (0, -signal.SIGTERM)


def test_a_slow_reader_gets_everything_and_holds_nobody_up(server):
    slow = server.open(
        "POST", "/v1/chat/completions",
        {"messages": question(), "max_tokens": 200, "temperature": 0, "stream": True},
    )  # fmt: skip
    response = slow.getresponse()
    response.read(1)
    assert server.ask().status == 200  # after the slow one's generation, not after its reading
    rest = response.read()
    slow.close()
    assert rest.endswith(b"data: [DONE]\n\n")


# --- before the model is loaded


def refuse(*words):
    """Of a model that is not there either, and would be told of if it were looked for."""
    result = CliRunner().invoke(main, ["serve", "--model", "./nowhere", *words])
    assert result.exit_code == 1
    return result.stderr


def test_it_is_refused_to_listen_for_others_without_a_key(tmp_path):
    assert "--no-key" in refuse("--host", "0.0.0.0", "--data", str(tmp_path))


def test_an_address_that_cannot_be_listened_on_is_told_before_the_model_is_loaded(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"Port {port} of 127.0.0.1 is taken" in refuse("--port", port, "--data", str(tmp_path))
        assert f"Port {port} of localhost is taken" in refuse(
            "--port", port, "--host", "localhost", "--data", str(tmp_path)
        )
    elsewhere = refuse("--host", "192.0.2.1", "--no-key", "--data", str(tmp_path))
    assert "'192.0.2.1' is no address of this machine" in elsewhere
    assert not list(tmp_path.iterdir())  # the runs of a server that may be using them are left alone


def test_a_port_that_another_server_took_while_the_model_was_loaded_is_told():
    (first,) = bind("127.0.0.1", 0)
    port = first.getsockname()[1]
    (second,) = bind("127.0.0.1", port)  # neither listens yet
    first.listen()
    config = uvicorn.Config(lifespan_only, port=port, log_level="error")
    with first, second, pytest.raises(EyelineError, match=f"Port {port} of 127.0.0.1 is taken"):
        asyncio.run(_Server(config, None, 0.0, print).serve([second]))


async def lifespan_only(scope, receive, send):
    for part in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{part}.complete"})


def test_a_folder_that_cannot_hold_runs_is_told_before_the_model_is_loaded(tmp_path):
    (tmp_path / "file").write_text("")
    assert "Runs cannot be kept in" in refuse(
        "--port", str(free_port()), "--data", str(tmp_path / "file" / "runs")
    )
