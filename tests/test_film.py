import io

import pytest
from PIL import Image, ImageDraw, ImageSequence
from test_runs import make_run, with_rests_on, with_span

from eyeline.errors import DataError
from eyeline.film import MOVE_MS, MOVES, STILL_MS, render_film
from eyeline.runs import Run


@pytest.mark.parametrize("unit", ["nats", "attention"])
@pytest.mark.parametrize("patches", [True, False])
def test_the_film_rests_on_each_span_and_moves_between_them(unit, patches):
    with Image.open(io.BytesIO(render_film(make_run(unit, patches)))) as film:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(film)]
        assert film.info["loop"] == 0
    assert durations == [STILL_MS, *([MOVE_MS] * MOVES + [STILL_MS]) * 2]


def test_the_heat_lies_where_the_spans_region_is():
    run = make_run()
    plain, shown = [], []
    with Image.open(io.BytesIO(render_film(run))) as film:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
    for frame in frames:
        plain.append(frame.getpixel((frame.width - 40, 20)))  # in image 2, at its top
        shown.append(frame.getpixel((5, 5)))  # in region 0
    assert shown[0][0] - shown[0][2] > 100  # the first span rests on region 0: orange
    assert all(red - blue < 40 for red, _, blue in (shown[-1], plain[0], plain[-1]))
    fading = [
        red - blue for red, _, blue in shown[1:5]
    ]  # on its way to the second span, which rests elsewhere
    assert fading == sorted(fading, reverse=True)
    assert fading[0] > fading[-1]


def test_a_run_without_spans_has_no_film():
    run = make_run()
    with pytest.raises(DataError, match="no attributed span"):
        render_film(Run(run.prompt, run.images, run.events[:2]))


def test_the_last_view_rests_on_the_answer_with_the_chances_that_it_changes():
    run = with_rests_on(make_run(), {0: 0.94, 9: 0.0})
    with Image.open(io.BytesIO(render_film(run))) as film:
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(film)]
        film.seek(len(durations) - 1)
        last = film.convert("RGB")
        film.seek(len(durations) - MOVES - 2)
        answer = film.convert("RGB")
    assert durations == [STILL_MS, *([MOVE_MS] * MOVES + [STILL_MS]) * 3]
    (left, right), (left_before, right_before) = (
        [red - blue for red, _, blue in (image.getpixel((5, 5)), image.getpixel((image.width - 8, 310)))]
        for image in (last, answer)
    )
    assert left > 100 > left_before  # region 0, on which the answer's own tokens do not rest
    assert right < 40 < right_before  # region 9, on which they do


def test_the_last_view_says_what_its_colours_mean(monkeypatch):
    told = []
    plain = ImageDraw.ImageDraw.text

    def write(self, at, text, *rest, **more):
        told.append(text)
        plain(self, at, text, *rest, **more)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", write)
    render_film(with_rests_on(make_run(), {0: 0.94}))
    assert told[-2:] == [
        "It is 7.",
        "Stronger colour: the answer is likelier to change without it, at most 94 %",
    ]
    told.clear()
    render_film(with_span(with_rests_on(make_run(), {0: 0.94}), 2, grounded=False))
    assert told[-1].startswith("Not grounded. Stronger colour")
    told.clear()
    render_film(make_run())
    assert told[-1] == "It is 7."


def test_the_answer_that_is_not_grounded_has_a_pale_map():
    run = with_rests_on(make_run(), {0: 1.0})
    warmth = []
    for shown in (run, with_span(run, 2, grounded=False)):
        with Image.open(io.BytesIO(render_film(shown))) as film:
            film.seek(film.n_frames - 1)
            red, _, blue = film.convert("RGB").getpixel((5, 5))
        warmth.append(red - blue)
    assert warmth[0] > 100 > 80 > warmth[1] > 0
