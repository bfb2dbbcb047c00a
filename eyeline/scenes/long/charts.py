"""Long charts: many bars that lie or all seven days, to be read or to be plotted again."""

from random import Random

from eyeline.scenes.canvas import COLOURS, Canvas, union
from eyeline.scenes.document import spread
from eyeline.scenes.lexicon import (
    ANIMALS,
    FOODS,
    NAMES,
)
from eyeline.scenes.long.parts import above, gap, highest, middle, value_at
from eyeline.scenes.long.sheet import GRIDS, WIDE, Line, Part, Sheet, Value, Values
from eyeline.scenes.maths import chart


def _series_parts(noun: str, lines: list[Line], rng: Random) -> list[Part]:
    rows = range(len(lines))
    numbers = [int(line.values[1]) for line in lines]
    one, two = rng.sample(rows, 2)
    names = [line.values[0] for line in lines]
    at = rng.choice(rows)
    what = noun.lower()
    return [
        highest(f"Which {what} is the highest?", noun, rows, 1),
        highest(f"Which {what} is the lowest?", noun, rows, 1, lowest=True),
        above(f"How many {what}s are above {{}}?", noun, rows, 1, middle(numbers, rng)),
        value_at(f"What is the value of {names[at]}?", at, 1, "I see {0} with {1}."),
        gap(f"How far apart are {names[one]} and {names[two]}?", one, two, 1),
    ]


def bars(rng: Random) -> tuple[Canvas, Sheet]:
    """Six to eight bars that lie, each with its label on the left and its value at its end."""
    canvas = Canvas(rng, grids=GRIDS)
    lines, _ = _lying_bars(canvas, rng.randint(6, 8))
    return canvas, Sheet(lines, _series_parts("Bar", lines, rng), "chart")


def _lying_bars(canvas: Canvas, count: int) -> tuple[list[Line], str]:
    rng = canvas.rng
    group = rng.choice([each for each in (FOODS, NAMES, ANIMALS) if len(each) >= count])
    labels, values = rng.sample(group, count), rng.sample(range(2, 30), count)
    size = rng.randint(19, 22)
    ys = spread(canvas, count, size, 6)
    left = rng.randint(8, 16) + max(canvas.text_size(label, size)[0] for label in labels)
    right = canvas.width - 44
    colour = rng.choice(list(COLOURS))
    half = max(5, round((ys[1] - ys[0]) * rng.uniform(0.22, 0.34)))
    lines = []
    for order, (label, value, y) in enumerate(zip(labels, values, ys, strict=True), start=1):
        word = canvas.text(left, y, label, size, order=order, anchor="rm")
        end = left + 8 + (right - left - 8) * value / max(values)
        canvas.draw.rectangle((left + 8, y - half, end, y + half), fill=canvas.paint(colour))
        number = canvas.text(round(end) + 6, y, str(value), size, order=order)
        lines.append(
            Line(
                f"Bar {order} is {{}} with {{}}.",
                (label, value),
                (union(word, number),),
                ("", f"bar {order} has {{}}, not {{}}"),
            )
        )
    canvas.draw.line((left + 8, ys[0] - half, left + 8, ys[-1] + half), fill=canvas.ink, width=2)
    return lines, colour


def line(rng: Random) -> tuple[Canvas, Sheet]:
    """A line over all seven days, with a value at each point."""
    canvas = Canvas(rng, grids=WIDE)
    lines = _points(canvas)[0]
    return canvas, Sheet(lines, _series_parts("Point", lines, rng), "chart")


def _points(canvas: Canvas) -> tuple[list[Line], str]:
    labels, values, boxes, colour = chart(canvas, "line", count=7)
    lines = [
        Line(
            f"Point {order} is {{}} with {{}}.",
            (label, value),
            (box,),
            ("", f"point {order} has {{}}, not {{}}"),
        )
        for order, (label, value, box) in enumerate(zip(labels, values, boxes, strict=True), start=1)
    ]
    return lines, colour


def plot(rng: Random) -> tuple[Canvas, Sheet]:
    """A chart of many bars that lie, or of all seven days, to be plotted again."""
    kind = rng.choice(("barh", "plot"))
    if kind == "barh":
        canvas = Canvas(rng, grids=GRIDS)
        lines, colour = _lying_bars(canvas, rng.randint(6, 8))
    else:
        canvas = Canvas(rng, grids=WIDE)
        lines, colour = _points(canvas)
    many = len(lines)
    mark = f"The {'bars are' if kind == 'barh' else 'line is'} {{}}."
    lines.append(Line(mark, (colour,), tuple(box for line in lines for box in line.boxes), ("",)))

    def work(values: Values) -> tuple[list[str], Value]:
        labels = ", ".join(f'"{value[0]}"' for value in values[:many])
        numbers = ", ".join(str(value[1]) for value in values[:many])
        code = f'labels = [{labels}]\nvalues = [{numbers}]\nplt.{kind}(labels, values, color="{values[many][0]}")'
        told = [
            f"The labels are {', '.join(str(value[0]) for value in values[:many])}.",
            f"The values are {numbers}.",
            f"That makes {many} of each.",
        ]
        return told, code

    return canvas, Sheet(lines, [Part("Write the plotting code of this chart.", work)], "chart")
