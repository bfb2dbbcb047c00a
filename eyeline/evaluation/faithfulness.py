"""How well methods predict what hiding regions really does: LDS, R2 and intervals on a collection of test images.

Every method gives each region of a span one number; the prediction for a subset is their sum. Rivals are scored on
the same spans and subsets. Spans whose actual effects hardly vary are left out, and counted.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import rankdata
from torch import Tensor

from eyeline.estimator import Estimator, read_estimator
from eyeline.evaluation.accuracy import bootstrap
from eyeline.training.collect import ALONE, Collected, read_collected
from eyeline.training.fit import MIN_SPREAD, choose, pearson

Method = Callable[[Collected], Float[Tensor, "span region"]]  # effects of regions, in any unit


def random_effects(one: Collected) -> Float[Tensor, "span region"]:
    """Noise: the floor."""
    rng = torch.Generator().manual_seed(len(one.id) + sum(map(ord, one.id)))
    return torch.randn(one.features.shape[:2], generator=rng)


def raw_attention(one: Collected) -> Float[Tensor, "span region"]:
    """Mean attention over layers and heads, summed over the region and the span's tokens."""
    return choose(one.features, ["attention"]).mean(-1)


def logit_sum(one: Collected) -> Float[Tensor, "span region"]:
    """Sum over layers and heads of the direct contributions to the log-prob: no fit at all."""
    return choose(one.features, ["logit"]).sum(-1)


def exhaustive(one: Collected) -> Float[Tensor, "span region"]:
    """Each region hidden by itself, for real: one forward pass a region."""
    return one.drops[:, one.rates == ALONE]


def estimated(estimator: Estimator) -> Method:
    """The effects that an estimator predicts, in nats."""
    return lambda one: choose(one.features, estimator.kinds) @ estimator.weights


@dataclass(frozen=True, slots=True)
class Scores:
    """One method's scores by family, one value an image."""

    lds: dict[
        str, list[float]
    ]  # Spearman over the random subsets of a span (Park et al. 2023, arXiv 2303.14186, eq. 4)
    r2: dict[str, list[float]]  # squared Pearson over the same


def score(images: Sequence[Collected], method: Method, rate: float) -> Scores:
    """LDS and R2_span of a method at one ablation rate: mean over an image's spans. Constant predictions score 0."""
    lds: dict[str, list[float]] = {}
    r2: dict[str, list[float]] = {}
    for one in images:
        drawn = torch.isclose(one.rates, torch.tensor(rate))
        actual = one.drops[:, drawn]
        kept = actual.std(dim=1) >= MIN_SPREAD
        if not kept.any():
            continue
        predicted = method(one)[kept] @ one.subsets[drawn].float().T
        actual = actual[kept]
        ranks = (
            torch.from_numpy(rankdata(values.double().numpy(), axis=1)) for values in (predicted, actual)
        )
        lds.setdefault(one.family, []).append(float(pearson(*ranks).mean()))
        r2.setdefault(one.family, []).append(float(pearson(predicted, actual).square().mean()))
    return Scores(lds, r2)


def left_out(images: Sequence[Collected], rate: float) -> dict[str, float]:
    """Share of each family's spans whose effects vary by less than MIN_SPREAD nats."""
    flat: dict[str, list[bool]] = {}
    for one in images:
        drawn = torch.isclose(one.rates, torch.tensor(rate))
        flat.setdefault(one.family, []).extend((one.drops[:, drawn].std(dim=1) < MIN_SPREAD).tolist())
    return {family: float(np.mean(values)) for family, values in flat.items()}


def r2_nats(images: Sequence[Collected], method: Method) -> float:
    """1 - SSE / SST of single-region effects in nats, all pairs of span and region."""
    predicted = torch.cat([method(one).flatten() for one in images])
    actual = torch.cat([exhaustive(one).flatten() for one in images])
    return float(1 - (predicted - actual).square().sum() / (actual - actual.mean()).square().sum())


def interval_rows(images: Sequence[Collected], estimator: Estimator) -> list[tuple[str, float]]:
    """Coverage of single-region effects, images weighing the same; also among large ones, and widths against constant ones."""
    method = estimated(estimator)
    covered, large, widths, errors = [], [], [], []
    for one in images:
        predicted, actual = method(one).flatten(), exhaustive(one).flatten()
        low, high = estimator.intervals(predicted).T
        inside = (actual >= low) & (actual <= high)
        covered.append(float(inside.float().mean()))
        large += inside[actual.abs() > 0.5].tolist()
        widths += (high - low).tolist()
        errors += (predicted - actual).abs().tolist()
    constant = 2 * float(np.quantile(errors, estimator.card["coverage"]))
    return [
        ("coverage", float(np.mean(covered))),
        ("coverage_over_half_a_nat", float(np.mean(large)) if large else float("nan")),
        ("median_width_nats", float(np.median(widths))),
        ("median_width_over_constant", float(np.median(widths)) / constant),
    ]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--estimator",
    "estimators",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="Repeatable.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="CSV to write.")
def main(run: Path, estimators: tuple[Path, ...], out: Path) -> None:
    """Score estimators and their rivals on a collection of test images."""
    images = read_collected(run)
    fitted = [read_estimator(folder) for folder in estimators]
    methods: dict[str, Method] = {
        "random": random_effects, "raw attention": raw_attention, "logit sum": logit_sum,
        **{estimator.id: estimated(estimator) for estimator in fitted}, "exhaustive ablation": exhaustive,
    }  # fmt: skip
    rates = sorted({rate for one in images for rate in one.rates.tolist() if rate > 0}, reverse=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("method", "metric", "rate", "family", "value", "low", "high", "images"))
        for name, method in methods.items():
            for rate in rates:
                scores = score(images, method, rate)
                for metric in ("lds", "r2"):
                    by_family = getattr(scores, metric)
                    for family, values in {
                        **{family: {family: by_family[family]} for family in by_family},
                        "mean": by_family,
                    }.items():
                        numbers = (f"{value:.4f}" for value in bootstrap(values))
                        table.writerow(
                            (name, metric, round(rate, 3), family, *numbers, sum(map(len, values.values())))
                        )
        for estimator in fitted:
            table.writerow(
                (
                    estimator.id,
                    "r2_nats",
                    "alone",
                    "all",
                    f"{r2_nats(images, estimated(estimator)):.4f}",
                    "",
                    "",
                    len(images),
                )
            )
            for metric, value in interval_rows(images, estimator):
                table.writerow((estimator.id, metric, "alone", "all", f"{value:.4f}", "", "", len(images)))
        for rate in rates:
            for family, share in left_out(images, rate).items():
                table.writerow(
                    ("all", "spans_left_out", round(rate, 3), family, f"{share:.4f}", "", "", len(images))
                )
    with out.open() as file:
        for row in csv.reader(file):
            if row[3] in ("mean", "all", "family"):
                click.echo("  ".join(row))


if __name__ == "__main__":
    main()
