"""Each kind of server, followed: its client gets the bytes that it would have got, and its trace is attributed."""

import asyncio
import base64
import dataclasses
import http.client
import io
import json
import socket
import threading
import time
import zlib

import pytest
import torch
import uvicorn
from conftest import picture
from PIL import Image
from scripted_upstream import BREAK, Script, Upstream, get, post
from server_process import data_url, eventually, free_port, question
from streams import assert_same_spans, only

import eyeline
from eyeline.ablation import ablate
from eyeline.events import Done, Error, SpanAttribution, Start, Text, from_json
from eyeline.proxy import upstream as upstreams
from eyeline.proxy.proxying import ProxySettings, create_proxy
from eyeline.proxy.reading_copy import CopyWorker
from eyeline.server.engine import Engine
from eyeline.server.safety import Settings
from eyeline.server.store import Store
from eyeline.vocabulary import Vocabulary

NAME = "the-model"
THINKING = "A bar is café red.\nTwo bars are here."
ANSWER = "There are 3 × 2 of them. That is all."


@pytest.fixture(scope="module")
def model(model_folder):
    return eyeline.load(model_folder)


@pytest.fixture(scope="module")
def written():
    with Upstream() as upstream:
        yield upstream


@pytest.fixture(scope="module")
def script_of(model):
    """A script of some kind, with a number of tokens in a chunk."""
    ids = model.tokenizer(f"{THINKING}</think>{ANSWER}", add_special_tokens=False)["input_ids"]
    ids.append(model.tokenizer.eos_token_id)
    vocabulary = Vocabulary(model.tokenizer)
    prompt_ids = model.inputs(picture(), "How many?")["input_ids"][0].tolist()
    inputs = model.inputs(picture(), "How many?")
    nothing = torch.zeros(1, 6, dtype=torch.bool)
    log_probs = ablate(model, inputs, torch.tensor(ids), nothing).log_probs.tolist()
    closes = model.tokenizer.convert_tokens_to_ids("</think>")

    def make(kind, tokens=3, **changes):
        steps, held, thinks = [], b"", True
        for start in range(0, len(ids), tokens):
            some, said = ids[start : start + tokens], {True: "", False: ""}
            for token_id in some:
                if token_id == closes:
                    thinks = False
                elif token_id != ids[-1]:
                    held += vocabulary.bytes_of(token_id)
                    try:
                        said[thinks] += held.decode()
                        held = b""
                    except UnicodeDecodeError:
                        continue
            steps.append((some, said[True], said[False]))
        return Script(kind, NAME, prompt_ids, steps, vocabulary.bytes_of, log_probs=log_probs, **changes)

    return make


class Proxied:
    """A proxy in this process, whose server can be another in each test."""

    def __init__(self, url, app, written):
        self.url, self.app, self.written = url, app, written

    def follow(self, script, **changes):
        self.written.script = script
        self.written.asked.clear()
        self.written.left.clear()
        found = upstreams.find(self.written.url, NAME)
        defaults = {"upstream": found, "side_channel": True, "forward": "fixed", "save": True, "linger": 30.0}
        self.app.state.proxy = dataclasses.replace(self.app.state.proxy, **{**defaults, **changes})

    def run_of(self, headers):
        """The events of a run, when it is over."""
        run = headers["x-eyeline-run"]
        eventually(lambda: self.row(run) is not None and not self.row(run)["running"], 60)
        return [from_json(json.dumps(event)) for event in self.row(run)["events"]]

    def row(self, run):
        status, content = get(self.url, f"/runs/{run}")
        return json.loads(content) if status == 200 else None


@pytest.fixture(scope="module")
def proxied(model_folder, written, script_of, tmp_path_factory):
    data = tmp_path_factory.mktemp("follow")
    written.script = script_of("vllm")
    engine = Engine(str(model_folder), None, worker=CopyWorker)
    engine.start()
    own = ProxySettings(upstreams.find(written.url, NAME))
    app = create_proxy(own, Settings(data, heartbeat=0.3), engine, Store(data))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="critical"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    eventually(lambda: server.started)
    yield Proxied(f"http://127.0.0.1:{port}/v1", app.app, written)
    server.should_exit = True
    thread.join(30)


def body(**fields):
    return {"model": NAME, "messages": question(), "stream": True, **fields}


def assert_attributed(model, events, ids):
    """The spans are those of the ids, and all is said that was written."""
    expected = only(SpanAttribution, list(model.attribute(picture(), "How many?", ids)))
    assert_same_spans(only(SpanAttribution, events), expected)
    texts = {
        channel: "".join(text.text for text in only(Text, events) if text.channel == channel)
        for channel in ("thinking", "answer")
    }
    assert texts == {"thinking": THINKING, "answer": ANSWER}


