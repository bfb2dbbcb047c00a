"""The running server, as its clients see it."""

import json
import os
import signal
import threading

import openai
import pytest
import server_process
from conftest import picture
from server_process import data_url, events_of, eventually, question, running

import eyeline
from eyeline.events import SpanAttribution, Text, from_json
from eyeline.vocabulary import Vocabulary


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


def test_ids_and_log_probs_come_as_vllm_sends_them_with_each_part_of_the_text(client, model_folder):
    asked = {
        "model": client.models.list().data[0].id, "messages": question(), "max_tokens": 24, "temperature": 0,
        "logprobs": True, "top_logprobs": 2, "extra_body": {"return_token_ids": True},
    }  # fmt: skip
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    model = eyeline.load(model_folder)
    prompt = model.inputs(picture(), "How many?")["input_ids"][0].tolist()
    assert whole.prompt_token_ids == chunks[0].prompt_token_ids == prompt
    assert not any(hasattr(chunk, "prompt_token_ids") for chunk in chunks[1:])
    ids = [token_id for chunk in chunks for token_id in chunk.choices[0].token_ids]
    assert ids == whole.choices[0].token_ids
    assert len(ids) == 24
    entries = [each for chunk in chunks if (said := chunk.choices[0].logprobs) for each in said.content]
    assert len(entries) == len(whole.choices[0].logprobs.content) == 24
    for entry in entries:  # greedy
        assert entry.logprob == entry.top_logprobs[0].logprob > entry.top_logprobs[1].logprob
        assert entry.bytes == entry.top_logprobs[0].bytes
    spans = [chunk.eyeline for chunk in chunks[:-1] if chunk.eyeline["event"] == "span"]
    for span in spans:
        total = sum(entry.logprob for entry in entries[span["start"] : span["end"]])
        assert span["log_prob"] == pytest.approx(total, abs=1e-3)
    vocabulary = Vocabulary(model.tokenizer)
    assert [vocabulary.id_of(bytes(entry.bytes)) for entry in entries] == ids


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
    assert server_process.token_ids(killed) == server_process.token_ids(whole) != []
    ours, theirs = events_of(killed), events_of(whole)
    texts = [[event for event in events if isinstance(event, Text)] for events in (ours, theirs)]
    assert texts[0] == texts[1]
    spans = [[event for event in events if isinstance(event, SpanAttribution)] for events in (ours, theirs)]
    assert_same_spans(*spans)
    assert server.metric("eyeline_model_restarts_total") == restarts + 1


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
