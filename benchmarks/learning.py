"""What an estimator needs: how many scenes, of which families, which features and how many heads; by LDS on test scenes.

Ranks need no calibration, so each fit is of weights alone, and all scenes of the first collection may take part in it.
The second collection is only ever tested on: heads are chosen, and the way to choose them, within the first.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import click
import torch
from jaxtyping import Float
from torch import Tensor

from eyeline import metrics
from eyeline.errors import DataError
from eyeline.estimator import Estimator, sum_spans
from eyeline.evaluation.results import OURS, PLAIN, error_bars, new_figure, write_csv, write_png, writing
from eyeline.features import KINDS
from eyeline.training.collect import Collected, read_collected, read_run
from eyeline.training.fit import FEWEST_IMAGES, check_features, game_of
from eyeline.training.heads import by_layer, count_layers, keep_heads, learn
from eyeline.training.weights import FitSettings, training_data

RATE = 0.5  # of the subsets that count
SIZES = (100, 200, 500, 1000, 2000)  # scenes, beside all that there are
DRAWS = 2  # of scenes at each size but the last
FRACTIONS = (1.0, 0.5, 0.25, 0.1, 0.05, 0.02)  # of heads
ON_TEST_SCENES = "LDS on test scenes, 95 % interval"

ByFamily = Mapping[str, Sequence[float]]  # by family, the mean LDS of each image's spans


@dataclass(frozen=True, slots=True)
class Row:
    """One setting of one experiment, with 95 % intervals over test images."""

    experiment: str
    setting: str
    lds: float
    low: float | None
    high: float | None
    images: int  # test images with a span that counts
    scenes: int  # fitted on
    share: float | None  # of the reference's LDS: all scenes, the same family, all features, all heads
    share_low: float | None
    share_high: float | None
    heads: int | None = None  # kept
    layers_skipped: int | None = None  # without any head that is kept: nothing of them need be captured


def evaluate(estimator: Estimator, images: Sequence[Collected]) -> ByFamily:
    """LDS of the falls that an estimator, of all kinds of features, predicts."""

    def predict(one: Collected, subsets: Tensor) -> Tensor:
        return sum_spans(game_of(one, estimator).falls(subsets.T.float()), one.lengths)

    return of_images(images, predict)


def of_images(
    images: Sequence[Collected], predict: Callable[[Collected, Tensor], Float[Tensor, "span subset"]]
) -> ByFamily:
    """LDS at the rate RATE; spans that hardly vary, and images without any other, are left out whatever is predicted."""
    values: dict[str, list[float]] = {}
    for one in images:
        drawn = torch.isclose(one.rates, torch.tensor(RATE))
        if drawn.sum() < 2:  # nothing to correlate
            continue
        kept = metrics.varies(one.falls[:, drawn])
        if kept.any():
            of_spans = metrics.lds(predict(one, one.subsets[drawn])[kept], one.falls[kept][:, drawn])
            values.setdefault(one.family, []).append(float(of_spans.mean()))
    return values


def share(
    values: ByFamily, reference: ByFamily
) -> tuple[float, float, float] | tuple[float, None, None] | tuple[None, None, None]:
    """The mean over the reference's, on the same images, with its interval; nothing where the reference is none.

    The interval is that of the ratio's linearisation, of which each image holds a part: the images are drawn in pairs.
    """
    mean, whole = (metrics.bootstrap(some, draws=1)[0] for some in (values, reference))
    if whole <= 0:
        return None, None, None
    ratio = mean / whole
    parts = {
        family: [ratio + (one - ratio * other) / whole for one, other in zip(some, reference[family], strict=True)]
        for family, some in values.items()
    }  # fmt: skip
    return metrics.bootstrap(parts)


def draw(images: Iterable[Collected], size: int, seed: int = 0) -> list[Collected]:
    """So many images, evenly over families, by the hashes of their ids; a larger draw of a seed holds its smaller ones."""
    families: dict[str, list[Collected]] = {}
    for one in sorted(images, key=lambda one: hashlib.sha256(f"{seed} {one.id}".encode()).digest()):
        families.setdefault(one.family, []).append(one)
    in_turn = zip(*(families[name] for name in sorted(families)), strict=False)  # until a family has no more
    drawn = list(chain.from_iterable(in_turn))[:size]
    assert len(drawn) == size, "asked for more than there are of each family"
    return drawn


def _in_order(kinds: Sequence[str]) -> tuple[str, ...]:
    return tuple(kind for kind in KINDS if kind in kinds)


def scenes(fitted: Sequence[Collected], tested: Sequence[Collected], settings: FitSettings) -> list[Row]:
    """LDS against the number of scenes; all but the last are means over several draws of the scenes."""
    families = [one.family for one in fitted]
    most = len(set(families)) * min(map(families.count, families))  # that can be drawn evenly
    reference = _learn_and_evaluate(fitted, tested, settings)
    rows = []
    for size in (size for size in SIZES if size <= most and size < len(fitted)):
        draws = [_learn_and_evaluate(draw(fitted, size, seed), tested, settings) for seed in range(DRAWS)]
        rows.append(_row("scenes", str(size), _mean(draws), reference, size))
    return [*rows, _row("scenes", "all", reference, reference, len(fitted))]


def transfer(fitted: Sequence[Collected], tested: Sequence[Collected], settings: FitSettings) -> list[Row]:
    """LDS of each family fitted on each other one, and on all others together, from equally many scenes each time."""
    families = sorted({one.family for one in fitted} & set(_counting(tested)))
    if len(families) < 2:
        raise DataError(
            f"Transfer needs two families that are in both collections, which share {', '.join(families) or 'none'}; "
            "collect more, or choose other experiments."
        )
    fitted = [one for one in fitted if one.family in families]
    size = min(sum(one.family == family for one in fitted) for family in families)

    def fitted_on(images: Iterable[Collected]) -> ByFamily:
        return _learn_and_evaluate(draw(images, size), tested, settings)

    of = {family: fitted_on(one for one in fitted if one.family == family) for family in families}
    without = {family: fitted_on(one for one in fitted if one.family != family) for family in families}
    same = {family: of[family][family] for family in families}
    others = {family: without[family][family] for family in families}
    each_other = _mean([
        {target: of[source][target] for target, source in zip(families, families[by:] + families[:by], strict=True)}
        for by in range(1, len(families))
    ])  # fmt: skip

    def row(setting: str, values: ByFamily) -> Row:
        return _row("transfer", setting, values, {family: same[family] for family in values}, size)

    return [
        *(
            row(f"{source} -> {target}", {target: of[source][target]})
            for source in families
            for target in families
        ),
        *(row(f"others -> {target}", {target: others[target]}) for target in families),
        row("same family", same),
        row("one other family", each_other),
        row("all other families", others),
    ]


def features(fitted: Sequence[Collected], tested: Sequence[Collected], settings: FitSettings) -> list[Row]:
    """LDS of every subset of the kinds of features, with the network, without it, and with the link `identity` as well.

    `attention` with the identity is the paper's estimator.
    """
    learned = training_data(fitted, KINDS)
    subsets: list[tuple[str, ...]] = [
        kinds for count in range(1, len(KINDS) + 1) for kinds in combinations(KINDS, count)
    ]
    ways = {
        "": settings,
        ", no network": replace(settings, hidden=0),
        ", identity": replace(settings, link="identity"),
    }
    found = {
        "+".join(kinds) + way: evaluate(learn(learned, replace(of_way, kinds=kinds)), tested)
        for way, of_way in ways.items()
        for kinds in subsets
    }
    reference = found["+".join(_in_order(settings.kinds))]
    return [_row("features", setting, values, reference, len(fitted)) for setting, values in found.items()]


def heads(
    fitted: Sequence[Collected], tested: Sequence[Collected], settings: FitSettings, layers: int
) -> list[Row]:
    """LDS against the share of heads that are kept, and how many layers hold none of them."""
    kept = keep_heads(fitted, FRACTIONS, settings)
    learned = training_data(fitted, KINDS)
    number = learned.features.shape[-1] // len(KINDS)
    different = {len(some): some for some in kept.values()}
    found = {count: evaluate(learn(learned, settings, some), tested) for count, some in different.items()}
    return [
        _row(
            "heads", f"{fraction:g}", found[len(some)], found[number], len(fitted), heads=len(some),
            layers_skipped=by_layer(some, number, layers).count([]),
        )
        for fraction, some in kept.items()
    ]  # fmt: skip


def _learn_and_evaluate(
    images: Sequence[Collected], tested: Sequence[Collected], settings: FitSettings
) -> ByFamily:
    return evaluate(learn(training_data(images, KINDS), settings), tested)


def _counting(images: Sequence[Collected]) -> ByFamily:
    """What a constant has: the families and images that count, whatever the weights."""
    return of_images(images, lambda one, subsets: torch.zeros(len(one.spans), len(subsets)))


def _row(
    experiment: str, setting: str, values: ByFamily, reference: ByFamily, scenes: int, **more: int
) -> Row:
    images = sum(map(len, values.values()))
    return Row(
        experiment, setting, *metrics.bootstrap(values), images, scenes, *share(values, reference), **more
    )


def _mean(draws: Sequence[ByFamily]) -> ByFamily:
    """The mean for each image of the same images' values."""
    return {
        family: [sum(each) / len(each) for each in zip(*(one[family] for one in draws), strict=True)]
        for family in draws[0]
    }