TIERS = {"vllm": "ids", "sglang": "bytes", "llamacpp": "ids", "library": "text"}


@pytest.mark.parametrize("size", [1, 4, 400])
@pytest.mark.parametrize("kind", TIERS)
def test_the_client_gets_the_servers_bytes_and_the_trace_is_attributed(proxied, model, script_of, kind, size):
    script = script_of(kind, size)
    proxied.follow(script)
    status, headers, through = post(proxied.url, body())
    assert status == 200
    assert through == post(proxied.written.url, body())[2]
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    events = proxied.run_of(headers)
    assert not only(Error, events)
    assert [notice.kind for notice in events[0].notices] == [f"ids-{TIERS[kind]}", "general"]
    ids = script.ids if kind != "library" else script.ids[:-1]
    assert_attributed(model, events, ids)
    assert events[-1].reason == ("eos" if kind != "library" else "stop")
    expected = None if kind == "library" else len(ids) - (kind == "sglang")
    assert expected == (events[-1].agreement and events[-1].agreement.tokens)


WAYS = {
    "event ids": {"before": b"id: 7\n"},
    "comments and a pause": {"after": {1: b": still here\n\n", 2: 0.7, 3: b"retry: 5\n\n"}},
    "other ends of lines": {"after": {2: b"event: other\r\ndata: {}\r\n\r\n"}},
    "a proxy of fixed size": {"size": 7},
    "gzip": {"squeezed": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_however_the_bytes_come_they_are_passed_on(proxied, model, script_of, kind, way):
    script = script_of(kind, 4, **WAYS[way])
    proxied.follow(script)
    _, headers, through = post(proxied.url, body())
    direct = post(proxied.written.url, body())[2]
    if script.squeezed:
        direct = zlib.decompressobj(31).decompress(direct)
        assert "content-encoding" not in headers
    assert through == direct
    assert_attributed(model, proxied.run_of(headers), script.ids)


def test_what_the_client_asks_for_itself_stays(proxied, script_of):
    script = script_of("vllm", after={20: 0.5})
    proxied.follow(script)
    asked = body(return_token_ids=True, logprobs=True, stream_options={"include_usage": True})
    _, headers, through = post(proxied.url, asked)
    assert through == post(proxied.written.url, asked)[2]
    assert proxied.run_of(headers)[-1].tokens == len(script.ids)
    for some in ({"return_token_ids": True}, {"logprobs": True}):
        assert post(proxied.url, body(**some))[2] == post(proxied.written.url, body(**some))[2]


def test_without_a_stream_the_bytes_are_the_servers_too(proxied, model, script_of):
    script = script_of("vllm")
    proxied.follow(script)
    _, headers, through = post(proxied.url, body(stream=False))
    assert through == post(proxied.written.url, body(stream=False))[2]
    assert_attributed(model, proxied.run_of(headers), script.ids)
    proxied.follow(script, side_channel=False)
    whole = json.loads(post(proxied.url, body(stream=False))[2])
    events = [from_json(json.dumps(event)) for event in whole["choices"][0]["message"].pop("eyeline")]
    assert whole == json.loads(through)
    assert (type(events[0]), type(events[-1])) == (Start, Done)
    assert only(SpanAttribution, events)


def test_events_come_between_the_servers_and_the_end_of_the_stream_after_them(proxied, model, script_of):
    script = script_of("vllm", 2, before=b"id: 7\n", after={4: 0.8})
    proxied.follow(script, side_channel=False)
    through = post(proxied.url, body())[2]
    direct = post(proxied.written.url, body())[2]
    assert b"\n:\n" in through  # the heart beat in the pause
    parts = through.replace(b":\n", b"").split(b"\n\n")
    ours = [part for part in parts if b'"eyeline"' in part]
    assert b"\n\n".join(part for part in parts if part not in ours) == direct
    events = [from_json(json.dumps(json.loads(part[6:])["eyeline"])) for part in ours]
    assert_attributed(model, events, script.ids)
    assert isinstance(events[-1], Done)
    switched_off = post(proxied.url, body(eyeline=False))
    assert switched_off[2].replace(b":\n", b"") == direct
    assert "eyeline" not in proxied.written.asked[-1]


def test_a_chunk_that_is_none_ends_the_following_and_nothing_else(proxied, script_of):
    odd = b'data: {"choices":[{"logprobs":[1],"token_ids":"x","delta":3}]}\n\n'
    proxied.follow(script_of("vllm", 4, after={6: odd}))
    _, headers, through = post(proxied.url, body(return_token_ids=True, logprobs=True))
    assert odd in through
    assert through == post(proxied.written.url, body(return_token_ids=True, logprobs=True))[2]
    events = proxied.run_of(headers)
    (error,) = only(Error, events)
    assert "cannot be read from here on" in error.message
    assert (events[-1].reason, events[-1].tokens) == ("error", 28)


def test_a_server_that_dies_in_the_middle_loses_nothing_that_it_sent(proxied, script_of):
    script = script_of("vllm", 4, after={8: BREAK})
    proxied.follow(script)
    _, headers, through = post(proxied.url, body())
    assert through == post(proxied.written.url, body())[2]
    events = proxied.run_of(headers)
    assert events[-1].reason == "error"
    assert events[-1].tokens == 36
    (error,) = only(Error, events)
    assert "broke" in error.message
    assert only(SpanAttribution, events)[-1].end == 36


def test_a_client_that_leaves_ends_the_servers_writing_and_keeps_what_is_attributed(proxied, script_of):
    script = script_of("vllm", 1, after=dict.fromkeys(range(8, 200), 0.05))
    proxied.follow(script)
    host = proxied.url.removeprefix("http://").removesuffix("/v1")
    connection = http.client.HTTPConnection(host, timeout=30)
    connection.request(
        "POST", "/v1/chat/completions", json.dumps(body()), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    run = response.getheader("x-eyeline-run")
    response.read1(100)
    connection.sock.close()
    response.close()
    assert proxied.written.left.wait(20)
    events = proxied.run_of({"x-eyeline-run": run})
    assert events[-1].reason == "cancelled"
    assert 0 < events[-1].tokens < len(script.ids)


def test_ids_that_the_server_tells_otherwise_at_the_end_are_an_error(proxied, script_of):
    script = script_of("sglang")
    proxied.follow(dataclasses.replace(script, exact=[*script.ids[:10], 5, *script.ids[11:]]))
    events = proxied.run_of(post(proxied.url, body())[1])
    (error,) = only(Error, events)
    assert "from token 10 on" in error.message


def test_another_prompt_is_read_and_said_and_images_of_another_size_are_refused(proxied, model, script_of):
    script = script_of("vllm")
    theirs = model.inputs(picture(), "How many bars?")["input_ids"][0].tolist()
    proxied.follow(dataclasses.replace(script, prompt_ids=theirs))
    events = proxied.run_of(post(proxied.url, body())[1])
    assert [notice.kind for notice in events[0].notices] == ["ids-ids", "prompt", "general"]
    larger = model.inputs(picture(128, 64), "How many?")["input_ids"][0].tolist()
    proxied.follow(dataclasses.replace(script, prompt_ids=larger), side_channel=False)
    _, _, through = post(proxied.url, body())
    (message,) = errors(through)
    assert "as 8 visual tokens, our copy as 6" in message
    assert through.endswith(b"data: [DONE]\n\n")


def errors(through):
    """The messages of our error events."""
    chunks = [json.loads(part[6:]) for part in through.split(b"\n\n") if part.startswith(b"data: {")]
    return [
        chunk["eyeline"]["message"] for chunk in chunks if chunk.get("eyeline", {}).get("event") == "error"
    ]


PHOTO = io.BytesIO()
picture(200, 150).save(
    PHOTO, "JPEG", exif=(lambda exif: (exif.__setitem__(0x0112, 6), exif)[1])(Image.Exif())
)


def sent_image(asked):
    part = next(part for part in asked["messages"][0]["content"] if part["type"] == "image_url")
    return Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2])))


