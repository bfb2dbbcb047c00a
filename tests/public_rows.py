"""Small copies of public data sets, in the schemas of their originals, with the traps that these hold."""

import io
import json
from pathlib import Path

import datasets
import numpy as np
from conftest import picture
from datasets import Features, Image, List, Value
from PIL import Image as Pillow

TEXT, WHOLE, REAL = Value("string"), Value("int64"), Value("float64")
TEXTS = List(Value("string"))
SPLITS = {
    "docvqa": "validation",
    "infovqa": "validation",
    "mmmu": "validation",
    "gqa": "testdev",
    "mmstar": "val",
}


def stored(seed: int = 0, mode: str = "RGB", kind: str = "PNG", size: tuple[int, int] = (96, 64)) -> dict:
    """An image as Parquet files hold it."""
    file = io.BytesIO()
    picture(*size, seed=seed).convert(mode).save(file, kind)
    return {"bytes": file.getvalue(), "path": f"{seed}.{kind.lower()}"}


def huge() -> dict:
    """A page of 40 megapixels in few bytes."""
    file = io.BytesIO()
    Pillow.new("L", (4000, 10_000), 255).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": "page.png"}


def texts(names: str, **others) -> dict:
    """Columns of text, and others."""
    return dict.fromkeys(names.split(), TEXT) | others


def images(name: str, count: int, held: int | None = None) -> dict:
    """Columns of several images, or of these what a row holds: the first `held`."""
    return {
        f"{name}_{number}": Image() if held is None else stored(number) if number <= held else None
        for number in range(1, count + 1)
    }


def _mmmu(held: int, **fields) -> dict:
    asked = {"question": "Which is <image 1>?", "options": "['<image 2>', \"it's\"]", "answer": "B"}
    return asked | {"question_type": "multiple-choice", **images("image", 7, held), **fields}


def _olympiad(held: int, **fields) -> dict:
    asked = {
        "question": "Find $x$ of <image_1>.",
        "final_answer": ["$2 \\sqrt{3}$"],
        "is_multiple_answer": False,
    }
    return asked | images("image", 5, held) | fields


def _vista(**fields) -> dict:
    asked = {"image": "images/1.jpg", "decoded_image": stored(1), "answer": "7", "question_type": "free_form"}
    query = "Hint: answer with an integer.\r\nQuestion: How long?"
    return asked | {"answer_type": "integer", "query": query} | fields


def _verse(image: dict | None, answer: str, kind: str) -> dict:
    return {
        "image": image,
        "answer": answer,
        "question_type": kind,
        "query_wo": "Find it.\nChoices:\nA:1\nB:2",
    }


def _science(image: dict | None, hint: str) -> dict:
    return {"image": image, "question": "Which?", "choices": ["mica", "salt"], "answer": 1, "hint": hint}


def _wiki(answer: str) -> dict:
    box = {"bounding_box": [98.0, 980.0, 490.0, 1960.0], "image_size": [980, 3920]}
    return {"question": "When?", "image": stored(20, size=(98, 392)), "short_answer": answer} | box


