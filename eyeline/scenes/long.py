"""Long scenes: a whole table, receipt, chart, list, chain or shelf, asked about in several parts.

Their traces read everything, answer each part, read everything again and end with all answers. Where `slip` is set, the first
reading has one value wrong, and the second look puts it right.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random

from eyeline.scenes.canvas import COLOURS, Box, Canvas, union
from eyeline.scenes.code import button_html, heading_html
from eyeline.scenes.document import spread
from eyeline.scenes.general import SHAPES, article, place_objects
from eyeline.scenes.lexicon import (
    ANIMALS,
    BUTTONS,
    CITIES,
    COLUMNS,
    DAYS,
    FIELDS,
    FOODS,
    NAMES,
    NOTES,
    SHOPS,
    TITLES,
)
from eyeline.scenes.maths import chart
from eyeline.scenes.question import Question, Sentence, Slip

GRIDS = (
    (10, 10), (10, 10), (12, 10), (10, 12), (11, 11), (12, 12), (12, 9), (9, 12), (14, 10), (10, 14), (9, 14), (13, 11),
)  # fmt: skip
WIDE = ((14, 10), (13, 11), (16, 9), (12, 12), (14, 9))
Value = str | int
Values = list[tuple[Value, ...]]  # of each line
Work = Callable[[Values], tuple[list[str], Value]]  # from what was read to conclusions and the answer


@dataclass(frozen=True, slots=True)
class Line:
    """One thing to read: how it is said, with a place for each of its values."""

    said: str
    values: tuple[Value, ...]
    boxes: tuple[Box, ...]
    mend: tuple[
        str, ...
    ]  # how each value is put right, with places for it and the wrong one; empty: it is not misread
    pools: tuple[Sequence[str], ...] = ()  # words that each value could be misread as

    def tell(self, values: tuple[Value, ...]) -> str:
        return self.said.format(*values)


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the question."""

    prompt: str
    work: Work


@dataclass(frozen=True, slots=True)
class Sheet:
    """Everything that is read and asked of a long scene."""

    lines: list[Line]
    parts: list[Part]
    whole: str  # what all of it is called


ASKED = ("Answer each part.", "Read the whole {}.", "Look at the {}.", "Answer all of it.", "")
WISHES = ("Take your time.", "Think it through.", "Read everything twice.", "Think carefully.", "", "", "")
BEGIN = (
    "Let me read the whole {} first.", "First I read the {} from the start.", "I read the {} one by one.",
    "I begin with the {}.", "Let me see what the {} says.", "One after another.",
)  # fmt: skip
PARTS = ("Now part {}.", "On to part {}.", "Part {} comes next.", "Part {}.")
SETTLED = ("So part {} is {}.", "That makes {1} for part {0}.", "Part {} is {}.")
AGAIN = (
    "Let me read it once more.", "Wait, let me read it all again.", "Before I answer I look again.",
    "Let me check each one against the picture.", "I go over it a second time.", "Now I read it again.",
)  # fmt: skip
BACKWARDS = ("Now from the end to the start.", "Let me check from the last one up.")
SEEN_AGAIN = ("Again, {}", "Yes, {}", "Here {}", "I see that {}", "Once more, {}")
MENDED = ("Wait: {}.", "No: {}.", "I misread this: {}.", "Wait, {}.")
THIRD = ("Now I compare both.", "Let me compare what I read.", "I go through it a last time.")
SEEN_TWICE = ("{} both times.", "{} each time.", "{} for sure.")
SHORT = 1_250  # characters of a trace that is told with a third look
SAME = ("It is all as before.", "Nothing is different.", "Both readings are the same.", "This is right.")
REST = ("All else is as before.", "The rest is right.", "The others are the same.")
KEPT = ("Part {} stays {}.", "For part {} it is still {}.", "Part {} is {} as before.")
ANEW = ("Part {} again.", "I do part {} again.", "Part {} may change.")
END = ("All in all: {}.", "So the answers are {}.", "Together that is {}.", "I answer {}.")
ALIKE = {  # digits that each digit could be misread as
    "0": "869",
    "1": "74",
    "2": "73",
    "3": "85",
    "4": "91",
    "5": "63",
    "6": "58",
    "7": "12",
    "8": "360",
    "9": "40",
}


