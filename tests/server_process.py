"""A real `eyeline serve` in a process of its own, over a tiny model with random weights; a plugin, for its fixtures."""

import base64
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import build_tiny, picture

from eyeline.events import Event, from_json

CONTEXT = 16384  # tokens: generation without a limit outlasts any test


def data_url(image=None, kind: str = "PNG") -> str:
    encoded = io.BytesIO()
    (image or picture()).save(encoded, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(encoded.getvalue()).decode()}"


def question(text: str = "How many?", *urls: str) -> list[dict[str, Any]]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in (urls or (data_url(),))]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    port: int
    process: subprocess.Popen
    data: Path
    log: Path
    key: str | None = None
    gone: bool = False  # once it went away, the browser tells of lost connections

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self, method: str, path: str, body: Any = None, **headers: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        if content is not None:
            headers = {"Content-Type": "application/json", **headers}
        if self.key is not None:
            headers = {"Authorization": f"Bearer {self.key}", **headers}
        connection.request(method, path, content, headers)
        return connection

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        with contextlib.closing(self.open(method, path, body, **headers)) as connection:
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())

    def ask(self, **fields: Any) -> Answer:
        fields = {"messages": question(), "max_tokens": 16, "temperature": 0, **fields}
        return self.call("POST", "/v1/chat/completions", fields)

    def stream(self, path: str = "/v1/chat/completions", **fields: Any) -> Iterator[Any]:
        """What each `data:` line holds; comments are left out."""
        if path.endswith("completions"):
            fields = {"messages": question(), "max_tokens": 16, "temperature": 0, "stream": True, **fields}
        connection = self.open("POST", path, fields)
        try:
            response = connection.getresponse()
            assert response.status == 200, response.read()
            for line in response:
                if line.startswith(b"data: "):
                    data = line[6:].strip()
                    yield data.decode() if data == b"[DONE]" else json.loads(data)
        finally:
            connection.sock.close() if connection.sock else None
            connection.close()

    def metric(self, name: str) -> float:
        for line in self.call("GET", "/metrics").body.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        raise KeyError(name)

    def model_process(self) -> int:
        """The id of the process that holds the model: the server's child that has most memory."""
        children = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.process.pid:
                    children.append((int(fields[21]), int(path.parent.name)))
        return max(children)[1]


def token_ids(chunks) -> list[int]:
    """The ids of a streamed answer, which each chunk has a part of."""
    choices = [choice for chunk in chunks if isinstance(chunk, dict) for choice in chunk.get("choices", ())]
    return [token_id for choice in choices for token_id in choice["token_ids"]]


def eventually(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(
    model: Path, data: Path, *options: str, key: str | None = None, command: str = "serve"
) -> Iterator[Server]:
    port = free_port()
    data.mkdir(parents=True, exist_ok=True)
    log = data / "log.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **({"EYELINE_API_KEY": key} if key else {})}
    program = [sys.executable, "-m", "eyeline", command, "--model", str(model), "--port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*program, "--data", str(data), "--grace", "2", *options],
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    server = Server(port, process, data, log, key)
    try:
        for _ in range(1200):
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError):
                if server.call("GET", "/healthz").status == 200:
                    break
            time.sleep(0.1)
        yield server
    finally:
        server.gone = True
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                process.kill()


def events_of(chunks) -> list[Event]:
    return [
        from_json(json.dumps(chunk["eyeline"]))
        for chunk in chunks
        if isinstance(chunk, dict) and "eyeline" in chunk
    ]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("server") / "model"
    model = build_tiny("qwen3_vl", max_position_embeddings=CONTEXT)
    for part in (model.hf, model.tokenizer, model.image_processor):
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def server(model_folder, tmp_path_factory) -> Iterator[Server]:
    with running(model_folder, tmp_path_factory.mktemp("data")) as server:
        yield server


@pytest.fixture(scope="module")
def saved(server) -> dict[str, Any]:
    """An answer whose run is kept."""
    return server.ask(max_tokens=40, eyeline={"save": True}, return_token_ids=True).json
