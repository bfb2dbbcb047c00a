"""Public sets by name, on small copies in their own schemas: questions, rules, parts, and what is refused."""

import builtins
import json
import re

import datasets
import numpy as np
import pytest
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st
from public_rows import ROWS, WRITERS, dataset, stored, write, write_parquet

from eyeline.catalogue import SETS, PublicExamples, examples_of, find_set
from eyeline.catalogue.evidence_sets import boxes_of_mask
from eyeline.catalogue.rows import count_rows
from eyeline.catalogue.shown import part_of
from eyeline.errors import DataError, EyelineError
from eyeline.evaluation.answers import RULES, is_right, marks
from eyeline.examples import Example, write_examples

# of each set the questions: what the prompt ends with, the right answer, its rule, an answer that is right and one that is wrong
QUESTIONS = {
    "mathvista": [
        ("integer.\nQuestion: How long?", "7", "number", "It is 7.", "8"),
        ("How long?", "acute", "choice", "(B)", "(A)"),
        ("How long?", "1.5", "number", "1.52", "1.6"),
        ("How long?", "[1, 2]", "numbers", "[1, 2]", "[2, 1]"),
    ],
    "mathverse": [("B:2", "B", "letter", "B", "A"), ("B:2", "2x", "", None, None)],
    "olympiadbench": [
        ("\\boxed{answer}.", "2 \\sqrt{3}", "formula", "\\boxed{\\sqrt{12}}", "\\boxed{3}"),
        ("joined by commas}.", "1", "formula", "\\boxed{-1, 1}", "\\boxed{1}"),
        ("\\boxed{answer}.", "9.81", "formula", "\\boxed{9.8}", "\\boxed{9.6}"),
        ("\\boxed{answer}.", "2 \\sqrt{3}", "formula", "\\boxed{2\\sqrt{3}}", "none"),
    ],
    "scienceqa": [
        (
            "A. mica\nB. salt\nAnswer with the option's letter from the given choices directly.",
            "B",
            "letter",
            "B. salt",
            "A",
        ),
        ("directly.", "B", "letter", "salt", "mica"),
    ],
    "ai2d": [("directly.", "D", "letter", "D", "3")],
    "docvqa": [
        (
            "What date?\nAnswer the question using a single word or phrase.",
            "May 4",
            "anls",
            "4 may",
            "12 June",
        )
    ],
    "infovqa": [("single word or phrase.", "12%", "anls", "12 %", "forty")],
    "chartqa": [("single word.", "14", "relaxed", "14.5", "16")],
    "websight": [
        (
            "code alone.",
            "<html><body><p>Tea</p></body></html>",
            "markup",
            "<html><body><p>Tea</p></body></html>",
            "Tea",
        )
    ],
    "chartmimic": [
        ("figsize=(1.0, 0.6).", "plt.plot([1, 2])", "python", "```python\nplt.plot([1,2])\n```", "plt.plot(")
    ],
    "design2code": [
        (
            "code alone.",
            "<!DOCTYPE html><html><h1>Tea</h1></html>",
            "markup",
            "<html><h1>Tea</h1></html>",
            "<h1>Tea",
        )
    ],
    "plot2code": [("code alone.", "plt.bar([1], [2])", "python", "plt.bar([1], [2])", "plt.bar([1], [3])")],
    "mmstar": [("choices directly", "A", "letter", "A", "B")],
    "realworldqa": [
        ("the letter.", "B", "letter", "B", "A"),
        ("slope?", "Downhill", "text", "downhill.", "uphill"),
    ],
    "pope": [
        (
            f"Is there a {thing}?\nAnswer the question using a single word or phrase.",
            ("yes", "no")[n % 2],
            "yes-no",
            ("Yes, there is.", "No.")[n % 2],
            ("No", "yes")[n % 2],
        )
        for n, thing in enumerate(("dog", "cat", "cup", "car", "bed", "bus"))
    ],
    "mmmu": [
        (
            "A. <image 2>\nB. it's\n\nAnswer with the option's letter from the given choices directly.",
            "B",
            "letter",
            "(B)",
            "It is hard to say",
        ),
        ("phrase.", "5.25", "open", "So x = 5.25", "5.3"),
    ],
    "gqa": [("phrase.", "red", "text", "Red.", "blue")],
    "wiki-visa": [("phrase.", "14 June 1940", "holds", "It was on 14 June 1940", "14 June")],
    "clevr-xai": [
        ("Is it red?\nAnswer the question using a single word or phrase.", "yes", "text", "Yes", "no"),
        ("phrase.", "3", "text", "3", "4"),
    ],
    "vizwiz-lf": [("What is it?", "pot", "", None, None)],
}
LEFT_OUT = {
    "mathvista": {"without an answer": 1},
    "mathverse": {"without an image": 1},
    "olympiadbench": {"without an image": 1},
    "scienceqa": {"without an image": 1},
    "docvqa": {"without an answer": 1},
    "mmmu": {"without an answer": 1},
    "gqa": {"without an image": 1},
    "wiki-visa": {"without a short answer": 1},
    "clevr-xai": {"without evidence": 1},
    "vizwiz-lf": {"with an image that cannot be used": 1},
}


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """A small copy of every set, by its name."""
    home = tmp_path_factory.mktemp("copies")
    return {name: write(name, home / name) for name in SETS}