def read_both(fit: Path, test: Path) -> tuple[list[Collected], list[Collected]]:
    """Both collections. Raises `DataError` where they cannot be compared, or a number would mean nothing."""
    abouts = [read_run(fit), read_run(test)]
    what = {
        "models": [about["fingerprint"] for about in abouts],
        "ways of hiding": [about["settings"].get("hiding") for about in abouts],
        "regions": [about["settings"].get("regions") for about in abouts],
        "features": [about["settings"].get("kinds") for about in abouts],
    }
    different = [name for name, (one, other) in what.items() if one != other]
    if different:
        raise DataError(
            f"{fit} and {test} were collected with different {' and '.join(different)}; collect one of them again."
        )
    check_features(abouts[0], str(fit))
    both = read_collected(fit), read_collected(test)
    for place, images in zip((fit, test), both, strict=True):
        if len(images) < FEWEST_IMAGES:
            raise DataError(
                f"{len(images)} images in {place} are too few; expected {FEWEST_IMAGES} at the very least: collect more."
            )
    twice = {one.id for one in both[0]} & {one.id for one in both[1]}
    if twice:
        raise DataError(
            f"{len(twice)} images are in both collections (first {min(twice)!r}); expected test scenes of their own."
        )
    if not _counting(both[1]):
        raise DataError(
            f"{test} has no span whose effects vary over subsets of the rate {RATE}; collect with --rates {RATE}, and "
            "check that the model sees its images."
        )
    return both


