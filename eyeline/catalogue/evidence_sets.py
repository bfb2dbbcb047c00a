"""Sets with evidence for whole answers: Wiki-VISA, VizWiz-LF, CLEVR-XAI."""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from eyeline.catalogue.entry import BY_PHRASE, LeftOut, PublicSet, Question, Row, text_of
from eyeline.errors import DataError
from eyeline.examples import Box, Matching

CLEVR = "CLEVR-XAI_complex_questions.json"
MASKS = "ground_truth_complex_questions_unique_firstnonempty"


def boxes_of_mask(mask: np.ndarray) -> tuple[Box, ...]:
    """Boxes without overlap that cover exactly what a mask [row, column] holds: runs of its rows, alike ones joined downwards."""
    open_runs: dict[tuple[int, int], int] = {}  # left, right -> top
    found: list[Box] = []
    for row in range(len(mask) + 1):
        line = np.zeros(mask.shape[1], bool) if row == len(mask) else mask[row].astype(bool)
        steps = np.flatnonzero(np.diff(line.astype(np.int8), prepend=0, append=0)).tolist()
        runs = set(zip(steps[::2], steps[1::2], strict=True))
        for run in [run for run in open_runs if run not in runs]:
            found.append((run[0], open_runs.pop(run), run[1], row))
        for run in runs:
            open_runs.setdefault(run, row)
    return tuple(sorted(found, key=lambda box: (box[1], box[0])))


def _wiki(row: Row) -> Question:
    answer, box = text_of(row, "short_answer"), row["bounding_box"]
    if not answer:
        raise LeftOut("without a short answer")
    if box is None or len(box) != 4:
        raise LeftOut("without a box")
    left, top, right, bottom = (round(float(edge)) for edge in box)
    size = tuple(map(int, row["image_size"])) if row.get("image_size") else None
    return Question(
        text_of(row, "question") + BY_PHRASE, answer, Matching("holds"), ((left, top, right, bottom),),
        None if size is None or len(size) != 2 else (size[0], size[1]),
    )  # fmt: skip


def _clevr(row: Row) -> Question:
    mask = row["mask"]
    if mask is None or not mask.any():
        raise LeftOut("without evidence")
    answer = (
        {True: "yes", False: "no"}.get(row["answer"], row["answer"])
        if isinstance(row["answer"], bool)
        else row["answer"]
    )
    return Question(
        text_of(row, "question") + BY_PHRASE, str(answer), Matching("text"), boxes_of_mask(mask),
        (mask.shape[1], mask.shape[0]),
    )  # fmt: skip


def _clevr_rows(folder: Path) -> Iterator[Row]:
    for number, question in enumerate(_json(folder / CLEVR)["questions"]):
        mask = folder / MASKS / f"{question.get('question_index', number)}.npy"
        yield {
            **question,
            "image": folder / "images" / question["image_filename"],
            "mask": np.load(mask, allow_pickle=False) if mask.is_file() else None,
        }


def _vizwiz(row: Row) -> Question:
    return Question(text_of(row, "question"), text_of(row, "crowd_majority"), Matching(""))


def _vizwiz_rows(folder: Path) -> Iterator[Row]:
    path = next(
        (path for path in (folder / "all.json", folder / "data" / "all.json") if path.is_file()), None
    )
    for record in _json(path or folder / "all.json"):
        if record["model"] == "Expert":  # one answer of each question; the others are models'
            yield {**record, "image": folder / "images" / PurePosixPath(record["image_url"]).name}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}): the folder of an unpacked release is expected (docs/data.md)."
        ) from error


SETS = (
    PublicSet(
        name="wiki-visa",
        family="document",
        hub=("MrLight/wiki-visa",),
        split="test",
        rows=3000,
        columns=("image", "question", "short_answer", "bounding_box"),
        images=("image",),
        licence="none is named on its card; pages are Wikipedia's",
        rule="the words of the short answer stand in the answer (ours)",
        read=_wiki,
        large=True,
        note="Evidence: the box of the HTML element, not of the words.",
    ),
    PublicSet(
        name="vizwiz-lf",
        family="general",
        hub=(),
        split="all",
        rows=None,
        columns=("image", "question", "crowd_majority"),
        images=("image",),
        licence="as its repository and VizWiz say; none is named where we looked",
        rule="none: long answers need a judge",
        read=_vizwiz,
        released=_vizwiz_rows,
        note="A folder with all.json of the repository UT-CS-HCI/lfvqa, and in images/ the files that its `image_url`s "
        "name; none is fetched.",
    ),
    PublicSet(
        name="clevr-xai",
        family="general",
        hub=(),
        split="complex",
        rows=100_000,
        columns=("image", "question", "answer", "mask"),
        images=("image",),
        licence="none is named where we looked",
        rule="the same words",
        read=_clevr,
        released=_clevr_rows,
        note=f"The unpacked release v1.0 of ahmedmagdiosman/clevr-xai: {CLEVR}, images/ and {MASKS}/; questions without a mask "
        "are left out.",
    ),
)
