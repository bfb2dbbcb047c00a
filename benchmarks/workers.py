"""Images a minute of `eyeline collect` by the number of Ray workers, one core each. Nothing else may run meanwhile.

While all workers have work: from the first image that each has done to the first of the last ones, so that starting Ray, loading
models and the end, where one waits for the other, are left out. By turns.
"""

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click

from eyeline.evaluation.command_options import DATA, TABLE
from eyeline.evaluation.results import write_csv, writing


@dataclass(frozen=True, slots=True)
class Row:
    workers: int
    images_per_minute: float  # median of the rounds
    least: float
    most: float
    over_one: float  # times as many as with one worker, medians


def measure(data: Path, workers: int, images: int) -> float:
    """Images a minute while all workers have work."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = [
            "collect",
            "--data",
            str(data),
            "--out",
            str(out),
            "--workers",
            str(workers),
            "--limit",
            str(images),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, "-m", "eyeline", *words], check=True, env=environment, capture_output=True
        )
        times = sorted(path.stat().st_mtime for path in (out / "examples").glob("*.safetensors"))
    first, last = workers - 1, len(times) - workers
    return 60 * (last - first) / (times[last] - times[first])


@click.command()
@DATA
@click.option("--images", default=40, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--most", "workers", default=2, show_default=True, help="Workers at most.")
@TABLE
def main(data: Path, images: int, rounds: int, workers: int, out: Path) -> None:
    """Measure how much faster several workers are."""
    found: dict[int, list[float]] = {count: [] for count in range(1, workers + 1)}
    with writing(out, figure=False):
        for _ in range(rounds):
            for count, rates in found.items():
                rates.append(measure(data, count, images))
                click.echo(f"{count}: {rates[-1]:.1f} images a minute", err=True)
        one = median(found[1])
        rows = [Row(n, median(each), min(each), max(each), median(each) / one) for n, each in found.items()]
        write_csv(Row, rows, out)
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