def test_every_set_of_the_catalogue_is_checked_here():
    assert set(QUESTIONS) == set(SETS) == set(ROWS) | set(WRITERS)
    for found in SETS.values():
        assert all((found.licence, found.rule, found.columns, found.name == found.name.lower()))
        assert found.family in ("math", "science", "document", "code", "general")


@pytest.mark.parametrize("name", SETS)
def test_each_set_asks_in_its_own_prompt_and_is_matched_by_its_own_rule(name, copies):
    read = PublicExamples(SETS[name], folder=copies[name])
    examples = list(read)
    assert len(examples) == len(QUESTIONS[name])
    for example, (end, answer, rule, right, wrong) in zip(examples, QUESTIONS[name], strict=True):
        assert example.prompt.endswith(end)
        assert "\r" not in example.prompt
        assert example.answer == answer
        assert example.matching is not None
        assert example.matching.rule == rule
        assert rule in {*RULES, ""}
        if right is None:
            assert marks(example, answer) is None
        else:
            assert is_right(example, right)
            assert is_right(example, f"<think>\n{wrong}\n</think>\n\n{right}")
            assert not is_right(example, wrong)
            assert not is_right(example, f"<think>\n{right}")
        assert example.family == SETS[name].family
        assert example.source == name
        assert all(image.mode == "RGB" for image in example.images)
    assert len({example.id for example in examples}) == len(examples)
    assert not any("/" in example.id for example in examples)
    assert read.left_out == LEFT_OUT.get(name, {})


@pytest.mark.parametrize("name", ["mathvista", "mmmu", "chartqa"])
def test_a_saved_arrow_data_set_says_the_same_as_parquet(name, copies, tmp_path):
    dataset(name).save_to_disk(tmp_path / "arrow")
    asked = [
        [
            (e.id, e.prompt, e.answer, e.matching, [i.tobytes() for i in e.images])
            for e in PublicExamples(SETS[name], folder=folder)
        ]
        for folder in (copies[name], tmp_path / "arrow")
    ]
    assert asked[0] == asked[1]
    assert asked[0]


def test_a_folder_of_images_with_metadata_says_the_same_as_parquet(copies, tmp_path):
    place = tmp_path / "data" / "python_matplotlib" / "test"
    place.mkdir(parents=True)
    (place / "0.png").write_bytes(stored(14, "RGBA")["bytes"])
    line = {"file_name": "0.png", "url": "u", "code": "plt.bar([1], [2])", "instruction": "A bar."}
    (place / "metadata.jsonl").write_text(json.dumps(line) + "\n")
    (one,) = PublicExamples(SETS["plot2code"], folder=tmp_path)
    (other,) = PublicExamples(SETS["plot2code"], folder=copies["plot2code"])
    assert (one.prompt, one.answer, one.image) == (other.prompt, other.answer, other.image)


def test_several_images_come_in_their_order_and_huge_and_cmyk_ones_as_rgb(copies):
    two, one = PublicExamples(SETS["mmmu"], folder=copies["mmmu"])
    assert [image.tobytes() for image in two.images] == [picture(seed=n).tobytes() for n in (1, 2)]
    assert len(one.images) == 1
    (page,) = PublicExamples(SETS["docvqa"], folder=copies["docvqa"])
    assert page.images[0].size == (4000, 10_000)
    print_, _ = PublicExamples(SETS["scienceqa"], folder=copies["scienceqa"])
    assert print_.images[0].mode == "RGB"
    assert np.abs(np.asarray(print_.images[0]).astype(int) - np.asarray(picture(seed=4))).mean() < 30