def test_images_go_on_upright_at_a_size_that_the_processor_leaves_as_it_is(proxied, model, script_of):
    url = f"data:image/jpeg;base64,{base64.b64encode(PHOTO.getvalue()).decode()}"
    proxied.follow(script_of("llamacpp"))
    post(proxied.url, body(messages=question("How many?", url)))
    image = sent_image(proxied.written.asked[-1])
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert image.height > image.width  # it lay on its side
    ours, theirs = (
        model.inputs(each, "How many?")["pixel_values"]
        for each in (eyeline.images.open_image(PHOTO.getvalue()), image)
    )
    assert ours.equal(theirs)
    proxied.follow(script_of("llamacpp"), forward="as-is")
    post(proxied.url, body(messages=question("How many?", url)))
    assert sent_image(proxied.written.asked[-1]).format == "JPEG"


def encoded(picture: Image.Image) -> str:
    png = io.BytesIO()
    picture.save(png, "PNG")
    return base64.b64encode(png.getvalue()).decode()


UNFOLLOWED = {
    "several answers": ({"n": 2}, "n is 2"),
    "tools": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "offers tools"),
    "no image": ({"messages": [{"role": "user", "content": "Hello?"}]}, "no image"),
    "another model": ({"model": "a-lora"}, "asks for the model 'a-lora'"),
    "sound": ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "cannot read messages"),
    "a broken image": ({"messages": question("?", "data:image/png;base64,aGVsbG8=")}, "not an image"),
    "an image of which a PNG's header says too much": (
        {"messages": question("?", f"data:image/png;base64,{encoded(Image.new('RGB', (4, 4000)))}")},
        "as long as wide",
    ),
    "an image elsewhere": ({"messages": question("?", "http://example.com/a.png")}, "not fetched"),
}


