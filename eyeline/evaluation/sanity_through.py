"""Three checks of what is said of answers through the thinking, and of sentences, in which no answer is thought again.

Weights: on the model with its weights shuffled no region is named with confidence (arXiv 1810.03292). Pairs: of a scene and its
counterfactual, which differs in one region, the region named first is the one that differs, where the answers do; nothing is
filled for that. Alone: each earlier sentence hidden by itself from a later one's queries (Thought Anchors, arXiv 2506.19143).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from eyeline import load, metrics
from eyeline.estimator import Estimator
from eyeline.evaluation.answers import means_the_same
from eyeline.evaluation.command_options import ESTIMATOR, MODEL, TABLE
from eyeline.evaluation.evaluate import one_estimator
from eyeline.evaluation.results import write_csv, writing
from eyeline.evaluation.sanity import Row, differing_cells, in_pairs, randomised
from eyeline.evaluation.totals import FEWEST_BEFORE, OURS, auc, check_estimator, named_first
from eyeline.events import RestsOn
from eyeline.examples import Example, read_examples
from eyeline.game import Game
from eyeline.images import open_image
from eyeline.model import Model
from eyeline.regions import Regions
from eyeline.text_ablation import hide_text, of_spans
from eyeline.training.collect import Answered, answer
from eyeline.training.traces import LEAST_SPREAD, OfText, Settings, games_of, of_sources, read_whole
from eyeline.training.weights import pearson

CONFIDENT = 0.5  # a chance from which on a region is named with confidence
MEASURED = "measured alone"
SPANS = 8  # of a trace, spread evenly, whose sources are measured

Value = tuple[str, str, str, float]  # check, method, measure, value


@dataclass(frozen=True, eq=False)
class Told:
    """What a model that reads a trace, which may be another's, says of its answer, and of what that is made of."""

    regions: Regions
    game: Game  # of all tokens
    features: Float[Tensor, "token earlier text_feature"]
    rests: RestsOn


def tell(model: Model, estimator: Estimator, own: Answered, settings: Settings) -> Told:
    regions, game, features = read_whole(model, estimator, own, settings)
    games = games_of(game, features, ranges_of(own), [span.index for span in own.spans], estimator)
    answers = [(span.start, span.end) for span in own.spans if span.channel == "answer"]
    return Told(regions, game, features, games.rests_on(answers))


def ranges_of(own: Answered) -> list[tuple[int, int]]:
    return [(span.start, span.end) for span in own.spans]


def check_chances(told: Mapping[str, Told]) -> Iterator[Value]:
    """The share of regions that each model names with confidence, and the largest chance, on the same trace."""
    for name, each in told.items():
        chances = torch.tensor(each.rests.changes)
        yield "weights", name, "named with confidence", float((chances >= CONFIDENT).float().mean())
        yield "weights", name, "largest chance", float(chances.max())


def differing_regions(
    model: Model, own: Answered, regions: Regions, other: Example
) -> Bool[Tensor, " region"]:
    """Those with a cell in which the other image differs."""
    seen = model.inputs([open_image(image) for image in other.images], other.prompt)
    cells = differing_cells(own.inputs["pixel_values"], seen["pixel_values"], len(regions.of_patch))
    found = torch.zeros(regions.count, dtype=torch.bool)
    found[regions.of_patch[cells.cpu()]] = True
    return found


def check_pair(
    model: Model, twin: tuple[Example, Example], own: Answered, told: Told, settings: Settings
) -> Iterator[Value]:
    """Whether the region named first is one that differs, where the model's answers do; beside it the share that do."""
    one, other = twin
    if means_the_same(one)(own.answer, answer(model, other, settings.max_new_tokens, 10**9).answer):
        return
    differing, rests = differing_regions(model, own, told.regions, other), told.rests
    if not differing.any() or differing.all():
        return
    for name, values in ((OURS, rests.changes), ("direct", rests.direct)):
        yield "pairs", name, "differs where named first", named_first(torch.tensor(values), differing)
        yield "pairs", name, "AUC", auc(torch.tensor(values), differing)
    yield "pairs", "by chance", "differs where named first", float(differing.float().mean())


def check_alone(
    model: Model,
    weights: Float[Tensor, "set text_feature"],
    own: Answered,
    told: Told,
    seed: int,
    settings: Settings,
) -> Iterator[Value]:
    """Of each sentence with enough before it: single sources predicted against measured, and both added up over random halves."""
    assert told.game.log_odds is not None, "an estimator of log-odds"
    rng = torch.Generator().manual_seed(seed)
    places = range(FEWEST_BEFORE, len(own.spans))
    for place in places[:: 1 + len(places) // settings.max_spans]:
        span = own.spans[place]
        halves = torch.rand(settings.subsets, place, generator=rng) < 0.5
        hidden = of_spans(torch.cat([torch.eye(place).bool(), halves]), own.spans[:place], span.start)
        falls = hide_text(model, own.inputs, own.ids, span, hidden).sum(1).float().cpu()
        alone, together = falls[:place], falls[place:]
        if float(together.std()) < LEAST_SPREAD:
            continue
        odds, sources = (
            told.game.log_odds[span.start : span.end],
            of_sources(told.features, ranges_of(own), place),
        )
        is_answer, both = span.channel == "answer", torch.cat([torch.eye(place), halves.float()])
        predicted = OfText(sources, odds, both, falls, is_answer).predicted(weights)
        said = {OURS: predicted[place:], MEASURED: halves.float() @ alone}
        for name, values in said.items():
            lds = metrics.spearman(values[None], together[None])[0]
            yield "sources", name, f"LDS, {span.channel}", float(lds)
        if float(alone.std()) >= LEAST_SPREAD:
            agreed = pearson(predicted[None, :place], alone[None])[0]
            yield "sources", OURS, f"correlation with measured alone, {span.channel}", float(agreed)


def check(
    model: Model, estimator: Estimator, twins: Sequence[tuple[Example, Example]], settings: Settings
) -> list[Row]:
    """All three on the same scenes: means over families of means over scenes."""
    assert estimator.text is not None, "the estimator knows earlier text"
    models = {"trained": model, "randomised": randomised(model)}
    found: dict[tuple[str, str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for number, twin in enumerate(twins):
        one, _ = twin
        own = answer(model, one, settings.max_new_tokens, 10**9)
        if not any(span.channel == "answer" for span in own.spans):
            continue
        of_scene: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        told = {of: tell(each, estimator, own, settings) for of, each in models.items()}
        trained = told["trained"]
        for name, method, measure, value in (
            *check_chances(told),
            *check_pair(model, twin, own, trained, settings),
            *check_alone(model, estimator.text, own, trained, number, settings),
        ):
            of_scene[name, method, measure].append(value)
        for key, values in of_scene.items():
            found[key][one.family].append(sum(values) / len(values))
        click.echo(f"{number + 1} of {len(twins)}", err=True)
    return [
        Row(*key, *metrics.bootstrap(families), sum(map(len, families.values())))
        for key, families in sorted(found.items())
    ]


@click.command()
@MODEL
@ESTIMATOR
@click.option(
    "--data", type=click.Path(path_type=Path), required=True, help="Data folder with counterfactuals."
)
@TABLE
def main(model_id: str, estimator: str | None, data: Path, out: Path) -> None:
    """Check what is said of answers through the thinking without thinking again."""
    with writing(out, figure=False):
        model = load(model_id)
        own, _ = one_estimator(model, estimator)
        check_estimator(own)
        write_csv(Row, check(model, own, in_pairs(read_examples(data)), Settings(max_spans=SPANS)), out)
    click.echo(out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