def draw_scenes(rows: Sequence[Row]) -> Any:
    """LDS against scenes."""
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    sizes = [row.scenes for row in rows]
    axes.errorbar(sizes, [row.lds for row in rows], yerr=_bars(rows), fmt="o-", color=OURS, capsize=2)
    axes.set_xscale("log")
    apart = [size for size in sizes[:-1] if 1.2 * size < sizes[-1]]  # labels that do not run into the last
    axes.set_xticks([*apart, sizes[-1]], [f"{size:,}" for size in (*apart, sizes[-1])])
    axes.minorticks_off()
    axes.set(xlabel="scenes fitted on", ylabel=ON_TEST_SCENES)
    axes.grid(alpha=0.3)
    return figure


def draw_transfer(rows: Sequence[Row]) -> Any:
    """A matrix of families: how much of the LDS within the family tested on is left, above the LDS itself."""
    cells = {tuple(row.setting.split(" -> ")): row for row in rows if " -> " in row.setting}
    targets = sorted({target for _, target in cells})
    sources = [*targets, "others"]
    figure = new_figure(1.9 + 1.05 * len(targets), 1.1 + 0.6 * len(sources))
    axes = figure.add_subplot()
    shares = [[cells[source, target].share or 0.0 for target in targets] for source in sources]
    lowest = min(0.5, *chain(*shares))  # so that small differences look small
    colours = axes.imshow(shares, cmap="Blues", vmin=lowest, vmax=1.1, aspect="auto")
    for (source, target), row in cells.items():
        x, y = targets.index(target), sources.index(source)
        ink = "white" if shares[y][x] > (lowest + 1.1) / 2 else "black"
        name = "same" if source == target else "-" if row.share is None else f"{100 * row.share:.0f} %"
        axes.text(x, y - 0.14, name, ha="center", va="center", color=ink, size=10)
        axes.text(x, y + 0.22, f"{row.lds:.2f}", ha="center", va="center", color=ink, size=8)
    axes.set_xticks(range(len(targets)), targets)
    axes.set_yticks(range(len(sources)), [*targets, "all others"])
    axes.set_xticks([x + 0.5 for x in range(len(targets) - 1)], minor=True)
    axes.set_yticks([y + 0.5 for y in range(len(sources) - 1)], minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.axhline(len(targets) - 0.5, color="white", linewidth=6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="tested on", ylabel=f"fitted on {rows[0].scenes} scenes of")
    figure.colorbar(colours, label="share of the same family's LDS").outline.set_visible(False)
    return figure


def draw_features(rows: Sequence[Row]) -> Any:
    """LDS of each set of features, the best on top."""
    figure = new_figure(6.4, 1.0 + 0.33 * len(rows))
    axes = figure.add_subplot()
    ordered = sorted(rows, key=lambda row: row.lds)
    ours = "+".join(FitSettings().kinds)
    names = {
        ours: f"{ours.replace('+', ' + ')} (Eyeline)",
        "attention, identity": "attention, identity (the paper)",
    }
    for y, row in enumerate(ordered):
        colour = OURS if row.setting == ours else PLAIN
        axes.errorbar(row.lds, y, xerr=_bars([row]), fmt="o", color=colour, capsize=2)
    labels = [names.get(row.setting, row.setting.replace("+", " + ")) for row in ordered]
    axes.set_yticks(range(len(ordered)), labels)
    axes.set(xlabel=ON_TEST_SCENES)
    axes.set_ylim(-0.7, len(ordered) - 0.3)
    axes.grid(alpha=0.3)
    return figure


def draw_heads(rows: Sequence[Row]) -> Any:
    """LDS against heads, with how many layers can be skipped."""
    figure = new_figure(6.4, 4.0)
    axes = figure.add_subplot()
    places = [100 * float(row.setting) for row in rows]
    axes.errorbar(places, [row.lds for row in rows], yerr=_bars(rows), fmt="o-", color=OURS, capsize=2)
    axes.set_xscale("log")
    axes.set_xticks(places, [f"{place:g} %\n{row.heads}" for place, row in zip(places, rows, strict=True)])
    axes.minorticks_off()
    for place, row in zip(places, rows, strict=True):
        axes.annotate(
            f"{row.layers_skipped}", (place, 0.04), xycoords=("data", "axes fraction"), ha="center", fontsize=9,
            color=PLAIN,
        )  # fmt: skip
    axes.annotate(
        "layers without any kept head", (0.02, 0.1), xycoords="axes fraction", fontsize=8, color=PLAIN
    )
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.2 * (high - low), high)  # room for the layers
    axes.set(xlabel="heads kept, share and number", ylabel=ON_TEST_SCENES)
    axes.grid(alpha=0.3)
    return figure


