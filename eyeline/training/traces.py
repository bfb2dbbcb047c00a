"""The data that says what spans take from earlier text and what answers rest on through it, and what is fitted on them.

Of every example: what the estimator reads of its spans (games, features of earlier text), what hiding earlier spans from each
span's own queries does (text_ablation.py), and what hiding each region from the start does to the answer (rethinking.py).
Weights for earlier text are fitted on the first truth, the chances that answers change on the second, of other examples than
those that anything is reported of.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eyeline.ablation import read_trace
from eyeline.capture import AttentionCapture
from eyeline.earlier import KINDS, EarlierText
from eyeline.errors import DataError, EyelineError
from eyeline.estimator import SETS, Estimator, mix
from eyeline.estimator_files import digest
from eyeline.events import RestsOn
from eyeline.examples import Box, Example
from eyeline.features import needs_outputs
from eyeline.game import Game, fall
from eyeline.kept_games import PARTS, Games, joined
from eyeline.model import Model
from eyeline.reader import Reader
from eyeline.regions import Regions, regions_for
from eyeline.rethinking import Same, rethink, same_text
from eyeline.spans import Span
from eyeline.text_ablation import hide_text, of_spans
from eyeline.through import Chances, logistic_inputs
from eyeline.training.collect import Answered, answer, each_once, half, open_run, read_saved, save_example
from eyeline.training.weights import pearson

Rivals = Callable[[Model, Answered, Regions, tuple[int, int]], dict[str, Float[Tensor, " region"]]]
FEWEST_BEFORE = 2  # spans before one whose sources are measured
NATS = 0.3  # share of the error in nats beside correlation, as weights of earlier text are fitted
LEAST_SPREAD = 0.05  # nats: standard deviation of a span's measured falls under which it says nothing


@dataclass(frozen=True, slots=True)
class Settings:
    """What a collection was made with; a run is only ever continued with the same."""

    regions: str = "native"
    subsets: int = 32  # of earlier spans, each hidden with probability 0.5
    max_spans: int = 24  # of a trace whose sources are measured, spread evenly
    max_new_tokens: int = 1024
    seed: int = 0
    estimator: str = ""  # digest of that whose games are kept


@dataclass(frozen=True, eq=False)
class Traced:
    """One example: what is read of its trace, and what is measured of earlier text and of answers thought again."""

    id: str
    family: str
    answer: str
    spans: tuple[dict[str, Any], ...]  # index, channel, start, end, text, cut
    game: Game  # of all tokens
    features: Float[
        Tensor, "token earlier text_feature"
    ]  # float16; of earlier tokens, 0 for those that are not
    measured: Int[Tensor, " of_text"]  # places of the spans whose sources were measured
    sources: Bool[Tensor, "of_text subset source"]  # which spans were hidden; beyond those before it, none
    source_falls: Float[Tensor, "of_text subset"]  # of the span's log-prob, nats
    changes: Float[
        Tensor, " set"
    ]  # whether the answer means something else: each region alone, and everything
    falls: Float[Tensor, "set 3"]  # of its log-prob: direct, through and total, nats
    nulls: Float[Tensor, "null 3"]
    labels: tuple[Any, ...]  # one label grid for each image
    answered: bool  # whether there was an answer, after thinking or without, to think again about
    again: tuple[str, ...]  # the new answer without each set
    boxes: tuple[Box, ...]  # all that the reference trace reads, in pixels of the first image
    size: tuple[int, int]  # of that image, width and height
    rivals: Mapping[
        str, Float[Tensor, " region"]
    ]  # what other methods say of each region, where they were asked

    def games(self, estimator: Estimator) -> Games:
        """As a stream keeps them, with the estimator's links."""
        indices = [span["index"] for span in self.spans]
        return games_of(self.game, self.features.float(), self.ranges, indices, estimator)

    def rests_on(self, estimator: Estimator) -> RestsOn:
        """What a stream's last event says of the answer."""
        return self.games(estimator).rests_on(self.answers)

    @property
    def changed(self) -> Bool[Tensor, " set"]:
        return self.changes >= 0.5

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """[start, end) of each span."""
        return [(span["start"], span["end"]) for span in self.spans]

    @property
    def answers(self) -> list[tuple[int, int]]:
        return [(span["start"], span["end"]) for span in self.spans if span["channel"] == "answer"]

    @property
    def log_odds(self) -> Float[Tensor, " token"]:
        assert self.game.log_odds is not None, "an estimator of log-odds"
        return self.game.log_odds


