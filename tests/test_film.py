import io

import pytest
from PIL import Image, ImageSequence
from test_runs import make_run

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
