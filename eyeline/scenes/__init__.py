"""Generated scenes in five families: an image, questions about it, and the evidence for every sentence of the answer's trace.

Every scene is drawn from a seed. Seeds below 8,000,000 train and tune, 8,000,000 to 8,999,999 test. Drawings are clean unless
asked for wild: as somebody's photograph, with things on it that nobody asks about, and with longer traces. Long scenes are
others: they hold more, are asked about in several parts, and are told in hundreds of tokens. A scene's
counterfactual differs from it in one region of the image and in the answer to the same question.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from PIL import Image, ImageChops

from eyeline.errors import DataError
from eyeline.examples import COUNTERFACTUAL, Box, Example
from eyeline.scenes import code, document, general, long, maths, science
from eyeline.scenes.canvas import Canvas
from eyeline.scenes.long.trace import tell_long, tell_parts
from eyeline.scenes.otherwise import Otherwise
from eyeline.scenes.photograph import Move, photograph
from eyeline.scenes.question import Question
from eyeline.scenes.telling import tell

FAMILIES: dict[str, dict[str, Callable[[Random], tuple[Canvas, list[Question]]]]] = {
    "math": maths.KINDS,
    "science": science.KINDS,
    "document": document.KINDS,
    "code": code.KINDS,
    "general": general.KINDS,
}
MAX_SEED = 8_999_999
ONE_REGION = 0.2  # of the image, at most, holds all that a counterfactual changes


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn image with everything that can be asked about it."""

    family: str
    kind: str
    canvas: Canvas
    questions: tuple[Question, ...]
    plain: tuple[Question, ...]  # the same, told in the fewest words

    @property
    def image(self) -> Image.Image:
        return self.canvas.image


def draw(family: str, seed: int, *, wild: bool = False, is_long: bool = False, slip: bool = False) -> Scene:
    """Draws the scene of a seed, the same on every machine. Raises `DataError` for an unknown family or seed.

    `slip`: the trace of a long scene first misreads one value and then puts it right, as an example to learn from.
    """
    _check(family, seed)
    if is_long:
        return _draw_long(family, seed, wild, slip)
    return _finish(*_sketch(family, Random(f"{family} {seed}")), family, seed, wild)


def sample(family: str, seed: int, *, wild: bool = False, is_long: bool = False) -> Example:
    """One example: the scene of the seed and the first of its questions."""
    name = f"{family}-long-{seed}" if is_long else f"{family}-{seed}"
    return example_of(draw(family, seed, wild=wild, is_long=is_long), name)


def counterfactual(family: str, seed: int, *, wild: bool = False) -> Example | None:
    """The same question as `sample`'s about a scene in which one thing is otherwise, and with it the answer.

    All that differs lies in one region of at most a fifth of the image, the noise of a photograph apart. None where no
    single thing changes the answer.
    """
    _check(family, seed)
    name = f"{family} {seed}"
    counted = Otherwise(name, at=None)
    kind, canvas, questions = _sketch(family, counted)
    choices = list(range(counted.made))
    Random(f"counterfactual {name}").shuffle(choices)
    for at in choices:
        other_kind, other, others = _sketch(family, Otherwise(name, at))
        if (
            other_kind == kind
            and others[0].prompt == questions[0].prompt
            and others[0].answer != questions[0].answer
            and len(others[0].sentences) == len(questions[0].sentences)
            and _changes_one_region(canvas.image, other.image)
            and (
                not wild or _changes_one_region(*(_without_noise(family, seed, each) for each in (None, at)))
            )
        ):
            return example_of(
                _finish(other_kind, other, others, family, seed, wild), f"{family}-{seed}{COUNTERFACTUAL}"
            )
    return None


def _check(family: str, seed: int) -> None:
    if family not in FAMILIES:
        raise DataError(f"No scenes of family {family!r}. Expected one of {', '.join(FAMILIES)}.")
    if not 0 <= seed <= MAX_SEED:
        raise DataError(
            f"Seed {seed} is out of range. Expected 0 to {MAX_SEED} (from 8,000,000 on: test scenes)."
        )


def kind_of(family: str, seed: int) -> str:
    """The kind of a seed's scene, without drawing it."""
    return _choose_kind(family, Random(f"{family} {seed}"))


def _choose_kind(family: str, rng: Random) -> str:
    return rng.choice(sorted(FAMILIES[family]))


def _sketch(family: str, rng: Random) -> tuple[str, Canvas, list[Question]]:
    kind = _choose_kind(family, rng)
    canvas, questions = FAMILIES[family][kind](rng)
    rng.shuffle(questions)
    return kind, canvas, questions


def _draw_long(family: str, seed: int, wild: bool, slip: bool) -> Scene:
    name = f"long {family} {seed}"
    rng = Random(name)
    kind = rng.choice(sorted(long.KINDS[family]))
    canvas, sheet = long.KINDS[family][kind](rng)
    told = tell_long(sheet, Random(f"telling {name}{' slip' if slip else ''}"), slip)
    questions = (told, *tell_parts(sheet, rng))
    if wild:
        canvas, move = photograph(canvas, family, Random(f"photograph {name}"))
        questions = tuple(_moved(question, move) for question in questions)
    return Scene(family, f"long {kind}", canvas, questions, questions)


def _without_noise(family: str, seed: int, otherwise: int | None) -> Image.Image:
    """The photograph before its noise: what stands beside the drawing may differ where the drawing does."""
    _, canvas, _ = _sketch(family, Otherwise(f"{family} {seed}", otherwise))
    return photograph(canvas, family, Random(f"photograph {family} {seed}"), spoil=False)[0].image


def _finish(
    kind: str, canvas: Canvas, questions: list[Question], family: str, seed: int, wild: bool
) -> Scene:
    if not wild:
        return Scene(family, kind, canvas, tuple(questions), tuple(questions))
    canvas, move = photograph(canvas, family, Random(f"photograph {family} {seed}"))
    plain = tuple(_moved(question, move) for question in questions)
    rng = Random(f"telling {family} {seed}")
    return Scene(family, kind, canvas, tuple(tell(question, rng) for question in plain), plain)


def _moved(question: Question, move: Move) -> Question:
    return replace(
        question, sentences=tuple((text, tuple(map(move, boxes))) for text, boxes in question.sentences)
    )


def _changes_one_region(one: Image.Image, other: Image.Image) -> bool:
    if one.size != other.size:
        return False
    box = ImageChops.difference(one, other).getbbox()
    return box is not None and (box[2] - box[0]) * (box[3] - box[1]) <= ONE_REGION * one.width * one.height


def example_of(scene: Scene, name: str) -> Example:
    question = scene.questions[0]
    boxes: list[tuple[Box, ...]] = []
    seen: set[Box] = set()
    for _, sentence_boxes in question.sentences:  # evidence belongs to the sentence that first reads it
        boxes.append(tuple(box for box in sentence_boxes if box not in seen))
        seen.update(sentence_boxes)
    return Example(
        id=name,
        image=scene.image,
        prompt=question.prompt,
        answer=question.answer,
        family=scene.family,
        source=scene.kind,
        trace=tuple(text for text, _ in question.sentences),
        evidence=tuple(boxes),
        prior=question.prior,
    )
