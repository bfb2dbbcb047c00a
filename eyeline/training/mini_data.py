"""Scenes to training batches for the embedded model: pixels, packed questions and dense labels for the vision tower.

Several questions about one image share one sequence: each attends to the image and to itself, at the positions
that it would have alone, so that training on the pack equals training on each question by itself. Practice has no
image: the readings of other scenes are given, and what follows from them is to be predicted, question after question.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch
from torch import Tensor

from eyeline.scenes import FAMILIES, Scene, draw, kind_of
from eyeline.scenes.canvas import CELL, COLOURS, FONTS, SYMBOLS, Canvas
from eyeline.scenes.lexicon import WORDS
from eyeline.scenes.question import Question, Sentence
from eyeline.training.speech import QWEN3_VL, Speech

PATCH = 16
SAID = (*WORDS, *COLOURS, *SYMBOLS)
TUNING = 6_500_000  # the first seed that is not trained on
# Families and kinds that the model of the fifth training misread most; finding one object after another is the hardest.
DRAWN = (*FAMILIES, *(family for family in FAMILIES if family != "science"), "general")
HARD = {
    "scatter",
    "nine",
    "plot",
    "table",
    "bars",
    "arithmetic",
    "rectangle",
}  # half of the others make room for one
REDRAWN = 3_250_000  # added to the number of a scene that makes room
PRACTISED = (*FAMILIES, "math")  # numbers take more practice
SLIPS = 0.35  # share of long traces that first misread a value
ALONE = 0.25  # share of long scenes whose parts are asked one by one
CONCLUSION_WEIGHT = 3.0  # of tokens that follow from what was read, against 1 for the reading itself
CHARS = {char: index for index, char in enumerate(sorted({*"".join(WORDS), *"0123456789+-x=:.V"}), start=1)}
WORD = {word: index for index, word in enumerate((*WORDS, "+", "-", "x", "=", "V"), start=1)}
MARK = {mark: index for index, mark in enumerate((*SYMBOLS, "level", "button", "bullet"), start=1)}
COLOUR = {colour: index for index, colour in enumerate(COLOURS, start=1)}
# One classification per visual token: the character in each of its four patches, then what the token shows as a whole.
HEADS = {
    "char0": len(CHARS) + 1, "char1": len(CHARS) + 1, "char2": len(CHARS) + 1, "char3": len(CHARS) + 1,
    "word": len(WORD) + 1, "tens": 12, "ones": 11, "mark": len(MARK) + 1, "colour": len(COLOUR) + 1, "order": 8,
    "place": 10,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Batch:
    pixels: Tensor  # uint8 (patches of all images, 3 * 16 * 16), in merge-block order
    grids: Tensor  # int64 (image, 3): frames, rows, columns of patches
    labels: Tensor  # int64 (visual tokens of all images, head)
    ids: Tensor  # int64 (image, token)
    positions: Tensor  # int64 (3, image, token): M-RoPE
    segments: Tensor  # int64 (image, token): 0 for the shared prefix, then the question's number; -1 padding
    copies: list[int]  # how often each image stands in its sequence
    weights: Tensor  # float (image, token): weight in the loss of predicting this token; 0: not supervised
    practice: "Practice | None"


@dataclass(frozen=True, slots=True)
class Practice:
    """Text without images, a row each, at positions that it might have behind one."""

    ids: Tensor  # int64 (row, token)
    positions: Tensor  # int64 (3, row, token)
    weights: Tensor  # float (row, token)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a client asks: with which system prompt, and with the text before or after the image."""

    system: str = ""
    text_first: bool = False


PLAIN = Manner()
HELPFUL = "You are a helpful assistant."
ROLES = (
    "You are a careful assistant.", "You are an assistant that reads pictures.", "You look at images and answer questions.",
    "You are an AI model.", "You are a helpful vision assistant.", "I am a student and you help me.",
    "You are an expert in charts and tables.", "This is a conversation between a user and an assistant.",
    "You are Mini, a small model that thinks.", "Act as a teacher.",
)  # fmt: skip
MANNERS = (
    "Answer the question.", "Look at the picture with care.", "Think before you answer.", "Give a short answer.",
    "Be brief and exact.", "Answer with what the image shows.", "Think step by step.", "Always read the image first.",
    "Reply in English.", "Do not guess.", "The user sends one image.", "Today is Monday.", "Use the image, not what you know.",
    "First think, then answer.",
)  # fmt: skip


