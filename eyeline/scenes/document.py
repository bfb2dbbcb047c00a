"""Document scenes: forms, receipts and small tables."""

from random import Random

from eyeline.scenes.canvas import COLOURS, Box, Canvas, Real, union
from eyeline.scenes.lexicon import CITIES, COLUMNS, DAYS, FIELDS, FOODS, NAMES, SHOPS
from eyeline.scenes.question import Question, Sentence, ask


def spread(canvas: Canvas, count: int, size: int, top: Real) -> list[int]:
    """Vertical centres of `count` lines of text from `top` on, evenly spread over some of the room."""
    room = canvas.height - top - size * 0.4
    step = min(room / count, size * canvas.rng.uniform(1.5, 2.2))
    start = top + canvas.rng.uniform(0, room - step * count)
    return [round(start + step * (index + 0.5)) for index in range(count)]


def form(rng: Random) -> tuple[Canvas, list[Question]]:
    """Three to five fields, each with its value beside it."""
    canvas = Canvas(rng)
    fields = rng.sample(FIELDS, rng.randint(3, 5))
    pools = {
        "Name": NAMES,
        "City": CITIES,
        "Day": DAYS,
        "Age": range(10, 99),
        "Room": range(1, 99),
        "Code": range(10, 99),
    }
    values = [str(rng.choice(pools[field])) for field in fields]
    size = rng.randint(19, 28)
    left = rng.randint(10, 24)
    widest = max(canvas.text_size(field + ":", size)[0] for field in fields)
    aligned = rng.random() < 0.6
    lined = rng.random() < 0.4
    colour = rng.choice(("", "", *COLOURS))
    read: list[Sentence] = []
    by_value: list[Sentence] = []
    for order, (field, value, y) in enumerate(
        zip(fields, values, spread(canvas, len(fields), size, 8), strict=True), start=1
    ):
        label = canvas.text(left, y, field + ":", size, order=order)
        x = left + widest + 16 if aligned else label[2] + 12
        box = canvas.text(x, y, value, size, order=order, colour=colour)
        if lined:
            canvas.draw.line(
                (left, y + size * 0.62, canvas.width - 10, y + size * 0.62), fill=(150, 150, 150), width=1
            )
        read.append((f"Line {order} says {field} {value}.", (label, box)))
        by_value.append((f"Line {order} has {value} for {field}.", (label, box)))
    questions = []
    for at in rng.sample(range(len(fields)), 2):
        questions.append(
            ask(
                f"What is the {fields[at].lower()}?",
                read,
                f"The {fields[at].lower()} is {values[at]}.",
                values[at],
            )
        )
    at = rng.randrange(len(fields))
    questions.append(
        ask(
            f"Which field says {values[at]}?",
            by_value,
            f"I see {values[at]} for {fields[at]}.",
            fields[at],
        )
    ) if values.count(values[at]) == 1 else None
    questions.append(Question("What is on the first line?", (read[0],), f"{fields[0]} {values[0]}"))
    return canvas, questions