def games_of(
    game: Game, features: Float[Tensor, "token earlier text_feature"], ranges: Sequence[tuple[int, int]],
    indices: Sequence[int], estimator: Estimator,
) -> Games:  # fmt: skip
    """What a stream keeps of spans, of the game and the features of all their tokens; `ranges` hold [start, end) of each."""
    assert game.log_odds is not None, "an estimator of log-odds"
    links = estimator.links(features, game.log_odds)
    return Games(
        [torch.arange(start, end) for start, end in ranges], [game.of(start, end) for start, end in ranges],
        [links.of(start, end) for start, end in ranges], list(indices), estimator.chances,
    )  # fmt: skip


def of_sources(
    features: Float[Tensor, "token earlier text_feature"], ranges: Sequence[tuple[int, int]], place: int
) -> Float[Tensor, "some source text_feature"]:
    """Features of the tokens of the span at `place`, added up over each span before it."""
    start, end = ranges[place]
    return torch.stack([features[start:end, first:last].sum(1) for first, last in ranges[:place]], dim=1)


def collect(
    model: Model, estimator: Estimator, examples: Iterable[Example], out: Path, settings: Settings,
    same: Callable[[Example], Same] = lambda _: same_text, rivals: Rivals | None = None,
) -> Iterator[str]:  # fmt: skip
    """Measures every example that the run does not hold yet, and yields the id of each as it is there. Raises `DataError`.

    `same` gives the rule by which an example's new answer means what the first did; `rivals` what else says something of each
    region.
    """
    if estimator.link == "identity":
        raise DataError("Earlier text is read with an estimator of log-odds; fit one with --link log-odds.")
    settings = replace(settings, estimator=digest(replace(estimator, text=None)))
    open_run(model, out, asdict(settings), "collection of traces")
    yield from each_once(
        examples,
        out,
        lambda example: collect_one(model, estimator, example, settings, same(example), rivals),
        _save,
        "traced",
    )


def read_whole(
    model: Model, estimator: Estimator, own: Answered, settings: Settings
) -> tuple[Regions, Game, Float[Tensor, "token earlier text_feature"]]:
    """Regions of a trace's images, the game of all its tokens, and their features of earlier tokens, 0 of those that are not."""
    count = len(model.adapter.layers(model.hf))
    with torch.inference_mode(), AttentionCapture(
        model, own.inputs, layers=estimator.layers(count), outputs=needs_outputs(estimator.kinds)
    ) as capture:  # fmt: skip
        read_trace(model, own.inputs, own.ids)
    assert capture.vision_features is not None
    regions = regions_for(
        own.pictures, capture.grids, capture.vision_features, settings.regions, settings.seed
    )
    ids = own.ids.tolist()
    with torch.inference_mode():
        reader = Reader(model, own.inputs, capture, regions, estimator, sources=False)
        reader.measure_leak()
        text = EarlierText(model, capture)
        games, features = [], torch.zeros(len(ids), len(ids), len(KINDS))
        for span in own.spans:
            read = reader.read(span, ids[span.start : span.end])
            assert read.game is not None
            games.append(read.game.to(torch.device("cpu")))
            seen = text.features(capture.take(span.start, span.end)).cpu()
            features[span.start : span.end, : seen.shape[1]] = seen
    return regions, joined(games), features


def collect_one(
    model: Model, estimator: Estimator, example: Example, settings: Settings, same: Same = same_text,
    rivals: Rivals | None = None,
) -> Traced:  # fmt: skip
    """Answers, reads, hides earlier spans and thinks again; where there is no answer, that is kept."""
    own = answer(model, example, settings.max_new_tokens, 10**9)
    regions, game, features = read_whole(model, estimator, own, settings)
    ids = own.ids.tolist()
    places, subsets, falls = _hide_earlier(model, own.inputs, own.ids, own.spans, example.id, settings)
    sets = torch.cat([torch.eye(regions.count), torch.ones(1, regions.count)]).bool()
    labels = regions.of_patch.to(model.device)
    answers = [span for span in own.spans if span.channel == "answer"]
    boxes = tuple(box for of_sentence in example.evidence for box in of_sentence)
    told: dict[str, Float[Tensor, " region"]] = {}
    try:
        again = rethink(model, own.inputs, ids, labels, sets, same=same)
        changes, fallen, nulls = again.changes, again.falls, again.nulls
        texts = tuple(each[0].answer for each in again.again)
        if rivals is not None and answers:
            told = rivals(model, own, regions, (answers[0].start, answers[-1].end))
    except DataError:  # no answer, or thinking without an end
        answers, texts = [], ()
        changes, fallen, nulls = torch.zeros(len(sets)), torch.zeros(len(sets), 3), torch.zeros(0, 3)
    return Traced(
        example.id, example.family, own.answer, tuple(asdict(span) for span in own.spans), game,
        half(features), places, subsets, falls, changes, fallen, nulls, tuple(grid.tolist() for grid in regions.labels),
        bool(answers), texts, boxes, own.pictures[0].size, told,
    )  # fmt: skip


