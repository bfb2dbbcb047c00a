"""General scenes: objects on a plain ground. Count, compare, where is, what is beside, which colour."""

from itertools import accumulate
from random import Random

from eyeline.scenes.canvas import COLOURS, Box, Canvas
from eyeline.scenes.question import Question, Sentence, ask

SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "ring")
FRUIT = {"banana": "yellow", "apple": "red", "carrot": "orange", "grape": "purple", "leaf": "green"}
ROWS = ("top", "middle", "bottom")
COLUMNS = ("left", "centre", "right")


def _objects(rng: Random, count: int) -> list[tuple[str, str]]:
    """Distinct (colour, shape) pairs, with colours and shapes that repeat."""
    colours, shapes = rng.sample(list(COLOURS), 3), rng.sample(SHAPES, 3)
    pairs = [(colour, shape) for colour in colours for shape in shapes]
    return rng.sample(pairs, count)


def place_objects(
    canvas: Canvas,
    cells: list[tuple[int, int]],
    rows: int,
    cols: int,
    names: list[tuple[str, str]],
    sizes: list[float],
) -> list[Box]:
    """Draws the objects into cells (row, column) of a layout, jittered; `cells` come in reading order."""
    boxes = []
    width, height = canvas.width / cols, canvas.height / rows
    for order, ((row, col), (colour, shape), size) in enumerate(
        zip(cells, names, sizes, strict=True), start=1
    ):
        side = min(width, height) * size
        x = (col + 0.5) * width + canvas.rng.uniform(-0.4, 0.4) * (width - side)
        y = (row + 0.5) * height + canvas.rng.uniform(-0.4, 0.4) * (height - side)
        box = (round(x - side / 2), round(y - side / 2), round(x + side / 2), round(y + side / 2))
        boxes.append(canvas.mark(shape, box, order=order, colour=colour))
    return boxes


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _name(pair: tuple[str, str]) -> str:
    return f"{pair[0]} {pair[1]}"


def _read(names: list[tuple[str, str]], boxes: list[Box]) -> list[Sentence]:
    return [
        (f"Object {order} is {article(pair[0])} {_name(pair)}.", (box,))
        for order, (pair, box) in enumerate(zip(names, boxes, strict=True), start=1)
    ]


def scatter(rng: Random) -> tuple[Canvas, list[Question]]:
    """Three to six objects in jittered cells of two or three rows."""
    canvas = Canvas(rng)
    rows, cols = (
        rng.choice(((2, 3), (3, 3), (2, 4)))
        if canvas.width >= canvas.height
        else rng.choice(((3, 2), (3, 3)))
    )
    count = rng.randint(3, 6)
    cells = sorted(rng.sample([(row, col) for row in range(rows) for col in range(cols)], count))
    names = _objects(rng, count)
    sizes = [rng.uniform(0.42, 0.52) for _ in names]
    largest = rng.randrange(count)
    sizes[largest] = 0.85
    boxes = place_objects(canvas, cells, rows, cols, names, sizes)
    read = _read(names, boxes)
    questions = []
    for part, plural in ((0, "{} objects"), (1, "{}s")):
        value = rng.choice(names)[part]
        matches = [int(pair[part] == value) for pair in names]
        what = plural.format(value) if value != "cross" else "crosses"
        counted: list[Sentence] = [
            (f"{text.removesuffix('.')}: {count}.", boxes)
            for (text, boxes), count in zip(read, accumulate(matches), strict=True)
        ]
        total = sum(matches)
        questions.append(ask(f"How many {what} are there?", counted, f"I count {total} {what}.", total))
    questions.append(
        Question(
            "Which object is the largest?",
            (
                *read,
                (f"The largest is object {largest + 1}, the {_name(names[largest])}.", (boxes[largest],)),
            ),
            _name(names[largest]),
        )
    )
    return canvas, questions