def tell_long(sheet: Sheet, rng: Random, slip: bool = False) -> Question:
    """The question of some parts of the sheet, told at length; with `slip`, one value first misread."""
    parts = rng.sample(sheet.parts, min(len(sheet.parts), rng.choice((2, 3, 3))))
    prompt = _prompt(sheet, parts, rng)
    seed = rng.random()
    told = _tell(sheet, parts, Random(seed), slip, third=False)
    if len(told.trace) < SHORT:
        told = _tell(sheet, parts, Random(seed), slip, third=True)
    return replace(told, prompt=prompt)


def _tell(sheet: Sheet, parts: list[Part], rng: Random, slip: bool, third: bool) -> Question:
    """The trace: a first look, a second, where `third` one more, and the parts behind the first or the last of them."""
    lines, count = sheet.lines, len(parts)
    true = [line.values for line in lines]
    first, wrong = _misread(lines, rng) if slip else (true, None)
    late = rng.random() < 0.35 or (wrong is not None and not isinstance(true[wrong[0]][wrong[1]], int))
    told: list[Sentence] = [_say(BEGIN, rng, sheet.whole)]
    told += [(line.tell(values), line.boxes) for line, values in zip(lines, first, strict=True)]
    answers: list[Value] = []
    if not late:
        for number, part in enumerate(parts, start=1):
            answers.append(_work(told, part, first, number, count, rng))
    told.append(_say(AGAIN, rng))
    order = list(range(len(lines)))
    if rng.random() < 0.25:
        told.append(_say(BACKWARDS, rng))
        order.reverse()
    seen = rng.choice(SEEN_AGAIN)
    mended = []
    for at in order:
        line = lines[at]
        again = (seen.format(_inside(line.tell(line.values))), line.boxes)
        if not wrong or at != wrong[0]:
            told.append(again)
            continue
        if rng.random() < 0.7:
            mended.append(len(told))
            told.append(again)
        mended.append(len(told))
        mend = line.mend[wrong[1]].format(true[at][wrong[1]], first[at][wrong[1]])
        told.append((rng.choice(MENDED).format(mend), line.boxes))
    told.append(_say(REST if wrong else SAME, rng))
    if third:
        seen = rng.choice(SEEN_TWICE)
        told.append(_say(THIRD, rng))
        told += [(seen.format(line.tell(line.values).removesuffix(".")), line.boxes) for line in lines]
    for number, part in enumerate(parts, start=1):
        if late:
            answers.append(_work(told, part, true, number, count, rng))
        elif part.work(true) != part.work(first):
            told.append((rng.choice(ANEW).format(number), ()))
            answers[number - 1] = _work(told, part, true, number, 1, rng)
        elif count > 1:
            told.append((rng.choice(KEPT).format(number, answers[number - 1]), ()))
    if count > 1:
        told.append((rng.choice(END).format("; ".join(map(str, answers))), ()))
    known = None
    if wrong:
        at, column = wrong
        known = Slip(1 + at, *_where(lines[at], first[at], column), tuple(mended))
    return Question("", tuple(told), "; ".join(map(str, answers)), slip=known)


def tell_parts(sheet: Sheet, rng: Random) -> list[Question]:
    """Each part of the sheet by itself, told in the fewest words."""
    true = [line.values for line in sheet.lines]
    read = [(line.tell(line.values), line.boxes) for line in sheet.lines]
    questions = []
    for part in sheet.parts:
        sentences, answer = part.work(true)
        questions.append(Question(part.prompt, (*read, *((text, ()) for text in sentences)), str(answer)))
    return rng.sample(questions, len(questions))


def _prompt(sheet: Sheet, parts: list[Part], rng: Random) -> str:
    asked = (
        [f"{number}. {part.prompt}" for number, part in enumerate(parts, start=1)]
        if len(parts) > 1
        else [parts[0].prompt, "Take your time."]
    )
    lead, wish = rng.choice(ASKED).format(sheet.whole), rng.choice(WISHES)
    if len(parts) == 1:
        wish = ""
    return " ".join(each for each in (lead, *asked, wish) if each)