def test_boxes_are_evidence_of_the_whole_answer_in_pixels_of_the_image(copies):
    (page,) = PublicExamples(SETS["wiki-visa"], folder=copies["wiki-visa"])
    assert page.answer_evidence == ((10, 98, 49, 196),)  # of a screenshot kept at a tenth of its size
    scene, _ = PublicExamples(SETS["clevr-xai"], folder=copies["clevr-xai"])
    held = np.zeros((320, 480), int)
    for left, top, right, bottom in scene.answer_evidence:
        held[top:bottom, left:right] += 1
    assert held.max() == 1  # no overlap
    assert held[80:100, 60:180].all()
    assert held[100:160, 60:240].all()
    assert held.sum() == 80 * 120 + 60 * 60


@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=6))
def test_boxes_of_a_mask_cover_it_exactly_once(rows):
    mask = np.array(rows)
    held = np.zeros(mask.shape, int)
    for left, top, right, bottom in boxes_of_mask(mask):
        held[top:bottom, left:right] += 1
    assert (held == mask).all()


def test_no_image_is_in_both_parts_and_the_parts_make_the_whole(tmp_path):
    rows = [{**ROWS["pope"][1][0], "image": stored(n % 20)} for n in range(60)]
    (tmp_path / "copy").mkdir()
    dataset("pope", rows).to_parquet(tmp_path / "copy" / "test-0.parquet")
    parts = {
        part: list(PublicExamples(SETS["pope"], part, tmp_path / "copy")) for part in ("fit", "test", "all")
    }
    shown = {part: {example.image.tobytes() for example in some} for part, some in parts.items()}
    assert all(shown.values())
    assert not shown["fit"] & shown["test"]
    assert shown["fit"] | shown["test"] == shown["all"]
    assert len(parts["fit"]) + len(parts["test"]) == len(parts["all"]) == 60
    assert len(shown["fit"]) > len(shown["test"])


def test_a_question_whose_images_are_of_both_parts_is_in_neither(tmp_path):
    seeds = {part_of([picture(seed=seed)]): seed for seed in range(20)}
    assert part_of([picture(seed=seed) for seed in seeds.values()]) is None
    mixed = {"image_1": stored(seeds["fit"]), "image_2": stored(seeds["test"])}
    dataset("mmmu", [ROWS["mmmu"][1][0] | mixed]).to_parquet(tmp_path / "v.parquet")
    for part, count in (("fit", 0), ("test", 0), ("all", 1)):
        read = PublicExamples(SETS["mmmu"], part, tmp_path)
        assert len(list(read)) == count
        assert read.left_out == ({} if part == "all" else {"with images of both parts": 1})


def test_rows_are_read_one_by_one_as_they_are_asked_for(copies, monkeypatch):
    from eyeline import catalogue

    opened = []
    monkeypatch.setattr(
        catalogue,
        "picture_of",
        lambda value: opened.append(1) or picture(seed=len(opened)) if value else None,
    )
    read = iter(PublicExamples(SETS["pope"], folder=copies["pope"]))
    next(read)
    next(read)
    assert len(opened) == 2
    assert len(list(PublicExamples(SETS["pope"], folder=copies["pope"], limit=3))) == 3


def test_rows_are_counted_without_their_images(copies):
    for name in ("pope", "olympiadbench", "clevr-xai"):
        expected = {"pope": 6, "olympiadbench": 5, "clevr-xai": 3}
        assert count_rows(SETS[name], copies[name]) == expected[name]


def test_columns_of_another_copy_are_known_by_their_other_names(tmp_path):
    columns = {
        "image": datasets.Image(),
        "query": datasets.Value("string"),
        "label": datasets.List(datasets.Value("string")),
        "human_or_machine": datasets.Value("int64"),
    }
    rows = [{"image": stored(1), "query": "How much?", "label": ["14", "15"], "human_or_machine": 0}]
    datasets.Dataset.from_list(rows, features=datasets.Features(columns)).to_parquet(
        tmp_path / "test-0.parquet"
    )
    (one,) = PublicExamples(SETS["chartqa"], folder=tmp_path)
    assert one.prompt.startswith("How much?")
    assert is_right(one, "15")


def sentence(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert re.search(r"[.)]$", text)
    return text


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(DataError) as error:
        find_set("mathvsta")
    assert "nearest: mathvista, " in sentence(error)
    with pytest.raises(DataError) as error:
        find_set("zzz")
    assert "there are mathvista, mathverse" in sentence(error)
    assert find_set("MathVista") is find_set("mathvista")
    assert find_set("wiki_visa").name == "wiki-visa"


def test_other_columns_are_refused_with_those_that_were_expected(copies):
    with pytest.raises(DataError) as error:
        list(PublicExamples(SETS["ai2d"], folder=copies["pope"]))
    assert "should have the columns image, question, options, answer; here options is not there" in sentence(
        error
    )


def test_values_that_do_not_fit_their_columns_are_refused(tmp_path):
    dataset("scienceqa", [ROWS["scienceqa"][1][0] | {"choices": None}]).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError) as error:
        list(PublicExamples(SETS["scienceqa"], folder=tmp_path))
    assert "Row 0 of scienceqa is not as its columns should be" in sentence(error)