ASKS_TO_THINK = 0.85  # share of system prompts that ask for thinking, of a model that thinks only then


def some_manner(rng: Random, asks: str = "") -> Manner:
    """One of the ways in which clients ask: half of them with a system prompt, half with the text first.

    `asks`: what most system prompts end with, where the model thinks only if it is asked to.
    """
    manner = _some_manner(rng)
    if asks and rng.random() < ASKS_TO_THINK:
        said = manner.system or HELPFUL
        return replace(manner, system=f"{said} Answer the question in the following format:\n{asks}.")
    return manner


def _some_manner(rng: Random) -> Manner:
    text_first = rng.random() < 0.5
    kind = rng.random()
    if kind < 0.5:
        return Manner("", text_first)
    if kind < 0.7:
        return Manner(HELPFUL, text_first)
    sentences = [rng.choice((HELPFUL, *ROLES))] if rng.random() < 0.7 else []
    sentences += rng.sample(MANNERS, rng.randint(0 if sentences else 1, 3))
    if rng.random() < 0.15:
        sentences.append(" ".join(rng.choice(SAID) for _ in range(rng.randint(3, 10))))
    return Manner(rng.choice((" ", " ", "\n")).join(sentences), text_first)


def patches(image: np.ndarray) -> np.ndarray:
    """Pixels uint8 (height, width, 3) as flattened patches, merge blocks together, as Qwen's image processor orders them."""
    rows, cols = image.shape[0] // CELL, image.shape[1] // CELL
    blocks = image.reshape(rows, 2, PATCH, cols, 2, PATCH, 3)
    return blocks.transpose(0, 3, 1, 4, 6, 2, 5).reshape(rows * cols * 4, 3 * PATCH * PATCH)


