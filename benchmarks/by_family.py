"""Cells of models and families: where the fitted estimator stands among rivals, in LDS and top-5 drop (arXiv 2604.16587).

Reads what evaluations wrote, `NAME.csv` and `NAME_versus.csv`; measures nothing itself. Exhaustive ablation, a pass for each
region, is what the estimator predicts and no rival: second to it is as good as best. Regressions on random subsets, dearer still,
are left out.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from eyeline.errors import DataError
from eyeline.evaluation.results import write_csv, writing

MEASURES = {"lds": "0.5", "top_drop": "5"}  # and what each is at
EXHAUSTIVE = "exhaustive"
NO_RIVALS = ("random", "regression", "ridge", "lasso")  # how their names begin
PAPER = "eyeline (paper-attention)"  # fitted on the same images; our other estimators are no rivals


@dataclass(frozen=True, slots=True)
class Cell:
    """One family of one model by one measure: the fitted estimator, exhaustive ablation, and the best rival."""

    model: str
    family: str  # or "mean" of them
    metric: str
    fitted: float
    exhaustive: float
    rival: str
    of_rival: float
    # Of the rival, paired, with the 95 % interval over images. None: the evaluation did not compare
    ahead: float | None
    low: float | None
    high: float | None
    stands: str  # "best", "second to exhaustive", or "behind"


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def is_rival(method: str) -> bool:
    if method.startswith("eyeline"):
        return method == PAPER
    return method not in ("all", EXHAUSTIVE) and not method.startswith(NO_RIVALS)


def cells(
    model: str, rows: Sequence[Mapping[str, str]], apart: Sequence[Mapping[str, str]]
) -> Iterator[Cell]:
    """All cells of a model, from an evaluation's table and its paired differences, whose `versus` is the fitted estimator.

    Raises `DataError` where the fitted estimator, exhaustive ablation or every rival is missing.
    """
    fitted = apart[0]["versus"] if apart else ""
    differences = {(row["method"], row["metric"], row["at"], row["family"]): row for row in apart}
    for metric, at in MEASURES.items():
        of_metric = [row for row in rows if (row["metric"], row["at"]) == (metric, at)]
        for family in dict.fromkeys(row["family"] for row in of_metric):
            values = {row["method"]: float(row["value"]) for row in of_metric if row["family"] == family}
            rivals = {method: value for method, value in values.items() if is_rival(method)}
            if not rivals or EXHAUSTIVE not in values or fitted not in values:
                raise DataError(
                    f"{model} needs the fitted estimator, exhaustive ablation and a rival; it has {', '.join(values)}."
                )
            rival, of_rival = max(rivals.items(), key=lambda each: each[1])
            ours, most = values[fitted], values[EXHAUSTIVE]
            stands = "behind" if ours < of_rival else "best" if ours >= most else "second to exhaustive"
            ahead, low, high = _turned(differences.get((rival, metric, at, family), {}))
            yield Cell(model, family, metric, ours, most, rival, of_rival, ahead, low, high, stands)


def _turned(difference: Mapping[str, str]) -> Iterator[float | None]:
    """Value, low and high of a difference the other way round; nothing of one that is not there."""
    for end in ("value", "high", "low"):
        yield -float(difference[end]) if difference.get(end) else None


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--of", "evaluations", multiple=True, required=True, metavar="MODEL=NAME",
    help="A model, and where its NAME.csv and NAME_versus.csv lie. Repeatable.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results/by_family.csv"), show_default=True
)
def main(evaluations: Sequence[str], out: Path) -> None:
    """Tell where the fitted estimator stands in every cell of models and families."""
    with writing(out, figure=False):
        found: list[Cell] = []
        for each in evaluations:
            model, _, name = each.partition("=")
            found += cells(model, read(Path(f"{name}.csv")), read(Path(f"{name}_versus.csv")))
        write_csv(Cell, found, out)
        for metric in MEASURES:
            of_metric = [cell for cell in found if cell.metric == metric and cell.family != "mean"]
            held = sum(cell.stands != "behind" for cell in of_metric)
            click.echo(f"{metric}: best or second to exhaustive in {held} of {len(of_metric)} cells")


if __name__ == "__main__":
    main()
