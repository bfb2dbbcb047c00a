"""How a span rests on the image, in words: the same in every view, and never that nothing matters where something does."""

import dataclasses
import json

import numpy as np
import pytest
from page_server import PageServer
from test_embedded import mini
from test_runs import make_run
from test_terminal import span_of

from eyeline.boxes import changing
from eyeline.evaluation.answers import is_right
from eyeline.events import RestsOn, SpanAttribution, Start
from eyeline.report import FLOORS, PALE, name_regions, none_alone, resting, strength
from eyeline.scenes import sample
from eyeline.server.gallery import SCENES
from eyeline.terminal import describe

NONE = (0.0,) * 4
CASES = {
    "attends to": [span_of((0.7, 0.1, 0.1, 0.1))],
    "follows from the text before it": [
        span_of(NONE),
        span_of(NONE, NONE, 0.0),
        span_of((0.04, -0.04, 0.0, 0.0), (0.01, -0.02, 0.0, 0.0), -0.01),
    ],
    "hardly rests on the image": [
        span_of((0.06, 0.0, 0.0, 0.0)),
        span_of((0.2, 0.0, 0.1, 0.0), (0.2, 0.1, 0.1, 0.05), 0.45),
        span_of((0.0, -0.2, 0.0, 0.0), (-0.1, -0.2, 0.0, 0.0), -0.3),
    ],
    "is likelier without the image": [span_of((-0.5, 0.2, 0.0, 0.0), (-0.8, -0.3, 0.1, 0.0), -1.0)],
    "rests on several regions together": [
        span_of((0.2, 0.2, 0.1, 0.0), (4.0, 3.0, 4.5, 0.1), 11.6),
        span_of(NONE, (0.15,) * 4, 0.6),
        span_of(NONE, None, 3.0),
    ],
    "rests on": [
        span_of((1.8, 0.0, 0.0, 0.0)),
        span_of((0.7, 0.0, 0.0, 0.0), (0.3, 0.0, -0.2, 0.0), 0.1),  # alone: others make up for it
        span_of((2.0, -2.0, 0.0, 0.0), (2.0, -2.0, 0.0, 0.0), 0.0),
        span_of((1.2, 0.2, 0.1, 0.0), (4.0, 3.0, 4.5, 0.1), 11.6),
    ],
}
IN_THE_PAGE = """async ([spans, unit]) => {
    const {derive, newRun, resting, take} = await import("/static/run.js");
    const labels = count => [Array.from({length: count}, (_, k) => k)];
    return JSON.parse(spans).map(span => {
        const run = newRun("", []), count = span.effects.length;
        take(run, {event: "start", unit, regions: [labels(count)]});
        const {heat, scale, paleness} = derive(run, {...span, text: ""});
        return [resting(span, unit), Math.max(...heat.flat(2).map(Math.abs)) / scale * paleness];
    });
}"""


def drawn(seed: int) -> SpanAttribution:
    """A span of any size, its numbers of any sign, with and without contributions."""
    rng = np.random.default_rng(seed)
    size = 10.0 ** rng.uniform(-3, 1.5)
    effects = tuple(np.round(rng.normal(rng.uniform(-0.5, 1), 1, 6) * size * rng.uniform(0, 1), 6).tolist())
    parts = None if rng.random() < 0.2 else tuple(np.round(rng.normal(0.5, 1, 6) * size, 6).tolist())
    whole = None if rng.random() < 0.1 else round(float(rng.normal(0.5, 2)) * size, 6)
    return span_of(effects, parts, whole)


@pytest.mark.parametrize("words", CASES)
def test_words_follow_from_what_hiding_does(words):
    unit = "attention" if words == "attends to" else "nats"
    assert [resting(span, unit) for span in CASES[words]] == [words] * len(CASES[words])


def test_no_span_that_loses_the_floor_without_the_image_is_said_to_rest_on_nothing():
    told = {span: resting(span, "nats") for span in map(drawn, range(400))}
    strong = [words for span, words in told.items() if abs(span.whole_image or 0) >= FLOORS["nats"]]
    assert strong
    assert {words for words in strong if words.startswith(("follows", "hardly"))} == set()
    assert len(set(told.values())) == 5  # all that can be said of nats is


