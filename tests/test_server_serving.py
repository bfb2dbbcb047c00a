"""Where the server listens, who may ask, and how it stops."""

import asyncio
import json
import signal
import socket

import openai
import pytest
import uvicorn
from click.testing import CliRunner
from server_process import events_of, eventually, free_port, question, running

from eyeline.cli import main
from eyeline.errors import EyelineError
from eyeline.events import Done
from eyeline.server.serving import _Server, bind


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


def test_a_folder_that_another_server_keeps_its_runs_in_is_left_to_it(server):
    begun = server.data / "runs" / "run-that-is-not-listed-yet"
    begun.mkdir()
    told = refuse("--port", str(free_port()), "--data", str(server.data))
    assert "another server keeps its runs there" in told
    begun.rmdir()


def test_a_server_that_is_asked_for_attention_shows_attention_and_says_so(model_folder, tmp_path):
    with running(model_folder, tmp_path, "--estimator", "attention") as server:
        start, *events = server.ask().json["choices"][0]["message"]["eyeline"]
        (entry,) = server.call("GET", "/v1/models").json["data"]
    assert (start["estimator"], start["unit"]) == (None, "attention")
    assert (entry["eyeline"]["estimator"], entry["eyeline"]["unit"]) == (None, "attention")
    spans = [event for event in events if event["event"] == "span"]
    assert spans
    assert all(
        span["interval"] is None and sum(span["effects"]) == pytest.approx(1, abs=1e-5) for span in spans
    )
