import codecs
import json

import pytest
from conftest import picture
from hypothesis import given
from hypothesis import strategies as st
from test_runs import make_run, names, save

from eyeline.errors import DataError, EstimatorError, EyelineError, RegionError
from eyeline.estimator_files import read_estimator
from eyeline.examples import Example, read_examples, write_examples
from eyeline.files import check_room, decode_text, open_folder, write_files
from eyeline.regions.given import from_boxes
from eyeline.runs import read_run
from eyeline.training.collect import read_run as read_collection


@given(st.text())
def test_utf8_reads_back_with_and_without_a_mark(text):
    if "\0" not in text[:2]:
        for encoding in ("utf-8", "utf-8-sig"):
            assert decode_text(text.encode(encoding)) == text.removeprefix("\ufeff" * (encoding == "utf-8"))


@given(st.text(st.characters(codec="latin-1", exclude_characters="\0"), min_size=1))
def test_other_encodings_of_unicode_never_read_as_utf8(text):
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        with pytest.raises(ValueError, match="save it as UTF-8"):
            decode_text(text.encode(encoding))


@pytest.fixture
def folder(tmp_path):
    """One of each text file that is read: examples, boxes, a run, and what stands beside tensors."""
    examples = (Example(f"e{i}", picture(), "Größe?", "3", "math", "own") for i in range(2))
    write_examples(examples, tmp_path / "data")
    save(make_run(extra="\u2028é"), tmp_path / "run")
    (tmp_path / "boxes.json").write_text(json.dumps([[0, 0, 48, 64]]), encoding="utf-8")
    about = {"version": "1", "model": "né", "fingerprint": "0", "settings": {}}
    (tmp_path / "collection").mkdir()
    (tmp_path / "collection" / "run.json").write_text(json.dumps(about), encoding="utf-8")
    return tmp_path


READERS = {  # of each text file, and the error of one that cannot be read
    "data/examples.jsonl": (lambda folder: list(read_examples(folder / "data")), DataError),
    "run/events.jsonl": (lambda folder: read_run(folder / "run").events, DataError),
    "run/run.json": (lambda folder: read_run(folder / "run").prompt, DataError),
    "boxes.json": (lambda folder: from_boxes(folder / "boxes.json", 4, 6, 96, 64).tolist(), RegionError),
    "collection/run.json": (lambda folder: read_collection(folder / "collection"), DataError),
}


@pytest.mark.parametrize("name", READERS)
def test_every_text_file_may_begin_with_a_mark_and_end_with_a_blank_line(folder, name):
    read, _ = READERS[name]
    before, content = read(folder), (folder / name).read_bytes()
    for written in (
        codecs.BOM_UTF8 + content,
        content + b"\n",
        content + b"\r\n \n",
        content.replace(b"\n", b"\r\n"),
    ):
        (folder / name).write_bytes(written)
        assert read(folder) == before


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_a_text_file_of_another_encoding_is_told_in_one_sentence(folder, name, encoding):
    read, kind = READERS[name]
    text = (folder / name).read_text(encoding="utf-8").replace("\u2028", "")
    if encoding == "latin-1":
        text = text.replace("{", '{"note": "é", ', 1) if "{" in text else text.replace("[", '["é",', 1)
    (folder / name).write_bytes(text.encode(encoding))
    with pytest.raises(kind, match="save it as UTF-8") as caught:
        read(folder)
    assert isinstance(caught.value, EyelineError)
    assert "\n" not in str(caught.value)
    assert name.rpartition("/")[2] in str(caught.value)


def test_an_estimators_card_of_another_encoding_is_told(tmp_path):
    (tmp_path / "card.json").write_text("{}", encoding="utf-16")
    with pytest.raises(EstimatorError, match="it is UTF-16, not UTF-8; save it as UTF-8"):
        read_estimator(tmp_path)


def test_examples_that_are_only_blank_lines_are_none(tmp_path):
    (tmp_path / "examples.jsonl").write_text("\n \n", encoding="utf-8")
    with pytest.raises(DataError, match=r"examples\.jsonl is empty"):
        list(read_examples(tmp_path))


def test_room_is_looked_for_without_leaving_anything(tmp_path, monkeypatch):
    for path in (tmp_path, tmp_path / "new.html", tmp_path / "new" / "run" / "report.html"):
        check_room(path)
    monkeypatch.chdir(tmp_path)
    check_room(type(tmp_path)("new.html"))
    assert names(tmp_path) == set()
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match=r"file/new' could not be written \(Not a directory\)"):
        check_room(tmp_path / "file" / "new")


def test_a_full_disk_has_no_room_and_keeps_the_files_before(full_disk):
    for path in (full_disk, full_disk / "new.html", full_disk / "new" / "run"):
        with pytest.raises(DataError, match="The disk is full"):
            check_room(path)
    with pytest.raises(DataError, match="The disk is full"):
        write_files({full_disk / "filler": b"x" * 4096})
    assert names(full_disk) == {"filler"}
    assert (full_disk / "filler").stat().st_size > 2**15


def test_a_folder_goes_on_with_the_same_alone_and_says_what_differs(tmp_path):
    made_with = {"model": "a", "fingerprint": "0", "settings": {"seed": 0, "methods": ["one"] * 30}}
    open_folder(tmp_path / "out", made_with, "collection")
    open_folder(tmp_path / "out", {**made_with, "model": "the same elsewhere"}, "collection")
    cases = {
        "another seed (0 there, 1 here);": {**made_with, "settings": {**made_with["settings"], "seed": 1}},
        'another model ("a" there, "b" here);': {**made_with, "model": "b", "fingerprint": "1"},
        "another model;": {**made_with, "fingerprint": "1"},
        "another methods;": {**made_with, "settings": {"seed": 0, "methods": []}},  # too long to be shown
        "another rates (null there, 2 here) and another methods;": {
            **made_with,
            "settings": {"seed": 0, "rates": 2},
        },
    }
    for words, other in cases.items():
        with pytest.raises(DataError) as caught:
            open_folder(tmp_path / "out", other, "collection")
        assert words in str(caught.value)
