"""Servers that others write, played from a script: what vLLM, SGLang, llama.cpp, Ollama and plainer ones send for one trace."""

import contextlib
import dataclasses
import http.client
import json
import threading
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DONE = b"data: [DONE]\n\n"
BREAK = object()  # the connection breaks here


@dataclasses.dataclass
class Script:
    """A trace, and how it is told."""

    kind: str  # `owned_by`
    name: str  # of the model
    prompt_ids: list[int]
    steps: list[tuple[list[int], str, str]]  # ids, thinking and answer text that are sent together
    bytes_of: Any  # of an id
    finish: str = "stop"
    log_probs: list[float] = dataclasses.field(default_factory=list)  # of each id
    before: bytes = b""  # each event
    after: dict[int, Any] = dataclasses.field(default_factory=dict)  # step -> bytes, seconds, or BREAK
    squeezed: bool = False  # whether it is gzip, whatever was asked
    size: int | None = None  # of the pieces that the bytes are sent in
    exact: list[int] | None = None  # ids told at the end, if they are not those of the steps

    def before_step(self, number: int) -> int:
        """Ids told before."""
        return sum(len(ids) for ids, _, _ in self.steps[:number])

    @property
    def ids(self) -> list[int]:
        return [token_id for ids, _, _ in self.steps for token_id in ids]


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _event(script: Script, value: Any) -> bytes:
    return script.before + f"data: {_dump(value)}\n\n".encode()


def _entries(script: Script, ids: list[int], start: int, **of_id: Any) -> dict[str, Any]:
    content = []
    for token_id, log_prob in zip(ids, script.log_probs[start:], strict=False):
        raw = script.bytes_of(token_id)
        entry = {
            "token": raw.decode("utf-8", "replace"),
            "logprob": log_prob,
            "bytes": list(raw),
            "top_logprobs": [],
        }
        content.append({**entry, **{name: make(token_id) for name, make in of_id.items()}})
    return {"content": content}


def _chunk(script: Script, choices: list[Any], **more: Any) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": script.name}
    return {**head, "choices": choices, **more}


def vllm(script: Script, asked: dict[str, Any]) -> Iterator[Any]:
    wants_ids, wants_log_probs = bool(asked.get("return_token_ids")), bool(asked.get("logprobs"))
    role = {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": None,
    }
    yield _event(script, _chunk(script, [role], prompt_token_ids=script.prompt_ids if wants_ids else None))
    for number, (ids, thinking, text) in enumerate(script.steps):
        last = number == len(script.steps) - 1
        delta = {**({"reasoning": thinking} if thinking else {}), **({"content": text} if text else {})}
        log_probs = _entries(script, ids, script.before_step(number)) if wants_log_probs and ids else None
        if delta or last or wants_ids:
            choice = {
                "index": 0, "delta": delta, "logprobs": log_probs,
                "finish_reason": script.finish if last else None, **({"stop_reason": None} if last else {}),
                "token_ids": ids if wants_ids else None,
            }  # fmt: skip
            yield _event(script, _chunk(script, [choice]))
        if number in script.after:
            yield script.after[number]
    if (asked.get("stream_options") or {}).get("include_usage"):
        yield _event(script, _chunk(script, [], usage=_usage(script)))
    yield DONE


def _usage(script: Script) -> dict[str, int]:
    prompt, written = len(script.prompt_ids), len(script.ids)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def sglang(script: Script, asked: dict[str, Any]) -> Iterator[Any]:
    if asked.get("return_token_ids"):
        yield (
            400,
            _dump({"error": {"message": "return_token_ids is not supported with streaming", "code": 400}}),
        )
        return
    yield _event(script, _chunk(script, [_choice({"role": "assistant", "content": ""})]))
    for number, (ids, thinking, text) in enumerate(script.steps):
        shown = ids[:-1] if number == len(script.steps) - 1 else ids  # the end token has no entry
        delta = {
            **({"reasoning_content": thinking} if thinking else {}),
            **({"content": text} if text else {}),
        }
        yield _event(
            script,
            _chunk(
                script,
                [
                    _choice(
                        delta,
                        _entries(script, shown, script.before_step(number))
                        if asked.get("logprobs")
                        else None,
                    )
                ],
            ),
        )
        if number in script.after:
            yield script.after[number]
    yield _event(script, _chunk(script, [_choice({}, None, script.finish)]))
    if asked.get("return_output_ids_in_sglext"):
        told = {"input_ids": script.prompt_ids, "output_ids": script.exact or script.ids}
        yield _event(script, _chunk(script, [], sglext=told))
    yield DONE