def _work(told: list[Sentence], part: Part, values: Values, number: int, count: int, rng: Random) -> Value:
    """Adds to the trace how a part follows from the values, and returns its answer."""
    sentences, answer = part.work(values)
    if count > 1:
        told.append((rng.choice(PARTS).format(number), ()))
    told += [(text, ()) for text in sentences]
    if count > 1:
        told.append((rng.choice(SETTLED).format(number, answer), ()))
    return answer


def _misread(lines: list[Line], rng: Random) -> tuple[Values, tuple[int, int]]:
    """The lines' values with one of them otherwise, and which (line, value)."""
    values: Values = [line.values for line in lines]
    places = [(at, column) for at, line in enumerate(lines) for column, mend in enumerate(line.mend) if mend]
    at, column = rng.choice(places)
    old = values[at][column]
    if isinstance(old, int):
        digits = str(old)
        place = rng.randrange(len(digits))
        new: Value = int(digits[:place] + rng.choice(ALIKE[digits[place]]) + digits[place + 1 :])
        beside = [
            values[other][column]
            for other in (at - 1, at + 1)
            if 0 <= other < len(lines)
            and len(values[other]) > column
            and isinstance(values[other][column], int)
        ]
        if (beside and rng.random() < 0.3) or new == 0:
            new = rng.choice(beside) if beside else old + 1
        if new == old:
            new = old + rng.choice((1, 2, 10))
    else:
        new = rng.choice([word for word in lines[at].pools[column] if word != old])
    changed = list(values[at])
    changed[column] = new
    values[at] = tuple(changed)
    return values, (at, column)


def _where(line: Line, values: tuple[Value, ...], column: int) -> tuple[int, int]:
    """Where the value stands in the line as told."""
    pieces = line.said.split("{}")
    start = sum(len(piece) for piece in pieces[: column + 1]) + sum(
        len(str(each)) for each in values[:column]
    )
    return start, start + len(str(values[column]))


def _say(phrases: tuple[str, ...], rng: Random, *what: str) -> Sentence:
    return rng.choice(phrases).format(*what), ()


def _inside(text: str) -> str:
    return text[0].lower() + text[1:]


# Parts that ask about one number of each line, at `column`; its label is the line's first value.


def _highest(prompt: str, noun: str, rows: range, column: int, lowest: bool = False) -> Part:
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


def _above(prompt: str, noun: str, rows: range, column: int, limit: int) -> Part:
    def work(values: Values) -> tuple[list[str], Value]:
        told, count = [], 0
        for order, row in enumerate(rows, start=1):
            count += int(values[row][column]) > limit
            told.append(f"{noun} {order} has {values[row][column]}: {count}.")
        return [*told, f"I count {count} above {limit}."], count

    return Part(prompt.format(limit), work)


def _value(prompt: str, row: int, column: int, said: str) -> Part:
    """`said` names the line's values: "I see {0} with {1}."."""
    return Part(prompt, lambda values: ([said.format(*values[row])], values[row][column]))


def _gap(prompt: str, one: int, two: int, column: int) -> Part:
    def work(values: Values) -> tuple[list[str], Value]:
        (first, a), (second, b) = ((values[row][0], int(values[row][column])) for row in (one, two))
        high, low = max(a, b), min(a, b)
        return [
            f"I see {first} with {a} and {second} with {b}.",
            f"{high} minus {low} is {high - low}.",
        ], high - low

    return Part(prompt, work)


def _total(prompt: str, rows: range, column: int) -> Part:
    def work(values: Values) -> tuple[list[str], Value]:
        total, told = int(values[rows[0]][column]), []
        for row in rows[1:]:
            value = int(values[row][column])
            told.append(f"{total} plus {value} is {total + value}.")
            total += value
        return told, total

    return Part(prompt, work)


