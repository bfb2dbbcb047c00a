"""The games of a run's spans, kept: whoever asks later about any regions and any words needs no model.

What is kept of a token is its part of the game (game.py): with 64 regions and 16 units that see regions together 2.5 kB.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from eyeline.errors import DataError, RegionError
from eyeline.files import write_files
from eyeline.game import Game, breaks, contributions, evidence, orders

FILE = "games.safetensors"
PARTS = ("apart", "together", "rest", "outward", "log_odds")


@dataclass(frozen=True, slots=True)
class Joint:
    """What is predicted of some regions for some text: hidden together, and every region for itself; nats."""

    fall: float  # of the text's log-prob with all the regions hidden together
    parts: float  # the sum of what each of them does alone
    regions: tuple[int, ...]
    whole_image: float  # fall with everything hidden
    effects: tuple[float, ...]  # of every region alone
    contributions: tuple[float, ...]  # Shapley values, which add up to `whole_image`
    evidence: tuple[tuple[int, float], ...]
    breaks: tuple[tuple[int, float], ...]


@dataclass(eq=False)
class Games:
    """The games of spans, by the positions of their tokens in the generated ids."""

    tokens: list[Int[Tensor, " _token"]] = field(default_factory=list)
    games: list[Game] = field(default_factory=list)

    def add(self, start: int, game: Game) -> None:
        """Keeps the game of the tokens from `start` on."""
        self.tokens.append(torch.arange(start, start + len(game.apart)))
        self.games.append(game.to(torch.device("cpu")))

    def of(self, ranges: Sequence[tuple[int, int]]) -> Game:
        """That of the tokens in some ranges [start, end). Raises `DataError` where some were not kept."""
        found = []
        for start, end in ranges:
            for tokens, game in zip(self.tokens, self.games, strict=True):
                first, last = int(tokens[0]), int(tokens[-1]) + 1
                low, high = max(start, first), min(end, last)
                if low < high:
                    found.append(game.of(low - first, high - first))
        if sum(len(game.apart) for game in found) < sum(end - start for start, end in ranges):
            raise DataError(
                "The numbers of these words are not kept: their span is not attributed, or not yet; "
                "choose others, or ask again when it is."
            )
        return joined(found)

    def joint(self, ranges: Sequence[tuple[int, int]], regions: Sequence[int] = ()) -> Joint:
        """What hiding some regions together does to the text of some tokens, and what each region does. Raises `RegionError`."""
        game = self.of(ranges)
        wrong = [region for region in regions if not 0 <= region < game.regions]
        if wrong:
            raise RegionError(
                f"There is no region {wrong[0]}; expected some of 0 to {game.regions - 1}, as the start event numbers them."
            )
        hidden = torch.zeros(game.regions, 1)
        hidden[list(regions)] = 1.0
        effects = game.alone()
        return Joint(
            float(game(hidden)[0]), float(effects @ hidden[:, 0]), tuple(dict.fromkeys(regions)), float(game.whole()),
            tuple(effects.tolist()), tuple(contributions(game, orders(game.regions)).tolist()),
            tuple(evidence(game)), tuple(breaks(game)),
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        """As one safetensors file."""
        if not self.games:
            return save({"tokens": torch.zeros(0, dtype=torch.long)})
        game = joined(self.games)
        tensors = {name: part.contiguous() for name in PARTS if (part := getattr(game, name)) is not None}
        tensors["together"] = tensors["together"].half()  # they are rounded to it
        lengths = torch.tensor([len(tokens) for tokens in self.tokens])
        return save({**tensors, "tokens": torch.cat(self.tokens), "lengths": lengths})

    def save(self, folder: Path) -> None:
        """Writes the file beside a run's events. Raises `DataError`, for a full disk too."""
        write_files({folder / FILE: self.to_bytes()})


def joined(games: Sequence[Game]) -> Game:
    """The game of several texts together."""
    parts = {name: [getattr(game, name) for game in games] for name in PARTS}
    return Game(**{name: None if some[0] is None else torch.cat(some) for name, some in parts.items()})  # pyright: ignore[reportArgumentType]


def read_games(folder: Path) -> Games:
    """What a run keeps of its spans. Raises `DataError` where it keeps nothing, or the file is cut short or damaged."""
    path = folder / FILE
    if not path.is_file():
        raise DataError(
            f"The run {str(folder)!r} keeps no numbers to ask about ({FILE} is missing): it was made by an earlier version, "
            "without an estimator, or is not finished; ask the question again."
        )
    try:
        tensors = load(path.read_bytes())
        tokens = tensors.pop("tokens")
        if not len(tokens):
            return Games()
        lengths = tensors.pop("lengths").tolist()
        game = Game(**{name: tensors.get(name) for name in PARTS})  # pyright: ignore[reportArgumentType]
        game = replace(game, together=game.together.float())
        if not len(tokens) == len(game.apart) == sum(lengths):
            raise ValueError("its parts do not fit")
        starts = torch.tensor([0, *lengths]).cumsum(0).tolist()
        return Games(
            list(tokens.split(lengths)),
            [game.of(start, start + length) for start, length in zip(starts, lengths, strict=False)],
        )
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(
            f"{str(path)!r} is damaged or cut short ({error}); ask the question again to get its numbers."
        ) from error