def receipt(rng: Random) -> tuple[Canvas, list[Question]]:
    """A shop's receipt; the printed total is often not the sum."""
    canvas = Canvas(rng, grids=((8, 8), (8, 8), (8, 9), (9, 8), (8, 10), (7, 12), (9, 9), (10, 10)))
    items = rng.sample(FOODS, rng.randint(2, 4))
    prices = rng.sample(range(2, 30), len(items))
    total = sum(prices) if rng.random() < 0.5 else rng.randint(max(prices) + 1, 99)
    size = rng.randint(19, 27)
    shop = rng.choice(SHOPS)
    ys = spread(canvas, len(items) + 2, size, 4)
    left, right = rng.randint(10, 24), min(canvas.width - 12, rng.randint(200, 300))
    title = canvas.text(
        (left + right) // 2, ys[0], shop, round(size * 1.15), anchor="mm", colour=rng.choice(("", *COLOURS))
    )
    read: list[Sentence] = [(f"The receipt is from the {shop}.", (title,))]
    by_price = read.copy()
    for order, (item, price, y) in enumerate(zip(items, prices, ys[1:], strict=False), start=1):
        word = canvas.text(left, y, item, size, order=order)
        number = canvas.text(right, y, str(price), size, order=order, anchor="rm")
        read.append((f"Line {order} says {item} {price}.", (word, number)))
        by_price.append((f"Line {order} has {price} for {item}.", (word, number)))
    canvas.draw.line((left, ys[-1] - size * 0.75, right, ys[-1] - size * 0.75), fill=canvas.ink, width=2)
    word = canvas.text(left, ys[-1], "Total", size, order=len(items) + 1)
    number = canvas.text(right, ys[-1], str(total), size, order=len(items) + 1, anchor="rm")
    last: Sentence = (f"Line {len(items) + 1} says Total {total}.", (word, number))
    at = rng.randrange(len(items))
    dearest = items[prices.index(max(prices))]
    return canvas, [
        ask(f"What does the {items[at]} cost?", read, f"I see {items[at]} {prices[at]}.", prices[at]),
        ask(
            "Which item costs the most?",
            by_price,
            f"The highest number is {max(prices)} for {dearest}.",
            dearest,
        ),
        Question("Which total is printed?", (*read, last), str(total), prior=total != sum(prices)),
        ask("Which shop is it?", read[:1], f"The shop is the {shop}.", shop),
    ]


def table(rng: Random) -> tuple[Canvas, list[Question]]:
    """Two to four people with two numbers each."""
    canvas = Canvas(rng, grids=((8, 8), (8, 8), (9, 8), (10, 8), (11, 7), (12, 7), (10, 10), (12, 9)))
    people = rng.sample(NAMES, rng.randint(2, 4))
    columns = rng.sample(COLUMNS, 2)
    numbers = [rng.sample(range(2, 99), len(people)) for _ in columns]
    size = rng.randint(18, 25)
    ys = spread(canvas, len(people) + 1, size, 6)
    left = rng.randint(8, 20)
    xs = [left + round((canvas.width - left - 12) * fraction) for fraction in (0.52, 0.85)]
    ruled = rng.random() < 0.6
    heads = [canvas.text(x, ys[0], name, size, anchor="mm") for x, name in zip(xs, columns, strict=True)]
    read: list[Sentence] = [(f"The columns are {columns[0]} and {columns[1]}.", tuple(heads))]
    column = rng.randrange(2)
    by_value = read.copy()
    for order, (person, y) in enumerate(zip(people, ys[1:], strict=True), start=1):
        boxes: list[Box] = [canvas.text(left, y, person, size, order=order)]
        for x, values in zip(xs, numbers, strict=True):
            boxes.append(canvas.text(x, y, str(values[order - 1]), size, order=order, anchor="mm"))
        if ruled:
            canvas.draw.line(
                (left, y - size * 0.8, canvas.width - 8, y - size * 0.8), fill=(140, 140, 140), width=1
            )
        read.append(
            (
                f"Row {order} is {person} with {columns[0]} {numbers[0][order - 1]} and {columns[1]} {numbers[1][order - 1]}.",
                (union(*boxes),),
            )
        )
        value = numbers[column][order - 1]
        by_value.append((f"Row {order} has {value} for {person}.", (boxes[0], boxes[1 + column])))

    def value_of(person: int, at: int) -> Question:
        what, value = columns[at], numbers[at][person]
        row = " and ".join(f"{name} {of[person]}" for name, of in zip(columns, numbers, strict=True))
        conclusion = f"I see {people[person]} with {row}, so the {what} is {value}."
        return ask(f"What is the {what} of {people[person]}?", read, conclusion, value)

    highest = max(numbers[column])
    top = people[numbers[column].index(highest)]
    conclusion = f"The highest {columns[column]} is {highest} for {top}."
    return canvas, [
        value_of(rng.randrange(len(people)), column),
        value_of(rng.randrange(len(people)), 1 - column),
        ask(f"Who has the highest {columns[column]}?", by_value, conclusion, top),
        Question("Who is in the first row?", (read[0], read[1]), people[0]),
    ]


KINDS = {"form": form, "receipt": receipt, "table": table}
