"""What following costs the client of a server that writes at a fixed pace, and whether attribution keeps up; over the loopback.

The server plays the embedded model's own answers to drawn scenes in vLLM's shape, a token a chunk. Each question is asked of it
directly and through `eyeline follow`, in turn. Nothing else may run meanwhile.
"""

import base64
import http.client
import io
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click

from eyeline import load
from eyeline.evaluation.command_options import TABLE
from eyeline.evaluation.results import write_csv, writing
from eyeline.scenes import sample

FIRST_SEED = 7_200_000  # of the scenes: tuning seeds
NAME = "qwen3-vl-mini"


@dataclass(frozen=True, slots=True)
class Row:
    """One number."""

    measure: str
    value: float


@dataclass(eq=False)
class Paced:
    """What the server plays, and when it sent each chunk."""

    pace: float  # tokens a second
    prompt_ids: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)


def serve(paced: Paced) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_GET(self) -> None:
            self._head("application/json", True)
            self._piece(json.dumps({"data": [{"id": NAME, "owned_by": "vllm"}]}).encode())
            self._piece(b"")

        def do_POST(self) -> None:
            wants = json.loads(self.rfile.read(int(self.headers["content-length"]))).get("return_token_ids")
            self._head("text/event-stream", True)
            paced.sent.clear()
            began = time.perf_counter()
            self._event({"role": "assistant"}, None, prompt_token_ids=paced.prompt_ids if wants else None)
            for number, token_id in enumerate(paced.ids, start=1):
                time.sleep(max(0.0, began + number / paced.pace - time.perf_counter()))
                last = number == len(paced.ids)
                self._event({"content": "x"}, [token_id] if wants else None, "stop" if last else None)
            self._piece(b"data: [DONE]\n\n")
            self._piece(b"")

        def _head(self, kind: str, chunked: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()

        def _event(self, delta: Any, ids: Any, finish: str | None = None, **more: Any) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish, "token_ids": ids}
            paced.sent.append(time.perf_counter())
            self._piece(b"data: " + json.dumps({"id": "1", "choices": [choice], **more}).encode() + b"\n\n")

        def _piece(self, content: bytes) -> None:
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            self.wfile.flush()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client saw of one answer: times of the server's chunks, and of our spans with their end."""

    asked: float
    chunks: list[float]
    spans: list[tuple[float, int]]


def ask(port: int, body: Any) -> Heard:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=600)) as connection:
        content, asked = json.dumps(body), time.perf_counter()
        connection.request("POST", "/v1/chat/completions", content, {"Content-Type": "application/json"})
        chunks, spans = [], []
        for line in connection.getresponse():
            if line.startswith(b"data: {"):
                now, event = time.perf_counter(), json.loads(line[6:]).get("eyeline")
                if event is None:
                    chunks.append(now)
                elif event["event"] == "span":
                    spans.append((now, event["end"]))
    return Heard(asked, chunks, spans)


def in_time(heard: Heard) -> list[bool]:
    """Of each span but the last, whether its attribution was there before the next one ended."""
    ends = [heard.chunks[end] for _, end in heard.spans]  # the first chunk holds no token
    return [when < after for (when, _), after in zip(heard.spans[:-1], ends[1:], strict=True)]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@click.command()
@TABLE
@click.option(
    "--pace", type=float, default=100, show_default=True, help="Tokens a second that the server writes."
)
@click.option("--questions", type=int, default=20, show_default=True, help="Number of questions.")
def main(out: Path, pace: float, questions: int) -> None:
    """Measure time to the first byte, lateness of chunks, throughput and how far attribution lags."""
    command = [sys.executable, "-m", "eyeline", "follow", "--model", "mini"]
    with writing(out, figure=False), tempfile.TemporaryDirectory() as data:
        model, paced, port = load("mini"), Paced(pace), free_port()
        server = serve(paced)
        url = f"http://127.0.0.1:{server.server_port}/v1"
        follow = subprocess.Popen(
            [*command, "--port", str(port), "--base-url", url, "--data", data, "--linger", "60"]
        )
        try:
            wait_for(port)
            first, late, rates, kept = [], [], [], []
            for number in range(questions):
                scene = sample("math", FIRST_SEED + number)
                stream = model.stream(scene.image, scene.prompt, temperature=0, max_new_tokens=512)
                list(stream)
                paced.ids = stream.ids
                paced.prompt_ids = model.inputs(scene.image, scene.prompt)["input_ids"][0].tolist()
                body = {"messages": turn(scene), "stream": True}
                direct, through = ask(server.server_port, body), ask(port, body)
                first.append((through.chunks[0] - through.asked) - (direct.chunks[0] - direct.asked))
                late += [came - sent for came, sent in zip(through.chunks, paced.sent, strict=True)]
                spent = [each.chunks[-1] - each.chunks[0] for each in (direct, through)]
                rates.append(spent[0] / spent[1])
                kept += in_time(through)
        finally:
            follow.terminate()
            follow.wait()
            server.shutdown()
        rows = [
            Row("first byte later, median ms", 1e3 * statistics.median(first)),
            Row("chunk late, most ms", 1e3 * max(late)),
            Row("chunk late, median ms", 1e3 * statistics.median(late)),
            Row("throughput, least share", min(rates)),
            Row("spans attributed before the next ends, share", sum(kept) / len(kept)),
            Row("spans", len(kept)),
        ]
        write_csv(Row, rows, out)


def turn(scene: Any) -> list[Any]:
    encoded = io.BytesIO()
    scene.image.save(encoded, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": scene.prompt}]
    return [{"role": "user", "content": parts}]


def wait_for(port: int) -> None:
    for _ in range(1200):
        with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    raise SystemExit("the proxy did not start")


if __name__ == "__main__":
    main()
