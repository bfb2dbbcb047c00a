import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_runs import make_run, save, with_rests_on, with_span

from eyeline.boxes import as_json, coco, edges, evidence_sets, mask_of, parts_of, run_lengths
from eyeline.errors import DataError
from eyeline.events import ImageInfo
from eyeline.runs import Run, read_run


def decoded(segmentation):
    """A mask from COCO's run lengths, as COCO defines them."""
    values = [number % 2 for number, count in enumerate(segmentation["counts"]) for _ in range(count)]
    return np.array(values, dtype=bool).reshape(segmentation["size"], order="F")


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 7), st.integers(1, 60), st.integers(1, 60)
)
def test_a_mask_comes_back_from_its_run_lengths_and_its_parts_tile_it(seed, rows, cols, height, width):
    grid = np.random.default_rng(seed).integers(0, 3, (rows, cols))
    info, region = ImageInfo(width, height, rows, cols), int(grid[0, 0])
    mask = mask_of(tuple(map(tuple, grid.tolist())), region, info)
    counts = run_lengths(mask)
    assert sum(counts) == width * height
    assert all(counts[1:])
    np.testing.assert_array_equal(decoded({"size": [height, width], "counts": counts}), mask)
    tiled = np.zeros((rows, cols), dtype=int)
    for left, top, right, bottom in parts_of(grid == region):
        tiled[top:bottom, left:right] += 1
    np.testing.assert_array_equal(tiled, grid == region)


def test_a_cell_covers_its_share_of_the_pixels():
    assert edges(4, 10).tolist() == [0, 2, 5, 8, 10]
    mask = mask_of(((0, 1, 1),), 1, ImageInfo(6, 2, 1, 3))
    assert mask.tolist() == [[False, False, True, True, True, True]] * 2


def test_the_evidence_of_a_span_is_that_of_its_event_in_pixels():
    (found,) = evidence_sets(make_run().events, 1)
    assert (found.span, found.channel, found.unit) == (1, "thinking", "nats")
    first, second = found.boxes
    assert (first.region, first.image, first.where) == (9, 1, "bottom right")
    assert first.box == (64, 64, 128, 128)  # 2 x 2 cells of 32 pixels
    assert first.parts == (first.box,)
    assert first.amount == 2.4
    assert second.image == 0
    (relative,) = evidence_sets(make_run("relative").events, 1)
    assert (relative.unit, relative.boxes) == ("relative", found.boxes)


def test_an_answer_rests_on_the_regions_without_which_it_rather_changes_than_not():
    run = with_rests_on(make_run(), {0: 0.6, 9: 0.94, 4: 0.49})
    (found,) = evidence_sets(run.events, "answer")
    assert (found.span, found.text, found.unit, found.whole) == (None, "It is 7.", "chance", 0.97)
    assert [(box.region, box.amount) for box in found.boxes] == [(9, 0.94), (0, 0.6)]


def test_a_whole_run_has_the_sets_of_all_spans_that_rest_on_something_and_of_the_answer():
    run = with_span(with_rests_on(make_run(), {9: 0.94}), 0, evidence=())
    assert [each.span for each in evidence_sets(run.events)] == [1, 2, None]
    assert [each.span for each in evidence_sets(make_run().events)] == [0, 1, 2]
    early = with_span(make_run(), 0, whole_image=0.0002)  # a run of before, which names regions all the same
    assert [each.span for each in evidence_sets(early.events)] == [1, 2]
    assert [each.boxes for each in evidence_sets(early.events, 0)] == [()]


def test_thousandths_are_shares_of_the_images_sides():
    (found,) = as_json(make_run().events, 0, "thousand")
    (box, *_) = found["boxes"]
    assert (box["region"], box["box"]) == (0, (0, 0, 333, 500))
    (pixels,) = as_json(make_run().events, 0)
    assert pixels["boxes"][0]["box"] == (0, 0, 64, 64)
    assert json.loads(json.dumps(pixels)) == json.loads(json.dumps(as_json(make_run().events)[0]))


def test_a_coco_file_holds_each_region_with_its_box_its_area_and_its_mask(tmp_path):
    run = read_run(save(with_rests_on(make_run(), {9: 0.94}), tmp_path / "run"))
    told = json.loads(json.dumps(as_json(run.events, None, "coco")))
    files = {image["id"]: image for image in told["images"]}
    assert all((tmp_path / "run" / image["file_name"]).is_file() for image in files.values())
    assert [each["id"] for each in told["annotations"]] == list(range(1, len(told["annotations"]) + 1))
    kinds = {kind["id"]: kind["name"] for kind in told["categories"]}
    assert {(kinds[each["category_id"]], each["span"]) for each in told["annotations"]} == {
        ("evidence of a span", 0), ("evidence of a span", 1), ("evidence of a span", 2), ("evidence of the answer", None)
    }  # fmt: skip
    for each in told["annotations"]:
        image, mask = files[each["image_id"]], decoded(each["segmentation"])
        assert mask.shape == (image["height"], image["width"])
        assert mask.sum() == each["area"]
        down, across = np.nonzero(mask)
        left, top, width, height = each["bbox"]
        assert (left, top, left + width, top + height) == (
            across.min(), down.min(), across.max() + 1, down.max() + 1
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own, of numpy
def test_pycocotools_reads_the_same_masks(tmp_path):
    pytest.importorskip("pycocotools", reason="needs pip install pycocotools")
    from pycocotools.coco import COCO

    told = as_json(with_rests_on(make_run(), {9: 0.94}).events, None, "coco")
    path = tmp_path / "evidence.json"
    path.write_text(json.dumps(told), encoding="utf-8")
    read = COCO(path)
    assert len(read.anns) == len(told["annotations"])
    for number, annotation in read.anns.items():
        mask = read.annToMask(annotation).astype(bool)
        np.testing.assert_array_equal(mask, decoded(told["annotations"][number - 1]["segmentation"]))


@pytest.mark.parametrize(
    ("run", "of", "expected"),
    [
        (make_run("attention"), None, "written without an estimator"),
        (make_run(), 99, "There is no span 99; expected one of 0 to 2"),
        (make_run(), "answer", "What the answer rests on is not known"),
        (with_span(make_run(), 1, evidence=None), 1, "Span 1 has no evidence set"),
    ],
)
def test_what_has_no_evidence_says_so(run: Run, of, expected):
    with pytest.raises(DataError, match=expected):
        evidence_sets(run.events, of)


def test_a_run_and_the_shared_function_say_the_same(tmp_path):
    run = read_run(save(make_run(), tmp_path / "run"))
    assert run.evidence(1) == evidence_sets(run.events, 1)
    assert coco(run.evidence(), run.start) == as_json(run.events, None, "coco")