def _choice(delta: dict[str, Any], log_probs: Any = None, finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": log_probs, "finish_reason": finish}


def llamacpp(script: Script, asked: dict[str, Any]) -> Iterator[Any]:
    for number, (ids, thinking, text) in enumerate(script.steps):
        delta = {
            **({"reasoning_content": thinking} if thinking else {}),
            **({"content": text} if text else {}),
        }
        choice = {"finish_reason": None, "index": 0, "delta": delta}
        if asked.get("logprobs"):
            choice["logprobs"] = _entries(
                script, ids, script.before_step(number), id=lambda token_id: token_id
            )
        yield _event(script, _chunk(script, [choice], timings={"n": number}))
        if number in script.after:
            yield script.after[number]
    yield _event(script, _chunk(script, [{"finish_reason": script.finish, "index": 0, "delta": {}}]))
    yield DONE


def plain(script: Script, asked: dict[str, Any]) -> Iterator[Any]:
    if asked.get("logprobs") or asked.get("return_token_ids"):
        yield 400, _dump({"error": {"message": "unknown field", "code": "unknown"}})
        return
    for number, (_, thinking, text) in enumerate(script.steps):
        delta = {**({"reasoning": thinking} if thinking else {}), **({"content": text} if text else {})}
        if delta:
            yield _event(script, _chunk(script, [{"index": 0, "delta": delta, "finish_reason": None}]))
        if number in script.after:
            yield script.after[number]
    yield _event(script, _chunk(script, [{"index": 0, "delta": {}, "finish_reason": script.finish}]))
    yield DONE


WRITERS = {"vllm": vllm, "sglang": sglang, "llamacpp": llamacpp, "library": plain}


def completion(script: Script, asked: dict[str, Any]) -> dict[str, Any]:
    """vLLM's, not streamed."""
    wants_ids = bool(asked.get("return_token_ids"))
    said = {
        name: "".join(step[at] for step in script.steps) for name, at in (("reasoning", 1), ("content", 2))
    }
    choice = {
        "index": 0, "message": {"role": "assistant", **said}, "finish_reason": script.finish,
        "logprobs": _entries(script, script.ids, 0) if asked.get("logprobs") else None,
        "token_ids": script.ids if wants_ids else None,
    }  # fmt: skip
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": script.name}
    prompt = script.prompt_ids if wants_ids else None
    return {**head, "choices": [choice], "usage": _usage(script), "prompt_token_ids": prompt, "kv": None}


class Listening(ThreadingHTTPServer):
    request_queue_size = (
        128  # connections that may wait at once, as a real server has; Python's five are reset in a burst
    )


class Upstream:
    """One server after the other, by its `script`; `asked` are the bodies of the questions, `left` whether a client went."""

    def __init__(self) -> None:
        self.script: Script
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.left = threading.Event()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                return

            def do_GET(self) -> None:
                if self.path != "/v1/models":
                    return self.answer(404, b"{}")
                models = [{"id": upstream.script.name, "object": "model", "owned_by": upstream.script.kind}]
                self.answer(200, _dump({"object": "list", "data": models}).encode())

            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length") or 0))
                upstream.headers.append(dict(self.headers))
                if not self.path.endswith("/chat/completions"):
                    return self.answer(200, b"echo " + self.path.encode() + b" " + content)
                asked = json.loads(content)
                upstream.asked.append(asked)
                script = upstream.script
                if not asked.get("stream"):
                    return self.answer(200, _dump(completion(script, asked)).encode())
                try:
                    self.stream(script, WRITERS[script.kind](script, asked))
                except OSError:
                    self.close_connection = True
                    upstream.left.set()

            def answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def stream(self, script: Script, parts: Iterator[Any]) -> None:
                started, squeezing = False, zlib.compressobj(wbits=31)
                for part in parts:
                    if isinstance(part, tuple):
                        return self.answer(part[0], part[1].encode())
                    if not started:
                        started = True
                        self.send_response(200)
                        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
                        self.send_header("Transfer-Encoding", "chunked")
                        if script.squeezed:
                            self.send_header("Content-Encoding", "gzip")
                        self.end_headers()
                    if part is BREAK:
                        self.close_connection = True
                        return self.connection.close()
                    if isinstance(part, float):
                        time.sleep(part)
                        continue
                    content = part
                    if script.squeezed:
                        content = squeezing.compress(part) + squeezing.flush(zlib.Z_SYNC_FLUSH)
                    size = script.size or len(content)
                    for start in range(0, len(content), size):
                        piece = content[start : start + size]
                        self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                        self.wfile.flush()
                self.wfile.write(b"0\r\n\r\n")

        self.server = Listening(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> "Upstream":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def get(url: str, path: str) -> tuple[int, bytes]:
    host = url.removeprefix("http://").removesuffix("/v1")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=60)) as connection:
        connection.request("GET", f"/v1{path}")
        response = connection.getresponse()
        return response.status, response.read()


def post(url: str, body: Any, path: str = "/chat/completions") -> tuple[int, dict[str, str], bytes]:
    """Status, headers and all bytes that come, also where the connection breaks."""
    host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
    with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=60)) as connection:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", f"/v1{path}", content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        parts = []
        with contextlib.suppress(http.client.IncompleteRead, OSError):
            while part := response.read1(65536):
                parts.append(part)
        return response.status, {k.lower(): v for k, v in response.getheaders()}, b"".join(parts)
