"""Measured spans: files, scores against their definitions, and when an estimator counts as drifted."""

import dataclasses
import signal
import subprocess
import sys

import pytest
import torch
from command import ROOT

from eyeline.audit import (
    ENOUGH,
    LEAST,
    SUBSETS,
    WINDOW,
    Audited,
    Origin,
    Record,
    Score,
    draw,
    path_of,
    read,
    read_score,
    save,
)
from eyeline.errors import DataError
from eyeline.game import Game
from eyeline.metrics import bootstrap, spearman

REGIONS, TOKENS = 20, 3


def audited(span=0, effect=1.0, seed=0, like=1.0):
    """A span whose measured falls are those predicted, times `effect`, and as far as `like` says."""
    rng = torch.Generator().manual_seed(seed)
    apart, none = torch.randn(TOKENS, REGIONS, generator=rng), torch.zeros(TOKENS, 0)
    game = Game(apart, torch.zeros(TOKENS, 0, REGIONS), none, none, torch.zeros(TOKENS))
    subsets = draw("run-1", span, REGIONS)
    other = torch.randn(TOKENS, SUBSETS, generator=rng)
    falls = effect * (like * game.falls(subsets.T.float()) + (1 - like) * other)
    origin = Origin("run-1", span, 4, 4 + TOKENS, "tiny", "f" * 64, "mine", "pixels", 1.0, "What is it?")
    return Audited(origin, game, subsets, falls, torch.zeros(TOKENS))


def test_a_span_that_is_saved_and_read_is_the_same_and_says_its_score_without_its_tensors(tmp_path):
    one = audited(span=7, like=0.5)
    save(one, tmp_path)
    path = path_of(tmp_path, 7)
    again = read(path)
    assert again.origin == one.origin
    for name in ("subsets", "token_falls", "log_odds"):
        assert torch.equal(getattr(again, name), getattr(one, name))
    subsets = one.subsets.T.float()
    assert torch.equal(again.game(subsets), one.game(subsets))
    assert read_score(path) == (one.origin, one.score)
    expected = spearman(one.game(subsets)[None], one.token_falls.sum(0)[None])
    assert one.score.lds == pytest.approx(float(expected))
    assert 0.2 < one.score.lds < 0.99


def test_what_is_no_measured_span_is_one_sentence_and_a_run_that_is_gone_gets_no_folder(tmp_path):
    save(audited(), tmp_path)
    path = path_of(tmp_path, 0)
    path.write_bytes(path.read_bytes()[:-50])
    for reading in (read, read_score):
        with pytest.raises(DataError, match="is no measured span"):
            reading(path)
        with pytest.raises(DataError, match="is no measured span"):
            reading(path_of(tmp_path, 1))
    with pytest.raises(DataError, match="is its run gone"):
        save(audited(), tmp_path / "deleted")
    assert not (tmp_path / "deleted").exists()


def test_a_process_that_is_killed_while_it_writes_a_span_loses_that_one_alone(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from eyeline.audit import save; from test_audit import audited\n"
        "save(audited(span=1), Path(sys.argv[1]))\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "save(audited(span=2), Path(sys.argv[1]))\n"
    )
    environment = {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "PATH": "",
        "OMP_NUM_THREADS": "1",
        "EYELINE_HOME": "/none",
    }
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True)
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    assert [path.name for path in (tmp_path / "audit").glob("span-*")] == ["span-00001.safetensors"]
    save(audited(span=2), tmp_path)
    assert sorted(path.name for path in (tmp_path / "audit").iterdir()) == [
        "span-00001.safetensors",
        "span-00002.safetensors",
    ]


def test_a_span_that_hiding_does_nothing_to_has_no_score_and_is_a_miss_where_much_was_predicted():
    assert audited(effect=0.0).score == Score(None, None, missed=True)
    weak = audited(effect=0.0)
    weak = dataclasses.replace(weak, game=dataclasses.replace(weak.game, apart=0.01 * weak.game.apart))
    assert weak.score == Score(None, None, missed=False)


def test_running_numbers_are_means_over_questions_of_the_last_spans_with_their_interval():
    record = Record(None)
    assert record.told()["lds"] is None
    record.add("a", Score(0.5, 0.25, missed=False))
    assert record.told()["lds"] == [0.5, None, None]
    record.add("a", Score(0.7, 0.49, missed=False))
    record.add("b", Score(0.9, 0.81, missed=False))
    record.add("b", Score(None, None, missed=False))
    told = record.told()
    assert told["lds"] == [round(value, 4) for value in bootstrap({"": [0.6, 0.9]})]
    assert (told["spans"], told["questions"], told["without_effect"]) == (4, 2, 1)
    for _ in range(WINDOW):
        record.add("c", Score(0.1, 0.01, missed=False))
    told = record.told()
    assert (told["spans"], told["questions"], told["measured"]) == (WINDOW, 1, WINDOW + 4)


@pytest.mark.parametrize("expected", [None, 0.7])
def test_a_model_that_was_swapped_is_drift_within_fifty_spans_and_one_that_was_not_never_is(expected):
    rng = torch.Generator().manual_seed(0)

    def good():
        return Score(float((0.7 + 0.2 * torch.randn((), generator=rng)).clamp(-1, 1)), 0.5, missed=False)

    def swapped():  # ranks that have nothing to do with each other; two in five spans do not vary
        if float(torch.rand((), generator=rng)) < 0.4:
            return Score(None, None, missed=False)
        pair = torch.randn(2, 1, SUBSETS, generator=rng)
        return Score(float(spearman(pair[0], pair[1])), 0.0, missed=False)

    record = Record(expected)
    for span in range(500):
        record.add(f"run-{span // 8}", good())
        assert not record.drifted
    for span in range(50):
        record.add(f"swapped-{span // 8}", swapped())
    assert record.drifted
    for span in range(50):
        record.add(f"back-{span // 8}", good())
    assert not record.drifted


def test_spans_fall_short_of_a_share_of_the_cards_lds_or_of_a_bound_where_it_says_none():
    assert Record(None).bound == LEAST
    assert Record(0.8).bound == pytest.approx(0.6)
    record = Record(0.8)
    record.add("a", Score(0.1, 0.0, missed=False))
    assert record.short == pytest.approx(0.5)
    record.add("a", Score(None, None, missed=True))  # counts as 0
    assert record.short == pytest.approx(1.1)
    record.add("a", Score(None, None, missed=False))
    assert record.short == pytest.approx(1.1)
    record.add("a", Score(1.0, 1.0, missed=False))
    assert record.short == pytest.approx(0.7)
    for _ in range(100):
        record.add("a", Score(-1.0, 1.0, missed=False))
    assert record.short == 2 * ENOUGH
