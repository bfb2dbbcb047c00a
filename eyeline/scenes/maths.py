"""Mathematics scenes: written arithmetic, labelled rectangles and triangles, bar and line charts."""

from collections.abc import Sequence
from random import Random

from eyeline.scenes.canvas import COLOURS, Box, Canvas
from eyeline.scenes.lexicon import CITIES, DAYS, FOODS, NAMES
from eyeline.scenes.question import Question, Sentence, ask

SIGNS = {"plus": "+", "minus": "-", "times": "x"}


def _calculate(first: int, sign: str, second: int) -> int:
    return {"plus": first + second, "minus": first - second, "times": first * second}[sign]


def arithmetic(rng: Random) -> tuple[Canvas, list[Question]]:
    """A sum written in a line or in a column; where a result stands, it is often wrong."""
    canvas = Canvas(rng)
    sign = rng.choice(tuple(SIGNS))
    if sign == "times":
        first, second = rng.randint(2, 9), rng.randint(2, 9)
    else:
        first, second = rng.randint(5, 60), rng.randint(2, 30)
        if sign == "minus":
            first, second = max(first, second) + 1, min(first, second)
    true = _calculate(first, sign, second)
    shown = rng.choice((None, true, max(1, true + rng.choice((-10, -2, -1, 1, 2, 10)))))
    size = rng.randint(26, 40)
    fill_colour = rng.choice(("", *COLOURS))
    parts: list[tuple[str, int]] = [(str(first), 1), (SIGNS[sign], 2), (str(second), 3), ("=", 0)]
    if shown is not None:
        parts.append((str(shown), 4))
    boxes: dict[int, Box] = {}
    if rng.random() < 0.5:  # in a line
        gap = size * rng.uniform(0.25, 0.4)
        x = rng.uniform(
            8, max(9, canvas.width - sum(canvas.text_size(text, size)[0] + gap for text, _ in parts))
        )
        y = rng.randint(size, canvas.height - size)
        for text, order in parts:
            boxes[order] = canvas.text(round(x), y, text, size, order=order, colour=fill_colour)
            x += canvas.text_size(text, size)[0] + gap
    else:  # in a column
        right = rng.randint(size * 4, canvas.width - 10)
        step = size * rng.uniform(1.2, 1.5)
        y = rng.uniform(size, max(size + 1, canvas.height - 3.6 * step))
        boxes[1] = canvas.text(right, round(y), str(first), size, order=1, colour=fill_colour, anchor="rm")
        boxes[3] = canvas.text(
            right, round(y + step), str(second), size, order=3, colour=fill_colour, anchor="rm"
        )
        boxes[2] = canvas.text(
            round(right - size * 2.2),
            round(y + step),
            SIGNS[sign],
            size,
            order=2,
            colour=fill_colour,
            anchor="rm",
        )
        line = round(y + 1.6 * step)
        canvas.draw.line((right - size * 2.5, line, right, line), fill=canvas.ink, width=3)
        if shown is not None:
            boxes[4] = canvas.text(
                right, round(y + 2.2 * step), str(shown), size, order=4, colour=fill_colour, anchor="rm"
            )
    read: list[Sentence] = [
        (f"The first number is {first}.", (boxes[1],)),
        (f"The sign is {sign}.", (boxes[2],)),
        (f"The second number is {second}.", (boxes[3],)),
    ]
    questions = [
        ask("What is the correct result?", read, f"{first} {sign} {second} is {true}.", true),
        Question("Which number comes first?", (read[0],), str(first)),
        Question("Which number comes second?", (read[0], read[1], read[2]), str(second)),
    ]
    if shown is not None:
        wrong: Sentence = (f"The written result is {shown}.", (boxes[4],))
        questions.append(
            Question("Which result is written?", (*read, wrong), str(shown), prior=shown != true)
        )
    return canvas, questions


