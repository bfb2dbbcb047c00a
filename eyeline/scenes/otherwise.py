"""A random generator that makes one of its choices otherwise, and all others as it would have."""

from collections.abc import Sequence
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")


class Otherwise(Random):
    """`Random(seed)`, whose choice number `at` comes out differently; counts its choices in `made`.

    A choice is a call of `choice`, `randint` or `randrange`, or one element of a `sample`. What it would have chosen is
    still drawn, so that the later choices are the same.
    """

    def __init__(self, seed: str, at: int | None):
        self.made = 0
        self.at = at
        self.other = Random(f"otherwise {seed} {at}")
        super().__init__(seed)

    def choice(self, seq: Sequence[T]) -> T:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._or_other(super().choice(seq), seq)

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        options = range(start) if stop is None else range(start, stop, step)
        return self._or_other(super().randrange(start, stop, step), options)

    def sample(self, population: Sequence[T], k: int, **options: Any) -> list[T]:  # pyright: ignore[reportIncompatibleMethodOverride]
        chosen = super().sample(population, k, **options)
        left = [each for each in population if each not in chosen]
        for index, value in enumerate(chosen):
            new = self._or_other(value, left or chosen)
            if new != value and not left:  # all are taken: the two change places
                chosen[chosen.index(new)] = value
            chosen[index] = new
        return chosen

    def _or_other(self, value: T, options: Sequence[T]) -> T:
        self.made += 1
        if self.made - 1 != self.at:
            return value
        others = [option for option in options if option != value]
        return self.other.choice(others) if others else value