PICTURE = Image()
PAGE = "<!DOCTYPE html><html><h1>Tea</h1></html>"
THINGS = ("dog", "cat", "cup", "car", "bed", "bus")
# name: columns, and rows (without what stays empty); those without a usable image or answer last
ROWS: dict[str, tuple[dict, list[dict]]] = {
    "mathvista": (
        texts(
            "pid question image unit answer question_type answer_type query",
            decoded_image=PICTURE,
            choices=TEXTS,
            precision=REAL,
            metadata={"category": TEXT, "grade": TEXT},
        ),
        [
            _vista(),
            _vista(
                question_type="multi_choice", answer_type="text", choices=["obtuse", "acute"], answer="acute"
            ),
            _vista(answer_type="float", precision=1.0, answer="1.5"),
            _vista(answer_type="list", answer="[1, 2]"),
            _vista(answer=None),
        ],
    ),
    "mathverse": (
        texts(
            "sample_index problem_index problem_version question answer question_type query_wo query_cot question_for_eval",
            image=PICTURE,
            metadata={"split": TEXT},
        ),
        [
            _verse(stored(2), "B", "multi-choice"),
            _verse(stored(3), "2x", "free-form"),
            _verse(None, "A", "multi-choice"),
        ],
    ),
    "olympiadbench": (
        texts(
            "question context modality difficulty unit answer_type error question_type subfield subject language",
            id=WHOLE,
            solution=TEXTS,
            final_answer=TEXTS,
            is_multiple_answer=Value("bool"),
            **images("image", 5),
        ),
        [
            _olympiad(1),
            _olympiad(3, final_answer=["$1$", "$-1$"], is_multiple_answer=True, context="Given."),
            _olympiad(1, final_answer=["$9.81$"], error="1e-1"),
            _olympiad(0),
        ],
    ),
    "scienceqa": (
        texts(
            "question hint task grade subject topic category skill lecture solution",
            image=PICTURE,
            choices=TEXTS,
            answer=Value("int8"),
        ),
        [_science(stored(4, "CMYK", "JPEG"), "A stone."), _science(stored(5), ""), _science(None, "")],
    ),
    "ai2d": (
        texts("question answer", options=TEXTS, image=PICTURE),
        [
            {
                "question": "What eats?",
                "options": ["owl", "fox", "eel", "elk"],
                "answer": "3",
                "image": stored(6),
            }
        ],
    ),
    "docvqa": (
        texts(
            "questionId question ucsf_document_id ucsf_document_page_no data_split",
            question_types=TEXTS,
            image=PICTURE,
            docId=WHOLE,
            answers=TEXTS,
        ),
        [
            {"question": "What date?", "image": huge(), "answers": ["May 4", "4 May"]},
            {"question": "What date?", "image": stored(8), "answers": []},
        ],
    ),
    "infovqa": (
        texts(
            "questionId question image_url ocr data_split",
            answers=TEXTS,
            answer_type=TEXTS,
            image=PICTURE,
            **{"operation/reasoning": TEXTS},
        ),
        [{"question": "How many?", "answers": ["12%", "12 %"], "image": stored(9, size=(64, 640))}],
    ),
    "chartqa": (
        texts("type question answer", image=PICTURE),
        [{"type": "human_test", "question": "How much?", "answer": "14", "image": stored(10)}],
    ),
    "websight": (
        texts("text llm_generated_idea", image=PICTURE),
        [{"image": stored(11), "text": "<html><body><p>Tea</p></body></html>", "llm_generated_idea": "tea"}],
    ),
    "chartmimic": (
        texts(
            "ExampleID Task Instruction InputFigure GroundTruthFigure GroundTruthFigureCode",
            InputFigurePreview=PICTURE,
            GroundTruthFigurePreview=PICTURE,
        ),
        [
            {
                "Instruction": "Draw it with figsize=({width}, {height}).",
                "InputFigure": "a.pdf",
                "InputFigurePreview": stored(12),
                "GroundTruthFigureCode": "plt.plot([1, 2])",
            }
        ],
    ),
    "design2code": (texts("text", image=PICTURE), [{"image": stored(13), "text": PAGE}]),
    "plot2code": (
        texts("url code instruction", image=PICTURE),
        [{"image": stored(14, "RGBA"), "url": "u", "code": "plt.bar([1], [2])", "instruction": "A bar."}],
    ),
    "mmstar": (
        texts("question answer category l2_category", index=WHOLE, image=PICTURE, meta_info={"source": TEXT}),
        [{"question": "Which?\nOptions: A: red, B: blue", "image": stored(15), "answer": "A"}],
    ),
    "realworldqa": (
        texts("question answer", image=PICTURE),
        [
            {
                "image": stored(16),
                "question": "Which way?\nA. left\nB. right\nAnswer with the letter.",
                "answer": "B",
            },
            {"image": stored(17), "question": "How is the slope?", "answer": "Downhill"},
        ],
    ),
    "pope": (
        texts("id question_id question answer image_source category", image=PICTURE),
        [
            {
                "question": f"Is there a {thing}?",
                "answer": ("yes", "no")[number % 2],
                "image": stored(18 + number // 3),
            }
            for number, thing in enumerate(THINGS)
        ],
    ),
    "mmmu": (
        texts(
            "id question options explanation img_type answer topic_difficulty question_type subfield",
            **images("image", 7),
        ),
        [
            _mmmu(2),
            _mmmu(1, options="[]", question_type="open", answer="['5.25', 'five and a quarter']"),
            _mmmu(1, answer="?"),
        ],
    ),
    "gqa": (
        texts("id imageId question answer fullAnswer", isBalanced=Value("bool")),
        [{"imageId": name, "question": "What colour?", "answer": "red"} for name in ("n7", "gone")],
    ),
    "wiki-visa": (
        texts(
            "id question short_answer short_answer_type long_answer_type url",
            image=PICTURE,
            candidates=List(WHOLE),
            pos_idx=WHOLE,
            bounding_box=List(REAL),
            image_size=List(WHOLE),
        ),
        [_wiki("14 June 1940"), _wiki("")],
    ),
}


def dataset(name: str, rows: list[dict] | None = None) -> datasets.Dataset:
    """Rows of a set in its columns."""
    columns, known = ROWS[name]
    whole = [dict.fromkeys(columns) | row for row in rows or known]
    return datasets.Dataset.from_list(whole, features=Features(columns))


def write_parquet(name: str, folder: Path) -> Path:
    """A folder as the Hub's, of one split."""
    split = SPLITS.get(name, {"mathvista": "testmini", "mathverse": "testmini"}.get(name, "test"))
    if name in ("olympiadbench", "design2code", "websight"):
        split = "train"
    place = folder
    if name == "gqa":
        place = folder / "testdev_balanced_instructions"
        pictures = [{"id": "n7", "image": stored(7)}, {"id": "n8", "image": stored(8)}]
        shown = folder / "testdev_balanced_images"
        shown.mkdir(parents=True)
        features = Features({"id": TEXT, "image": Image()})
        datasets.Dataset.from_list(pictures, features=features).to_parquet(
            shown / "testdev-00000-of-00001.parquet"
        )
    if name == "olympiadbench":  # two configurations, of which one is empty here
        empty = folder / "OE_MM_physics_en_COMP"
        empty.mkdir(parents=True)
        dataset(name).select([0]).to_parquet(empty / "train-00000-of-00001.parquet")
        place = folder / "OE_MM_maths_en_COMP"
    place.mkdir(parents=True, exist_ok=True)
    dataset(name).to_parquet(place / f"{split}-00000-of-00001.parquet")
    return folder


def write_clevr(folder: Path) -> Path:
    """The unpacked release: masks are smaller than the images."""
    masks = folder / "ground_truth_complex_questions_unique_firstnonempty"
    for place in (masks, folder / "images"):
        place.mkdir(parents=True)
    picture(480, 320).save(folder / "images" / "CLEVR_unique_000000.png")
    questions = [
        {
            "question_index": number,
            "image_filename": "CLEVR_unique_000000.png",
            "question": text,
            "answer": answer,
            "program": [],
        }
        for number, (text, answer) in enumerate(
            (("Is it red?", True), ("How many?", 3), ("No mask?", "metal"))
        )
    ]
    (folder / "CLEVR-XAI_complex_questions.json").write_text(json.dumps({"questions": questions}))
    mask = np.zeros((128, 128), bool)
    mask[32:64, 16:48] = True
    mask[40:64, 48:64] = True
    for number in range(2):
        np.save(masks / f"{number}.npy", mask)
    return folder


def write_vizwiz(folder: Path) -> Path:
    (folder / "images").mkdir(parents=True)
    picture().save(folder / "images" / "VizWiz_train_1.jpg")
    records = [
        {
            "model": model,
            "question": "What is it?",
            "question_type": "Identification",
            "answer_paragraph": "A pot.",
            "image_url": f"https://example.org/img/VizWiz_train_{number}.jpg",
            "crowd_answers": ["pot"],
            "crowd_majority": "pot",
        }
        for model, number in (("GPT-4V", 1), ("Expert", 1), ("Expert", 2))
    ]
    (folder / "all.json").write_text(json.dumps(records))
    return folder


WRITERS = {"clevr-xai": write_clevr, "vizwiz-lf": write_vizwiz}


def write(name: str, folder: Path) -> Path:
    """A small copy of a set."""
    return WRITERS[name](folder) if name in WRITERS else write_parquet(name, folder)
