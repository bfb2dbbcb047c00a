"""The server under load, and what it costs beside the library: bounded, over the loopback.

Clients ask drawn scenes with fixed seeds; some leave mid-stream, some read a byte a second for a while, and the model's
process is killed once. Every finished answer is compared with the same question asked alone. Nothing else may run meanwhile.
"""

import base64
import http.client
import io
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from eyeline import load
from eyeline.evaluation.command_options import MODEL, TABLE
from eyeline.evaluation.results import write_csv, writing
from eyeline.events import Done
from eyeline.scenes import FAMILIES, sample

FIRST_SEED = 7_100_000  # of the scenes: tuning seeds
QUESTIONS = 10  # different ones
SECONDS = 600  # for one answer, at most
SLOW_SECONDS = 5  # that a slow client reads a byte a second; then it reads on as it can


@dataclass(frozen=True, slots=True)
class Row:
    """One number."""

    measure: str
    value: float | int


@dataclass(frozen=True, slots=True)
class Served:
    """A server in a process of its own."""

    port: int
    process: subprocess.Popen

    def children(self) -> list[int]:
        """Process ids of its children, the one with most memory first: that holds the model."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.process.pid:
                    found.append((int(fields[21]), int(path.parent.name)))
        return [number for _, number in sorted(found, reverse=True)]

    def memory(self) -> float:
        """Resident MiB of the server and its children."""
        pages = 0
        for number in (self.process.pid, *self.children()):
            with suppress(OSError):
                pages += int(Path(f"/proc/{number}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def serving(model: str, module: str = "eyeline", options: Sequence[str] = ()) -> Iterator[Served]:
    """A server of the model on a free port; `module` is what runs as `eyeline`, and `options` may name another data folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as data:
        command = [
            sys.executable,
            "-m",
            module,
            "serve",
            "--model",
            model,
            "--port",
            str(port),
            "--data",
            data,
            *options,
        ]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                with suppress(OSError):
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    with closing(connection):
                        connection.request("GET", "/healthz")
                        if connection.getresponse().status == 200:
                            break
                time.sleep(0.1)
            if process.poll() is not None:
                raise click.ClickException("The server did not start; `eyeline serve` tells why.")
            yield Served(port, process)
        finally:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)
            process.kill()


def bodies(tokens: int) -> list[bytes]:
    """Different questions, half of them sampled, each with its own seed."""
    made = []
    for number in range(QUESTIONS):
        example = sample(list(FAMILIES)[number % len(FAMILIES)], FIRST_SEED + number)
        png = io.BytesIO()
        image: Any = example.image
        image.save(png, "PNG")
        url = f"data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": example.prompt}]
        fields = {
            "messages": [{"role": "user", "content": parts}],
            "stream": True,
            "return_token_ids": True,
            "max_tokens": tokens,
            "temperature": number % 2,
            "seed": number,
        }
        made.append(json.dumps(fields).encode())
    return made


@dataclass(frozen=True, slots=True)
class Heard:
    """What a client got: of a whole answer the ids, the text and the effects of each span."""

    whole: bool
    text: str = ""
    ids: tuple[int, ...] = ()
    spans: tuple[tuple[int, int, int], ...] = ()  # index, start, end
    effects: tuple[float, ...] = ()  # of all spans' regions
    arrivals: tuple[float, ...] = ()  # seconds since the request, one for each event with text

    def agrees(self, other: "Heard") -> bool:
        """The same answer; effects up to rounding, which differs with where a process has its memory."""
        same = (self.text, self.ids, self.spans) == (other.text, other.ids, other.spans)
        return same and np.allclose(self.effects, other.effects, rtol=1e-4, atol=1e-4)


