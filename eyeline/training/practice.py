"""Text without images: the readings of other scenes are given, and what follows from them is to be predicted."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch
from torch import Tensor

from eyeline.scenes import Scene
from eyeline.scenes.long import parts
from eyeline.scenes.long.sheet import Part, Values
from eyeline.scenes.question import Question, Sentence
from eyeline.training.replies import CONCLUSION_WEIGHT, ask, weigh
from eyeline.training.speech import QWEN3_VL, Speech
from eyeline.training.visual_tokens import SAID


@dataclass(frozen=True, slots=True)
class Practice:
    """Text without images, a row each, at positions that it might have behind one."""

    ids: Tensor  # int64 (row, token)
    positions: Tensor  # int64 (3, row, token)
    weights: Tensor  # float (row, token)


def conversation(scene: Scene) -> list[Question]:
    """The scene's question that reads most, then those that follow from the same readings, without reading again."""

    def readings(question: Question) -> list[Sentence]:
        return [sentence for sentence in question.sentences if sentence[1]]

    concluding = [question for question in scene.plain if not question.sentences[-1][1]]
    if not concluding:
        return [max(scene.plain, key=lambda question: len(question.sentences))]
    first = max(concluding, key=lambda question: len(readings(question)))
    known = {text for text, _ in readings(first)}
    return [
        first,
        *(
            replace(question, sentences=tuple(each for each in question.sentences if not each[1]))
            for question in concluding
            if question is not first and all(text in known for text, _ in readings(question))
        ),
    ]


Row = tuple[list[int], list[float]]  # token ids, and the weight of each in the loss


def _between(speech: Speech) -> str:
    """What closes a reply's turn behind the token that ends the reply."""
    return speech.turns["assistant"][1].removeprefix("<|im_end|>")


def rehearse(questions: Sequence[Question], tokenizer, speech: Speech = QWEN3_VL) -> Row:
    """A conversation as practice: what follows from the readings, and the answers."""
    turn = tokenizer.encode(_between(speech) + speech.turns["user"][0], add_special_tokens=False)
    ids: list[int] = []
    weights: list[float] = []
    for question in questions:
        asked = [*(turn if ids else ()), *ask(question, tokenizer, speech)]
        told, _, from_memory = weigh(question, tokenizer, speech, speech.asks)
        ids += asked + told
        weights += [0.0] * len(asked) + from_memory
    return ids, weights


# How scenes read things that belong together, and how one is found again by what stood before it; asked is what is in brackets.
LOOKUPS = (
    ("Bar {i} is {a} with {b}.", "I see {a} with [{b}]."),
    ("Bar {i} has {b} for {a}.", "The tallest has {b} for [{a}]."),
    ("Point {i} has {b} for {a}.", "The lowest has {b} for [{a}]."),
    ("Line {i} says {a} {b}.", "I see {a} [{b}].", "The {a} is [{b}]."),
    ("Line {i} has {b} for {a}.", "I see {b} for [{a}]."),
    ("Row {i} has {b} for {a}.", "The highest is {b} for [{a}]."),
    ("Object {i} is a {a} {b}.", "The {a} {b} is object [{i}].", "Object {i} is a [{a} {b}]."),
    ("The {a} {b} is {c}.", "The {a} {b} is [{c}]."),
    ("At the {a} is a {b}.", "At the {a} is a [{b}]."),
    ("The {a} is the {b} part.", "The {a} is the [{b}] part."),
    ("The {a} faces the {b}.", "The {a} faces the [{b}]."),
    ("Step {i} is the {a}.", "The {a} is step [{i}].", "Step {i} is the [{a}]."),
)


def drill(rng: Random) -> str:
    """Looking up, repeating or reckoning with nothing else around; what is to be predicted stands in brackets."""
    kind = rng.random()
    if kind < 0.2:
        words = [rng.choice((rng.choice(SAID), str(rng.randint(1, 99)))) for _ in range(rng.randint(8, 24))]
        return f"{' '.join(words)}. {words[0]} [{' '.join(words[1:])}]."
    if kind < 0.35:
        sums = []
        for _ in range(rng.randint(6, 10)):
            sign = rng.choice(("plus", "plus", "minus", "times"))
            most = 12 if sign == "times" else 60
            one, two = rng.randint(2, most), rng.randint(2, min(most, 30))
            if sign == "minus":
                one, two = max(one, two) + 1, min(one, two)
            result = {"plus": one + two, "minus": one - two, "times": one * two}[sign]
            sums.append(f"{one} {sign} {two} is [{result}].")
        return " ".join(sums)
    reading, *questions = rng.choice(LOOKUPS)
    count = rng.randint(3, 8)
    if "The {a} {b} is" in questions[0]:  # names of two words, which repeat
        count = min(count, 6)
        seconds = rng.sample(SAID, 3)
        names = [(one, two) for one in rng.sample(SAID, 3) for two in seconds]
        pairs = rng.sample(names, count)
    else:
        seconds = rng.sample(SAID, count) if rng.random() < 0.4 else rng.sample(range(1, 99), count)
        pairs = list(zip(rng.sample(SAID, count), seconds, strict=True))
    third = rng.sample(SAID, count)
    known = [
        {"i": i, "a": a, "b": b, "c": c}
        for i, ((a, b), c) in enumerate(zip(pairs, third, strict=True), start=1)
    ]
    asked = [question.format(**each) for each in known for question in questions]
    return " ".join([*(reading.format(**each) for each in known), *rng.sample(asked, len(asked))])


