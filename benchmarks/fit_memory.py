"""How much disk a collection takes, and how much memory a fit on it: heads as a set, at the shape of an 8B model.

The collection is drawn: features at random, of whose sum measured falls are made, so that there is something to fit. Memory is
what the process holds that no file stands behind (RssAnon of Linux), at its most.
"""

import json
import resource
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import torch

import eyeline
from eyeline.errors import EyelineError
from eyeline.evaluation.command_options import TABLE
from eyeline.evaluation.results import write_csv
from eyeline.head_set import SET
from eyeline.training.collect import (
    Collected,
    Settings,
    draw_subsets,
    file_of,
    read_collected,
    save_collected,
)
from eyeline.training.fit import fit
from eyeline.training.weights import FitSettings

SPAN = 16  # tokens


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    value: float


def draw(number: int, tokens: int, regions: int, settings: Settings) -> Collected:
    """One image; each region counts for some tokens alone, as a true one does."""
    rng, name = torch.Generator().manual_seed(number), f"drawn-{number:05}"
    subsets, rates = draw_subsets(regions, settings, name)
    matters = torch.rand(tokens // SPAN, regions, 1, generator=rng) < 0.1
    features = torch.rand(tokens, regions, len(SET), generator=rng) * matters.repeat_interleave(SPAN, 0)
    falls = features.sum(2) @ subsets.float().T + 0.1 * torch.randn(tokens, len(subsets), generator=rng)
    spans = tuple({"index": at // SPAN, "start": at, "end": at + SPAN} for at in range(0, tokens, SPAN))
    odds = 3 + 2 * torch.randn(tokens, generator=rng)
    return Collected(name, "own", "", spans, features.half(), odds, subsets, rates, falls, None, ())


def make(folder: Path, images: int, tokens: int, regions: int) -> None:
    """Draws the collection, or what is missing of it."""
    settings = Settings(ordered_share=0.0)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "version": eyeline.__version__, "model": "drawn", "fingerprint": "0" * 64, "precision": "float32", "device": "cpu",
        "settings": {"kinds": list(SET), "hiding": "pixels", "regions": "native"},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(about))
    for number in range(images):
        path = file_of(folder, f"drawn-{number:05}")
        if not path.exists():
            save_collected(draw(number, tokens, regions, settings), path)


def anonymous() -> int:
    """Bytes that this process holds and no file stands behind."""
    with open("/proc/self/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return 1024 * int(lines["RssAnon"].split()[0])


@contextmanager
def watched():
    """A list whose one number is the most that `anonymous` says meanwhile."""
    most, over = [anonymous()], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            most[0] = max(most[0], anonymous())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield most
    over.set()
    thread.join()


@click.command()
@click.option("--images", default=2000, show_default=True)
@click.option("--tokens", default=512, show_default=True)
@click.option("--regions", default=64, show_default=True)
@click.option("--collection", type=click.Path(path_type=Path), required=True, help="Folder to draw into.")
@TABLE
def main(images: int, tokens: int, regions: int, collection: Path, out: Path) -> None:
    """Draw a collection, fit on it, and write what both take."""
    if not Path("/proc/self/status").exists():
        raise EyelineError("Memory is read from /proc, which this system does not have.")
    make(collection, images, tokens, regions)
    disk = sum(path.stat().st_size for path in collection.rglob("*") if path.is_file())
    before = anonymous()
    began = time.perf_counter()
    with watched() as most:
        run = json.loads((collection / "run.json").read_text())
        estimator, _ = fit(read_collected(collection), run, FitSettings(kinds=SET, hidden=0), "drawn")
    seconds = time.perf_counter() - began
    rows = [
        Row("images", float(images)), Row("tokens of an image", float(tokens)), Row("regions of an image", float(regions)),
        Row("disk, GB", disk / 1e9), Row("memory before, GB", before / 1e9), Row("memory at most, GB", most[0] / 1e9),
        Row("with mapped files, GB", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9),
        Row("seconds", seconds), Row("R2 held out", estimator.card["r2_nats_held_out"]),
    ]  # fmt: skip
    write_csv(Row, rows, out)
    shutil.rmtree(collection)


if __name__ == "__main__":
    main()
