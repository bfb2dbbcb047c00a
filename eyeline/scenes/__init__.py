"""Generated scenes in five families: an image, questions about it, and the evidence for every sentence of the answer's trace.

Every scene is drawn from a seed. Seeds below 8,000,000 train and tune, 8,000,000 to 8,999,999 test.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from PIL import Image

from eyeline.errors import DataError
from eyeline.examples import Box, Example
from eyeline.scenes import code, document, general, maths, science
from eyeline.scenes.canvas import Canvas
from eyeline.scenes.question import Question

FAMILIES: dict[str, dict[str, Callable[[Random], tuple[Canvas, list[Question]]]]] = {
    "math": maths.KINDS,
    "science": science.KINDS,
    "document": document.KINDS,
    "code": code.KINDS,
    "general": general.KINDS,
}
MAX_SEED = 8_999_999


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn image with everything that can be asked about it."""

    family: str
    kind: str
    canvas: Canvas
    questions: tuple[Question, ...]

    @property
    def image(self) -> Image.Image:
        return self.canvas.image


def draw(family: str, seed: int) -> Scene:
    """Draws the scene of a seed, the same on every machine. Raises `DataError` for an unknown family or seed."""
    if family not in FAMILIES:
        raise DataError(f"No scenes of family {family!r}. Expected one of {', '.join(FAMILIES)}.")
    if not 0 <= seed <= MAX_SEED:
        raise DataError(
            f"Seed {seed} is out of range. Expected 0 to {MAX_SEED} (from 8,000,000 on: test scenes)."
        )
    rng = Random(f"{family} {seed}")
    kinds = FAMILIES[family]
    kind = rng.choice(sorted(kinds))
    canvas, questions = kinds[kind](rng)
    rng.shuffle(questions)
    return Scene(family, kind, canvas, tuple(questions))


def sample(family: str, seed: int) -> Example:
    """One example: the scene of the seed and the first of its questions."""
    scene = draw(family, seed)
    question = scene.questions[0]
    boxes: list[tuple[Box, ...]] = []
    seen: set[Box] = set()
    for _, sentence_boxes in question.sentences:  # evidence belongs to the sentence that first reads it
        boxes.append(tuple(box for box in sentence_boxes if box not in seen))
        seen.update(sentence_boxes)
    return Example(
        id=f"{family}-{seed}",
        image=scene.image,
        prompt=question.prompt,
        answer=question.answer,
        family=family,
        source=scene.kind,
        trace=tuple(text for text, _ in question.sentences),
        evidence=tuple(boxes),
        prior=question.prior,
    )
