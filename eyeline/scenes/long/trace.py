"""The trace of a long scene: everything is read, each part answered, everything read again, and all answers given.

Where `slip` is set, the first reading has one value wrong, and the second look puts it right.
"""

from dataclasses import replace
from random import Random

from eyeline.scenes.long.sheet import Line, Part, Sheet, Value, Values
from eyeline.scenes.question import Question, Sentence, Slip

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
SEEN_TWICE = ("{} both times.", "{} each time.")
SURE = "{} for sure."
SHORT = 1_250  # characters of a trace that is told with a third look
SAME = ("It is all as before.", "Nothing is different.", "Both readings are the same.", "This is right.")
REST = ("All else is as before.", "The rest is right.", "The others are the same.")
KEPT = ("Part {} stays {}.", "For part {} it is still {}.", "Part {} is {} as before.")
ANEW = ("Part {} again.", "I do part {} again.", "Part {} may change.")
ONE_KEPT = ("It stays {1}.", "It is still {1}.", "So it is {1} as before.")  # of a single question
ONE_ANEW = ("I do it again.", "The answer may change.")
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
    parts = rng.sample(sheet.parts, min(len(sheet.parts), rng.choice((1, 2, 2, 3))))
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
            answers.append(_answer(told, part, first, number, count, rng))
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
        seen = SURE if wrong else rng.choice((*SEEN_TWICE, SURE))
        told.append(_say(THIRD, rng))
        told += [(seen.format(line.tell(line.values).removesuffix(".")), line.boxes) for line in lines]
    for number, part in enumerate(parts, start=1):
        if late:
            answers.append(_answer(told, part, true, number, count, rng))
        elif part.work(true) != part.work(first):
            told.append((rng.choice(ANEW if count > 1 else ONE_ANEW).format(number), ()))
            answers[number - 1] = _answer(told, part, true, number, 1, rng)
        elif "\n" not in str(answers[number - 1]):  # code is not told twice
            told.append((rng.choice(KEPT if count > 1 else ONE_KEPT).format(number, answers[number - 1]), ()))
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


def _answer(told: list[Sentence], part: Part, values: Values, number: int, count: int, rng: Random) -> Value:
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
