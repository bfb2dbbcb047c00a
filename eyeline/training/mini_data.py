"""What the embedded model is trained on: which scene each number draws, batch after batch, and the tokenizer's corpus."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from eyeline.scenes import FAMILIES, Scene, draw, kind_of
from eyeline.scenes.canvas import CELL
from eyeline.scenes.question import Question
from eyeline.training.manners import Manner, some_manner
from eyeline.training.packing import Batch, asked, collate
from eyeline.training.practice import Practice, Row, conversation, drill, recite, reckon, rehearse, stack
from eyeline.training.soup import soup
from eyeline.training.speech import QWEN3_VL, Speech

TUNING = 6_500_000  # the first seed that is not trained on
# Families and kinds that the model of the fifth training misread most; finding one object after another is the hardest.
DRAWN = (*FAMILIES, *(family for family in FAMILIES if family != "science"), "general")
# half of the others make room for one of these
HARD = {"scatter", "nine", "plot", "table", "bars", "arithmetic", "rectangle"}
REDRAWN = 3_250_000  # added to the number of a scene that makes room
PRACTISED = (*FAMILIES, "math")  # numbers take more practice
SLIPS = 0.5  # share of long traces that first misread a value
ALONE = 0.25  # share of long scenes whose parts are asked one by one
POOL = 4  # batches among which scenes are sorted by length


def _length(scene: Scene, questions: int, manner: Manner) -> float:
    """About how many tokens the scene's sequence has."""
    told = asked(scene, questions, manner)
    said = sum(len(each.prompt) + len(each.trace) + len(each.answer) for each in told)
    copies = len(told) if manner.text_first else 1
    return copies * scene.canvas.width * scene.canvas.height / CELL**2 + said / 3.5


class Batches:
    """Endless batches from seed `first` on, every `step`-th pool of them; scenes of like length share a batch.

    Without questions, two scenes in three are soup. `families`: of which scenes are drawn, as often as they stand there;
    `wild`: as people photograph them; `long`: the share of long scenes; `manners`: asked in any manner, instead of with the image
    first and no system prompt. All processes take batches of like length at the same time.
    """

    def __init__(
        self, tokenizer, first: int, size: int, questions: int, practice: float, index: int, step: int,
        wild: bool = False, long: float = 0.0, manners: bool = False, speech: Speech = QWEN3_VL,
        families: Sequence[str] = DRAWN,
    ):  # fmt: skip
        self.tokenizer, self.first, self.size = tokenizer, first, size
        self.questions, self.practice = questions, practice
        self.index, self.step, self.wild, self.long, self.manners = index, step, wild, long, manners
        self.speech, self.families = speech, families

    def scene(self, number: int) -> Scene:
        if not self.questions and number % 3:
            return soup(number)
        rng = Random(f"family {number}")
        family = rng.choice(self.families)
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

    def _concluded(self, family: str, seed: int) -> list[Question]:
        """What follows from a scene's readings; of long ones, where some are, in half: part by part, or told at length."""
        rng = Random(f"concluded {seed}")
        if not self.long or rng.random() < 0.5:
            return conversation(draw(family, seed))
        if rng.random() < 0.5:
            return [draw(family, seed, is_long=True, slip=rng.random() < SLIPS).questions[0]]
        scene = draw(family, seed, is_long=True)
        return conversation(replace(scene, plain=scene.questions[1:]))

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
                rng = Random(f"drill {seed}")
                rows.append(recite(reckon(rng) if self.long and at % 4 == 3 else drill(rng), self.tokenizer))
            else:
                told = self._concluded(PRACTISED[(number + at // 2) % len(PRACTISED)], seed)
                rows.append(rehearse(told, self.tokenizer, self.speech))
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
