"""Long document scenes: a whole table, a whole receipt, two forms on one page."""

from collections.abc import Sequence
from random import Random

from eyeline.scenes.canvas import COLOURS, Canvas, union
from eyeline.scenes.document import spread
from eyeline.scenes.lexicon import (
    CITIES,
    COLUMNS,
    DAYS,
    FIELDS,
    FOODS,
    NAMES,
    SHOPS,
)
from eyeline.scenes.long.parts import above, gap, highest, middle, total_of, value_at
from eyeline.scenes.long.sheet import GRIDS, Line, Part, Sheet, Value, Values


def table(rng: Random) -> tuple[Canvas, Sheet]:
    """Five to seven people with two numbers each."""
    canvas = Canvas(rng, grids=GRIDS)
    people = rng.sample(NAMES, rng.randint(5, 7))
    columns = rng.sample(COLUMNS, 2)
    numbers = [rng.sample(range(2, 99), len(people)) for _ in columns]
    size = rng.randint(19, 24)
    ys = spread(canvas, len(people) + 1, size, 6)
    left = rng.randint(8, 20)
    xs = [left + round((canvas.width - left - 12) * fraction) for fraction in (0.5, 0.84)]
    heads = [canvas.text(x, ys[0], name, size, anchor="mm") for x, name in zip(xs, columns, strict=True)]
    ruled = rng.random() < 0.6
    lines = [Line("The columns are {} and {}.", tuple(columns), tuple(heads), ("", ""))]
    for order, (person, y) in enumerate(zip(people, ys[1:], strict=True), start=1):
        boxes = [canvas.text(left, y, person, size, order=order)]
        for x, values in zip(xs, numbers, strict=True):
            boxes.append(canvas.text(x, y, str(values[order - 1]), size, order=order, anchor="mm"))
        if ruled:
            canvas.draw.line(
                (left, y - size * 0.8, canvas.width - 8, y - size * 0.8), fill=(140, 140, 140), width=1
            )
        lines.append(
            Line(
                f"Row {order} is {{}} with {columns[0]} {{}} and {columns[1]} {{}}.",
                (person, numbers[0][order - 1], numbers[1][order - 1]),
                (union(*boxes),),
                (
                    "",
                    f"row {order} has {columns[0]} {{}}, not {{}}",
                    f"row {order} has {columns[1]} {{}}, not {{}}",
                ),
            )
        )
    rows = range(1, len(lines))
    parts = []
    for at, column in enumerate(columns):
        row = rng.choice(rows)
        parts += [
            highest(f"Who has the highest {column}?", "Row", rows, at + 1),
            highest(f"Who has the lowest {column}?", "Row", rows, at + 1, lowest=True),
            above(f"How many have {column} above {{}}?", "Row", rows, at + 1, middle(numbers[at], rng)),
            value_at(
                f"What is the {column} of {people[row - 1]}?", row, at + 1,
                f"I see {{0}} with {columns[0]} {{1}} and {columns[1]} {{2}}, so the {column} is {{{at + 1}}}.",
            ),
        ]  # fmt: skip
    return canvas, Sheet(lines, parts, "table")


