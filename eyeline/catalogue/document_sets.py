"""DocVQA, InfoVQA, ChartQA."""

from eyeline.catalogue.entry import BY_PHRASE, LeftOut, PublicSet, Question, Row, text_of
from eyeline.examples import Matching


def _page(row: Row) -> Question:
    answers = tuple(row["answers"] or ())
    if not answers:
        raise LeftOut("without an answer")
    return Question(text_of(row, "question") + BY_PHRASE, answers[0], Matching("anls", also=answers[1:]))


def _chart(row: Row) -> Question:
    answers = tuple(row["answer"]) if isinstance(row["answer"], list) else (row["answer"],)
    return Question(
        text_of(row, "question") + "\nAnswer the question with a single word.",
        answers[0],
        Matching("relaxed", also=answers[1:]),
    )


PAGES = ("lmms-lab-encoder/DocVQA", "lmms-lab/DocVQA")

SETS = (
    PublicSet(
        name="docvqa",
        family="document",
        hub=PAGES,
        split="validation",
        configs=("DocVQA",),
        rows=5349,
        columns=("image", "question", "answers"),
        images=("image",),
        licence="Apache-2.0 by its card; terms of the scanned documents differ",
        rule="ANLS of the best of several answers, 0 below 0.5",
        read=_page,
        large=True,
        note="Answers of its test split are not public.",
    ),
    PublicSet(
        name="infovqa",
        family="document",
        hub=PAGES,
        split="validation",
        configs=("InfographicVQA",),
        rows=2801,
        columns=("image", "question", "answers"),
        images=("image",),
        licence="Apache-2.0 by its card; terms of the infographics differ",
        rule="ANLS of the best of several answers, 0 below 0.5",
        read=_page,
        large=True,
        note="Answers of its test split are not public. Pages are up to 10,000 pixels high.",
    ),
    PublicSet(
        name="chartqa",
        family="document",
        hub=("lmms-lab-encoder/ChartQA", "lmms-lab/ChartQA", "HuggingFaceM4/ChartQA"),
        split="test",
        rows=2500,
        columns=("image", "question", "answer"),
        images=("image",),
        licence="GPL-3.0",
        rule="numbers within 5 %, else the same words",
        read=_chart,
        also_called={"query": "question", "label": "answer"},
    ),
)
