"""What embedded models are trained on, from all processes together."""

from collections import Counter

import numpy as np
from miniatures import tokenizer

from eyeline.scenes import FAMILIES, draw
from eyeline.training.mini_data import DRAWN, HARD, Batches


def test_long_scenes_come_at_length_and_part_by_part_and_half_of_them_first_misread():
    batches = Batches(tokenizer(), 0, 2, 3, 0.0, 0, 1, long=1.0)
    scenes = [batches.scene(number) for number in range(120)]
    assert {scene.family for scene in scenes} == set(FAMILIES)
    whole = [scene for scene in scenes if len(scene.questions) == 1]
    slips = [scene for scene in whole if scene.questions[0].slip]
    assert 0.4 < len(slips) / len(whole) < 0.6
    assert all(not question.slip for scene in scenes for question in scene.questions[1:])
    assert any(len(scene.questions) > 2 for scene in scenes)
    few = Batches(tokenizer(), 0, 2, 3, 0.0, 0, 1, long=0.3)
    share = sum(few.scene(number).kind.startswith("long") for number in range(120)) / 120
    assert 0.2 < share < 0.4


def test_two_processes_take_batches_of_like_length_at_a_time():
    lengths = []
    for index in (0, 1):
        batches = iter(Batches(tokenizer(), 0, 3, 3, 0.0, index, 2, long=0.4, manners=True))
        lengths.append([next(batches).ids.shape[1] for _ in range(16)])
    apart = np.abs(np.diff(lengths, axis=0)).mean()
    crossed = np.abs(np.array(lengths[0])[:, None] - np.array(lengths[1])).mean()
    assert apart < 0.6 * crossed


def test_two_processes_draw_different_scenes_and_together_all():
    drawn = []
    for index in (0, 1):
        batches = iter(Batches(tokenizer(), 0, 2, 1, 1.0, index, 2))
        drawn.append([tuple(next(batches).ids.flatten().tolist()) for _ in range(4)])
    assert not set(drawn[0]) & set(drawn[1])


def test_every_number_draws_a_scene_of_its_own_and_all_families_come_up():
    batches = Batches(tokenizer(), 0, 2, 3, 1.0, 0, 1)
    drawn = [batches.scene(number) for number in range(60)]
    assert len({scene.image.tobytes() for scene in drawn}) == 60
    assert {scene.family for scene in drawn} == set(FAMILIES)
    without_questions = Batches(tokenizer(), 0, 2, 0, 0.0, 0, 1)
    assert {without_questions.scene(number).family for number in range(60)} == {*FAMILIES, "soup"}


def test_hard_kinds_come_up_more_often_than_others():
    batches = Batches(tokenizer(), 0, 2, 3, 1.0, 0, 1)
    counts = Counter(batches.scene(number).kind for number in range(600))
    assert set(counts) == {kind for kinds in FAMILIES.values() for kind in kinds}
    hard = [kind in HARD for kind in counts.elements()]
    evenly = [
        kind in HARD
        for family in DRAWN
        for kind in FAMILIES[family]
        for _ in range(60 // len(FAMILIES[family]))
    ]
    assert sum(hard) / len(hard) > sum(evenly) / len(evenly) + 0.05


def test_practice_comes_from_all_families_over_the_batches(monkeypatch):
    families = []
    monkeypatch.setattr(
        "eyeline.training.mini_data.draw", lambda family, seed: families.append(family) or draw(family, seed)
    )
    batches = Batches(tokenizer(), 0, 6, 3, 1.0, 0, 1)
    for number in range(6):
        batches.exercises(number)
    assert set(families) == set(FAMILIES)