def _middle(values: Sequence[int], rng: Random) -> int:
    """A limit that some values are above and some are not."""
    ordered = sorted(values)
    at = rng.randrange(1, len(ordered) - 1)
    return ordered[at]


def table(rng: Random) -> tuple[Canvas, Sheet]:
    """Six to eight people with two numbers each."""
    canvas = Canvas(rng, grids=GRIDS)
    people = rng.sample(NAMES, rng.randint(6, 8))
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
            _highest(f"Who has the highest {column}?", "Row", rows, at + 1),
            _highest(f"Who has the lowest {column}?", "Row", rows, at + 1, lowest=True),
            _above(f"How many have {column} above {{}}?", "Row", rows, at + 1, _middle(numbers[at], rng)),
            _value(
                f"What is the {column} of {people[row - 1]}?", row, at + 1,
                f"I see {{0}} with {columns[0]} {{1}} and {columns[1]} {{2}}, so the {column} is {{{at + 1}}}.",
            ),
        ]  # fmt: skip
    return canvas, Sheet(lines, parts, "table")


def receipt(rng: Random) -> tuple[Canvas, Sheet]:
    """A receipt of five to eight lines with small prices, and a printed total that is often not the sum."""
    canvas = Canvas(rng, grids=GRIDS)
    items = rng.sample(FOODS, rng.randint(5, 8))
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
        told, added = _total("", rows, 1).work(values)
        printed = values[len(items) + 1][1]
        answer = "yes" if added == printed else "no"
        return [*told, f"The printed total is {printed}, so the answer is {answer}."], answer

    return canvas, Sheet(
        lines,
        [
            _total("How much do all items cost?", rows, 1),
            Part("Is the printed total right?", agrees),
            _highest("Which item costs the most?", "Line", rows, 1) if prices.count(max(prices)) == 1
            else _value(f"What does the {items[one - 1]} cost?", one, 1, "I see {0} {1}."),
            _above("How many items cost more than {}?", "Line", rows, 1, _middle(prices, rng)),
            _gap(f"How far apart are {items[one - 1]} and {items[two - 1]}?", one, two, 1),
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
        return _value(f"What is the {fields[at].lower()} in the {where} form?", row, 0, said)

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


def _series_parts(noun: str, lines: list[Line], rng: Random) -> list[Part]:
    rows = range(len(lines))
    numbers = [int(line.values[1]) for line in lines]
    one, two = rng.sample(rows, 2)
    names = [line.values[0] for line in lines]
    at = rng.choice(rows)
    what = noun.lower()
    return [
        _highest(f"Which {what} is the highest?", noun, rows, 1),
        _highest(f"Which {what} is the lowest?", noun, rows, 1, lowest=True),
        _above(f"How many {what}s are above {{}}?", noun, rows, 1, _middle(numbers, rng)),
        _value(f"What is the value of {names[at]}?", at, 1, "I see {0} with {1}."),
        _gap(f"How far apart are {names[one]} and {names[two]}?", one, two, 1),
    ]


def bars(rng: Random) -> tuple[Canvas, Sheet]:
    """Seven to ten bars that lie, each with its label on the left and its value at its end."""
    canvas = Canvas(rng, grids=GRIDS)
    lines, _ = _lying_bars(canvas, rng.randint(7, 10))
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
            _highest("Which day has the highest temperature?", "Row", rows, 1),
            _highest("Which day has the lowest temperature?", "Row", rows, 1, lowest=True),
            _above("How many days are above {} degrees?", "Row", rows, 1, _middle(degrees, rng)),
            _value(f"How many degrees are there on {days[at]}?", at + 1, 1, "I see {0} with {1} degrees."),
            _gap(f"How far apart are {days[at]} and {days[at + 1]}?", at + 1, at + 2, 1),
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


def shelf(rng: Random) -> tuple[Canvas, Sheet]:
    """Six to ten objects in the cells of a layout of three rows, some of the same name."""
    canvas = Canvas(rng, grids=GRIDS)
    rows, cols = (
        rng.choice(((3, 4), (3, 3), (3, 4)))
        if canvas.width >= canvas.height
        else rng.choice(((4, 3), (3, 3)))
    )
    count = rng.randint(6, min(10, rows * cols))
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


def page(rng: Random) -> tuple[Canvas, Sheet]:
    """A heading, a list of five to eight entries, a line of text and a button."""
    canvas = Canvas(rng, grids=GRIDS)
    title, colour = rng.choice(TITLES), rng.choice(list(COLOURS))
    group = rng.choice((FOODS, NAMES))
    entries = rng.sample(group, rng.randint(5, 8))
    ordered = rng.random() < 0.4
    size = rng.randint(19, 23)
    left = rng.randint(10, 26)
    ys = spread(canvas, len(entries) + 3, size, 4)
    title_box = canvas.text(left, ys[0], title, round(size * 1.3), colour=colour)
    lines = [Line("The heading says {} in {}.", (title, colour), (title_box,), ("", ""))]
    bullets: list[Box] = []
    for order, (entry, y) in enumerate(zip(entries, ys[1:], strict=False), start=1):
        if ordered:
            bullet = canvas.text(left + 6, y, f"{order}.", size)
        else:
            bullet = (left + 8, y - 4, left + 16, y + 4)
            canvas.draw.ellipse(bullet, fill=canvas.ink)
            canvas.note("bullet", bullet)
        bullets.append(bullet)
        box = canvas.text(left + size + 16, y, entry, size, order=order)
        lines.append(
            Line(f"Entry {order} is {{}}.", (entry,), (box,), (f"entry {order} is {{}}, not {{}}",), (group,))
        )
    kind = "numbers" if ordered else "bullets"
    lines.append(Line("The entries have {}.", (kind,), tuple(bullets), ("",)))
    note = rng.choice(NOTES)
    note_box = canvas.text(left, ys[-2], note, size)
    lines.append(Line("The text says {}.", (note,), (note_box,), ("",)))
    press, button_colour = rng.choice(BUTTONS), rng.choice(list(COLOURS))
    width, _ = canvas.text_size(press, size)
    half = round(size * 0.75)
    button_box: Box = (left, ys[-1] - half, left + width + 24, ys[-1] + half)
    canvas.draw.rounded_rectangle(button_box, radius=6, fill=canvas.paint(button_colour))
    canvas.note("button", button_box, colour=button_colour)
    canvas.text(left + 12, ys[-1], press, size, fill=(20, 20, 20))
    lines.append(Line("The {} button says {}.", (button_colour, press), (button_box,), ("", "")))
    tag = "ol" if ordered else "ul"

    def html(values: Values) -> list[str]:
        read = [str(value[0]) for value in values[1 : len(entries) + 1]]
        return [
            "<body>", heading_html(str(values[0][0]), str(values[0][1])), f"<{tag}>",
            *(f"<li>{entry}</li>" for entry in read), f"</{tag}>", f"<p>{values[-2][0]}</p>",
            button_html(str(values[-1][1]), str(values[-1][0])), "</body>",
        ]  # fmt: skip

    def work(values: Values) -> tuple[list[str], Value]:
        written = html(values)
        told = [f"Then {each} comes." for each in written[1:-1]]
        return [f"The code begins with {written[0]}.", *told, f"It ends with {written[-1]}."], "\n".join(
            written
        )

    return canvas, Sheet(lines, [Part("Write the HTML of this page.", work)], "page")


def plot(rng: Random) -> tuple[Canvas, Sheet]:
    """A chart of many bars that lie, or of all seven days, to be plotted again."""
    kind = rng.choice(("barh", "plot"))
    if kind == "barh":
        canvas = Canvas(rng, grids=GRIDS)
        lines, colour = _lying_bars(canvas, rng.randint(7, 10))
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


KINDS: dict[str, dict[str, Callable[[Random], tuple[Canvas, Sheet]]]] = {
    "math": {"bars": bars, "line": line},
    "science": {"log": log, "chain": chain},
    "document": {"table": table, "receipt": receipt, "form": form},
    "code": {"page": page, "plot": plot},
    "general": {"shelf": shelf},
}