def _outline(canvas: Canvas, points: list[tuple[float | int, float | int]]) -> None:
    colour = canvas.rng.choice(list(COLOURS))
    fill = canvas.paint(colour) if canvas.rng.random() < 0.4 else None
    canvas.draw.polygon(points, fill=fill, outline=canvas.ink)
    canvas.draw.line([*points, points[0]], fill=canvas.ink, width=canvas.rng.randint(2, 4))


def rectangle(rng: Random) -> tuple[Canvas, list[Question]]:
    """A rectangle with its width below and its height on the left."""
    canvas = Canvas(rng)
    width, height = rng.sample(range(2, 13), 2)
    size = rng.randint(20, 32)
    left, top = rng.randint(size * 2 + 6, size * 3), rng.randint(16, size * 2)
    right, bottom = canvas.width - rng.randint(12, 50), canvas.height - rng.randint(size * 2, size * 3)
    _outline(canvas, [(left, top), (right, top), (right, bottom), (left, bottom)])
    below = canvas.text((left + right) // 2, bottom + size, str(width), size, order=1, anchor="mm")
    beside = canvas.text(left - 10, (top + bottom) // 2, str(height), size, order=2, anchor="rm")
    read: list[Sentence] = [(f"The width is {width}.", (below,)), (f"The height is {height}.", (beside,))]
    both = width + height
    return canvas, [
        ask(
            "What is the perimeter?",
            read,
            (f"{width} plus {height} is {both}.", f"Twice {both} is {2 * both}."),
            2 * both,
        ),
        ask("What is the area?", read, f"{width} times {height} is {width * height}.", width * height),
        ask(
            "How long is the longer side?",
            read,
            f"The longer side is {max(width, height)}.",
            max(width, height),
        ),
    ]


def triangle(rng: Random) -> tuple[Canvas, list[Question]]:
    """A triangle with a number at each side."""
    canvas = Canvas(rng)
    size = rng.randint(20, 30)
    while True:
        sides = rng.sample(range(3, 20), 3)
        if 2 * max(sides) < sum(sides):
            break
    bottom = canvas.height - size * 2
    left, right = size * 2, canvas.width - size * 2
    apex = (rng.uniform(0.35, 0.65) * canvas.width, size * 1.2)
    _outline(canvas, [(left, bottom), (right, bottom), apex])
    places = (
        ((left + apex[0]) / 2 - 8, (bottom + apex[1]) / 2 - 4, "rm"),
        ((right + apex[0]) / 2 + 8, (bottom + apex[1]) / 2 - 4, "lm"),
        ((left + right) / 2, bottom + size, "mm"),
    )
    names = ("left", "right", "bottom")
    read: list[Sentence] = []
    for order, (name, side, (x, y, anchor)) in enumerate(zip(names, sides, places, strict=True), start=1):
        box = canvas.text(round(x), round(y), str(side), size, order=order, anchor=anchor)
        read.append((f"The {name} side is {side}.", (box,)))
    two = sides[0] + sides[1]
    longest = max(sides)
    return canvas, [
        ask(
            "What is the perimeter?",
            read,
            (f"{sides[0]} plus {sides[1]} is {two}.", f"{two} plus {sides[2]} is {sum(sides)}."),
            sum(sides),
        ),
        ask("How long is the longest side?", read, f"The longest side is {longest}.", longest),
        ask(
            "Which side is the longest?",
            read,
            f"The longest side is {longest}, that is the {names[sides.index(longest)]} one.",
            names[sides.index(longest)],
        ),
    ]


def chart(
    canvas: Canvas, kind: str, count: int | None = None
) -> tuple[Sequence[str], list[int], list[Box], str]:
    """Draws a chart of the kind (`bar`, `line`) with a label below and a value above each bar or point."""
    rng = canvas.rng
    group = rng.choice((FOODS, NAMES, CITIES, DAYS)) if kind == "bar" else DAYS
    count = count or rng.randint(3, max(3, min(5, canvas.width // 72)))
    first = rng.randrange(len(group) - count + 1)
    labels = list(group[first : first + count]) if group is DAYS else rng.sample(group, count)
    values = rng.sample(range(2, 30), count)
    size = rng.randint(17, 26)
    widest = max(canvas.text_size(label, size)[0] for label in labels)
    step = (canvas.width - 24) / count
    while widest > step - 6 and size > 14:
        size -= 1
        widest = max(canvas.text_size(label, size)[0] for label in labels)
    bottom, top = canvas.height - round(size * 1.8), round(size * 1.8)
    if rng.random() < 0.4:
        for fraction in (0.25, 0.5, 0.75, 1):
            y = round(bottom - fraction * (bottom - top))
            canvas.draw.line((8, y, canvas.width - 8, y), fill=(170, 170, 170), width=1)
    canvas.draw.line((8, bottom, canvas.width - 8, bottom), fill=canvas.ink, width=2)
    colour = rng.choice(list(COLOURS))
    boxes, points = [], []
    for order, (label, value) in enumerate(zip(labels, values, strict=True), start=1):
        x = 12 + step * (order - 0.5)
        y = bottom - (bottom - top) * value / max(values)
        if kind == "bar":
            half = step * rng.uniform(0.22, 0.36)
            canvas.draw.rectangle((x - half, y, x + half, bottom), fill=canvas.paint(colour))
        points.append((x, y))
        word = canvas.text(round(x), bottom + round(size * 0.9), label, size, order=order, anchor="mm")
        number = canvas.text(round(x), round(y - size * 0.8), str(value), size, order=order, anchor="mm")
        boxes.append((min(word[0], number[0]), number[1], max(word[2], number[2]), word[3]))
    if kind == "line":
        canvas.draw.line(points, fill=canvas.paint(colour), width=3)
        for x, y in points:
            canvas.draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=canvas.paint(colour))
    return labels, values, boxes, colour


def _chart_questions(rng: Random, kind: str) -> tuple[Canvas, list[Question]]:
    canvas = Canvas(rng, grids=((8, 8), (8, 8), (9, 8), (10, 8), (12, 7), (10, 10), (12, 9)))
    labels, values, boxes, _ = chart(canvas, kind)
    noun = "Bar" if kind == "bar" else "Point"
    points = list(enumerate(zip(labels, values, boxes, strict=True), start=1))
    by_label: list[Sentence] = [
        (f"{noun} {order} is {label} with {value}.", (box,)) for order, (label, value, box) in points
    ]
    by_value: list[Sentence] = [
        (f"{noun} {order} has {value} for {label}.", (box,)) for order, (label, value, box) in points
    ]
    highest, lowest = labels[values.index(max(values))], labels[values.index(min(values))]
    one, two = rng.sample(range(len(labels)), 2)
    if values[one] < values[two]:
        one, two = two, one
    gap = values[one] - values[two]
    at = rng.randrange(len(labels))
    word = "tallest" if kind == "bar" else "highest"
    return canvas, [
        ask(f"Which {noun.lower()} is the {word}?", by_value, f"The {word} has {max(values)} for {highest}.", highest),
        ask(f"Which {noun.lower()} is the lowest?", by_value, f"The lowest has {min(values)} for {lowest}.", lowest),
        ask(f"What is the value of {labels[at]}?", by_label, f"I see {labels[at]} with {values[at]}.", values[at]),
        ask(
            f"How much more is {labels[one]} than {labels[two]}?",
            by_label,
            (
                f"I see {labels[one]} with {values[one]} and {labels[two]} with {values[two]}.",
                f"{values[one]} minus {values[two]} is {gap}.",
            ),
            gap,
        ),
    ]  # fmt: skip


def bars(rng: Random) -> tuple[Canvas, list[Question]]:
    """A bar chart with labels and values."""
    return _chart_questions(rng, "bar")


def line(rng: Random) -> tuple[Canvas, list[Question]]:
    """A line chart over days with values at its points."""
    return _chart_questions(rng, "line")


KINDS = {"arithmetic": arithmetic, "rectangle": rectangle, "triangle": triangle, "bars": bars, "line": line}
