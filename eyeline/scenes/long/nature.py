"""Long science scenes: a log of temperatures and a food chain."""

from itertools import pairwise
from random import Random

from eyeline.scenes.canvas import COLOURS, Box, Canvas
from eyeline.scenes.document import spread
from eyeline.scenes.lexicon import (
    ANIMALS,
    DAYS,
)
from eyeline.scenes.long.parts import above, gap, highest, middle, value_at
from eyeline.scenes.long.sheet import GRIDS, Line, Part, Sheet, Value, Values


def log(rng: Random) -> tuple[Canvas, Sheet]:
    """The temperature of five to seven days, written down in two columns."""
    canvas = Canvas(rng, grids=GRIDS)
    first = rng.randint(0, 2)
    days = DAYS[first : first + rng.randint(5, 7)]
    degrees = rng.sample(range(2, 40), len(days))
    size = rng.randint(19, 26)
    ys = spread(canvas, len(days) + 1, size, 6)
    left, right = rng.randint(10, 40), rng.randint(120, min(260, canvas.width - 70))
    heads = (canvas.text(left, ys[0], "Day", size), canvas.text(right, ys[0], "degrees", size))
    lines = []
    for order, (day, value, y) in enumerate(zip(days, degrees, ys[1:], strict=True), start=1):
        boxes = (
            canvas.text(left, y, day, size, order=order),
            canvas.text(right, y, str(value), size, order=order),
        )
        lines.append(
            Line(
                f"Row {order} is {{}} with {{}} degrees.",
                (day, value),
                boxes,
                ("", f"row {order} has {{}} degrees, not {{}}"),
            )
        )
    canvas.draw.line(
        (left, ys[0] + size * 0.75, canvas.width - 20, ys[0] + size * 0.75), fill=canvas.ink, width=2
    )
    head = Line("The columns are Day and degrees.", (), heads, ())
    rows = range(1, len(days) + 1)
    at = rng.randrange(len(days) - 1)
    return canvas, Sheet(
        [head, *lines],
        [
            highest("Which day has the highest temperature?", "Row", rows, 1),
            highest("Which day has the lowest temperature?", "Row", rows, 1, lowest=True),
            above("How many days are above {} degrees?", "Row", rows, 1, middle(degrees, rng)),
            value_at(f"How many degrees are there on {days[at]}?", at + 1, 1, "I see {0} with {1} degrees."),
            gap(f"How far apart are {days[at]} and {days[at + 1]}?", at + 1, at + 2, 1),
        ],
        "table",
    )  # fmt: skip


def chain(rng: Random) -> tuple[Canvas, Sheet]:
    """Five to seven animals joined by arrows, up or down."""
    canvas = Canvas(rng, grids=((8, 14), (9, 14), (9, 12), (10, 12), (10, 14), (8, 16), (12, 12)))
    names = rng.sample(ANIMALS, rng.randint(5, 7))
    backwards = rng.random() < 0.4
    size = rng.randint(20, 26)
    count = len(names)
    colour = rng.choice(("", *COLOURS))
    boxes: list[Box] = []
    framed = rng.random() < 0.7
    for order, name in enumerate(names, start=1):
        stands = count - order if backwards else order - 1
        x, y = canvas.width * rng.uniform(0.4, 0.6), canvas.height * (stands + 0.5) / count
        boxes.append(canvas.text(round(x), round(y), name, size, order=order, colour=colour, anchor="mm"))
        if framed:
            left, top, right, bottom = boxes[-1]
            canvas.draw.rounded_rectangle(
                (left - 6, top - 4, right + 6, bottom + 4), radius=6, outline=canvas.ink, width=2
            )
    direction = "up" if backwards else "down"
    arrows: list[Box] = []
    for one, two in pairwise(boxes):
        begin, end = min(one[3], two[3]) + 7, max(one[1], two[1]) - 7
        middle = (one[0] + one[2] + two[0] + two[2]) // 4
        arrows.append(canvas.mark(direction, (middle - 10, begin, middle + 10, max(begin + 10, end))))
    lines = [Line("The arrows point {}.", (direction,), tuple(arrows), ("",))]
    lines += [
        Line(
            f"Step {order} is the {{}}.",
            (name,),
            (box,),
            (f"step {order} is the {{}}, not the {{}}",),
            (ANIMALS,),
        )
        for order, (name, box) in enumerate(zip(names, boxes, strict=True), start=1)
    ]

    def after(at: int) -> Part:
        def work(values: Values) -> tuple[list[str], Value]:
            here, there = values[at][0], values[at + 1][0]
            return [f"The {here} is step {at}, so next is the {there}."], there

        return Part(f"What comes after the {names[at - 1]}?", work)

    def before(at: int) -> Part:
        def work(values: Values) -> tuple[list[str], Value]:
            here, there = values[at - 1][0], values[at][0]
            return [f"The {there} is step {at}, so before it is the {here}."], here

        return Part(f"What comes before the {names[at - 1]}?", work)

    def between(one: int, two: int) -> Part:
        def work(values: Values) -> tuple[list[str], Value]:
            first, second = values[one][0], values[two][0]
            told = [
                f"The {first} is step {one}.",
                f"The {second} is step {two}.",
                f"{two} minus {one} is {two - one}.",
            ]
            return told, two - one

        return Part(f"How many steps are from the {names[one - 1]} to the {names[two - 1]}?", work)

    def steps(values: Values) -> tuple[list[str], Value]:
        return [f"The last is step {count}, so there are {count} steps."], count

    def ends(values: Values) -> tuple[list[str], Value]:
        return [f"The chain ends with the {values[-1][0]}."], values[-1][0]

    one, two = sorted(rng.sample(range(1, count + 1), 2))
    return canvas, Sheet(
        lines,
        [
            after(rng.randrange(1, count)),
            before(rng.randrange(2, count + 1)),
            between(one, two),
            Part("How many steps has the chain?", steps),
            Part("Where does the chain end?", ends),
        ],
        "chain",
    )  # fmt: skip
