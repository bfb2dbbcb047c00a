"""How far can effects of regions go at all? Regressions on many measured subsets, against the estimator and exhaustive ablation.

A span's random subsets are predicted from other random subsets of the same span: linearly, by LASSO as ContextCite does
(arXiv 2409.00729) and by ridge regression, at several numbers of them; and with every pair of regions as well. With
enough subsets the linear one is the best that any sum of regions' effects can do, and the other what interactions of
two would add.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from benchmarks.learning import RATE
from eyeline import load, metrics
from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.evaluation.baselines.hiding import fit_falls, span_falls
from eyeline.evaluation.command_options import DATA, ESTIMATOR, MODEL, TABLE_AND_FIGURE
from eyeline.evaluation.evaluate import Settings, one_estimator
from eyeline.evaluation.prediction import estimated
from eyeline.evaluation.results import (
    OURS,
    PLAIN,
    QUIET,
    error_bars,
    new_figure,
    write_csv,
    write_png,
    writing,
)
from eyeline.examples import Example, read_examples
from eyeline.model import Model
from eyeline.training.collect import ALONE, answer, draw_subsets, regions_of

COUNTS = (32, 64, 128, 256, 512, 1024)  # subsets that a regression is given
CEILING = 512  # of them for the ceiling
PENALTIES = np.logspace(-2, 4, 13)  # of ridge, chosen by leave-one-out


@dataclass(frozen=True, slots=True)
class Row:
    """One way to predict, in the mean over spans, then images, then families, with a 95 % interval over images."""

    predictor: str
    forward_passes: int | None  # a trace; None where it is one for each region, or none at all
    metric: str
    value: float
    low: float | None
    high: float | None
    images: int


@dataclass(frozen=True, eq=False)
class Measured:
    """One image's spans with their falls: the subsets that are asked for, and those that regressions are given."""

    family: str
    predicted: Mapping[str, Float[Tensor, "span subset"]]  # by the estimator, and by exhaustive ablation
    lengths: Int[Tensor, " span"]  # tokens
    asked: Bool[Tensor, "subset region"]
    asked_falls: Float[Tensor, "span subset"]
    given: Bool[Tensor, "given region"]
    given_falls: Float[Tensor, "span given"]


def measure(model: Model, example: Example, estimator: Estimator, settings: Settings) -> Measured | None:
    """Generates, and hides all subsets. None where no span's effects vary."""
    own = answer(model, example, settings.max_new_tokens, settings.max_spans)
    regions = regions_of(model, own.pictures, own.inputs, settings.regions, settings.seed)
    asked, rates = draw_subsets(regions.count, settings, example.id)
    others = replace(settings, seed=settings.seed + 1, subsets=max(COUNTS))
    given = draw_subsets(regions.count, others, example.id)[0][: max(COUNTS)]
    every = torch.cat([asked, given])
    falls = span_falls(model, own.inputs, own.ids, own.spans, regions, every, settings.hiding).float().cpu()
    asked_falls, given_falls = falls.split([len(asked), len(given)], dim=1)
    alone, random = asked_falls[:, rates == ALONE], torch.isclose(rates, torch.tensor(RATE))
    asked, asked_falls = asked[random], asked_falls[:, random]
    kept = metrics.varies(asked_falls)
    if not kept.any():
        return None
    predicted = {
        "estimator": estimated(estimator)(model, own.inputs, own.ids, own.spans, regions)
        .together(asked)
        .float()
        .cpu(),
        "exhaustive": metrics.joint(alone, asked),
    }
    lengths = torch.tensor([span.end - span.start for span in own.spans])
    return Measured(
        example.family, {name: values[kept] for name, values in predicted.items()}, lengths[kept],
        asked, asked_falls[kept], given, given_falls[kept],
    )  # fmt: skip


def predictions(one: Measured) -> dict[tuple[str, int | None], Float[Tensor, "span subset"]]:
    """What each way predicts for the subsets asked for, up to a constant of each span; by name and forward passes."""
    found: dict[tuple[str, int | None], Tensor] = {(name, None): each for name, each in one.predicted.items()}
    for count in COUNTS:
        effects = fit_falls(one.given[:count], one.given_falls[:, :count], one.lengths)
        found["contextcite", count] = metrics.joint(effects, one.asked)
        found["ridge", count] = ridge(
            one.given[:count].float(), one.given_falls[:, :count], one.asked.float()
        )
    found["ceiling, linear", CEILING] = found["ridge", CEILING]
    found["ceiling, pairwise", CEILING] = ridge(
        with_pairs(one.given[:CEILING]), one.given_falls[:, :CEILING], with_pairs(one.asked)
    )
    return found