def receipt(rng: Random) -> tuple[Canvas, Sheet]:
    """A receipt of five to seven lines with small prices, and a printed total that is often not the sum."""
    canvas = Canvas(rng, grids=GRIDS)
    items = rng.sample(FOODS, rng.randint(5, 7))
    prices = [rng.randint(1, 12) for _ in items]
    total = (
        sum(prices)
        if rng.random() < 0.5
        else min(99, max(2, sum(prices) + rng.choice((-10, -2, -1, 1, 2, 10))))
    )
    size = rng.randint(19, 24)
    ys = spread(canvas, len(items) + 2, size, 4)
    left, right = rng.randint(10, 24), min(canvas.width - 12, rng.randint(200, 300))
    shop = rng.choice(SHOPS)
    title = canvas.text((left + right) // 2, ys[0], shop, round(size * 1.15), anchor="mm")
    lines = [Line("The receipt is from the {}.", (shop,), (title,), ("",))]
    for order, (item, price, y) in enumerate(
        zip((*items, "Total"), (*prices, total), ys[1:], strict=True), start=1
    ):
        if item == "Total":
            canvas.draw.line((left, y - size * 0.75, right, y - size * 0.75), fill=canvas.ink, width=2)
        word = canvas.text(left, y, item, size, order=order)
        number = canvas.text(right, y, str(price), size, order=order, anchor="rm")
        lines.append(
            Line(
                f"Line {order} says {{}} {{}}.",
                (item, price),
                (word, number),
                ("", f"line {order} says {item} {{}}, not {{}}"),
            )
        )
    rows = range(1, len(items) + 1)
    one, two = rng.sample(rows, 2)

    def agrees(values: Values) -> tuple[list[str], Value]:
        told, added = total_of("", rows, 1).work(values)
        printed = values[len(items) + 1][1]
        answer = "yes" if added == printed else "no"
        return [*told, f"The printed total is {printed}, so the answer is {answer}."], answer

    return canvas, Sheet(
        lines,
        [
            total_of("How much do all items cost?", rows, 1),
            Part("Is the printed total right?", agrees),
            highest("Which item costs the most?", "Line", rows, 1) if prices.count(max(prices)) == 1
            else value_at(f"What does the {items[one - 1]} cost?", one, 1, "I see {0} {1}."),
            above("How many items cost more than {}?", "Line", rows, 1, middle(prices, rng)),
            gap(f"How far apart are {items[one - 1]} and {items[two - 1]}?", one, two, 1),
        ],
        "receipt",
    )  # fmt: skip


def form(rng: Random) -> tuple[Canvas, Sheet]:
    """Two people's forms on one page, three or four fields each."""
    canvas = Canvas(rng, grids=GRIDS)
    pools: dict[str, Sequence[Value]] = {
        "Name": NAMES, "City": CITIES, "Day": DAYS, "Age": range(10, 99), "Room": range(1, 99), "Code": range(10, 99),
    }  # fmt: skip
    fields = rng.sample(FIELDS, rng.randint(3, 4))
    size = rng.randint(19, 24)
    left = rng.randint(10, 24)
    ys = spread(canvas, 2 * len(fields) + 1, size, 6)
    widest = max(canvas.text_size(field + ":", size)[0] for field in fields)
    colour = rng.choice(("", "", *COLOURS))
    lines = []
    for order, (field, y) in enumerate(
        zip((*fields, *fields), (*ys[: len(fields)], *ys[len(fields) + 1 :]), strict=True), start=1
    ):
        value = rng.choice(pools[field])
        label = canvas.text(left, y, field + ":", size, order=order)
        box = canvas.text(left + widest + 16, y, str(value), size, order=order, colour=colour)
        words: Sequence[str] = () if isinstance(value, int) else [str(each) for each in pools[field]]
        lines.append(
            Line(
                f"Line {order} says {field} {{}}.",
                (value,),
                (label, box),
                (f"line {order} says {field} {{}}, not {{}}",),
                (words,),
            )
        )
    middle = (ys[len(fields)],) * 2
    canvas.draw.line((left, middle[0], canvas.width - 10, middle[1]), fill=canvas.ink, width=2)

    def of(form: int, at: int) -> Part:
        where, row = ("first", "second")[form], form * len(fields) + at
        said = f"Line {row + 1} says {fields[at]} {{0}}, so it is {{0}}."
        return value_at(f"What is the {fields[at].lower()} in the {where} form?", row, 0, said)

    def same(at: int) -> Part:
        def work(values: Values) -> tuple[list[str], Value]:
            one, two = values[at][0], values[at + len(fields)][0]
            answer = "yes" if one == two else "no"
            return [
                f"The first says {fields[at]} {one} and the second {two}, so the answer is {answer}."
            ], answer

        return Part(f"Do both have the same {fields[at].lower()}?", work)

    parts = [of(form, at) for form in (0, 1) for at in range(len(fields))]
    return canvas, Sheet(lines, [*parts, *(same(at) for at in range(len(fields)))], "page")
