"""The examples of a run, and which of them this process makes: all, or a shard of them beside other processes.

What is made goes into files of one folder, one for each example, so that nothing has to be brought together. How processes are
started is left to whatever starts them.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from eyeline.examples import Example
from eyeline.training.collect import file_of, named


@dataclass(frozen=True, slots=True)
class Shard:
    """Every `of`-th example from the place `index` on: by its place in the data alone, so that all shards are as large."""

    index: int = 0
    of: int = 1

    def takes(self, place: int) -> bool:
        return place % self.of == self.index

    def count(self, examples: int) -> int:
        """How many it takes of so many."""
        return len(range(self.index, examples, self.of))


@dataclass(frozen=True, slots=True)
class Work:
    """What a process can do once its model is loaded."""

    each: Callable[
        [Iterable[Example]], Iterator[str]
    ]  # makes examples, and yields the id of each as it is there
    finish: Callable[[], tuple[Path, ...]] = (
        tuple  # what is left when all are there; gives the files to look at
    )
    notices: tuple[str, ...] = ()  # for the user, before


@dataclass(frozen=True, slots=True)
class Spread:
    """The examples of a run, those of other shards too."""

    run: Path
    examples: Iterable[Example]
    shard: Shard = Shard()
    ids: list[str] = field(default_factory=list)  # of all examples, as far as they were read

    def ours(self) -> Iterator[Example]:
        """Those of our shard; all are read. Raises `DataError` as `named` does."""
        for place, example in enumerate(named(self.examples)):
            self.ids.append(example.id)
            if self.shard.takes(place):
                yield example

    def missing(self) -> int:
        """How many of the examples that were read the run does not hold."""
        return sum(not file_of(self.run, each).is_file() for each in self.ids)