def with_pairs(subsets: Bool[Tensor, "subset region"]) -> Float[Tensor, "subset feature"]:
    """Whether each region, and each two of them, are hidden."""
    pairs = torch.tensor(list(combinations(range(subsets.shape[1]), 2)), dtype=torch.long).view(-1, 2)
    return torch.cat([subsets, subsets[:, pairs].all(2)], dim=1).float()


def ridge(
    inputs: Float[Tensor, "given feature"], targets: Float[Tensor, "span given"], asked: Float[Tensor, "subset feature"]
) -> Float[Tensor, "span subset"]:  # fmt: skip
    """Ridge regression of each span's falls, its strength by leave-one-out."""
    from sklearn.linear_model import RidgeCV

    solver = RidgeCV(alphas=PENALTIES, alpha_per_target=True).fit(inputs.numpy(), targets.double().T.numpy())
    return torch.from_numpy(solver.predict(asked.numpy())).view(len(asked), -1).T.float()


def evaluate(images: Sequence[Measured]) -> list[Row]:
    """LDS and R2 of every way, on the same spans."""
    values: dict[tuple[str, int | None, str], dict[str, list[float]]] = {}
    for one in images:
        for (name, passes), predicted in predictions(one).items():
            for metric in (metrics.lds, metrics.r2_span):
                families = values.setdefault((name, passes, metric.__name__), {})
                families.setdefault(one.family, []).append(float(metric(predicted, one.asked_falls).mean()))
    return [
        Row(name, passes, metric, *metrics.bootstrap(families), sum(map(len, families.values())))
        for (name, passes, metric), families in values.items()
    ]


def draw(rows: Sequence[Row]) -> Any:
    """LDS against the forward passes that a regression is given, with the others as lines."""
    figure = new_figure(6.8, 4.2)
    axes = figure.add_subplot()
    lds = {(row.predictor, row.forward_passes): row for row in rows if row.metric == "lds"}
    curves = {"contextcite": ("LASSO, as ContextCite", PLAIN), "ridge": ("ridge, its strength chosen", QUIET)}
    for which, (label, colour) in curves.items():
        mine = [row for (name, _), row in lds.items() if name == which]
        bars = error_bars((row.value, row.low, row.high) for row in mine)
        counts = [row.forward_passes for row in mine]
        axes.errorbar(
            counts, [row.value for row in mine], yerr=bars, fmt="o-", color=colour, capsize=2, label=label
        )
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{count:,}" for count in counts])
    axes.minorticks_off()
    colours = {"estimator": OURS, "exhaustive": PLAIN}
    names = {
        "estimator": "Eyeline",
        "exhaustive": "exhaustive ablation",
        "ceiling, pairwise": "regions and pairs of them",
    }
    lines = sorted((row.value, name) for (name, _), row in lds.items() if name in names)
    low, high = axes.get_ylim()
    place = low
    for value, name in lines:
        place = max(value, place + (high - low) / 25)  # labels stand apart
        axes.axhline(value, color=colours.get(name, QUIET), linestyle="--", linewidth=1)
        axes.annotate(
            names[name], (1, value), xytext=(1.03, place), xycoords=("axes fraction", "data"), va="center", fontsize=8,
            color=colours.get(name, QUIET), annotation_clip=False,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "color": colours.get(name, QUIET), "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    axes.set(xlabel="forward passes that a regression is given", ylabel="LDS, 95 % interval")
    axes.grid(alpha=0.3)
    return figure


@click.command()
@MODEL
@ESTIMATOR
@DATA
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Examples.")
@TABLE_AND_FIGURE
def main(model_id: str, estimator: str | None, data: Path, limit: int, out: Path) -> None:
    """Measure the ceiling of sums of regions' effects, and what a regression needs to reach the estimator."""
    with writing(out):
        model = load(model_id)
        own, hiding = one_estimator(model, estimator)
        settings = Settings(hiding=hiding, rates=(RATE,))
        examples = islice(read_examples(data), limit)
        images = [one for one in (measure(model, each, own, settings) for each in examples) if one]
        if not images:
            raise DataError(
                "No span depends on its image; check that the model sees it, and that --data holds images."
            )
        rows = evaluate(images)
        write_csv(Row, rows, out)
        write_png(draw(rows), out.with_suffix(".png"))
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
