import io
from dataclasses import replace

import pytest
from PIL import Image, ImageDraw
from test_runs import make_run, with_rests_on, with_span

from eyeline.errors import DataError
from eyeline.events import Event, SpanAttribution, Start, Text
from eyeline.runs import Run
from eyeline.still import CLAIM, render_still


def drawn(run: Run, of=None) -> Image.Image:
    with Image.open(io.BytesIO(render_still(run, of))) as image:
        assert image.format == "PNG"
        return image.convert("RGB")


@pytest.fixture
def told(monkeypatch) -> list[str]:
    """What is written on the picture."""
    texts: list[str] = []
    plain = ImageDraw.ImageDraw.text

    def write(self, at, text, *rest, **more):
        texts.append(text)
        assert self.im.size[0] >= at[0] + rest[1].getlength(text) if len(rest) > 1 else True, text
        plain(self, at, text, *rest, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", write)
    return texts


def warm(image: Image.Image, x: int, y: int) -> int:
    red, _, blue = image.getpixel((x, y))
    return red - blue


def test_the_heat_lies_where_the_spans_region_is_and_its_evidence_is_outlined():
    run = make_run()
    first, second = drawn(run, 0), drawn(run, 1)
    assert warm(first, 8, 8) > 100 > 40 > warm(second, 8, 8)  # region 0
    right, bottom = second.width - 8, 400
    assert warm(second, right, bottom) > 100 > 40 > warm(first, right, bottom)  # region 9, of image 2
    assert first.getpixel((0, 100)) == (31, 29, 26)  # the line left of region 0
    assert drawn(with_span(run, 0, evidence=None), 0).getpixel((0, 100)) != (31, 29, 26)


def test_a_picture_says_in_words_what_its_colours_mean(told):
    drawn(with_span(make_run(), 1, text="In the other picture it is 7."), 1)
    place = "9 bottom right of image 2"
    assert told[0].startswith(f"Span 1, thinking, rests on: {place}, ")
    assert told[1] == "In the other picture it is 7."
    text = " ".join(told)
    assert "Colour: what hiding that part takes off this text's log-probability." in text
    assert "Outlined: the fewest parts found" in text
    assert "Bluish: speaks against this text." in text
    assert "Most: 2.4 nats (11 times less likely) at 9 bottom right of image 2" in text


def test_sizes_that_are_not_calibrated_are_said_to_be_so_and_are_not_told_as_odds(told):
    drawn(make_run("relative"), 1)
    drawn(make_run("relative"))
    text = " ".join(told)
    assert "Most: ~" in text
    assert text.count("nats (not calibrated)") == text.count("~") == 4
    assert "less likely" not in text


def test_attention_is_called_no_effect(told):
    drawn(make_run("attention"), 0)
    assert "That is no effect." in " ".join(told)
    assert "nats" not in " ".join(told)


def test_the_answer_is_drawn_with_the_chances_that_it_changes(told):
    image = drawn(with_rests_on(make_run(), {0: 0.94, 9: 0.0}), "answer")
    assert warm(image, 8, 8) > 100
    assert "Most: 94 % at 0 top left of image 1" in " ".join(told)
    assert "Without the whole image: 97 %." in " ".join(told)
    with pytest.raises(DataError, match="What the answer rests on is not known"):
        render_still(make_run(), "answer")


def test_an_answer_that_no_part_would_change_has_no_outline_and_a_map_as_pale_as_its_chances(told):
    image = drawn(with_rests_on(make_run(), {0: 0.46, 1: 0.26}, whole=0.46), "answer")
    assert warm(image, 8, 8) < warm(drawn(with_rests_on(make_run(), {0: 0.94}), "answer"), 8, 8)
    text = " ".join(told)
    assert (
        "No part by itself is likely to change it; most likely 0 top left of image 1 (46 %), 1 top of image 1 (26 %). "
        "Nor is the whole image (46 %)."
    ) in text
    assert image.getpixel((0, 100)) != (31, 29, 26)  # no line left of region 0


@pytest.mark.parametrize("of", [0, "answer"])
def test_what_is_not_grounded_says_so_over_a_pale_map(told, of):
    run = with_rests_on(make_run(), {0: 1.0})
    marked = with_span(with_span(run, 0, grounded=False), 2, grounded=False)
    assert warm(drawn(run, of), 8, 8) > 100
    assert not any("not grounded" in line for line in told)
    assert 0 < warm(drawn(marked, of), 8, 8) < 80
    assert any("not grounded" in line for line in told)


def test_the_heat_of_a_run_is_that_of_its_spans_added_up(told):
    run = make_run()
    drawn(run)
    text = " ".join(told)
    assert "Most: 3.3 nats (27 times less likely) at 9 bottom right of image 2" in text  # 2.4 + 0.9, and 0.01
    whole = sum(event.whole_image for event in run.events if isinstance(event, SpanAttribution))
    assert f"Hiding the whole image takes {whole:.1f} nats" in text
    told.clear()
    drawn(make_run("attention"))
    assert "mean share of attention" in " ".join(told)


def claiming(text: str) -> Run:
    """A run with one image whose last span says so."""
    run = make_run()
    first, last = run.events[0], max(at for at, event in enumerate(run.events) if isinstance(event, Text))
    assert isinstance(first, Start)
    events: list[Event] = [
        replace(first, images=first.images[:1], regions=first.regions[:1], family="qwen3_vl")
    ]
    for at, event in enumerate(run.events[1:], start=1):
        if isinstance(event, SpanAttribution) and event.patches:
            shown = event.effects[:6]
            event = replace(
                event, text=text, effects=shown, contributions=shown, evidence=((0, 1.0),), patches=event.patches[:1]
            )  # fmt: skip
        events.append(replace(event, text=text) if at == last and isinstance(event, Text) else event)
    return Run("?", run.images[:1], tuple(events))


def test_what_the_model_claims_is_drawn_beside_what_its_text_rests_on(told):
    run = claiming('It is {"bbox_2d": [0, 0, 500, 500], "label": "the bar"}.')
    answer = drawn(run, 2)
    blue = [answer.getpixel((x, 280)) == CLAIM for x in range(answer.width // 2)]  # its lower side
    assert 0.3 < sum(blue) / len(blue) < 0.8  # dashes
    assert any("Dashed: the model's own box “the bar”" in line for line in told)
    told.clear()
    drawn(run, 0)  # it does not stand in this span
    assert not any("the model's own" in line for line in told)


def test_long_text_is_laid_out_within_the_picture(told):
    drawn(with_span(make_run(), 0, text="word " * 300 + "x" * 400), 0)
    assert any(line.endswith("…") for line in told)


def test_there_is_no_picture_of_what_is_not_there():
    with pytest.raises(DataError, match="There is no span 7; expected one of 0 to 2"):
        render_still(make_run(), 7)
    run = make_run()
    with pytest.raises(DataError, match="no attributed span"):
        render_still(Run(run.prompt, run.images, run.events[:2]))