def _bars(rows: Sequence[Row]) -> list[list[float]]:
    return error_bars((row.lds, row.low, row.high) for row in rows)


EXPERIMENTS = {"scenes": scenes, "transfer": transfer, "features": features, "heads": heads}
FIGURES = {
    "scenes": draw_scenes,
    "transfer": draw_transfer,
    "features": draw_features,
    "heads": draw_heads,
}


@click.command()
@click.option(
    "--fit", type=click.Path(path_type=Path), required=True, help="Collection to fit on and choose with."
)
@click.option("--test", type=click.Path(path_type=Path), required=True, help="Collection of test scenes.")
@click.option(
    "--experiment", "experiments", multiple=True, type=click.Choice(list(EXPERIMENTS)), default=list(EXPERIMENTS),
    show_default=True, help="Repeatable.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(1), default=FitSettings().steps, show_default=True, help="Of each fit."
)
@click.option(
    "--layers", type=click.IntRange(1), show_default="from the model's configuration",
    help="Of the language model, to count those without a kept head.",
)  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), required=True,
    help="CSV to write; each experiment's figure goes beside it.",
)  # fmt: skip
def main(
    fit: Path, test: Path, experiments: tuple[str, ...], steps: int, layers: int | None, out: Path
) -> None:
    """Measure what an estimator needs: scenes, families, features, heads."""
    with writing(out):
        fitted, tested = read_both(fit, test)
        if "heads" in experiments:
            number = fitted[0].features.shape[-1] // len(KINDS)
            layers = count_layers(read_run(fit)["model"], number, layers)
        rows: list[Row] = []
        for name in EXPERIMENTS:
            if name in experiments:
                more = {"layers": layers} if name == "heads" else {}
                found = EXPERIMENTS[name](fitted, tested, FitSettings(steps=steps), **more)
                write_png(FIGURES[name](found), out.with_name(f"{out.stem}_{name}.png"))
                rows += found
                write_csv(Row, rows, out)
                click.echo(f"{name}: {len(found)} settings", err=True)
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
