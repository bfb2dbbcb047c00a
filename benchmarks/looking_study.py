"""Does how a trace looks at its image say whether its answer is right? What it adds to what is known without looking.

Logistic regressions on standardised measures, on folds by scene (a scene is one image with one trace), after a quarter,
three tenths, half, three quarters and all of each trace. Numbers are areas under the ROC curve of right against wrong, and
what one set of measures adds to another, with intervals by resampling scenes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.looking_traces import KINDS, PARTS, SAMPLES, Traced, parts_of, read_traced
from eyeline.evaluation.command_options import TABLE
from eyeline.evaluation.results import write_csv, writing
from eyeline.looking import (
    components,
    entropy,
    gaze,
    look_backs,
    looks,
    new_evidence,
    path_length,
    reliance,
    since_look,
    tortuosity,
    unexplored,
)
from eyeline.metrics import auc

FOLDS = 10
DRAWS = 1000  # of the bootstrap
STRAIGHT = 1e3  # a tortuosity above counts as this: a path that comes back to where it began has none
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # of the probe, by folds within the scenes to learn from
DIRECTIONS = 64  # principal components of hidden states that the probe reads
TEXT, ORDERED, BAG, SHUFFLED, PROBE, AGREEMENT = (
    "text",
    "order",
    "bag",
    "shuffled order",
    "probe",
    "agreement",
)
# What is held against what: the first set of measures, and the same with the others
ADDED = (
    ((TEXT,), (BAG,)), ((TEXT,), (ORDERED,)), ((TEXT,), (BAG, ORDERED)), ((TEXT, BAG), (ORDERED,)), ((TEXT, BAG), (SHUFFLED,)),
    ((TEXT,), (PROBE,)), ((TEXT,), (AGREEMENT,)), ((TEXT, PROBE), (BAG, ORDERED)), ((TEXT, AGREEMENT), (BAG, ORDERED)),
    ((TEXT, PROBE, AGREEMENT), (BAG, ORDERED)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """An area under the curve, or what measures add to it, with its 95 % interval."""

    scenes: str  # all, as photographed, blurred, or a family that was left out of the fit
    part: float  # of the trace
    measures: str
    added_to: str  # nothing, or the measures whose area is taken off
    value: float
    low: float
    high: float
    count: int  # scenes
    wrong: int


def text_measures(traced: Traced, tokens: int, spans: int) -> list[float]:
    """What is known of a trace without the image: length, position, log-probs, entropy, and at the end which family it is of."""
    log_probs, entropies = traced.log_probs[:tokens], traced.entropies[:tokens]
    kind = [float(traced.family == each) for each in KINDS]
    return [
        float(np.log(tokens)), float(spans), float(log_probs.mean()), float(log_probs.min()), float(entropies.mean()),
        float(entropies.max()), *kind,
    ]  # fmt: skip


def bag_measures(traced: Traced, spans: int) -> list[float]:
    """How spans look, whatever their order."""
    contributions, lengths = traced.contributions[:spans], traced.spans[:spans, 1] - traced.spans[:spans, 0]
    spread, nats = entropy(contributions), reliance(traced.whole[:spans], lengths)
    return [
        float(spread.nanmean()), float(spread.exp().nanmean()), unexplored(contributions, traced.areas),
        float(looks(contributions).float().mean()), float(nats.mean()), float(nats.min()), float(nats.max()),
        float(contributions.clamp(max=0).sum(1).mean()), float(contributions.max(1).values.mean()),
    ]  # fmt: skip


def ordered_measures(traced: Traced, spans: int, order: Sequence[int] | None = None) -> list[float]:
    """How the trace goes from span to span, in its own order or in one that is given."""
    places = torch.tensor(list(range(spans) if order is None else order), dtype=torch.long)
    contributions, lengths = traced.contributions[places], (traced.spans[:, 1] - traced.spans[:, 0])[places]
    found, paper = gaze(contributions, traced.places), components(contributions)
    return [
        path_length(found), _log(tortuosity(found)), float(look_backs(contributions).sum()),
        float(new_evidence(contributions).nanmean()), float(since_look(contributions, lengths).float().mean()),
        path_length(paper), _log(tortuosity(paper)),
    ]  # fmt: skip


def _log(ratio: float) -> float:
    return float(np.log(min(ratio, STRAIGHT)))


def measure(traced: Sequence[Traced], part: int) -> dict[str, np.ndarray]:
    """Every set of measures of the traces' beginnings, (scene, measure); what a trace has not is nan."""
    rng = np.random.default_rng(part)
    found: dict[str, list] = {name: [] for name in (TEXT, BAG, ORDERED, SHUFFLED, PROBE, AGREEMENT)}
    for each in traced:
        tokens = parts_of(len(each.log_probs))[part]
        spans = int((each.spans[:, 1] <= tokens).sum())
        found[TEXT].append(text_measures(each, tokens, spans))
        found[BAG].append(bag_measures(each, spans) if spans else [np.nan] * 9)
        found[ORDERED].append(ordered_measures(each, spans) if spans else [np.nan] * 7)
        found[SHUFFLED].append(
            ordered_measures(each, spans, rng.permutation(spans).tolist()) if spans else [np.nan] * 7
        )
        found[PROBE].append(torch.cat([each.states[part], each.means[part]]).tolist())
        found[AGREEMENT].append([each.agree / SAMPLES])
    return {name: np.array(rows, dtype=np.float64) for name, rows in found.items()}


