"""An estimator held against the truth while it is used: spans of saved runs, measured beside what was predicted of them.

Of a span some random halves of the regions are hidden for real, and LDS and R2 say how well the run's kept game predicted
what that does. Each span is one file in its run's folder, from which an estimator's scale can be learned later. Which spans are
measured, and when, is the server's to say (server/auditing.py).
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as as_safetensors
from torch import Tensor

from eyeline.errors import DataError
from eyeline.files import write_first
from eyeline.game import Game
from eyeline.kept_games import PARTS
from eyeline.metrics import bootstrap, lds, r2_span, varies

FOLDER = "audit"  # in a run's folder
SUBSETS, RATE = 32, 0.5  # of a span; each region is hidden with this probability
WINDOW = 50  # spans that the running numbers are of
STRONG = 0.5  # nats: predictions that vary more are wrong where nothing is measured
SHORT, LEAST = (
    0.75,
    0.3,
)  # share of the card's LDS, or without one the LDS, that spans are to reach on the whole
ENOUGH = 3.0  # LDS by which spans fall short, added up, that is drift


@dataclass(frozen=True, slots=True)
class Origin:
    """Which span was measured, and whose prediction of it."""

    run: str
    span: int
    start: int  # token positions in the generated text, [start, end)
    end: int
    model: str
    fingerprint: str
    estimator: str
    hiding: str
    created: float  # seconds since 1970
    messages: Any = None  # what was asked, as a chat without its images; None: the prompt alone


@dataclass(frozen=True, slots=True)
class Score:
    """How well a span was predicted."""

    lds: float | None  # None where hiding does nothing to it: there is nothing to predict
    r2: float | None
    missed: bool  # it does nothing, and was predicted to do much


@dataclass(frozen=True, eq=False)
class Audited:
    """One span with what was predicted and what was measured; no features, which are gone with the question."""

    origin: Origin
    game: Game  # of its tokens, as the run keeps it
    subsets: Bool[Tensor, "subset region"]
    token_falls: Float[Tensor, "token subset"]  # measured fall in log-prob, nats
    log_odds: Float[Tensor, " token"]  # of the written tokens, with nothing hidden, nats

    @property
    def score(self) -> Score:
        predicted = self.game(self.subsets.T.float())[None]
        measured = self.token_falls.sum(0)[None]
        if not varies(measured):
            return Score(None, None, missed=bool(predicted.std() > STRONG))
        return Score(float(lds(predicted, measured)), float(r2_span(predicted, measured)), missed=False)


def draw(run: str, span: int, regions: int) -> Bool[Tensor, "subset region"]:
    """The subsets of a span, always the same, so that a span that was left is measured as it would have been."""
    seed = int.from_bytes(hashlib.sha256(f"audit {run} {span}".encode()).digest()[:8], "big") >> 1
    return torch.rand(SUBSETS, regions, generator=torch.Generator().manual_seed(seed)) < RATE


def path_of(folder: Path, span: int) -> Path:
    """The file of a span in its run's folder."""
    return folder / FOLDER / f"span-{span:05d}.safetensors"


def save(one: Audited, folder: Path) -> None:
    """Writes a span into its run's folder, whole or not at all; not where the run is gone. Raises `DataError`."""
    tensors = {f"game.{name}": part for name in PARTS if (part := getattr(one.game, name)) is not None}
    tensors |= {"subsets": one.subsets, "token_falls": one.token_falls, "log_odds": one.log_odds}
    rest = json.dumps(asdict(one.origin) | {"score": asdict(one.score)})
    path = path_of(folder, one.origin.span)
    content = as_safetensors(
        {name: part.contiguous().clone() for name, part in tensors.items()}, {"rest": rest}
    )
    try:
        path.parent.mkdir(exist_ok=True)  # and no folder above it: it may have been deleted
    except OSError as error:
        raise DataError(f"{str(path)!r} could not be written ({error.strerror}); is its run gone?") from error
    write_first(path, content)


def read_score(path: Path) -> tuple[Origin, Score]:
    """What a file says of itself, without its tensors. Raises `DataError`."""
    with _opened(path) as file:
        return _rest(file, path)


def read(path: Path) -> Audited:
    """A span that was measured. Raises `DataError` for a file that is none."""
    with _opened(path) as file:
        try:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            needed = PARTS[:-1]  # the last are log-odds, which games of the link `identity` do without
            game = Game(*(tensors[f"game.{name}"] for name in needed), log_odds=tensors.get("game.log_odds"))
            parts = {name: tensors[name] for name in ("subsets", "token_falls", "log_odds")}
            return Audited(_rest(file, path)[0], game, **parts)
        except (KeyError, SafetensorError) as error:
            raise _damaged(path, error) from error


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _rest(file: Any, path: Path) -> tuple[Origin, Score]:
    try:
        rest: dict[str, Any] = json.loads(file.metadata()["rest"])
        score = Score(**rest.pop("score"))
        return Origin(**rest), score
    except (KeyError, ValueError, TypeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{str(path)!r} is no measured span ({type(error).__name__}: {error}); remove it.")


class Record:
    """The running numbers of the last WINDOW spans, and whether the estimator has drifted.

    Drift is a one-sided cumulative sum (Page 1954, Biometrika 41): each span adds by how much its LDS falls short of SHORT times
    what the card says of images held out, or of LEAST where it says nothing; what lies above takes off again, down to 0. From
    ENOUGH on it is drift, until the sum is back at 0. A span that hiding does nothing to counts as an LDS of 0 where much was
    predicted, and else not at all.
    """

    def __init__(self, expected: float | None) -> None:
        self.expected = expected
        self.bound = LEAST if expected is None else SHORT * expected
        self.spans: deque[tuple[str, Score]] = deque(maxlen=WINDOW)
        self.measured = 0  # in all
        self.short = 0.0
        self.drifted = False

    def add(self, run: str, score: Score) -> None:
        self.spans.append((run, score))
        self.measured += 1
        if score.lds is not None or score.missed:
            # no further than twice the limit, so that it comes back in as many spans as it went
            self.short = min(max(0.0, self.short + self.bound - (score.lds or 0.0)), 2 * ENOUGH)
            self.drifted = self.short > 0 if self.drifted else self.short >= ENOUGH

    def told(self) -> dict[str, Any]:
        """As JSON has them; `lds` and `r2` are mean, low and high end of a 95 % interval, from resampling questions."""
        return {
            "spans": len(self.spans), "questions": len({run for run, _ in self.spans}), "measured": self.measured,
            "without_effect": sum(score.lds is None for _, score in self.spans),
            "lds": self._mean("lds"), "r2": self._mean("r2"), "expected": self.expected, "bound": round(self.bound, 4),
            "short": round(self.short, 4), "drifted": self.drifted,
        }  # fmt: skip

    def _mean(self, name: str) -> list[float | None] | None:
        found = of_questions((run, getattr(score, name)) for run, score in self.spans)
        return found and [None if value is None else round(value, 4) for value in found]


def of_questions(
    values: Iterable[tuple[str, float | None]],
) -> tuple[float, float | None, float | None] | None:
    """Mean over questions of the mean over their spans, with the 95 % interval from resampling questions.

    `values` are the question's run and the span's value, None where it has none; None where no span has one.
    """
    by_run: dict[str, list[float]] = {}
    for run, value in values:
        if value is not None:
            by_run.setdefault(run, []).append(value)
    return bootstrap({"": [sum(each) / len(each) for each in by_run.values()]}) if by_run else None
