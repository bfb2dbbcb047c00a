"""ScienceQA and AI2D."""

from eyeline.catalogue.entry import BY_LETTER, PublicSet, Question, Row, letters, text_of
from eyeline.examples import Matching


def _science(row: Row) -> Question:
    hint, choices = text_of(row, "hint"), tuple(row["choices"])
    context = f"Context: {hint}\n" if hint else ""
    return Question(
        f"{context}{text_of(row, 'question')}\n{letters(choices)}{BY_LETTER}",
        chr(ord("A") + int(row["answer"])),
        Matching("letter", choices=choices),
    )


def _diagram(row: Row) -> Question:
    choices = tuple(row["options"])
    return Question(
        f"{text_of(row, 'question')}\n{letters(choices)}{BY_LETTER}",
        chr(ord("A") + int(row["answer"])),
        Matching("letter", choices=choices),
    )


SETS = (
    PublicSet(
        name="scienceqa",
        family="science",
        hub=("lmms-lab-encoder/ScienceQA", "lmms-lab/ScienceQA"),
        split="test",
        configs=("ScienceQA-IMG",),
        rows=2017,
        columns=("image", "question", "choices", "answer", "hint"),
        images=("image",),
        licence="CC BY-NC-SA 4.0",
        rule="letter",
        read=_science,
        note="The answer is kept as a number from 0 on. Rows without an image are left out.",
    ),
    PublicSet(
        name="ai2d",
        family="science",
        hub=("lmms-lab-encoder/ai2d", "lmms-lab/ai2d"),
        split="test",
        rows=3088,
        columns=("image", "question", "options", "answer"),
        images=("image",),
        licence="CC BY-SA by its card; we could not verify it",
        rule="letter",
        read=_diagram,
        note="The answer is kept as a number from 0 on, in text.",
    ),
)