def _hide_earlier(
    model: Model,
    inputs: Any,
    ids: Int[Tensor, " token"],
    spans: Sequence[Span],
    name: str,
    settings: Settings,
) -> tuple[Int[Tensor, " of_text"], Bool[Tensor, "of_text subset source"], Float[Tensor, "of_text subset"]]:
    places = torch.arange(min(FEWEST_BEFORE, len(spans)), len(spans))
    if len(places) > settings.max_spans:
        places = places[torch.linspace(0, len(places) - 1, settings.max_spans).long()]
    rng = torch.Generator().manual_seed(int.from_bytes(name.encode()[-7:], "big") ^ settings.seed)
    subsets = torch.zeros(len(places), settings.subsets, len(spans), dtype=torch.bool)
    falls = torch.zeros(len(places), settings.subsets)
    for row, place in enumerate(places.tolist()):
        drawn = torch.rand(settings.subsets, place, generator=rng) < 0.5
        subsets[row, :, :place] = drawn
        hidden = of_spans(drawn, spans[:place], spans[place].start)
        falls[row] = hide_text(model, inputs, ids, spans[place], hidden).sum(1).float().cpu()
    return places, subsets, falls


TENSORS = ("features", "measured", "sources", "source_falls", "changes", "falls", "nulls")
PLAIN = ("id", "family", "answer", "spans", "labels", "answered", "again", "boxes", "size")


def _save(traced: Traced, path: Path, of_example: str = "") -> None:
    tensors = {name: getattr(traced, name) for name in TENSORS}
    tensors |= {f"game.{name}": part for name in PARTS if (part := getattr(traced.game, name)) is not None}
    tensors["game.together"] = tensors["game.together"].half()  # rounded to it
    tensors |= {f"rival.{name}": values for name, values in traced.rivals.items()}
    rest = {name: getattr(traced, name) for name in PLAIN}
    save_example(
        {f"through.{name}": tensor for name, tensor in tensors.items()}, {**rest, "digest": of_example}, path
    )


def read_traced(run: Path) -> list[Traced]:
    """All examples of a run, by id. Raises `DataError` for a file that is none."""
    return list(read_saved(run, _traced, "traced"))


def _traced(rest: dict[str, Any], tensors: dict[str, Tensor]) -> Traced:
    tensors = {name.removeprefix("through."): tensor for name, tensor in tensors.items()}
    parts = {name: tensors.get(f"game.{name}") for name in PARTS}
    game = Game(**parts)  # pyright: ignore[reportArgumentType]
    game = replace(game, together=game.together.float())
    rivals = {
        name.removeprefix("rival."): each for name, each in tensors.items() if name.startswith("rival.")
    }
    return Traced(
        rest["id"], rest["family"], rest["answer"], tuple(rest["spans"]), game, labels=tuple(rest["labels"]),
        answered=rest["answered"], again=tuple(rest["again"]), boxes=tuple(map(tuple, rest["boxes"])),
        size=tuple(rest["size"]), rivals=rivals, **{name: tensors[name] for name in TENSORS},
    )  # fmt: skip


# --- fitting


@dataclass(frozen=True, eq=False)
class OfText:
    """One span, with what is read and measured of the spans before it."""

    features: Float[Tensor, "token source text_feature"]
    log_odds: Float[Tensor, " token"]
    hidden: Float[Tensor, "subset source"]
    falls: Float[Tensor, " subset"]
    is_answer: bool

    def predicted(self, weights: Float[Tensor, "set text_feature"]) -> Float[Tensor, " subset"]:
        """The span's falls, nats."""
        scores = torch.einsum("tsf,tf->ts", self.features, mix(self.log_odds, len(weights)) @ weights)
        return fall(scores @ self.hidden.T, self.log_odds).sum(0)


