"""Two checks that no filled region is part of: does an attribution read the model, and does it say what another image would do?

Weights: the estimator on the model with its weights shuffled (Adebayo et al. 2018, arXiv 1810.03292), evaluated on what hiding
does to that model, and its maps held against the trained model's. Pairs: a scene and its counterfactual, which differs in one
region; the log-prob of what was written of the one falls when the model sees the other, and nothing is filled for that.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline import load, metrics
from eyeline.ablation import by_span
from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.evaluation.baselines.hiding import span_falls
from eyeline.evaluation.command_options import ESTIMATOR, MODEL, TABLE
from eyeline.evaluation.evaluate import JOINT_ROW, Settings, one_estimator
from eyeline.evaluation.prediction import estimated
from eyeline.evaluation.results import write_csv, writing
from eyeline.evaluation.table import VISUAL
from eyeline.examples import COUNTERFACTUAL, Example, read_examples
from eyeline.images import open_image
from eyeline.model import Inputs, Model
from eyeline.regions import Regions
from eyeline.teacher_forcing import read, see, teacher_force, trace_log_probs
from eyeline.training.collect import Answered, answer, draw_subsets, regions_of

RATE = 0.5  # at which regions are hidden, as the headline LDS is
DIFFERS = 0.1  # of the change of the cell that changes most, from which on a cell is part of the difference
EYELINE, EXHAUSTIVE, TOGETHER = "eyeline", "exhaustive", "hidden together"


@dataclass(frozen=True, slots=True)
class Row:
    """One number of a check, with its 95 % interval over scenes; None where there are too few of them."""

    check: str  # weights, pairs
    method: str
    measure: str
    value: float
    low: float | None
    high: float | None
    count: int  # scenes, or spans of pairs


# --- weights


def randomised(model: Model, seed: int = 0, part: str = "") -> Model:
    """A copy of the model in which the numbers of every weight are shuffled: of the same sizes, with nothing learned.

    `part`: only of weights that have this in their names.
    """
    hf, rng = copy.deepcopy(model.hf), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in hf.named_parameters():
            if part in name:
                order = torch.randperm(weight.numel(), generator=rng).to(weight.device)
                weight.copy_(weight.flatten()[order].view_as(weight))
    return replace(model, hf=hf)


def check_weights(
    models: dict[str, Model], estimator: Estimator, example: Example, own: Answered, regions: Regions, settings: Settings
) -> dict[tuple[str, str], float]:  # fmt: skip
    """(method, measure) -> value for one scene, on one trace and the same subsets; LDS is left out where no span varies.

    `models` are first the trained one, which wrote the trace, then others; the maps of those are held against its own, of the
    spans that vary on it: of the others it has no map to speak of.
    """
    subsets, rates = draw_subsets(regions.count, settings, example.id)
    subsets = subsets[torch.isclose(rates, torch.tensor(RATE))]
    found: dict[tuple[str, str], float] = {}
    maps: list[Tensor] = []
    mapped = torch.zeros(len(own.spans), dtype=torch.bool)
    for name, model in models.items():
        given = (model, own.inputs, own.ids, own.spans, regions)
        falls = span_falls(*given, subsets, settings.hiding).float().cpu()
        predicted = estimated(estimator)(*given)
        maps.append(predicted.shown.float().cpu())
        kept = metrics.varies(falls)
        if kept.any():
            shown, together = metrics.joint(maps[-1], subsets), predicted.together(subsets).float().cpu()
            found[f"{EYELINE}, {name}", "lds"] = float(metrics.lds(shown[kept], falls[kept]).mean())
            joint = JOINT_ROW.format(EYELINE)
            found[f"{joint}, {name}", "lds"] = float(metrics.lds(together[kept], falls[kept]).mean())
        if len(maps) == 1:
            mapped = kept
        elif mapped.any():
            alike = metrics.spearman(maps[0][mapped], maps[-1][mapped])
            found[f"{EYELINE}, {name}", "map_similarity"] = float(alike.mean())
    return found


# --- pairs


@dataclass(frozen=True, eq=False)
class Pair:
    """What was measured and predicted of the spans written of a scene; nats."""

    falls: Float[Tensor, " span"]  # of log-probs, when the model sees the counterfactual
    predicted: dict[str, Float[Tensor, " span"]]  # by method, of the regions that hold the difference


def check_pair(
    model: Model, estimator: Estimator, other: Example, own: Answered, regions: Regions, settings: Settings
) -> Pair | None:
    """None where the model's inputs do not differ, however the images do.

    Joint falls of the regions that differ, the sum of what the heat shows of them, each of them really hidden alone, summed,
    and all of them really hidden together. Raises `DataError` for a counterfactual of another size.
    """
    seen = model.inputs([open_image(image) for image in other.images], other.prompt)
    if not torch.equal(seen["input_ids"], own.inputs["input_ids"]):
        raise DataError(
            f"{other.id} asks about an image of another size, or asks something else, than the scene it belongs to; "
            "`eyeline scenes --pairs` draws both alike."
        )
    cells = differing_cells(own.inputs["pixel_values"], seen["pixel_values"], len(regions.of_patch))
    if not cells.any():
        return None
    differing = torch.zeros(regions.count, dtype=torch.bool)
    differing[regions.of_patch[cells.cpu()]] = True
    alone = torch.eye(regions.count, dtype=torch.bool)[differing]
    given = (model, own.inputs, own.ids, own.spans, regions)
    hidden = span_falls(*given, torch.cat([alone, differing[None]]), settings.hiding).float().cpu()
    predicted = estimated(estimator)(*given)
    return Pair(
        by_span(falls_when_seeing(model, own.inputs, seen, own.ids)[None], own.spans)[:, 0].float().cpu(),
        {
            EYELINE: predicted.shown.float().cpu()[:, differing].sum(1),
            JOINT_ROW.format(EYELINE): predicted.together(differing[None])[:, 0].float().cpu(),
            EXHAUSTIVE: hidden[:, :-1].sum(1),
            TOGETHER: hidden[:, -1],
        },
    )


def differing_cells(
    one: Float[Tensor, "pixel_row value"], other: Float[Tensor, "pixel_row value"], cells: int
) -> Bool[Tensor, " {cells}"]:
    """Cells of one image whose pixels differ from the other's, by mean square, by more than its noise does.

    What half of the cells and more differ by is noise: the change that a counterfactual makes lies in a fifth of the image.
    """
    change = (one.float() - other.float()).square().unflatten(0, (cells, -1)).mean((1, 2))
    change = change - change.median()
    return (change > 0) & (change >= DIFFERS * change.max())


def falls_when_seeing(
    model: Model, inputs: Inputs, other: Inputs, trace_ids: Int[Tensor, " token"]
) -> Float[Tensor, " token"]:
    """By how much each token's log-prob falls when the other image is seen in place of the one; nats, both in one batch."""
    with torch.inference_mode():
        trace = teacher_force(model, inputs, trace_ids)
        pixels = torch.stack([trace.pixel_values, other["pixel_values"]])
        states, _ = read(model, trace, see(model, trace, pixels), 2, use_cache=False)
        log_probs = trace_log_probs(model, states[:, states.shape[1] - len(trace_ids) :], trace_ids)
    return log_probs[0] - log_probs[1]