def ask(port: int, body: bytes, *, leave_after: int | None = None, slow: bool = False) -> Heard:
    """One streamed question. Raises `OSError` or `RuntimeError` where the answer is lost."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with closing(connection):
        began = time.perf_counter()
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise RuntimeError(f"status {response.status}")
        start = b""
        for _ in range(SLOW_SECONDS if slow else 0):
            start += response.read(1)
            time.sleep(1)
        text, spans, effects, arrivals, events, rest = "", [], [], [], 0, start
        ids: list[int] = []
        for line in response:
            line, rest = rest + line, b""
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                return Heard(True, text, tuple(ids), tuple(spans), tuple(effects), tuple(arrivals))
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise RuntimeError(chunk["error"]["message"])
            event = chunk.get("eyeline", {})
            events += 1
            if event.get("event") == "text":
                text += event["text"]
                arrivals.append(time.perf_counter() - began)
            elif event.get("event") == "span":
                spans.append((event["index"], event["start"], event["end"]))
                effects += event["effects"]
            ids += chunk["choices"][0]["token_ids"] if chunk["choices"] else []
            if leave_after is not None and events >= leave_after:
                return Heard(False)
    raise RuntimeError("the stream ended before its end")


def under_load(served: Served, asked: Sequence[bytes], requests: int, clients: int) -> dict[str, float]:
    """Many clients at once; how many answers were lost, differ from those asked alone, and what it did to memory."""
    alone = [ask(served.port, body) for body in asked]
    rng = random.Random(0)
    plans = [(rng.random(), rng.randrange(1, 40), number % len(asked)) for number in range(requests)]
    counts = {"whole": 0, "left": 0, "lost": 0, "different": 0}
    memory: list[float] = []
    lock = threading.Lock()

    def one(number: int) -> None:
        dice, leave_after, which = plans[number]
        try:
            heard = ask(
                served.port, asked[which],
                leave_after=leave_after if dice < 1 / 3 else None, slow=1 / 3 <= dice < 0.4,
            )  # fmt: skip
            kind = "left" if not heard.whole else "whole" if heard.agrees(alone[which]) else "different"
        except (OSError, RuntimeError, http.client.HTTPException):
            kind = "lost"
        with lock:
            counts[kind] += 1
            memory.append(served.memory())
        if number == requests // 2:
            os.kill(served.children()[0], signal.SIGKILL)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(requests)))
    tenth = max(1, len(memory) // 10)
    before, after = statistics.median(memory[tenth : 2 * tenth]), statistics.median(memory[-tenth:])
    return {**counts, "memory_before_mib": before, "memory_after_mib": after}


def cost(served: Served, model_id: str, asked: Sequence[bytes], rounds: int) -> dict[str, float]:
    """Seconds a token through the server over those of the library's stream, taken turn about.

    Both leave out reading the prompt: between the first text and the last. The server is idle while the library runs.
    """
    model = load(model_id)
    ratios = []
    for number in range(rounds):
        body = asked[2 * number % len(asked)]  # greedy ones
        fields = json.loads(body)
        example = sample(
            list(FAMILIES)[2 * number % len(asked) % len(FAMILIES)], FIRST_SEED + 2 * number % len(asked)
        )
        arrivals = ask(served.port, body).arrivals
        times = []
        options = {"temperature": 0, "seed": fields["seed"], "max_new_tokens": fields["max_tokens"]}
        for event in model.stream(example.image, example.prompt, **options):
            if hasattr(event, "channel") and not hasattr(event, "effects"):
                times.append(time.perf_counter())
            elif isinstance(event, Done):
                break
        if min(len(arrivals), len(times)) > 1:
            ratios.append((arrivals[-1] - arrivals[0]) / (times[-1] - times[0]))
    return {"time_per_token_ratio": statistics.median(ratios)}


@click.command()
@MODEL
@click.option("--requests", type=click.IntRange(1), default=500, show_default=True)
@click.option("--clients", type=click.IntRange(1), default=20, show_default=True)
@click.option("--tokens", type=click.IntRange(2), default=160, show_default=True)
@click.option(
    "--rounds", type=click.IntRange(0), default=11, show_default=True, help="Of the comparison of costs."
)
@TABLE
def main(model_id: str, requests: int, clients: int, tokens: int, rounds: int, out: Path) -> None:
    """Measure the server."""
    with writing(out, figure=False):
        asked = bodies(tokens)
        with serving(model_id) as served:
            found = cost(served, model_id, asked, rounds) if rounds else {}
            found |= under_load(served, asked, requests, clients)
        write_csv(Row, [Row(name, value) for name, value in found.items()], out)
    for name, value in found.items():
        click.echo(f"{name}: {value:.4g}")
    if found["lost"] or found["different"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