def test_the_picture_of_many_weak_regions_that_do_much_together_is_as_strong_as_of_a_strong_one():
    together, alone = span_of(NONE, (0.6,) * 4, 2.4), span_of((2.4, 0.0), (2.4, 0.0), 2.4)
    assert strength(together, "nats") == strength(alone, "nats") == 1.0
    assert strength(span_of((0.05, 0.0), (0.05, 0.0), 0.05), "nats") == pytest.approx(0.025)


def test_the_picture_of_a_span_that_hardly_rests_on_the_image_is_pale():
    for seed in range(400):
        span = drawn(seed)
        if resting(span, "nats").startswith(("hardly", "follows")):
            assert strength(span, "nats") < PALE
    assert strength(span_of((0.11, 0.08), (0.11, 0.08), 0.49), "nats") < PALE < FLOORS["nats"]
    assert strength(span_of((0.5, 0.0), (0.5, 0.0), 0.5), "nats") == PALE


@pytest.mark.browser
@pytest.mark.parametrize("unit", ["nats", "attention"])
def test_the_page_says_the_same_as_the_terminal(visit, unit):
    spans = [span for cases in CASES.values() for span in cases] + [drawn(seed) for seed in range(400)]
    with PageServer(make_run()) as server:
        said = visit(server).evaluate(
            IN_THE_PAGE, [json.dumps([dataclasses.asdict(span) for span in spans]), unit]
        )
    assert [words for words, _ in said] == [resting(span, unit) for span in spans]
    strongest = [share for _, share in said]  # each region is one cell
    assert strongest == pytest.approx([strength(span, unit) * any(span.shown) for span in spans], abs=1e-6)


ALONE_IN_THE_PAGE = """async told => {
    const {noneAlone} = await import("/static/words.js"), {changing, telling} = await import("/static/run.js");
    return JSON.parse(told).map(({changes, whole}) => {
        const answer = {unit: "chance", about: "", effects: changes, contributions: null, whole_image: whole};
        return [changing(answer), noneAlone(telling(answer).slice(0, 3).map(k => [`part ${k}`, changes[k]]), answer)];
    });
}"""


@pytest.mark.browser
def test_the_page_and_the_others_agree_on_what_would_change_an_answer(visit):
    rng = np.random.default_rng(0)
    drawn = [
        np.round(rng.uniform(0, top, 7), 2).tolist() for top in (0.08, 0.3, 0.55, 1.0) for _ in range(20)
    ]
    told = [RestsOn(tuple(changes), changes[-1], (), (), ()) for changes in ([0.5, 0.49, 0.1, 0.09], *drawn)]
    with PageServer(make_run()) as server:
        said = visit(server).evaluate(
            ALONE_IN_THE_PAGE, json.dumps([dataclasses.asdict(one) for one in told])
        )
    names = [f"part {region}" for region in range(7)]
    assert said == [[changing(one.changes), none_alone(one, names, "nats")] for one in told]
    assert said[0][0] == [0]


@pytest.mark.parametrize(("family", "seed", "photographed"), SCENES)
def test_a_scene_of_the_gallery_is_answered_rightly_and_no_sentence_that_loses_a_nat_is_said_to_need_nothing(
    family, seed, photographed
):
    example = sample(family, seed, wild=photographed)
    start, *events = mini().stream(example.image, example.prompt, temperature=0)
    assert is_right(example, events[-1].answer)
    assert isinstance(start, Start)
    spans = [event for event in events if isinstance(event, SpanAttribution)]
    said = {span.text.strip() for span in spans}
    assert said.issuperset(
        sentence for sentence, boxes in zip(example.trace, example.evidence, strict=True) if boxes
    )
    needy = [span for span in spans if (span.whole_image or 0.0) > 1]
    assert needy
    for span in needy:
        words = describe(span, name_regions(start), start.unit)
        assert "nats" in words
        assert not words.startswith(("follows", "hardly"))
        assert resting(span, start.unit) in ("rests on", "rests on several regions together")
