"""What is said of answers with the whole image hidden from the start, and the examples that are kept by it."""

import json
from dataclasses import replace

import pytest
import torch
from command import refuse, succeed

import eyeline
from eyeline.ablation import ablate
from eyeline.errors import DataError
from eyeline.evaluation import reliance
from eyeline.evaluation.reliance import (
    KEPT,
    SCORES,
    Scored,
    Settings,
    agreement,
    filter_examples,
    read_scores,
    score,
)
from eyeline.examples import read_examples, write_examples
from eyeline.rethinking import rethink
from eyeline.scenes import sample

SCENES = [sample("document", 7_000_004 + at) for at in range(3)]


@pytest.fixture(scope="module")
def model():
    return eyeline.load("mini")


@pytest.fixture
def scored(monkeypatch):
    """Scores without a model, and which examples were scored."""
    asked: list[tuple[str, bool]] = []

    def fake(model, example, settings, *, measured):
        asked.append((example.id, measured))
        number = [scene.id for scene in SCENES].index(example.id)
        falls = 30.0 - 10.0 * number if measured else None
        return Scored(example.id, reliance.digest(example), "x", 10.0 * number, measured and True, falls)

    monkeypatch.setattr(reliance, "score", fake)
    return asked


def ids(folder):
    lines = (folder / KEPT).read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["id"] for line in lines]


def test_a_score_is_what_guessing_and_thinking_again_do_to_the_answer(model):
    example = SCENES[0]
    found = score(model, example, Settings(), measured=True)
    with model.stream(example.image, example.prompt, temperature=0, regions="grid") as stream:
        done = list(stream)[-1]
    assert found.answer == done.answer
    labels = torch.tensor([label for grid in stream.grids for row in grid for label in row])
    sets = torch.ones(1, int(labels.max()) + 1, dtype=torch.bool)
    again = rethink(model, dict(stream.inputs), stream.ids, labels, sets, generation=stream.generation)
    assert found.measured == pytest.approx(float(again.total[0]), abs=1e-3)
    assert found.measured_change == bool(again.changes[0])
    assert found.problem == ""
    ids, closing = stream.ids, model.tokenizer.encode("</think>", add_special_tokens=False)
    answer = ids[len(again.first.thinking_ids) :]
    everything = torch.ones(1, len(labels), dtype=torch.bool)
    guess = ablate(model, dict(stream.inputs), torch.tensor([*closing, *answer]), everything, "pixels")
    guessed = (guess.log_probs - guess.falls[0])[len(closing) :].sum()
    assert found.reliance == pytest.approx(again.log_prob - float(guessed), abs=1e-3)


def test_an_answer_that_never_came_says_why_and_is_not_kept(model, tmp_path):
    settings = Settings(max_new_tokens=4)
    (found,) = filter_examples(model, SCENES[:1], tmp_path / "out", settings, -1e9)
    assert found.reliance is None
    assert "The thinking was cut off" in found.problem
    assert ids(tmp_path / "out") == []


def test_what_rests_on_its_image_is_kept_as_a_data_folder(model, scored, tmp_path):
    write_examples(SCENES, tmp_path / "scenes")
    examples = list(read_examples(tmp_path / "scenes"))
    out = tmp_path / "out"
    found = list(filter_examples(model, examples, out, Settings(), 10.0))
    assert [each.reliance for each in found] == [0.0, 10.0, 20.0]
    kept = list(read_examples(out))
    assert [replace(each, image=each.images[0].resolve()) for each in kept] == [
        replace(each, image=each.images[0].resolve()) for each in examples[1:]
    ]
    assert [json.loads(line)["reliance"] for line in (out / KEPT).read_text().splitlines()] == [10.0, 20.0]


def test_images_that_lie_nowhere_are_written_beside_what_is_kept(model, scored, tmp_path):
    list(filter_examples(model, SCENES, tmp_path, Settings(), 20.0))
    (kept,) = read_examples(tmp_path)
    assert kept.images == (tmp_path / "images" / f"{SCENES[2].id}.png",)
    assert kept.images[0].is_file()


def test_another_threshold_asks_nothing_again_and_measuring_asks_for_what_is_missing(model, scored, tmp_path):
    def run(least, measure=0):
        return list(filter_examples(model, SCENES, tmp_path, Settings(), least, measure))

    run(0.0)
    assert len(scored) == 3
    run(15.0)
    assert len(scored) == 3
    assert ids(tmp_path) == [SCENES[2].id]
    run(15.0, 2)
    assert scored[3:] == [(SCENES[0].id, True), (SCENES[1].id, True)]
    assert [each.measured for each in run(15.0, 2)] == [30.0, 20.0, None]
    assert len(scored) == 5
    assert ids(tmp_path) == [
        scene.id for scene in SCENES
    ]  # what is measured counts: 30 and 20, and 20 predicted
    run(25.0, 2)
    assert ids(tmp_path) == [SCENES[0].id]


@pytest.mark.parametrize("lost", [40, 1])  # bytes: in the middle of the second line, its end alone
def test_a_run_that_was_killed_goes_on_where_it_stopped(model, scored, tmp_path, lost):
    list(filter_examples(model, SCENES[:2], tmp_path, Settings(), 0.0))
    path = tmp_path / SCORES
    path.write_bytes(path.read_bytes()[:-lost])
    list(filter_examples(model, SCENES, tmp_path, Settings(), 0.0))
    assert [name for name, _ in scored[2:]] == [SCENES[1].id, SCENES[2].id]
    assert list(read_scores(tmp_path)) == [scene.id for scene in SCENES]
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(DataError, match="Line 1 of"):
        read_scores(tmp_path)


def test_what_was_made_otherwise_is_refused(model, scored, tmp_path):
    def run(examples=SCENES, settings=Settings()):  # noqa: B008
        return list(filter_examples(model, examples, tmp_path, settings, 0.0))

    run()
    with pytest.raises(DataError, match="another max_new_tokens \\(512 there, 8 here\\)"):
        run(settings=Settings(max_new_tokens=8))
    with pytest.raises(DataError, match="another image or question"):
        run([replace(SCENES[0], prompt="What else?")])
    with pytest.raises(DataError, match="comes twice"):
        run([SCENES[0], SCENES[0]])


def test_ranks_of_predicted_and_measured_falls_agree_or_not():
    def of(*pairs):
        return [Scored("a", "", "", predicted, True, measured) for predicted, measured in pairs]

    assert agreement(of((1.0, 2.0), (2.0, 3.0), (3.0, 9.0))) == pytest.approx(1.0)
    assert agreement(of((1.0, 9.0), (2.0, 3.0), (3.0, 2.0))) == pytest.approx(-1.0)
    assert agreement(of((1.0, 9.0), (2.0, 3.0))) is None


def test_the_command_filters_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_examples(SCENES[:1], tmp_path / "scenes")
    words = ("filter", "scenes", "--out", "out")
    said = succeed(*words, "--min-reliance", 1, "--measure", 1).stderr
    assert "1 of 1 examples kept in out" in said
    assert "1 measured" in said
    assert "0 of 1 examples kept in out" in succeed(*words, "--min-reliance", 1000).stderr
    assert "Missing option '--min-reliance'" in refuse(*words)
    assert "There is no data folder 'nowhere'" in refuse(
        "filter", "nowhere", "--min-reliance", 1, "--out", "x"
    )


def test_a_score_that_cannot_be_made_is_a_sentence(model, tmp_path):
    missing = replace(SCENES[0], image=tmp_path / "missing.png")
    found = score(model, missing, Settings(), measured=False)
    assert "There is no file" in found.problem
