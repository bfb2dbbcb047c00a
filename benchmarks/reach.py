"""How long an event takes from the model's process, where it is made, to the page's own code in a browser, over the loopback.

The server is the real one; its model's process also notes when it sends each event. Nothing else may run meanwhile.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from benchmarks.load import bodies, serving
from eyeline.evaluation.command_options import MODEL, TABLE
from eyeline.evaluation.results import write_csv, writing
from eyeline.server.engine import Worker

NOTES = "EYELINE_REACH_NOTES"  # environment variable: the file that the model's process writes to
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
# The page's client reads the stream; the browser's clock counts from the same epoch as the server's.
FOLLOW = """async body => {
  const {createClient} = await import("/static/client.js");
  const seen = [];
  for await (const chunk of createClient(() => null).events("/v1/chat/completions", {body}))
    if (chunk.eyeline) seen.push([(performance.timeOrigin + performance.now()) / 1000, chunk.eyeline.event]);
  return seen;
}"""


@dataclass(frozen=True, slots=True)
class Row:
    """Seconds from made to received of one kind of event."""

    event: str
    low_quartile_s: float
    median_s: float
    high_quartile_s: float
    events: int


class Noting(Worker):
    """The server's own, with a note of the time and kind of each event."""

    def say(self, kind: str, line: str | None = None, **values: Any) -> None:
        if line is not None:
            with open(os.environ[NOTES], "a", encoding="utf-8") as notes:
                notes.write(f"{time.time()} {json.loads(line)['event']}\n")
        super().say(kind, line, **values)


def measure(browser_path: str, model_id: str, rounds: int, tokens: int) -> dict[str, list[float]]:
    """Seconds from made to received, by kind of event."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[float]] = {"text": [], "span": []}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        notes = Path(folder) / "notes"
        os.environ[NOTES] = str(notes)
        with serving(model_id, module="benchmarks.reach") as served:
            browser = playwright.chromium.launch(executable_path=browser_path, args=list(FLAGS))
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{served.port}/")
            for body in bodies(tokens)[:rounds]:
                already = len(notes.read_text().splitlines()) if notes.exists() else 0
                seen = page.evaluate(FOLLOW, json.loads(body))
                made = [line.split() for line in notes.read_text().splitlines()[already:]]
                if [kind for _, kind in seen] != [kind for _, kind in made]:
                    raise RuntimeError("the events that arrived are not those that were made")
                for (arrived, kind), (began, _) in zip(seen, made, strict=True):
                    if kind in found:
                        found[kind].append(arrived - float(began))
            browser.close()
    return found


@click.command()
@MODEL
@click.option("--rounds", type=click.IntRange(1, 10), default=10, show_default=True, help="Questions.")
@click.option("--tokens", type=click.IntRange(2), default=160, show_default=True)
@TABLE
def main(model_id: str, rounds: int, tokens: int, out: Path) -> None:
    """Measure how soon events reach the browser."""
    with writing(out, figure=False):
        browser = next(
            filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
        )
        if browser is None:
            raise click.ClickException("This needs Chromium: apt-get install chromium.")
        found = measure(browser, model_id, rounds, tokens)
        rows = []
        for kind, seconds in found.items():
            low, middle, high = statistics.quantiles(seconds, n=4)
            rows.append(Row(kind, low, middle, high, len(seconds)))
        write_csv(Row, rows, out)
    click.echo(out.read_text())


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:  # the server of `serving`
        from eyeline.cli import main as eyeline_main
        from eyeline.server import serving as own

        own.serve = partial(own.serve, worker=Noting)
        eyeline_main()
    else:
        main()