NOUNS = ("Bar", "Row", "Line", "Point")  # what has a value in long scenes


def reckon(rng: Random) -> str:
    """Going through values that stand in the text, as long traces do; what is to be predicted stands in brackets."""
    ask = rng.choice((_count_above, _find_best, _add_up, _subtract, _count_alike))
    count, noun = rng.randint(5, 8), rng.choice(NOUNS)
    top = 12 if ask is _add_up else rng.choice((12, 30, 40, 98))
    names, values = rng.sample(SAID, count), rng.sample(range(1, top + 1), count)
    return " ".join(ask(rng, noun, list(zip(names, values, strict=True))))


def _listed(noun: str, lines: Values) -> list[str]:
    return [f"{noun} {order} is {name} with {value}." for order, (name, value) in enumerate(lines, start=1)]


def _worked(part: Part, lines: Values) -> list[str]:
    """How a part of a long scene follows from the lines, with brackets around what a line's name does not give."""

    def marked(sentence: str) -> str:
        if " has " in sentence or " is " in sentence:
            return re.sub(r"^(.* has )?(.*)\.$", r"\1[\2].", sentence)
        return re.sub(r"(\d+)", r"[\1]", sentence)

    return [marked(sentence) for sentence in part.work(lines)[0]]


def _count_above(rng: Random, noun: str, lines: Values) -> list[str]:
    limit = parts.middle([int(value) for _, value in lines], rng)
    part = parts.above("How many are above {}?", noun, range(len(lines)), 1, limit)
    return [part.prompt, *_listed(noun, lines), *_worked(part, lines)]


def _find_best(rng: Random, noun: str, lines: Values) -> list[str]:
    word = rng.choice(("highest", "lowest"))
    part = parts.highest(f"Which is the {word}?", noun, range(len(lines)), 1, lowest=word == "lowest")
    return [part.prompt, *_listed(noun, lines), *_worked(part, lines)]


def _add_up(rng: Random, noun: str, lines: Values) -> list[str]:
    return [*_listed(noun, lines), *_worked(parts.total_of("", range(len(lines)), 1), lines)]


def _subtract(rng: Random, noun: str, lines: Values) -> list[str]:
    told = []
    for _ in range(3):
        one, two = rng.sample(range(len(lines)), 2)
        part = parts.gap(f"How far apart are {lines[one][0]} and {lines[two][0]}?", one, two, 1)
        told += [part.prompt, *_worked(part, lines)]
    return [*_listed(noun, lines), *told]


def _count_alike(rng: Random, noun: str, lines: Values) -> list[str]:
    words = [rng.choice(lines[:3])[0] for _ in lines]
    wanted, found, told = rng.choice(words), 0, []
    for order, word in enumerate(words, start=1):
        found += word == wanted
        told.append(f"{noun} {order} is a [{word}: {found}].")
    read = [f"{noun} {order} is a {word}." for order, word in enumerate(words, start=1)]
    return [f"How many {wanted}s are there?", *read, *told, f"I count [{found}] {wanted}s."]


def recite(text: str, tokenizer) -> Row:
    """A drill as a row of practice."""
    pieces = re.split(r"[][]", text)  # every second one is asked
    encoded = tokenizer("".join(pieces), add_special_tokens=False, return_offsets_mapping=True)
    ends = np.cumsum([len(piece) for piece in pieces])
    asked = [bool(np.searchsorted(ends, stop - 1, side="right") % 2) for _, stop in encoded["offset_mapping"]]
    return encoded["input_ids"], [CONCLUSION_WEIGHT * each for each in asked]


def stack(rows: Sequence[Row], after: int) -> Practice:
    """Rows of one batch, their text from position `after` on."""
    longest = max(len(ids) for ids, _ in rows)
    padded = torch.zeros(len(rows), longest, dtype=torch.long)
    weighed = torch.zeros(len(rows), longest)
    for row, (ids, weights) in enumerate(rows):
        padded[row, : len(ids)] = torch.tensor(ids)
        weighed[row, : len(ids)] = torch.tensor(weights)
    return Practice(padded, (after + torch.arange(longest)).expand(3, len(rows), longest), weighed)