def filled(values: np.ndarray, train: np.ndarray) -> np.ndarray:
    """What is not there as the mean of the traces to learn from, and beside it which measures those are."""
    missing = ~np.isfinite(values)
    means = np.where(missing, 0.0, values)[train].sum(0) / (~missing[train]).sum(0).clip(min=1)
    some = missing[train].any(0)
    return np.hstack([np.where(missing, means, values), missing[:, some]])


def scores(
    sets: dict[str, np.ndarray], names: Sequence[str], right: np.ndarray, folds: Sequence
) -> np.ndarray:
    """Of each scene the log-odds that its answer is right, by a model that has not seen it; nan of one in no fold."""
    found = np.full(len(right), np.nan)
    for train, test in folds:
        parts = []
        for name in names:
            values = filled(sets[name], train)
            if name == PROBE:
                compress = make_pipeline(StandardScaler(), PCA(DIRECTIONS, random_state=0)).fit(values[train])
                values = compress.transform(values)
            parts.append(values)
        known = np.hstack(parts)
        scale = StandardScaler().fit(known[train])
        if PROBE in names:
            model = GridSearchCV(
                LogisticRegression(max_iter=2000), {"C": list(PENALTIES)}, cv=5, scoring="roc_auc"
            )
        else:
            model = LogisticRegression(max_iter=2000)
        model.fit(scale.transform(known[train]), right[train])
        found[test] = model.decision_function(scale.transform(known[test]))
    return found


def interval(value: Callable[[np.ndarray], float], count: int, draws: int) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    drawn = [value(rng.integers(0, count, count)) for _ in range(draws)]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


class Fits:
    """Log-odds by each set of measures after one part of the trace, each fitted once."""

    def __init__(
        self, sets: dict[str, np.ndarray], right: np.ndarray, folds: Sequence, draws: int = DRAWS
    ) -> None:
        self._sets, self._right, self._folds, self._draws = sets, right, folds, draws
        self._known: dict[tuple[str, ...], np.ndarray] = {}

    def score(self, names: tuple[str, ...]) -> np.ndarray:
        if names not in self._known:
            self._known[names] = scores(self._sets, names, self._right, self._folds)
        return self._known[names]

    def row(
        self, scenes: str, kept: np.ndarray, part: float, names: tuple[str, ...], base: tuple[str, ...] = ()
    ) -> Row:
        """What the measures tell by themselves, or add to `base`, of the scenes that are `kept`."""
        right = self._right[kept]
        new, *old = (torch.from_numpy(self.score(each)[kept]) for each in ((*base, *names), base) if each)
        is_right = torch.from_numpy(right)

        def value(at: np.ndarray) -> float:
            return auc(new[at], is_right[at]) - sum(auc(each[at], is_right[at]) for each in old)

        low, high = interval(value, len(right), self._draws)
        whole = value(np.arange(len(right)))
        label, added_to = " + ".join(names), " + ".join(base)
        return Row(scenes, part, label, added_to, whole, low, high, len(right), int((~right).sum()))


ALONE = ((TEXT,), (BAG,), (ORDERED,), ("tortuosity",), ("the paper's tortuosity",), (PROBE,), (AGREEMENT,))


def study(traced: Sequence[Traced], parts: Sequence[float] = PARTS, draws: int = DRAWS) -> list[Row]:
    right, blurred = np.array([each.right for each in traced]), np.array([each.blurred for each in traced])
    family = np.array([each.family for each in traced])
    groups = {"all": np.ones(len(traced), dtype=bool), "as photographed": ~blurred, "blurred": blurred}
    strata = [f"{a} {b}" for a, b in zip(right, blurred, strict=True)]
    folds = list(StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(strata, strata))
    rows = []
    for part in parts:
        sets = measure(traced, PARTS.index(part))
        sets |= {"tortuosity": sets[ORDERED][:, 1:2], "the paper's tortuosity": sets[ORDERED][:, 6:7]}
        fits = Fits(sets, right, folds, draws)
        for name, kept in groups.items():
            rows += [fits.row(name, kept, part, names) for names in ALONE]
            rows += [fits.row(name, kept, part, more, base) for base, more in ADDED]
        strange = {
            **sets,
            TEXT: sets[TEXT][:, : -len(KINDS)],
        }  # a family that the fit has not seen has no name there
        apart = [(np.flatnonzero(family != left), np.flatnonzero(family == left)) for left in KINDS]
        fits = Fits(strange, right, apart, draws)
        for left in KINDS:
            name, kept = f"{left} left out", family == left
            rows.append(fits.row(name, kept, part, (TEXT,)))
            for more in ((BAG,), (ORDERED,), (BAG, ORDERED), (PROBE,)):
                rows.append(fits.row(name, kept, part, more, (TEXT,)))
    return rows


@click.command()
@click.option(
    "--traces", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of traces."
)
@TABLE
def main(traces: Path, out: Path) -> None:
    """Hold measures of looking against whether answers are right."""
    with writing(out, figure=False):
        write_csv(Row, study(read_traced(traces)), out)


if __name__ == "__main__":
    main()
