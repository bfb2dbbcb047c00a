"""Questions about a saved run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from command import ask, events, refuse, succeed
from PIL import Image
from test_runs import make_run, save, with_rests_on

from eyeline import load
from eyeline.ablation import ablate, hidden_patches
from eyeline.events import Done, SpanAttribution
from eyeline.kept_games import FILE
from eyeline.report import name_regions
from eyeline.runs import read_run, span_of
from eyeline.scenes import sample


def test_a_saved_run_is_asked_about_a_span_words_or_characters_without_the_model(
    here, estimator, monkeypatch
):
    trace = "The bar is tall.\nIt is red.</think>Left."
    words = (
        "attribute",
        "a.png",
        "Which?",
        "--model",
        "model",
        "--estimator",
        estimator,
        "--json",
        "--text",
        "-",
    )
    read = events(succeed(*words, "--save", "run", stdin=trace).stdout)
    span = next(event for event in read if isinstance(event, SpanAttribution))
    monkeypatch.setattr("eyeline.load", lambda *_: pytest.fail("loaded"))
    by = {
        target: json.loads(succeed("joint", "run", *target, "--regions", "0,2", "--json").stdout)
        for target in (
            ("--span", 0),
            ("--words", "The bar is tall."),
            ("--characters", "0,16"),
            ("--words", "bar"),
        )
    }
    whole, words, characters, bar = by.values()
    assert words == characters != bar
    assert whole["whole_image"] == pytest.approx(span.whole_image, rel=1e-4, abs=1e-5)
    assert whole["effects"] == pytest.approx(span.effects, rel=1e-4, abs=1e-5)
    assert whole["parts"] == pytest.approx(span.effects[0] + span.effects[2], rel=1e-4, abs=1e-5)
    assert whole["regions"] == [0, 2]
    shown = succeed("joint", "run", "--span", 0, "--regions", "0,2").stdout
    assert f"regions 0, 2 hidden together: {whole['fall']:.2f} nats" in shown
    assert f"everything hidden: {span.whole_image:.2f} nats" in shown
    strongest = max(span.contributions)
    assert (
        f"  region {span.contributions.index(strongest)}: {strongest:.2f} nats (alone "
        in shown.splitlines()[2]
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "Give one of --span, --words or --characters"),
        (("--span", 0, "--words", "It"), "Give one of --span, --words or --characters"),
        (("--span", 99), "There is no span 99"),
        (("--words", "nowhere to be seen"), "do not stand in the text"),
        (("--characters", "3,1"), "The characters 3 to 1 are none of the text's"),
        (("--characters", "3"), "no range of characters"),
        (("--span", 0, "--regions", "0,99"), "There is no region 99"),
        (("--span", 0, "--regions", "most"), "'most' is not a valid integer"),
    ],
)
def test_a_question_about_a_saved_run_that_cannot_be_answered_is_told_in_one_sentence(
    here, asked, words, expected
):
    assert expected in refuse("joint", asked, *words)


@pytest.fixture(scope="module")
def asked(folders, estimator, tmp_path_factory) -> Path:
    """A saved run that can be asked about."""
    out = tmp_path_factory.mktemp("asked") / "run"
    words = ("attribute", folders / "a.png", "Which?", "--model", folders / "model", "--estimator", estimator)
    succeed(*words, "--text", "-", "--save", out, stdin="It is red.")
    return out


def test_a_run_without_an_estimator_says_that_it_keeps_nothing_to_ask_about(here):
    ask("--save", "run", "--estimator", "attention")
    assert "not kept" in refuse("joint", "run", "--span", 0)
    ask("--save", "general")
    assert "everything hidden: ~" in succeed("joint", "general", "--span", 0).stdout


@pytest.fixture(scope="module")
def answered(tmp_path_factory) -> Path:
    """Saved runs of the embedded model: `run`, `apart` without earlier text, `cut` in the middle of its thinking."""
    home = tmp_path_factory.mktemp("answered")
    scene = sample("document", 7_000_004)
    scene.image.save(home / "scene.png")
    words = ("stream", home / "scene.png", scene.prompt, "--temperature", 0)
    succeed(*words, "--save", home / "run")
    succeed(*words, "--save", home / "apart", "--no-sources")
    succeed(*words, "--save", home / "cut", "--max-new-tokens", 6)
    return home


def test_a_saved_run_is_asked_what_its_answer_rests_on_without_the_model(answered, monkeypatch):
    monkeypatch.setattr("eyeline.load", lambda *_: pytest.fail("loaded"))
    run = read_run(answered / "run")
    done = run.events[-1]
    assert isinstance(done, Done)
    assert done.rests_on is not None
    told = json.loads(succeed("rests-on", answered / "run", "--json").stdout)
    assert told.pop("sets") is None
    assert told["changes"] == pytest.approx(done.rests_on.changes, abs=1e-5)
    likeliest = max(range(len(told["changes"])), key=lambda region: told["changes"][region])
    lines = succeed("rests-on", answered / "run").stdout.splitlines()
    assert (
        lines[0]
        == f"without the whole image: {100 * done.rests_on.whole:.0f} % likely that the answer changes"
    )
    place = name_regions(run.start)[likeliest]
    assert lines[1].startswith(
        f"without region {likeliest} ({place}): {100 * told['changes'][likeliest]:.0f} %, a fall of "
    )
    (first, nats), *_ = done.rests_on.sources
    count = len(told["changes"])
    assert lines[9] == f"  {count - 8} more with less; --json tells of all {count}"
    assert lines[10].startswith(f"comes from span {first}, {nats:.2f} nats: Line ")

    sets = ("--regions", "1,2", "--regions", "0")
    told = json.loads(succeed("rests-on", answered / "run", *sets, "--json").stdout)
    assert told["sets"] == [[1, 2], [0]]
    assert tuple(told["changes"]) == run.rests_on([(1, 2), (0,)]).changes
    shown = succeed("rests-on", answered / "run", *sets).stdout.splitlines()
    assert shown[1].startswith("without regions 1 (")
    assert shown[2].startswith("without region 0 (")


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("run", ("--regions", "0,999"), "There is no region 999; expected some of 0 to"),
        ("run", ("--regions", "-1"), "-1 is not in the range"),
        ("run", ("--regions", ""), "'' is not a valid integer"),
        ("apart", (), "written without sources"),
        ("cut", (), "the thinking was cut off"),
        ("nowhere", (), "is not a saved run"),
    ],
)
def test_what_an_answer_rests_on_and_is_not_known_is_told_in_one_sentence(
    answered, monkeypatch, name, words, expected
):
    monkeypatch.chdir(answered)
    assert expected in refuse("rests-on", name, *words)


def test_a_run_saved_before_numbers_were_kept_cannot_say_what_it_rests_on(answered, tmp_path, monkeypatch):
    shutil.copytree(answered / "run", tmp_path / "run")
    (tmp_path / "run" / FILE).unlink()
    monkeypatch.chdir(tmp_path)
    assert "keeps no numbers to ask about" in refuse("rests-on", "run")


def test_without_sources_a_stream_says_nothing_of_them(answered):
    events = read_run(answered / "apart").events
    assert {event.sources for event in events if isinstance(event, SpanAttribution)} == {None}
    assert isinstance(events[-1], Done)
    assert events[-1].rests_on is None


def test_the_evidence_of_a_saved_run_is_told_as_boxes_without_the_model(answered, monkeypatch, tmp_path):
    monkeypatch.setattr("eyeline.load", lambda *_: pytest.fail("loaded"))
    run = read_run(answered / "run")
    (told,) = json.loads(succeed("evidence", answered / "run", "--answer").stdout)
    (found,) = run.evidence("answer")
    assert [box["region"] for box in told["boxes"]] == [box.region for box in found.boxes] != []
    every = json.loads(succeed("evidence", answered / "run").stdout)
    assert [each["span"] for each in every][-1] is None
    (one,) = json.loads(succeed("evidence", answered / "run", "--span", 2, "--as", "thousand").stdout)
    assert all(0 <= at <= 1000 for box in one["boxes"] for at in box["box"])
    out = tmp_path / "evidence.json"
    said = succeed("evidence", answered / "run", "--as", "coco", "--out", out).stderr
    annotations = json.loads(out.read_text(encoding="utf-8"))["annotations"]
    assert said == f"{len(annotations)} boxes in {out}\n"
    assert len(annotations) == sum(len(each["boxes"]) for each in every)


@pytest.mark.parametrize("words", [(), ("--answer",), ("--answer", "--as", "coco")])
def test_an_answer_without_an_evidence_set_is_told_in_words_with_the_likeliest_regions(tmp_path, words):
    folder = save(with_rests_on(make_run(), {0: 0.43, 9: 0.41}, whole=0.6), tmp_path / "run")
    told = succeed("evidence", folder, *words)
    assert told.stderr == (
        "The answer: No part by itself is likely to change it; most likely 0 top left of image 1 (43 %), "
        "9 bottom right of image 2 (41 %). Without the whole image it would change (60 %).\n"
    )
    json.loads(told.stdout)
    assert succeed("evidence", folder, "--span", 0).stderr == ""


def test_a_saved_run_is_drawn_as_a_picture(answered, tmp_path):
    for words in ((), ("--span", 2), ("--answer",)):
        out = tmp_path / f"{len(words)}.png"
        assert succeed("picture", answered / "run", *words, "--out", out).stderr == f"Picture: {out}\n"
        with Image.open(out) as image:
            image.verify()


@pytest.mark.parametrize("command", ["evidence", "picture"])
@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("run", ("--span", 99), "There is no span 99"),
        ("run", ("--span", 0, "--answer"), "Give one of --span and --answer"),
        ("cut", ("--answer",), "What the answer rests on is not known"),
        ("nowhere", (), "is not a saved run"),
        ("run", ("--out", "missing/x"), "missing"),
    ],
)
def test_evidence_that_is_not_there_is_told_in_one_sentence(
    answered, monkeypatch, command, name, words, expected
):
    monkeypatch.chdir(answered)
    assert expected in refuse(command, name, *words)


@pytest.mark.parametrize("measured", [False, True])
def test_a_span_is_verified_by_hiding_its_regions_for_real(here, estimator, measured):
    words = ("attribute", "a.png", "Which?", "--model", "model", "--estimator", estimator, "--text", "-")
    whole_image = "the whole image" + measured * ", measured both times"
    succeed(
        *words,
        *(["--measure-whole"] * measured),
        "--save",
        "run",
        "--json",
        stdin="The bar is tall.\nIt is red.</think>Left.",
    )
    read, model = read_run("run"), load("model")
    span, (ids, _) = span_of(read.events, 1), read.trace()
    lines = succeed("verify", "run", "--span", 1, "--json").stdout.splitlines()
    baseline, *regions, whole, done = map(json.loads, lines)
    count = len(span.effects)
    labels = torch.tensor([label for grid in read.start.regions for row in grid for label in row])
    hidden = hidden_patches(torch.cat([torch.eye(count), torch.ones(1, count)]).bool(), labels)
    inputs = model.inputs(read.images, "Which?")
    truth = ablate(model, inputs, torch.tensor(ids[: span.end]), hidden, read.start.hiding)
    falls = truth.falls[:, span.start :].sum(1).tolist()
    assert (baseline["method"], baseline["total"]) == (read.start.hiding, count)
    assert baseline["log_prob"] == pytest.approx(span.log_prob, abs=1e-4)
    assert [each["predicted"] for each in regions] == sorted(span.effects, key=lambda each: -abs(each))
    for each in regions:
        assert each["predicted"] == span.effects[each["region"]]
        assert each["actual"] == pytest.approx(falls[each["region"]], abs=1e-4)
    assert (whole["event"], whole["regions"]) == ("together", list(range(count)))
    assert whole["predicted"] == span.whole_image
    assert whole["actual"] == pytest.approx(falls[-1], abs=1e-4)
    assert done == {
        "event": "done", "rank_agreement": regions[-1]["rank_agreement"], "done": count, "total": count,
    }  # fmt: skip
    shown = succeed("verify", "run", "--span", 1, "--regions", "2,0").stdout.splitlines()
    assert all(len(line) <= 80 for line in shown)
    places = name_regions(read.start)
    rows = [
        f"2 {places[2]} {span.effects[2]:.2f} {falls[2]:.2f}",
        f"0 {places[0]} {span.effects[0]:.2f} {falls[0]:.2f}",
        f"{whole_image} {span.whole_image:.2f} {falls[-1]:.2f}",
    ]
    found = [" ".join(line.replace("│", " ").split()) for line in shown]
    assert [row for row in found if row in rows] == rows


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--span", 99), "There is no span 99"),
        (("--span", 0, "--regions", "0,99"), "There is no region 99"),
        (("--span", 0, "--model", "other"), "not by 'other': verify it with the same model"),
    ],
)
def test_what_cannot_be_verified_is_told_in_one_sentence(here, words, expected):
    succeed(
        "attribute", "a.png", "Which?", "--model", "model", "--text", "-", "--save", "run", stdin="It is red."
    )
    assert expected in refuse("verify", "run", *words)