def row(rng: Random) -> tuple[Canvas, list[Question]]:
    """Three to five objects side by side, some higher, some lower."""
    canvas = Canvas(rng)
    count = rng.randint(3, 5)
    names = _objects(rng, count)
    boxes = place_objects(
        canvas, [(0, col) for col in range(count)], 1, count, names, [rng.uniform(0.6, 0.9) for _ in names]
    )
    read = _read(names, boxes)
    questions = []
    for side, step, at in (("left", -1, rng.randrange(1, count)), ("right", 1, rng.randrange(count - 1))):
        other = names[at + step]
        questions.append(
            ask(
                f"What is directly {side} of the {_name(names[at])}?", read,
                (
                    f"The {_name(names[at])} is object {at + 1}, so {side} of it is object {at + 1 + step}.",
                    f"Object {at + 1 + step} is {article(other[0])} {_name(other)}.",
                ),
                _name(other),
            )
        )  # fmt: skip
    at = rng.randrange(count)
    same = [pair for pair in names if pair[1] == names[at][1]]
    if len(same) == 1:
        questions.append(
            ask(
                f"Which colour is the {names[at][1]}?",
                read,
                f"The {names[at][1]} is {names[at][0]}.",
                names[at][0],
            )
        )
    return canvas, questions


def nine(rng: Random) -> tuple[Canvas, list[Question]]:
    """Two to five objects at the nine places of a 3 x 3 layout."""
    canvas = Canvas(rng)
    count = rng.randint(2, 5)
    cells = sorted(rng.sample([(row, col) for row in range(3) for col in range(3)], count))
    names = _objects(rng, count)
    boxes = place_objects(canvas, cells, 3, 3, names, [rng.uniform(0.55, 0.85) for _ in names])
    places = [f"{ROWS[row]} {COLUMNS[col]}" for row, col in cells]
    by_place: list[Sentence] = [
        (f"At the {place} is {article(pair[0])} {_name(pair)}.", (box,))
        for place, pair, box in zip(places, names, boxes, strict=True)
    ]
    by_name: list[Sentence] = [
        (f"The {_name(pair)} is {place}.", (box,))
        for place, pair, box in zip(places, names, boxes, strict=True)
    ]
    questions = []
    for at in rng.sample(range(count), min(count, 2)):
        name, place = _name(names[at]), places[at]
        questions.append(ask(f"Where is the {name}?", by_name, f"The {name} is {place}.", place))
    at = rng.randrange(count)
    questions.append(
        ask(
            f"What is at the {places[at]}?",
            by_place,
            f"At the {places[at]} is {article(names[at][0])} {_name(names[at])}.",
            _name(names[at]),
        )
    )
    return canvas, questions


def fruit(rng: Random) -> tuple[Canvas, list[Question]]:
    """Fruit and leaves, half of them in a colour that they never have."""
    canvas = Canvas(rng)
    kinds = rng.sample(list(FRUIT), rng.randint(3, 4))
    names = [(FRUIT[kind] if rng.random() < 0.5 else rng.choice(list(COLOURS)), kind) for kind in kinds]
    rows, cols = (1, len(kinds)) if canvas.width > 1.2 * canvas.height else (2, 2)
    cells = [(row, col) for row in range(rows) for col in range(cols)][: len(kinds)]
    boxes = place_objects(canvas, cells, rows, cols, names, [rng.uniform(0.55, 0.85) for _ in names])
    read = _read(names, boxes)
    questions = []
    for colour, kind in rng.sample(names, 2):
        questions.append(
            ask(
                f"Which colour is the {kind}?",
                read,
                f"The {kind} is {colour}.",
                colour,
                prior=colour != FRUIT[kind],
            )
        )
    at = rng.randrange(len(names))
    if sum(colour == names[at][0] for colour, _ in names) == 1:
        questions.append(
            ask(
                f"What is {names[at][0]}?",
                read,
                f"I see {article(names[at][0])} {names[at][0]} {names[at][1]}.",
                names[at][1],
            )
        )
    return canvas, questions


KINDS = {"scatter": scatter, "row": row, "nine": nine, "fruit": fruit}