def dense_labels(scene: Scene) -> np.ndarray:
    """What each visual token shows, int64 (visual token, head); 0 is nothing."""
    rows, cols = scene.canvas.height // CELL, scene.canvas.width // CELL
    labels = np.zeros((rows, cols, len(HEADS)), dtype=np.int64)
    best = np.zeros((2 * rows, 2 * cols))
    for char, box in scene.canvas.glyphs:
        for row, col, area in _overlaps(box, PATCH, 2 * rows, 2 * cols):
            if area > best[row, col] and area > 0.15 * PATCH * PATCH:
                best[row, col] = area
                labels[row // 2, col // 2, 2 * (row % 2) + col % 2] = CHARS.get(char, 0)
    best = np.zeros((rows, cols))
    for item in scene.canvas.items:
        left, top, right, bottom = item.box
        enough = 0.12 * min(CELL * CELL, max(1, (right - left) * (bottom - top)))
        number = item.number if item.number is not None else int(item.word) if item.word.isdigit() else None
        what = [
            0 if number is not None else WORD.get(item.word, 0),
            0 if number is None else number // 10 + 1 if number > 9 else 11,
            0 if number is None else number % 10 + 1,
            MARK.get(item.mark, 0),
            COLOUR.get(item.colour, 0),
            min(item.order, 7),
            1
            + 3 * min(2, 3 * (top + bottom) // (2 * scene.canvas.height))
            + min(2, 3 * (left + right) // (2 * scene.canvas.width)),
        ]
        for row, col, area in _overlaps(item.box, CELL, rows, cols):
            if area > best[row, col] and area > enough:
                best[row, col] = area
                labels[row, col, 4:] = what
    return labels.reshape(rows * cols, -1)


def _overlaps(box, side: int, rows: int, cols: int) -> Iterator[tuple[int, int, int]]:
    left, top, right, bottom = box
    for row in range(max(0, top // side), min(rows, (bottom - 1) // side + 1)):
        high = min(bottom, (row + 1) * side) - max(top, row * side)
        for col in range(max(0, left // side), min(cols, (right - 1) // side + 1)):
            yield row, col, high * (min(right, (col + 1) * side) - max(left, col * side))


def weigh(
    question: Question, tokenizer, speech: Speech = QWEN3_VL, system: str = ""
) -> tuple[list[int], list[float], list[float]]:
    """The reply's token ids, and their weights in the loss with the image in sight and in practice, where it is not.

    A value that the trace misreads has no weight: nothing teaches to misread. What puts it right weighs as a conclusion.
    """
    told, start = speech.reply(question, system)
    encoded = tokenizer(told, add_special_tokens=False, return_offsets_mapping=True)
    seen = np.full(len(told), CONCLUSION_WEIGHT)  # of each character
    unseen = seen.copy()
    slip, at = question.slip, start or 0
    for number, (text, boxes) in enumerate(() if start is None else question.sentences):
        if boxes:
            seen[at : at + len(text)] = CONCLUSION_WEIGHT if slip and number in slip.mended else 1.0
            unseen[at : at + len(text)] = 0.0
        if slip and number == slip.sentence:
            seen[at + slip.start : at + slip.end] = 0.0
        at += len(text) + 1
    spans = [(min(start, stop - 1), stop) for start, stop in encoded["offset_mapping"]]
    return (
        encoded["input_ids"],
        [float(seen[start:stop].min()) for start, stop in spans],
        [float(unseen[start:stop].min()) for start, stop in spans],
    )


def ask(question: Question, tokenizer, speech: Speech = QWEN3_VL) -> list[int]:
    """Token ids of the question and of what opens the reply."""
    return tokenizer.encode(question.prompt + speech.opening, add_special_tokens=False)


def asked(scene: Scene, questions: int, manner: Manner = PLAIN) -> tuple[Question, ...]:
    """The scene's first questions; only the first of them may ask to be told at length.

    One less with the text first, where each has the image for itself: attention costs the square of the sequence's length.
    """
    if manner.text_first and questions > 1:
        questions -= 1
    return (*scene.questions[:1], *scene.plain[1:])[:questions]


class _Sequence:
    """One image's row of a batch in the making."""

    def __init__(self, tokenizer, speech: Speech, rows: int, cols: int):
        self.tokenizer, self.speech, self.rows, self.cols = tokenizer, speech, rows, cols
        self.ids: list[int] = []
        self.positions: list[np.ndarray] = []
        self.segments: list[int] = []
        self.weights: list[float] = []

    def add(self, ids: list[int], at: int, segment: int, weights: list[float] | None = None) -> int:
        """Text from position `at` on; returns the position behind it."""
        self.ids += ids
        self.positions.append(np.tile(at + np.arange(len(ids)), (3, 1)))
        self.segments += [segment] * len(ids)
        self.weights += weights or [0.0] * len(ids)
        return at + len(ids)

    def say(self, text: str, at: int, segment: int) -> int:
        return self.add(self.tokenizer.encode(text, add_special_tokens=False), at, segment)

    def show(self, at: int, segment: int) -> int:
        """The image with its marks; it takes as many positions as its longer side has cells."""
        opens, token, closes = self.speech.image
        at = self.say(opens, at, segment)
        rows, cols = np.divmod(np.arange(self.rows * self.cols), self.cols)
        self.ids += [self.tokenizer.convert_tokens_to_ids(token)] * len(rows)
        self.positions.append(at + np.stack([np.zeros_like(rows), rows, cols]))
        self.segments += [segment] * len(rows)
        self.weights += [0.0] * len(rows)
        return self.say(closes, at + max(self.rows, self.cols), segment)


Packed = tuple[list[int], np.ndarray, list[int], list[float]]  # ids, positions (3, token), segments, weights


def pack(
    scene: Scene, tokenizer, questions: int, manner: Manner = PLAIN, speech: Speech = QWEN3_VL
) -> Packed:
    """Token ids, positions (3, token), segments and weights of one image with its first questions.

    What stands before the image must not depend on the question that others attend to: with the text first, each question has
    the image for itself.
    """
    sequence = _Sequence(tokenizer, speech, scene.canvas.height // CELL, scene.canvas.width // CELL)
    shared = sequence.say(speech.head(manner.system), 0, 0)
    if not manner.text_first:
        shared = sequence.show(shared, 0)
    for number, question in enumerate(asked(scene, questions, manner), start=1):
        at = sequence.say(question.prompt, shared, number)
        if manner.text_first:
            at = sequence.show(at, number)
        at = sequence.say(speech.opening, at, number)
        told, in_sight, _ = weigh(question, tokenizer, speech, manner.system)
        sequence.add(told, at, number, in_sight)
    return sequence.ids, np.concatenate(sequence.positions, axis=1), sequence.segments, sequence.weights


def collate(
    scenes: list[Scene],
    tokenizer,
    questions: int,
    practice: Practice | None = None,
    manners: Sequence[Manner] = (),
    speech: Speech = QWEN3_VL,
) -> Batch:
    manners = manners or [PLAIN] * len(scenes)
    packed = [
        pack(scene, tokenizer, questions, manner, speech)
        for scene, manner in zip(scenes, manners, strict=True)
    ]
    longest = max(len(ids) for ids, *_ in packed)
    ids = torch.zeros(len(scenes), longest, dtype=torch.long)
    positions = torch.zeros(3, len(scenes), longest, dtype=torch.long)
    segments = torch.full((len(scenes), longest), -1)
    weights = torch.zeros(len(scenes), longest)
    for row, (row_ids, row_positions, row_segments, row_weights) in enumerate(packed):
        ids[row, : len(row_ids)] = torch.tensor(row_ids)
        positions[:, row, : len(row_ids)] = torch.from_numpy(row_positions)
        segments[row, : len(row_ids)] = torch.tensor(row_segments)
        weights[row, : len(row_ids)] = torch.tensor(row_weights)
    return Batch(
        pixels=torch.from_numpy(np.concatenate([patches(np.asarray(scene.image)) for scene in scenes])),
        grids=torch.tensor(
            [[1, scene.canvas.height // PATCH, scene.canvas.width // PATCH] for scene in scenes]
        ),
        labels=torch.from_numpy(np.concatenate([dense_labels(scene) for scene in scenes])),
        ids=ids,
        positions=positions,
        segments=segments,
        copies=[
            len(asked(scene, questions, manner)) if manner.text_first else 1
            for scene, manner in zip(scenes, manners, strict=True)
        ],
        weights=weights,
        practice=practice,
    )


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


def soup(seed: int) -> Scene:
    """A crowded page of words, numbers and symbols at random: many letters an image, to teach the vision tower."""
    rng = Random(f"soup {seed}")
    canvas = Canvas(rng, grids=((8, 8),))
    y = rng.randint(4, 12)
    while y < canvas.height - 16:
        size = rng.randint(20, 32)
        x = rng.randint(4, 40)
        while True:
            canvas.font_file = rng.choice(FONTS)
            colour = rng.choice(list(COLOURS)) if rng.random() < 0.35 else ""
            kind = rng.random()
            if kind < 0.25:
                side = rng.randint(size, size + 18)
                if x + side > canvas.width:
                    break
                canvas.mark(rng.choice(list(SYMBOLS)), (x, y, x + side, y + side), colour=colour)
                x += side + rng.randint(6, 30)
                continue
            text = (
                rng.choice(WORDS)
                if kind < 0.65
                else str(rng.randint(1, 99))
                if kind < 0.95
                else rng.choice("+-x=")
            )
            width, _ = canvas.text_size(text, size)
            if x + width > canvas.width:
                break
            canvas.text(x, y + size // 2, text, size, colour=colour)
            x += width + rng.randint(6, 30)
        y += round(size * rng.uniform(1.1, 1.7))
    return Scene("soup", "soup", canvas, (), ())


def _length(scene: Scene, questions: int, manner: Manner) -> float:
    """About how many tokens the scene's sequence has."""
    told = asked(scene, questions, manner)
    said = sum(len(each.prompt) + len(each.trace) + len(each.answer) for each in told)
    copies = len(told) if manner.text_first else 1
    return copies * scene.canvas.width * scene.canvas.height / CELL**2 + said / 3.5


POOL = 4  # batches among which scenes are sorted by length


class Batches:
    """Endless batches from seed `first` on, every `step`-th pool of them; scenes of like length share a batch.

    Without questions, two scenes in three are soup. `wild`: as people photograph them; `long`: the share of long scenes;
    `manners`: asked in any manner, instead of with the image first and no system prompt. All processes take batches of like
    length at the same time.
    """

    def __init__(
        self, tokenizer, first: int, size: int, questions: int, practice: float, index: int, step: int,
        wild: bool = False, long: float = 0.0, manners: bool = False, speech: Speech = QWEN3_VL,
    ):  # fmt: skip
        self.tokenizer, self.first, self.size = tokenizer, first, size
        self.questions, self.practice = questions, practice
        self.index, self.step, self.wild, self.long, self.manners = index, step, wild, long, manners
        self.speech = speech

    def scene(self, number: int) -> Scene:
        if not self.questions and number % 3:
            return soup(number)
        rng = Random(f"family {number}")
        family = rng.choice(DRAWN)
        seed = number % TUNING
        if rng.random() < self.long:
            return self._long_scene(rng.choice(tuple(FAMILIES)), seed, rng)
        if kind_of(family, seed) not in HARD and rng.random() < 0.5:
            seed = (number + REDRAWN) % TUNING
        return draw(family, seed, wild=self.wild)

    def _long_scene(self, family: str, seed: int, rng: Random) -> Scene:
        """A long scene with the question that is told at length, or with some of its parts by themselves."""
        alone = rng.random() < ALONE
        scene = draw(family, seed, wild=self.wild, is_long=True, slip=not alone and rng.random() < SLIPS)
        questions = scene.questions[1:] if alone else scene.questions[:1]
        return replace(scene, questions=questions, plain=questions)

    def manner(self, number: int) -> Manner:
        if not self.manners:
            return Manner(self.speech.asks)
        return some_manner(Random(f"manner {number}"), self.speech.asks)

    def exercises(self, number: int) -> Practice | None:
        """Practice to go with the batch that begins with scene `number`: as many drills as conversations."""
        rows: list[Row] = []
        for at in range(round(self.practice * self.size)):
            seed = round(3_000_000 + number * self.practice + at) % TUNING
            if at % 2:
                rows.append(recite(drill(Random(f"drill {seed}")), self.tokenizer))
            else:
                scene = draw(PRACTISED[(number + at // 2) % len(PRACTISED)], seed)
                rows.append(rehearse(conversation(scene), self.tokenizer, self.speech))
        return stack(rows, after=12 + number % 5) if rows else None

    def __iter__(self) -> Iterator[Batch]:
        pool = POOL * self.size
        at = self.first + self.index * pool
        while True:
            scenes = [(self.scene(number), self.manner(number), number) for number in range(at, at + pool)]
            scenes.sort(key=lambda each: _length(each[0], self.questions, each[1]))
            places = list(range(POOL))
            Random(f"order {(at - self.first) // (self.step * pool)}").shuffle(places)
            for place in places:
                group = scenes[place * self.size : (place + 1) * self.size]
                drawn, manners = [scene for scene, _, _ in group], [manner for _, manner, _ in group]
                exercises = self.exercises(group[0][2])
                yield collate(drawn, self.tokenizer, self.questions, exercises, manners, self.speech)
            at += self.step * pool


def corpus(count: int, is_long: bool = False) -> Iterator[str]:
    """Everything that `count` scenes of each family say, for the tokenizer; with what long ones say, where wanted."""
    for family in FAMILIES:
        for seed in range(count):
            scenes = [draw(family, seed)]
            if is_long and seed % 4 == 0:
                scenes.append(draw(family, seed, is_long=True, slip=True))
            for question in (each for scene in scenes for each in scene.questions):
                yield re.sub(r"<\|.*?\|>", "", f"{question.prompt}\n{question.trace}\n{question.answer}")
