from dataclasses import replace

import pytest

from eyeline.claims import Claim, as_shares, claims_in, claims_of, share_inside
from eyeline.events import Event, ImageInfo, SpanAttribution, Start, Text

INFO = ImageInfo(560, 280, 5, 10)  # cells of 56 pixels


def events_of(family: str | None, *texts: tuple, info: ImageInfo = INFO, images: int = 1) -> list[Event]:
    grid = ((0,) * info.cols,) * info.rows
    start = Start("0", "m", None, "attention", (info,) * images, (grid,) * images, family=family)
    told = [Text(channel, text, at, at + 1) for at, (channel, text) in enumerate(texts)]
    return [start, *told]


BOX = '[{"bbox_2d": [100, 200, 300, 400], "label": "the  bar"}, '
POINT = '{"point_2d": [500, 500], "label": "top"}]'


def test_boxes_and_points_are_found_across_texts_with_their_labels_and_their_tokens():
    thinking = (("thinking", 'At {"bbox_2d": [0, 0, '), ("thinking", "1000, 500]}."))
    events = events_of("qwen3_vl", *thinking, ("answer", BOX), ("answer", POINT))
    whole, bar, top = claims_of(events)
    assert whole == Claim("", (0.0, 0.0, 560.0, 140.0), "thinking", (0, 2))
    assert bar == Claim("the bar", (56.0, 56.0, 168.0, 112.0), "answer", (2, 3))
    assert (top.box, top.is_point, top.tokens) == ((280, 140, 280, 140), True, (3, 4))
    shares = pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert as_shares(events)[1] == {"label": "the bar", "tokens": (2, 3), "box": shares}


def test_a_family_that_counts_pixels_means_those_of_the_processed_image():
    (bar,) = claims_of(events_of("qwen2_5_vl", ("answer", '{"bbox_2d": [28, 14, 140, 70]}')))
    assert bar.box == (56, 28, 280, 140)  # a cell is 28 pixels there, and 56 of the image


def test_glms_answers_hold_boxes_as_plain_lists_and_others_do_not():
    told = (("thinking", "Rows [1, 2, 3, 4]."), ("answer", "Here: [[100, 200, 300, 400]]"))
    (found,) = claims_of(events_of("glm4v", *told))
    assert (found.box, found.label, found.channel) == ((56, 56, 168, 112), "", "answer")
    assert claims_of(events_of("qwen3_vl", *told)) == ()
    named = events_of("glm4v", ("answer", '{"bbox_2d": [100, 200, 300, 400], "label": "a"}'))
    assert [claim.label for claim in claims_of(named)] == ["a"]  # once, not once more as a list


@pytest.mark.parametrize(
    "text",
    [
        '{"bbox_2d": [300, 200, 100, 400]}',  # right of its right end
        '{"bbox_2d": [100, 200, 100, 400]}',  # nothing wide
        '{"bbox_2d": [0, 0, 1001, 400]}',  # beyond the image
        '{"bbox_2d": [0, 0, 100]}',
        '{"bbox_2d": "0, 0, 100, 100"}',
        '{"bbox_2d": [0, 0, true, 100]}',
        '{"point_2d": [5, 5, 5]}',
        "{bbox_2d: [0, 0, 100, 100]}",
        '{"bbox_2d": [0, 0, 100, 100',
        "{}",
    ],
)
def test_what_is_no_box_claims_nothing(text):
    assert claims_of(events_of("qwen3_vl", ("answer", text))) == ()


def test_nothing_is_claimed_where_it_is_not_known_of_what():
    assert claims_of(events_of(None, ("answer", BOX + POINT))) == ()
    assert claims_of(events_of("marsvl", ("answer", BOX + POINT))) == ()
    assert claims_of(events_of("qwen3_vl", ("answer", BOX + POINT), images=2)) == ()
    assert claims_of(events_of("qwen3_vl", ("answer", BOX + POINT))[1:]) == ()


def test_a_span_has_the_claims_in_its_tokens():
    claims = claims_of(events_of("qwen3_vl", ("answer", BOX), ("answer", POINT)))
    span = SpanAttribution(0, "answer", 1, 4, "", (1.0,), None, None, None, None, None, None, None, 0.0, False, 0.0)  # fmt: skip
    assert claims_in(claims, span) == claims[1:]
    assert claims_in(claims, replace(span, start=0, end=9)) == claims


def test_the_share_inside_is_of_the_heat_above_zero_by_area():
    heat = ((1.0, 3.0), (-5.0, 0.0))
    info = ImageInfo(20, 20, 2, 2)

    def claim(left: float, top: float, right: float, bottom: float) -> Claim:
        return Claim("", (float(left), float(top), float(right), float(bottom)), "answer", (0, 1))

    assert share_inside(claim(0, 0, 10, 10), heat, info) == 0.25
    assert share_inside(claim(0, 0, 20, 5), heat, info) == 0.5
    assert share_inside(claim(15, 5, 15, 5), heat, info) == 0.75  # a point: the cell it lies in
    assert share_inside(claim(0, 0, 20, 20), heat, info) == 1.0
    assert share_inside(claim(0, 0, 20, 20), ((-1.0, 0.0),) * 2, info) == 0.0