def spearman(predicted: Float[Tensor, " span"], falls: Float[Tensor, " span"]) -> float | None:
    """Rank correlation over all spans; None where nothing falls differently."""
    return None if falls.unique().numel() < 2 else float(metrics.spearman(predicted[None], falls[None]))


def auc(predicted: Float[Tensor, " span"], falls: Float[Tensor, " span"]) -> float | None:
    """How often a span that loses more than VISUAL nats has more predicted than one that does not; None without both kinds."""
    found = metrics.auc(predicted, falls > VISUAL)
    return None if math.isnan(found) else found


def pooled(
    pairs: Sequence[Pair], method: str, measure: Callable[[Tensor, Tensor], float | None], draws: int = 1000, seed: int = 0
) -> tuple[float | None, float | None, float | None]:  # fmt: skip
    """A measure over the spans of all pairs, and its 95 % interval from resampling scenes; as far as there are any.

    Draws in which there is nothing to measure are left out.
    """

    def over(some: Iterable[Pair]) -> float | None:
        chosen = list(some)
        return measure(
            torch.cat([one.predicted[method] for one in chosen]), torch.cat([one.falls for one in chosen])
        )

    value = over(pairs)
    if value is None or len(pairs) < 2:
        return value, None, None
    rng = np.random.default_rng(seed)
    drawn = (over(pairs[int(at)] for at in rng.integers(len(pairs), size=len(pairs))) for _ in range(draws))
    low, high = np.quantile([each for each in drawn if each is not None], (0.025, 0.975))
    return value, float(low), float(high)


# --- both


def in_pairs(examples: Iterable[Example]) -> list[tuple[Example, Example]]:
    """Scenes with their counterfactuals; those without one are left out. Raises `DataError` where there is no pair."""
    known = {example.id: example for example in examples}
    found = [
        (one, known[name + COUNTERFACTUAL]) for name, one in known.items() if name + COUNTERFACTUAL in known
    ]
    if not found:
        raise DataError(
            f"There is no counterfactual in the data: expected scenes and, of the same ids with {COUNTERFACTUAL}, their "
            "counterfactuals, as `eyeline scenes --pairs` draws them."
        )
    return found


def check(
    model: Model, estimator: Estimator, twins: Sequence[tuple[Example, Example]], settings: Settings
) -> list[Row]:
    """Both checks on the same scenes."""
    models = {"trained": model, "randomised": randomised(model)}
    values: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    pairs: list[Pair] = []
    for one, other in twins:
        own = answer(model, one, settings.max_new_tokens, settings.max_spans)
        regions = regions_of(model, own.pictures, own.inputs, settings.regions, settings.seed)
        for key, value in check_weights(models, estimator, one, own, regions, settings).items():
            values[key][one.family].append(value)
        pair = check_pair(model, estimator, other, own, regions, settings)
        pairs += [] if pair is None else [pair]
    rows = [
        Row("weights", method, measure, *metrics.bootstrap(families), sum(map(len, families.values())))
        for (method, measure), families in values.items()
    ]
    spans = sum(len(pair.falls) for pair in pairs)
    for method in pairs[0].predicted if pairs else ():
        for measure in (spearman, auc):
            value, low, high = pooled(pairs, method, measure)
            if value is not None:
                rows.append(Row("pairs", method, measure.__name__, value, low, high, spans))
    return rows


@click.command()
@MODEL
@ESTIMATOR
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Data folder with counterfactuals."
)
@click.option("--limit", type=click.IntRange(1), default=None, help="Scenes.  [default: all]")
@TABLE
def main(model_id: str, estimator: str | None, data: Path, limit: int | None, out: Path) -> None:
    """Check that attributions read the model, and that they say what another image would do."""
    with writing(out, figure=False):
        model = load(model_id)
        own, hiding = one_estimator(model, estimator)
        twins = in_pairs(read_examples(data))[:limit]
        write_csv(Row, check(model, own, twins, Settings(hiding=hiding, rates=(RATE,))), out)
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
