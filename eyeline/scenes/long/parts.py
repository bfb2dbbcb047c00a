"""Parts that ask about one number of each line, at `column`; its label is the line's first value."""

from collections.abc import Sequence
from random import Random

from eyeline.scenes.long.sheet import Part, Value, Values


def highest(prompt: str, noun: str, rows: range, column: int, lowest: bool = False) -> Part:
    word, more = ("lowest", "lower") if lowest else ("highest", "higher")

    def work(values: Values) -> tuple[list[str], Value]:
        told, best, label = [], None, ""
        for order, row in enumerate(rows, start=1):
            value, name = int(values[row][column]), values[row][0]
            if best is None or (value < best if lowest else value > best):
                best, label = value, name
                told.append(f"{noun} {order} has {value} for {name}, the {word} so far.")
            else:
                told.append(f"{noun} {order} has {value}, not {more}.")
        return [*told, f"The {word} has {best} for {label}."], label

    return Part(prompt, work)


def above(prompt: str, noun: str, rows: range, column: int, limit: int) -> Part:
    def work(values: Values) -> tuple[list[str], Value]:
        told, count = [], 0
        for order, row in enumerate(rows, start=1):
            count += int(values[row][column]) > limit
            told.append(f"{noun} {order} has {values[row][column]}: {count}.")
        return [*told, f"I count {count} above {limit}."], count

    return Part(prompt.format(limit), work)


def value_at(prompt: str, row: int, column: int, said: str) -> Part:
    """`said` names the line's values: "I see {0} with {1}."."""
    return Part(prompt, lambda values: ([said.format(*values[row])], values[row][column]))


def gap(prompt: str, one: int, two: int, column: int) -> Part:
    def work(values: Values) -> tuple[list[str], Value]:
        (first, a), (second, b) = ((values[row][0], int(values[row][column])) for row in (one, two))
        high, low = max(a, b), min(a, b)
        return [
            f"I see {first} with {a} and {second} with {b}.",
            f"{high} minus {low} is {high - low}.",
        ], high - low

    return Part(prompt, work)


def total_of(prompt: str, rows: range, column: int) -> Part:
    def work(values: Values) -> tuple[list[str], Value]:
        total, told = int(values[rows[0]][column]), []
        for row in rows[1:]:
            value = int(values[row][column])
            told.append(f"{total} plus {value} is {total + value}.")
            total += value
        return told, total

    return Part(prompt, work)


def middle(values: Sequence[int], rng: Random) -> int:
    """A limit that some values are above and some are not."""
    ordered = sorted(values)
    at = rng.randrange(1, len(ordered) - 1)
    return ordered[at]
