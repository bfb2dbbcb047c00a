"""The games of a run's spans, kept: whoever asks later about any regions and any words needs no model.

What is kept of a token is its part of the game (game.py), with 64 regions and 16 units that see regions together 2.5 kB, and
its links to earlier tokens (links.py), 0.4 kB.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from eyeline.errors import DataError, RegionError
from eyeline.events import RestsOn, tuples
from eyeline.files import write_files
from eyeline.game import Game, breaks, contributions, evidence, orders
from eyeline.links import Links, sources_game
from eyeline.through import Chain, Chances

FILE = "games.safetensors"
DECIMALS = 7  # of the numbers in events: a patch of a large image holds little
MOST_SOURCES, LEAST_SOURCE = 32, 0.01
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
    links: list[Links] = field(default_factory=list)  # of each span's tokens, where sources are known
    indices: list[int] = field(default_factory=list)  # of the spans, as events number them
    chances: Chances | None = (
        None  # of the estimator, where it knows what answers rest on through the thinking
    )
    _stretches: list[tuple[int, int]] = field(default_factory=list, init=False, repr=False)

    @property
    def stretches(self) -> list[tuple[int, int]]:
        """[start, end) of each span's tokens, in the order in which they were added."""
        known = self._stretches  # replaced, never changed: several threads ask
        new = self.tokens[len(known) : len(self.games)]
        known = self._stretches = [*known, *((int(each[0]), int(each[-1]) + 1) for each in new)]
        return known

    def add(self, start: int, game: Game, links: Links | None = None, index: int | None = None) -> None:
        """Keeps the game of the tokens from `start` on, and their links; of all spans or of none.

        The game last: whoever asks in another thread meanwhile finds all that belongs to each game.
        """
        self.tokens.append(torch.arange(start, start + len(game.apart)))
        self.indices.append(len(self.indices) if index is None else index)
        if links is not None:
            self.links.append(links.to(torch.device("cpu")))
        self.games.append(game.to(torch.device("cpu")))

    def of(self, ranges: Sequence[tuple[int, int]]) -> Game:
        """That of the tokens in some ranges [start, end). Raises `DataError` where some were not kept."""
        found = []
        for start, end in ranges:
            for (first, last), game in zip(self.stretches, self.games, strict=False):
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
        check_regions(regions, game.regions)
        hidden = torch.zeros(game.regions, 1)
        hidden[list(regions)] = 1.0
        effects = game.alone()
        return Joint(
            float(game(hidden)[0]), float(effects @ hidden[:, 0]), tuple(dict.fromkeys(regions)), float(game.whole()),
            tuple(effects.tolist()), tuple(contributions(game, orders(game.regions)).tolist()),
            tuple(evidence(game)), tuple(breaks(game)),
        )  # fmt: skip

    def rests_on(
        self, answer: Sequence[tuple[int, int]], sets: Sequence[Sequence[int]] | None = None
    ) -> RestsOn:
        """What the answer rests on through the thinking: the token ranges of its spans, and how likely it changes.

        For every region by itself, or for `sets` of regions. Raises `DataError` where there is no answer, or what it comes from
        is not kept, `RegionError` for a region that is none.
        """
        if not answer:
            raise DataError(
                "There is no answer that could rest on an image: the thinking was cut off, the prompt has no image, or nothing "
                "is there yet."
            )
        chances = self.chances
        if chances is None or len(self.links) < len(self.games) or not self.games:
            raise DataError(
                "What the answer comes from is not kept: it was written without sources, by an earlier version, or with an "
                "estimator that does not know earlier text; ask the question again with one that does."
            )
        of_answer = self.of(answer)
        regions = of_answer.regions
        for each in sets or ():
            check_regions(each, regions)
        wanted = torch.eye(regions) if sets is None else torch.zeros(regions, len(sets))
        for column, each in enumerate(sets or ()):
            wanted[list(each), column] = 1.0
        singly, reached, whole = self.reaches(answer, wanted).tensor_split([regions, -1])
        changes = chances(torch.cat([reached, whole]), singly.max())
        direct = of_answer(wanted)
        return RestsOn(
            changes=rounded(changes[:-1]), whole=rounded(changes[-1]), total=rounded(direct + changes[:-1] * chances.cost),
            direct=rounded(direct), sources=self.sources(answer),
        )  # fmt: skip

    def reaches(
        self, answer: Sequence[tuple[int, int]], wanted: Float[Tensor, "region set"]
    ) -> Float[Tensor, " all"]:
        """What reaches the answer (`reach`) with each region hidden, then with each set that is wanted, then with everything.

        Everything hidden reaches it at least as any region does, which is among it.
        """
        regions = len(wanted)
        found = self.reach(answer, torch.cat([torch.eye(regions), wanted, torch.ones(regions, 1)], dim=1))
        found[-1] = torch.maximum(found[-1], found[:regions].max())
        return found

    def reach(
        self, answer: Sequence[tuple[int, int]], sets: Float[Tensor, "region set"]
    ) -> Float[Tensor, " set"]:
        """The largest chance of any of the answer's tokens to be written otherwise with each set hidden from the start."""
        chain = Chain(sets)
        stretches = self.stretches[: len(self.links)]
        for span in sorted(range(len(stretches)), key=stretches.__getitem__):
            chain.add(stretches[span][0], self.games[span], self.links[span])
        return chain.chances[torch.cat([torch.arange(start, end) for start, end in answer])].amax(0)

    def sources(self, ranges: Sequence[tuple[int, int]]) -> tuple[tuple[int, float], ...]:
        """The earlier spans that the text of some tokens takes most from, by index, and their contributions.

        At most MOST_SOURCES, the largest first; those under LEAST_SOURCE nats are left out.
        """
        first, last = min(start for start, _ in ranges), max(end for _, end in ranges)
        stretches = self.stretches
        order = sorted(range(len(stretches)), key=stretches.__getitem__)
        before = [number for number in order if stretches[number][1] <= first]
        inside = [number for number in order if stretches[number][0] < last and stretches[number][1] > first]
        if not before or not inside or len(self.links) < len(self.games):
            return ()
        links = Links(
            *(
                torch.cat([getattr(self.links[number], name) for number in inside])
                for name in ("earlier", "scores")
            )
        )
        odds = [log_odds for number in inside if (log_odds := self.games[number].log_odds) is not None]
        if not odds:
            return ()
        game = sources_game(links, [stretches[number] for number in before], torch.cat(odds))
        found = contributions(game, orders(game.regions))
        best = found.topk(min(MOST_SOURCES, len(found)))
        return tuple(
            (self.indices[before[int(at)]], rounded(value))
            for value, at in zip(best.values, best.indices, strict=True) if float(value) >= LEAST_SOURCE
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        """As one safetensors file."""
        if not self.games:
            return save({"tokens": torch.zeros(0, dtype=torch.long)})
        game = joined(self.games)
        tensors = {name: part.contiguous() for name in PARTS if (part := getattr(game, name)) is not None}
        tensors["together"] = tensors["together"].half()  # they are rounded to it
        lengths = torch.tensor([len(tokens) for tokens in self.tokens])
        tensors["indices"] = torch.tensor(self.indices)
        if len(self.links) == len(self.games):
            tensors["earlier"] = torch.cat([links.earlier for links in self.links])
            tensors["link_scores"] = torch.cat(
                [links.scores for links in self.links]
            ).half()  # they are rounded to it
            if self.chances is not None:
                tensors["chances"] = torch.tensor(list(self.chances.to_card().values()), dtype=torch.float64)
        return save({**tensors, "tokens": torch.cat(self.tokens), "lengths": lengths})

    def save(self, folder: Path) -> None:
        """Writes the file beside a run's events. Raises `DataError`, for a full disk too."""
        write_files({folder / FILE: self.to_bytes()})


def rounded(values: Tensor) -> Any:
    """A float, or nested tuples of them, as events carry them."""
    return tuples(values.double().round(decimals=DECIMALS).tolist())


def check_regions(regions: Iterable[int], count: int) -> None:
    """Raises `RegionError` for a region that is none of `count`."""
    for region in regions:
        if not 0 <= region < count:
            raise RegionError(
                f"There is no region {region}; expected some of 0 to {count - 1}, as the start event numbers them."
            )


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
        stretches = [(start, start + length) for start, length in zip(starts, lengths, strict=False)]
        links, indices = [], tensors.get("indices", torch.arange(len(lengths))).tolist()
        if "earlier" in tensors:
            every = Links(tensors["earlier"], tensors["link_scores"].float())
            links = [every.of(start, end) for start, end in stretches]
        kept = tensors.get("chances")
        chances = None if kept is None else Chances(*kept.tolist())
        return Games(
            list(tokens.split(lengths)),
            [game.of(start, end) for start, end in stretches],
            links,
            indices,
            chances,
        )
    except (OSError, SafetensorError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(
            f"{str(path)!r} is damaged or cut short ({error}); ask the question again to get its numbers."
        ) from error