def test_folders_that_hold_no_copy_are_refused(tmp_path):
    with pytest.raises(DataError) as error:
        list(PublicExamples(SETS["pope"], folder=tmp_path / "none"))
    assert "There is no folder" in sentence(error)
    with pytest.raises(DataError) as error:
        list(PublicExamples(SETS["pope"], folder=tmp_path))
    assert "holds no Parquet or Arrow files" in sentence(error)
    (tmp_path / "test-0.parquet").write_bytes(b"PAR1 no table")
    with pytest.raises(DataError) as error:
        list(PublicExamples(SETS["pope"], folder=tmp_path))
    assert "pope cannot be read" in sentence(error) or "cannot be read as pope" in str(error.value)
    for name in WRITERS:
        with pytest.raises(DataError) as error:
            list(PublicExamples(SETS[name], folder=tmp_path))
        sentence(error)
        with pytest.raises(DataError) as error:
            list(PublicExamples(SETS[name]))
        assert "is not on the Hub" in sentence(error)


def test_a_copy_of_another_split_is_refused(tmp_path):
    write_parquet("pope", tmp_path).joinpath("test-00000-of-00001.parquet").rename(
        tmp_path / "train-0.parquet"
    )
    with pytest.raises(DataError) as error:
        list(PublicExamples(SETS["pope"], folder=tmp_path))
    assert "holds the split train of pope, where test is expected" in sentence(error)


def test_without_network_a_set_is_refused_with_one_sentence():
    for name in ("pope", "websight"):
        with pytest.raises(DataError) as error:
            list(PublicExamples(SETS[name]))
        assert f"{name} cannot be had from the Hub" in sentence(error)
        assert "--folder" in sentence(error)


def test_both_addresses_of_a_set_are_tried(monkeypatch):
    asked = []

    def load(name, config, split, streaming):
        asked.append((name, config, split, streaming))
        if len(asked) == 1:
            raise datasets.exceptions.DatasetNotFoundError("gone")
        return dataset("docvqa")

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(list(PublicExamples(SETS["docvqa"]))) == 1
    assert asked == [
        ("lmms-lab-encoder/DocVQA", "DocVQA", "validation", True),
        ("lmms-lab/DocVQA", "DocVQA", "validation", True),
    ]


def test_for_a_few_questions_no_set_is_downloaded_but_one_that_is_kept_serves_without_network(monkeypatch):
    asked = []

    def load(name, config, split, streaming):
        asked.append(streaming)
        if streaming:
            raise ConnectionError("offline")
        return dataset("pope")

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert len(list(PublicExamples(SETS["pope"], limit=3, few=True))) == 3
    assert asked == [True, False]
    asked.clear()
    with pytest.raises(DataError, match="offline"):
        list(PublicExamples(SETS["docvqa"], few=True))
    assert asked == [True, True]  # a large one is never downloaded


def test_without_the_library_the_command_that_installs_it_is_named(copies, monkeypatch):
    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "datasets":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EyelineError, match=r"pip install 'eyeline\[data\]'"):
        list(PublicExamples(SETS["pope"], folder=copies["pope"]))


def one_part(folder) -> str:
    """That of the only image of a copy."""
    (one,) = PublicExamples(SETS["infovqa"], folder=folder)
    return part_of(one.images)


def test_a_name_stands_for_a_set_and_a_folder_for_itself(copies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_examples([Example("one", picture(), "?", "3", "math", "own")], tmp_path / "pope")
    examples, count = examples_of("pope", "test")
    assert [each.id for each in examples] == ["one"]
    assert count == 1
    examples, count = examples_of("scienceqa:all", "fit", copies["scienceqa"], 1)
    assert [each.id for each in examples] == ["scienceqa-0"]
    assert count == 1
    for data, folder, said in (
        ("pope", tmp_path, "--folder is for a public set"),
        ("gqa:half", None, "'half' is no part"),
        ("gqa", tmp_path, "holds no Parquet or Arrow files"),
        (
            "infovqa:test" if one_part(copies["infovqa"]) == "fit" else "infovqa:fit",
            copies["infovqa"],
            "no question",
        ),
        ("nowhere", None, "There is no data folder 'nowhere'"),
    ):
        with pytest.raises(DataError, match=said):
            examples_of(data, "fit", folder)
