"""MMStar, RealWorldQA, POPE, MMMU, GQA."""

import ast
import re

from eyeline.catalogue.entry import (
    BY_LETTER,
    BY_PHRASE,
    LeftOut,
    PublicSet,
    Question,
    Row,
    letters,
    text_of,
)
from eyeline.examples import Matching


def _star(row: Row) -> Question:
    return Question(
        text_of(row, "question") + BY_LETTER.rstrip("."), text_of(row, "answer"), Matching("letter")
    )


def _real(row: Row) -> Question:
    answer = text_of(row, "answer")
    by_letter = re.fullmatch("[A-D]", answer)
    return Question(text_of(row, "question"), answer, Matching("letter" if by_letter else "text"))


def _pope(row: Row) -> Question:
    return Question(text_of(row, "question") + BY_PHRASE, text_of(row, "answer"), Matching("yes-no"))


def _gqa(row: Row) -> Question:
    return Question(text_of(row, "question") + BY_PHRASE, text_of(row, "answer"), Matching("text"))


def _mmmu(row: Row) -> Question:
    choices, answer = tuple(map(str, _list(row["options"]))), text_of(row, "answer")
    if answer in ("", "?"):
        raise LeftOut("without an answer")
    if row["question_type"] == "multiple-choice":
        prompt = f"{text_of(row, 'question')}\n{letters(choices)}\n{BY_LETTER}"
        return Question(prompt, answer, Matching("letter", choices=choices))
    answers = tuple(map(str, _list(answer))) or (answer,)
    prompt = f"{text_of(row, 'question')}\n{BY_PHRASE}"
    return Question(prompt, answers[0], Matching("open", also=answers[1:]))


def _list(text: str | list[str]) -> list[str]:
    """A Python list that a column holds as text; empty for other text."""
    try:
        found = ast.literal_eval(text) if isinstance(text, str) else text
    except (ValueError, SyntaxError):
        return []
    return found if isinstance(found, list) else []


SETS = (
    PublicSet(
        name="mmstar",
        family="general",
        hub=("Lin-Chen/MMStar",),
        split="val",
        rows=1500,
        columns=("image", "question", "answer"),
        images=("image",),
        licence="as its card says; none is named where we looked",
        rule="letter",
        read=_star,
    ),
    PublicSet(
        name="realworldqa",
        family="general",
        hub=("lmms-lab-encoder/RealWorldQA", "lmms-lab/RealWorldQA", "visheratin/realworldqa"),
        split="test",
        rows=765,
        columns=("image", "question", "answer"),
        images=("image",),
        licence="CC BY-ND 4.0",
        rule="letter where the answer is one, else the same words",
        read=_real,
    ),
    PublicSet(
        name="pope",
        family="general",
        hub=("lmms-lab-encoder/POPE", "lmms-lab/POPE"),
        split="test",
        rows=9000,
        columns=("image", "question", "answer"),
        images=("image",),
        licence="that of COCO's photographs",
        rule="yes or no, the first that is said",
        read=_pope,
        note="500 photographs, asked about again and again: parts are by image.",
    ),
    PublicSet(
        name="mmmu",
        family="general",
        hub=("lmms-lab-encoder/MMMU", "lmms-lab/MMMU"),
        split="validation",
        rows=900,
        columns=("question", "options", "image_1", "answer", "question_type"),
        images=tuple(f"image_{number}" for number in range(1, 8)),
        licence="Apache-2.0",
        rule="letter; else numbers to two decimals, or words that stand in the answer",
        read=_mmmu,
        note="Images come before the text, in their order; <image 2> in a question or an option names the second. An answer "
        "without a letter is wrong here; its own scoring then guesses.",
    ),
    PublicSet(
        name="gqa",
        family="general",
        hub=("lmms-lab-encoder/GQA", "lmms-lab/GQA"),
        split="testdev",
        configs=("testdev_balanced_instructions",),
        pictures=("testdev_balanced_images", "imageId"),
        rows=None,
        columns=("imageId", "question", "answer"),
        images=("image",),
        licence="MIT by its card; photographs have their own",
        rule="the same words",
        read=_gqa,
    ),
)