def spans_of(traced: Traced) -> Iterator[OfText]:
    """The spans whose sources were measured and say something."""
    ranges, features = traced.ranges, traced.features.float()
    for row, place in enumerate(traced.measured.tolist()):
        falls = traced.source_falls[row]
        if float(falls.std()) < LEAST_SPREAD:
            continue
        yield OfText(
            of_sources(features, ranges, place), traced.log_odds[slice(*ranges[place])],
            traced.sources[row, :, :place].float(), falls, traced.spans[place]["channel"] == "answer",
        )  # fmt: skip


def fit_text(
    traced: Sequence[Traced], sets: int = SETS["log-odds"], steps: int = 400
) -> Float[Tensor, "set text_feature"]:
    """Weights, none below 0, by which predicted falls agree best with measured ones: in the mean Pearson correlation of spans,
    and, for a share of NATS, in how far they are off.

    Raises `DataError` where there is no span to fit on.
    """
    spans = [span for one in traced for span in spans_of(one)]
    if not spans:
        raise DataError(
            "No span has earlier text that matters to it: collect longer traces, at least three sentences each."
        )
    unit = 1 / torch.cat([span.features.flatten(0, 1) for span in spans]).square().mean(0).sqrt().clamp(
        min=1e-12
    )
    rng = torch.Generator().manual_seed(0)
    everything = torch.cat([(span.features * unit).sum((1, 2)) for span in spans])
    sure = torch.cat([span.log_odds for span in spans]).clamp(min=1)
    begin = torch.log(
        sure.mean() / everything.mean().clamp(min=1e-12)
    )  # hiding everything leaves an even chance
    inner = begin.expand(sets, len(KINDS)).clone().requires_grad_()
    optimizer = torch.optim.Adam([inner], 0.05)
    for _ in range(steps):
        some = [spans[at] for at in torch.randperm(len(spans), generator=rng)[:128].tolist()]
        predicted = [span.predicted(inner.exp() * unit) for span in some]
        pairs = list(zip(predicted, (span.falls for span in some), strict=True))
        agreement = torch.stack([pearson(one[None], other[None])[0] for one, other in pairs])
        off = torch.stack([(one - other).abs().mean() / (1 + other.abs().mean()) for one, other in pairs])
        optimizer.zero_grad()
        (NATS * off.mean() - agreement.mean()).backward()
        optimizer.step()
    return inner.detach().exp() * unit


def fit_chances(traced: Sequence[Traced], estimator: Estimator) -> Chances:
    """The logistic map, of single regions and whole images, by maximum likelihood with a weak ridge prior.

    Raises `DataError` where no answer changes, or all of them do.
    """
    from sklearn.linear_model import LogisticRegression

    inputs, changed, costs = [], [], []
    for one in traced:
        reached = reaches(one, estimator)
        inputs.append(logistic_inputs(reached, reached[:-1].max()))
        changed.append(one.changed)
        costs.append(one.falls[:, 2][changed[-1]])
    truth = torch.cat(changed)
    if truth.all() or not truth.any():
        raise DataError("Of the answers that were thought again all change or none: collect other examples.")
    found = LogisticRegression(C=1.0).fit(torch.cat(inputs).numpy(), truth.numpy())
    reached, share = found.coef_[0].tolist()
    return Chances(float(found.intercept_[0]), reached, share, float(torch.cat(costs).mean()))


def reaches(traced: Traced, estimator: Estimator) -> Float[Tensor, " set"]:
    """What reaches the answer: without each region, and without the whole image."""
    return traced.games(estimator).reaches(traced.answers, torch.zeros(traced.game.regions, 0))


def fit(traced: Sequence[Traced], estimator: Estimator) -> Estimator:
    """The estimator with weights for earlier text and chances that answers change. Raises `DataError`."""
    usable = [one for one in traced if one.answered and one.answers[0][0] > 0]
    if not usable:
        raise DataError("No example has an answer after some thinking; collect with a model that thinks.")
    fitted = replace(estimator, text=fit_text(usable))
    card = {**estimator.card, "chances": fit_chances(usable, fitted).to_card(), "traces": len(usable)}
    return replace(fitted, card=card)


def check_run(about: Mapping[str, Any], estimator: Estimator) -> None:
    """Raises `EyelineError` for a collection of another estimator's games."""
    if about["settings"].get("estimator") != digest(replace(estimator, text=None)):
        raise EyelineError(
            "The traces were collected with another estimator; collect them again with this one, or fit that one."
        )
