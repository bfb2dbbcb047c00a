"""A scripted server for the page: the API of docs/server.md over one run that is given, in no more than it takes.

A stream stops before `gate` events until `go` is called, so that a test can look at the page in the middle. `cuts` says
after how many events a path's connection is lost, once. Between `vanish` and `come_back` nothing listens at all.
"""

import io
import json
import select
import socket
import threading
from dataclasses import asdict, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from urllib.parse import parse_qs, urlsplit

from eyeline.events import NAMES, Done, Event, SpanAttribution, Text
from eyeline.film import render_film
from eyeline.report import render_report
from eyeline.runs import Run

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'"
)
KINDS = {
    "js": "text/javascript",
    "css": "text/css",
    "svg": "image/svg+xml",
    "html": "text/html; charset=utf-8",
}


class PageServer:
    """Serves the page on a free port of the loopback: `with PageServer(run) as server: server.url`."""

    def __init__(
        self, run: Run, *, key: str | None = None, gate: int | None = None, cuts: dict[str, int] | None = None,
        limits: dict[str, int] | None = None,
    ):  # fmt: skip
        self.run, self.key, self.gate, self.cuts = run, key, gate, cuts or {}
        self.limits = {"images": 16, "pixels": 50_000_000, "body": 32 * 2**20} | (limits or {})
        self.saved: dict[str, Run] = {}
        self.audit: dict[str, object] = {"on": False}
        self.asked: list[dict] = []  # bodies of questions, in order
        self.kept: int | None = None  # how many events of the next question are saved; all of them
        self.gone = False  # once it went away or cut a stream, the browser tells of lost connections
        self.left = threading.Event()  # a client went away in the middle of a stream
        self._go = threading.Event()
        self._listen(0)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _listen(self, port: int) -> None:
        handler = type("Handler", (Handler,), {"server_of": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)

    def go(self) -> None:
        self._go.set()

    def went(self, seconds: float) -> bool:
        """Whether `go` was called, after so many seconds at most."""
        return self._go.wait(seconds)

    def vanish(self) -> None:
        self.gone = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def come_back(self) -> None:
        self._listen(self._server.server_port)
        self._serve()

    def _serve(self) -> None:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> "PageServer":
        self._serve()
        return self

    def __exit__(self, *_: object) -> None:
        self.go()
        self.vanish()


class Handler(BaseHTTPRequestHandler):
    server_of: PageServer

    def do_GET(self) -> None:
        server, path = self.server_of, urlsplit(self.path).path
        parts = path.strip("/").split("/")
        if path == "/" or parts[0] == "static":
            name = parts[1] if path != "/" else "index.html"
            content = files("eyeline").joinpath("server", "static", name).read_bytes()
            return self._send(content, KINDS[name.rsplit(".")[-1]])
        if self._refused():
            return None
        match parts:
            case ["v1", "models"]:
                self._json({"data": [{"id": "scripted", "eyeline": {"limits": server.limits}}]})
            case ["v1", "audit"]:
                self._json(server.audit)
            case ["v1", "gallery"]:
                self._json(
                    {
                        "scenes": [
                            {"id": "a", "family": "math", "prompt": "How far?", "image": "/v1/gallery/a.png"}
                        ]
                    }
                )
            case ["v1", "gallery", _]:
                self._send(_png(server.run, 0), "image/png")
            case ["v1", "runs"]:
                query = parse_qs(urlsplit(self.path).query).get("query", [""])[0]
                found = [id for id, run in server.saved.items() if query.lower() in run.prompt.lower()]
                self._json({"runs": [self._about(id) for id in reversed(found)], "next": None})
            case ["v1", "runs", id] if id in server.saved:
                run = server.saved[id]
                images = [f"/v1/runs/{id}/images/{i}" for i in range(len(run.images))]
                self._json(
                    self._about(id) | {"events": [_event(event) for event in run.events], "images": images}
                )
            case ["v1", "runs", id, "images", number] if id in server.saved:
                self._send(_png(server.saved[id], int(number)), "image/png")
            case ["v1", "runs", id, "report.html"] if id in server.saved:
                self._send(render_report(server.saved[id]).encode("utf-8", "replace"), KINDS["html"])
            case ["v1", "runs", id, "events.jsonl"] if id in server.saved:
                lines = [json.dumps(_event(event)) for event in server.saved[id].events]
                self._send("\n".join(lines).encode(), "application/jsonl")
            case ["v1", "runs", id, "gaze.gif"] if id in server.saved:
                self._send(render_film(server.saved[id]), "image/gif")
            case _:
                self._error(404, f"There is nothing at {path}.")

    def do_DELETE(self) -> None:
        if not self._refused():
            self.server_of.saved.pop(self.path.rsplit("/", 1)[-1])
            self._json({"deleted": True})

    def do_POST(self) -> None:
        server = self.server_of
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._refused():
            return
        if self.path == "/v1/chat/completions":
            server.asked.append(body)
            id = f"run-{len(server.saved)}"
            prompt = body["messages"][-1]["content"][-1]["text"]
            kept, server.kept = server.kept, None
            server.saved[id] = Run(prompt, server.run.images, server.run.events[:kept])
            self._stream(_chunks(id, server.run.events), server.gate)
        elif self.path == "/v1/ask-without":
            events = [_answers_seven(event) for event in server.run.events]
            self._stream(_chunks("run-without", events), None)
        elif self.path == "/v1/verify":
            spans = [event for event in server.run.events if isinstance(event, SpanAttribution)]
            span = next(span for span in spans if span.index == body["span"])
            order = sorted(range(len(span.effects)), key=lambda k: -abs(span.effects[k]))
            lines: list[dict] = [{"event": "baseline", "log_prob": span.log_prob, "total": len(order)}]
            for done, k in enumerate(order, start=1):
                lines.append(
                    {"event": "region", "region": k, "predicted": span.effects[k], "actual": 0.5 * span.effects[k],
                     "rank_agreement": None if done < 3 else 0.83, "done": done, "total": len(order)}
                )  # fmt: skip
            self._stream([*lines, {"event": "done", "rank_agreement": 0.83}], None)

    def _stream(self, chunks: list[dict], gate: int | None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        cut = self.server_of.cuts.pop(self.path, None)
        try:
            self.wfile.write(b": waiting, 0 before you\n\n")
            for number, chunk in enumerate(chunks):
                if number == gate and not self._may_go():
                    self.server_of.left.set()
                    return
                if number == cut:
                    self.server_of.gone = True
                    return
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.flush()
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.server_of.left.set()

    def _may_go(self) -> bool:
        """Waits for `go`; false once the client has gone, which writing alone would tell late or never."""
        for _ in range(600):
            if self.server_of.went(0.05):
                break
            readable, _, _ = select.select([self.connection], [], [], 0)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return False
        return True

    def _about(self, id: str) -> dict:
        run = self.server_of.saved[id]
        answer = "".join(e.text for e in run.events if isinstance(e, Text) and e.channel == "answer")
        return {"id": id, "prompt": run.prompt, "model": "scripted", "created": 1764050000, "answer": answer,
                "images": len(run.images), "reason": "eos"}  # fmt: skip

    def _refused(self) -> bool:
        key = self.server_of.key
        if key is None or self.headers["Authorization"] == f"Bearer {key}":
            return False
        self._error(401, "The API key is wrong or missing.")
        return True

    def _json(self, value: object) -> None:
        self._send(json.dumps(value).encode(), "application/json")

    def _error(self, status: int, message: str) -> None:
        self._send(json.dumps({"error": {"message": message}}).encode(), "application/json", status)

    def _send(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", CSP)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _chunks(id: str, events: "list[Event] | tuple[Event, ...]") -> list[dict]:
    return [{"id": id, "choices": [{"index": 0, "delta": {}}], "eyeline": _event(event)} for event in events]


def _event(event: Event) -> dict:
    return {"event": NAMES[type(event)], **asdict(event)}


def _answers_seven(event: Event) -> Event:
    """The same run with another answer."""
    if isinstance(event, Text | SpanAttribution | Done) and getattr(event, "channel", "answer") == "answer":
        field = "answer" if isinstance(event, Done) else "text"
        return replace(event, **{field: getattr(event, field).replace("7", "9")})
    return event


def _png(run: Run, number: int) -> bytes:
    png = io.BytesIO()
    run.images[number].save(png, "PNG")
    return png.getvalue()
