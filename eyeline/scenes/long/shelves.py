"""Long general scenes: objects in the cells of a layout."""

from random import Random

from eyeline.scenes.canvas import COLOURS, Canvas
from eyeline.scenes.general import SHAPES, article, place_objects
from eyeline.scenes.long.sheet import GRIDS, Line, Part, Sheet, Value, Values


def shelf(rng: Random) -> tuple[Canvas, Sheet]:
    """Six to eight objects in the cells of a layout of three rows, some of the same name."""
    canvas = Canvas(rng, grids=GRIDS)
    rows, cols = (
        rng.choice(((3, 4), (3, 3), (3, 4)))
        if canvas.width >= canvas.height
        else rng.choice(((4, 3), (3, 3)))
    )
    count = rng.randint(6, 8)
    cells = sorted(rng.sample([(row, col) for row in range(rows) for col in range(cols)], count))
    colours, shapes = rng.sample(list(COLOURS), 3), rng.sample(SHAPES, 3)
    names = [(rng.choice(colours), rng.choice(shapes)) for _ in range(count)]
    boxes = place_objects(canvas, cells, rows, cols, names, [rng.uniform(0.45, 0.8) for _ in names])
    others = [each for each in COLOURS if each != "orange"]  # which takes another article
    lines = []
    for order, (pair, box) in enumerate(zip(names, boxes, strict=True), start=1):
        colour = "" if pair[0] == "orange" else f"object {order} is {{}}, not {{}}"
        mend = (colour, f"object {order} is a {{}}, not a {{}}")
        said = f"Object {order} is {article(pair[0])} {{}} {{}}."
        lines.append(Line(said, pair, (box,), mend, (others, shapes)))

    def count_of(part: int, value: str) -> Part:
        what = f"{value} objects" if part == 0 else "crosses" if value == "cross" else f"{value}s"

        def work(values: Values) -> tuple[list[str], Value]:
            told, found = [], 0
            for order, pair in enumerate(values, start=1):
                found += pair[part] == value
                told.append(f"Object {order} is {article(str(pair[0]))} {pair[0]} {pair[1]}: {found}.")
            return [*told, f"I count {found} {what}."], found

        return Part(f"How many {what} are there?", work)

    def number(at: int) -> Part:
        def work(values: Values) -> tuple[list[str], Value]:
            colour, shape = values[at]
            return [f"Object {at + 1} is {article(str(colour))} {colour} {shape}."], f"{colour} {shape}"

        return Part(f"What is object {at + 1}?", work)

    def objects(values: Values) -> tuple[list[str], Value]:
        return [f"The last is object {count}, so there are {count} objects."], count

    return canvas, Sheet(
        lines,
        [
            count_of(0, rng.choice(names)[0]),
            count_of(1, rng.choice(names)[1]),
            number(rng.randrange(count)),
            Part("How many objects are there?", objects),
        ],
        "picture",
    )
