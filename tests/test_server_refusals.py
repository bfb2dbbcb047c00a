"""What the running server refuses and how it says so, and what it keeps to itself."""

import socket
import sys

import pytest
from server_process import CONTEXT, data_url, eventually, question

from eyeline.server.request_error import RequestError
from eyeline.server.store import Store

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
    "likeliest tokens alone": ({"top_logprobs": 2}, 400, "invalid_value"),
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


@pytest.mark.skipif(sys.platform != "linux", reason="needs another process's limits")
def test_a_full_disk_is_told_before_a_question_waits(server):
    import resource

    before = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (16, before[1]))  # bytes of a file
    try:
        answer = server.ask()
    finally:
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, before)
    error = answer.json["error"]
    assert (answer.status, error["code"]) == (500, "internal")
    assert "could not be written" in error["message"]
    assert server.ask().status == 200


def test_a_run_that_cannot_be_listed_leaves_nothing(tmp_path):
    store = Store(tmp_path)
    store._db.execute("PRAGMA max_page_count=1")
    writer = store.prepare("run-1", [], "?" * 100_000)
    with pytest.raises(RequestError, match=r"could not be kept .*full"):
        store.add("run-1", writer, "tiny", {}, saved=True)
    assert writer.events.closed
    assert not list((tmp_path / "runs").iterdir())
    store.close()


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
