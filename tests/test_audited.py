"""Spans that a server has measured, as a collection to calibrate on."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from command import refuse, succeed
from conftest import picture

import eyeline
from eyeline import audit
from eyeline.ablation import ablate, hidden_patches
from eyeline.errors import DataError
from eyeline.estimator_files import read_card
from eyeline.events import SpanAttribution
from eyeline.fingerprint import fingerprint
from eyeline.head_set import SET
from eyeline.kept_games import read_games
from eyeline.runs import read_run
from eyeline.training.audited import collect_audited, find_audited, run_of
from eyeline.training.collect import ALONE, WHOLE, read_collected

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]},
]


def audit_run(model, folder, seed, spans=2):
    """A run asked with a system prompt, and some of its spans measured as a server does."""
    image = picture(seed=seed)
    with (
        model.stream(image, MESSAGES, temperature=0, max_new_tokens=40) as events,
        eyeline.runs.save_run(folder, [image], "What?") as run,
    ):
        for event in events:
            run.write(event)
        run.keep(events.games, events.ids, events.generation)
    return measure(model, folder, spans)


def measure(model, folder, spans):
    saved, games = read_run(folder), read_games(folder)
    ids, _ = saved.trace()
    labels = torch.cat([torch.tensor(grid).flatten() for grid in saved.start.regions])
    inputs = model.inputs(saved.images, MESSAGES)
    for event in [each for each in saved.events if isinstance(each, SpanAttribution)][:spans]:
        subsets = audit.draw(folder.name, event.index, int(labels.max()) + 1)
        found = ablate(model, inputs, torch.tensor(ids[: event.end]), hidden_patches(subsets, labels))
        log_probs = found.log_probs[event.start :]
        odds = log_probs - (-torch.expm1(log_probs)).clamp(min=1e-12).log()
        origin = audit.Origin(
            folder.name, event.index, event.start, event.end, model.name, fingerprint(model), "general", "pixels", 1.0,
            MESSAGES,
        )  # fmt: skip
        game = games.of([(event.start, event.end)])
        audit.save(audit.Audited(origin, game, subsets, found.falls[:, event.start :].T, odds), folder)


@pytest.fixture(scope="module")
def model(folders):
    return eyeline.load(folders / "model")


@pytest.fixture(scope="module")
def runs(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server") / "runs"
    for seed in range(3):
        audit_run(model, folder / f"run-{seed}", seed)
    return folder


def test_what_a_server_measured_is_completed_and_not_measured_again(model, runs, tmp_path, monkeypatch):
    found = find_audited(runs.parent, model)
    on_disk = {folder: len(list(folder.glob("audit/*"))) for folder in runs.iterdir()}
    assert {folder: len(spans) for folder, spans in found.items()} == on_disk
    assert sum(on_disk.values()) > len(on_disk) == 3
    assert list(collect_audited(model, found, tmp_path)) == [folder.name for folder in found]
    collected = read_collected(tmp_path)
    assert sorted({run_of(one) for one in collected}) == ["run-0", "run-1", "run-2"]
    one = collected[-1]
    (span,), name = one.spans, run_of(one)
    kept = next(each for each in found[runs / name] if each.origin.span == span["index"])
    assert torch.equal(one.token_falls[:, : audit.SUBSETS], kept.token_falls)
    torch.testing.assert_close(one.log_odds, kept.log_odds, atol=2e-4, rtol=1e-3)
    assert one.features.shape == (span["end"] - span["start"], one.subsets.shape[1], len(SET))
    assert (one.features != 0).any()
    regions = one.subsets.shape[1]
    assert one.rates.tolist() == [audit.RATE] * audit.SUBSETS + [ALONE] * regions + [WHOLE]
    saved = read_run(runs / name)
    labels = torch.cat([torch.tensor(grid).flatten() for grid in saved.start.regions])
    inputs, ids = model.inputs(saved.images, MESSAGES), torch.tensor(saved.trace()[0])
    alone = ablate(model, inputs, ids, hidden_patches(torch.eye(regions).bool(), labels))
    expected = alone.falls[:, span["start"] : span["end"]].T
    torch.testing.assert_close(one.token_falls[:, one.rates == ALONE], expected, atol=2e-4, rtol=1e-3)
    monkeypatch.setattr("eyeline.training.audited.complete", lambda *_: pytest.fail("measured again"))
    assert len(list(collect_audited(model, found, tmp_path))) == 3


def test_an_audit_makes_an_estimator_by_one_command(here, runs, monkeypatch, tmp_path):
    monkeypatch.setenv("EYELINE_HOME", str(tmp_path / "home"))
    told = succeed("calibrate", "--model", "model", "--from-audit", runs).stderr
    spans = len(list(runs.glob("*/audit/*")))
    assert f"3 runs with {spans} audited spans" in told
    (folder,) = tmp_path.glob("home/estimators/*/calibrated")
    card = read_card(folder)
    assert (card["level"], card["images"]) == ("calibrated", {"calibrate": 3})
    start = json.loads(
        succeed("stream", "--model", "model", "a.png", "What?", "--json", "--max-new-tokens", 4).stdout.splitlines()[0]
    )  # fmt: skip
    assert start["estimator"] == "calibrated"


def test_spans_of_other_weights_and_none_at_all_are_said(here, runs, model, tmp_path):
    assert "no span that was measured of these weights" in refuse(
        "calibrate", "--model", "other", "--from-audit", runs
    )
    with pytest.raises(DataError, match="no span that was measured"):
        find_audited(tmp_path / "nothing", model)


def test_only_spans_hidden_in_the_newest_way_are_taken(model, runs, tmp_path):
    folder = tmp_path / "run-9"
    audit_run(model, folder, 9, spans=1)
    (path,) = Path(folder / audit.FOLDER).iterdir()
    one = audit.read(path)
    path.unlink()
    audit.save(
        dataclasses.replace(one, origin=dataclasses.replace(one.origin, hiding="blur", created=0.5)), folder
    )
    shutil.copytree(runs / "run-0", tmp_path / "run-0")
    assert [each.name for each in find_audited(tmp_path, model)] == ["run-0"]