@pytest.mark.parametrize("case", UNFOLLOWED)
def test_what_cannot_be_followed_goes_on_as_it_is_with_one_sentence(proxied, script_of, case):
    fields, why = UNFOLLOWED[case]
    proxied.follow(script_of("vllm"), side_channel=False)
    _, headers, through = post(proxied.url, body(**fields))
    assert proxied.written.asked[-1] == body(**fields)
    assert "x-eyeline-run" not in headers
    (message,) = errors(through)
    assert why in message
    assert message.endswith(".")
    ours = [part + b"\n\n" for part in through.split(b"\n\n") if b'"eyeline"' in part]
    assert through.replace(ours[0], b"") == post(proxied.written.url, body(**fields))[2]
    whole = json.loads(post(proxied.url, body(**fields, stream=False))[2])
    assert [event["message"] for event in whole["choices"][0]["message"]["eyeline"]] == [message]


def test_a_server_that_is_gone_is_said_to_be(proxied, script_of):
    proxied.follow(script_of("vllm"))
    proxied.app.state.proxy = dataclasses.replace(
        proxied.app.state.proxy, upstream=upstreams.Upstream(f"http://127.0.0.1:{free_port()}/v1")
    )
    status, _, content = post(proxied.url, body())
    error = json.loads(content)["error"]
    assert (status, error["code"]) == (502, "upstream_unreachable")
    assert "cannot be reached" in error["message"]


def test_a_server_that_breaks_off_an_answer_that_is_not_streamed_is_said_to(proxied, script_of):
    proxied.follow(script_of("vllm"))
    with socket.create_server(("127.0.0.1", 0)) as breaking:

        def answer():
            connection = breaking.accept()[0]
            connection.recv(2**20)
            head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
            connection.sendall(head.encode())
            connection.close()

        there = upstreams.Upstream(f"http://127.0.0.1:{breaking.getsockname()[1]}/v1")
        proxied.app.state.proxy = dataclasses.replace(proxied.app.state.proxy, upstream=there)
        for ask in (lambda: post(proxied.url, b"{}")[::2], lambda: get(proxied.url, "/models")):
            thread = threading.Thread(target=answer)
            thread.start()
            status, content = ask()
            thread.join()
            assert (status, json.loads(content)["error"]["code"]) == (502, "upstream_unreachable")


def test_other_paths_go_through_and_the_models_list_says_what_is_followed(proxied, script_of):
    proxied.follow(script_of("vllm"))
    assert post(proxied.url, b'{"input": 1}', "/embeddings?a=b")[2] == b'echo /v1/embeddings?a=b {"input": 1}'
    (entry,) = json.loads(get(proxied.url, "/models")[1])["data"]
    followed = entry["eyeline"]
    assert (entry["id"], followed["estimator"], followed["unit"]) == (NAME, "general", "relative")


def test_thirty_two_answers_at_once_lose_nothing(proxied, model, script_of):
    script = script_of("vllm", 8, after=dict.fromkeys(range(20), 0.01))
    proxied.follow(script)
    direct, found = post(proxied.written.url, body())[2], []
    threads = [threading.Thread(target=lambda: found.append(post(proxied.url, body()))) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [through for _, _, through in found] == [direct] * 32
    for _, headers, _ in found:
        assert_attributed(model, proxied.run_of(headers), script.ids)


def test_nothing_that_the_client_gets_waits_for_our_copy(proxied, script_of):
    """Events reach it as they come from the server, and the answer is there before our copy has read it."""
    script = script_of("vllm", 2)
    proxied.follow(script)
    began = time.perf_counter()
    post(proxied.written.url, body())
    direct = time.perf_counter() - began
    release = threading.Event()
    engine = proxied.app.state.proxy.desk.engine
    sending = engine.send

    async def held(**values):
        if values["op"] == "push":
            await asyncio.to_thread(release.wait, 20)
        await sending(**values)

    engine.send = held
    try:
        began = time.perf_counter()
        _, headers, through = post(proxied.url, body())
        took = time.perf_counter() - began
    finally:
        release.set()
        engine.send = sending
    assert through.endswith(b"data: [DONE]\n\n")
    assert took < direct + 2
    assert proxied.run_of(headers)[-1].tokens == len(script.ids)


def test_images_are_decoded_by_their_url(proxied, script_of):
    proxied.follow(script_of("vllm"))
    assert post(proxied.url, body(messages=question("How many?", data_url(kind="JPEG"))))[0] == 200
