"""Collecting what spans take from earlier ones and what answers rest on, and fitting it."""

import dataclasses

import pytest
import torch
from click.testing import CliRunner
from conftest import picture, tiny_model
from streams import random_estimator

from eyeline.cli import main
from eyeline.earlier import KINDS
from eyeline.errors import DataError, EyelineError
from eyeline.estimator import mix
from eyeline.estimator_files import read_estimator, save_estimator
from eyeline.examples import Example
from eyeline.game import Game, fall
from eyeline.generation import cut
from eyeline.stream import attribute
from eyeline.through import Chances
from eyeline.training import collect as collection
from eyeline.training import traces as traces_of
from eyeline.training.traces import (
    Settings,
    Traced,
    check_run,
    collect,
    fit,
    fit_chances,
    fit_text,
    reaches,
    read_traced,
    spans_of,
)

TRUE = torch.tensor([[2.0, 0.0, 5.0], [6.0, 1.0, 0.5]])


def traced(seed, spans=6, regions=4, tokens=3):
    """A trace whose sources follow TRUE, and whose answer changes by what reaches it."""
    rng = torch.Generator().manual_seed(seed)
    count = spans * tokens
    features = torch.rand(count, count, len(KINDS), generator=rng).square().half()
    features = features * torch.ones(count, count).tril(-1)[..., None].half()
    odds = torch.randn(count, generator=rng) * 3 + 3
    apart = (
        torch.randn(count, regions, generator=rng).abs()
        * (torch.rand(count, regions, generator=rng) < 0.2)
        * 8
    )
    none = torch.zeros(count, 0)
    game = Game(apart, apart[:, None][:, :0], none, none, odds)
    said = tuple(
        {"index": at, "channel": "answer" if at == spans - 1 else "thinking", "start": at * tokens,
         "end": (at + 1) * tokens, "text": "x", "cut": False}
        for at in range(spans)
    )  # fmt: skip
    places = torch.arange(2, spans)
    subsets = torch.zeros(len(places), 24, spans, dtype=torch.bool)
    falls = torch.zeros(len(places), 24)
    for row, place in enumerate(places.tolist()):
        subsets[row, :, :place] = torch.rand(24, place, generator=rng) < 0.5
        here = slice(place * tokens, (place + 1) * tokens)
        summed = features[here, : place * tokens].float().unflatten(1, (place, tokens)).sum(2)
        scores = torch.einsum("tsf,tf->ts", summed, mix(odds[here], 2) @ TRUE)
        falls[row] = fall(scores @ subsets[row, :, :place].float().T, odds[here]).sum(0)
    return Traced(
        f"t{seed}", "math", "3", said, game, features, places, subsets, falls, torch.zeros(regions + 1),
        torch.zeros(regions + 1, 3), torch.zeros(3, 3), (((0, 1, 2, 3),),), True, (), ((0, 0, 10, 20),), (40, 20), {},
    )  # fmt: skip


@pytest.fixture(scope="module")
def traces():
    return [traced(seed) for seed in range(24)]


@pytest.fixture(scope="module")
def weights(traces):
    return fit_text(traces[:16], steps=250)


def test_weights_of_earlier_text_are_found_again_from_what_hiding_it_does(traces, weights):
    assert (weights > 0).all()
    predicted = torch.cat([span.predicted(weights) for one in traces[16:] for span in spans_of(one)])
    measured = torch.cat([span.falls for one in traces[16:] for span in spans_of(one)])
    assert torch.corrcoef(torch.stack([predicted, measured]))[0, 1] > 0.97
    assert float(predicted.mean()) == pytest.approx(float(measured.mean()), rel=0.15)


def test_chances_are_fitted_on_what_reaches_the_answer(traces, weights):
    estimator = dataclasses.replace(random_estimator(tiny_model("qwen3_vl")), text=weights)
    plain = dataclasses.replace(estimator, card={"chances": Chances(0.0, 1.0, 0.0, 0.0).to_card()})
    changed = []
    for one in traces:
        reached = reaches(one, plain)
        changes = (reached > 0.5).float()
        changed.append(
            dataclasses.replace(one, changes=changes, falls=torch.stack([changes * 12] * 3, dim=1))
        )
    found = fit_chances(changed, estimator)
    assert found.cost == pytest.approx(12)
    knowing = dataclasses.replace(estimator, card={"chances": found.to_card()})
    right = []
    for one in changed:
        rests = one.rests_on(knowing)
        right += [
            (chance > 0.5) == bool(truth)
            for chance, truth in zip((*rests.changes, rests.whole), one.changes, strict=True)
        ]
    assert sum(right) / len(right) > 0.9


def test_nothing_to_fit_on_is_said(traces):
    estimator = random_estimator(tiny_model("qwen3_vl"))
    with pytest.raises(DataError, match="No example has an answer after some thinking"):
        fit([], estimator)
    with pytest.raises(DataError, match="No span has earlier text"):
        fit_text([dataclasses.replace(traces[0], source_falls=torch.zeros_like(traces[0].source_falls))])
    with pytest.raises(DataError, match="all change or none"):
        fit_chances(traces[:2], dataclasses.replace(estimator, text=TRUE))


@pytest.fixture(scope="module")
def thinking():
    """A tiny model that answers after three lines of thinking, whatever it is asked."""
    model = tiny_model("qwen3_vl")
    ids = model.tokenizer("a bar.\nIt is red.\nTwo.\n</think>\n3", add_special_tokens=False)["input_ids"]
    return model, ids


def test_a_collection_goes_on_where_it_stopped_and_says_whose_it_is(tmp_path, thinking, monkeypatch):
    model, ids = thinking

    def answer(model, example, *_):
        inputs = model.inputs(example.image, example.prompt)
        return collection.Answered([example.image], inputs, torch.tensor(ids), cut(model, inputs, ids), "3")

    monkeypatch.setattr(traces_of, "answer", answer)
    estimator = random_estimator(model)
    examples = [Example(f"e{at}", picture(seed=at), "How many?", "3", "math", "own") for at in range(2)]
    settings = Settings(subsets=6)
    assert list(collect(model, estimator, examples[:1], tmp_path / "run", settings)) == ["e0"]
    before = (tmp_path / "run" / "examples" / "e0.safetensors").read_bytes()
    assert list(collect(model, estimator, examples, tmp_path / "run", settings)) == ["e0", "e1"]
    assert (tmp_path / "run" / "examples" / "e0.safetensors").read_bytes() == before
    one, _ = read_traced(tmp_path / "run")
    assert [span["channel"] for span in one.spans] == ["thinking"] * 3 + ["answer"]
    assert one.measured.tolist() == [2, 3]
    assert one.source_falls.abs().max() > 1e-3
    assert one.changes.shape == (one.game.regions + 1,)
    knowing = dataclasses.replace(
        estimator, text=TRUE, card={**estimator.card, "chances": Chances(0.3, 1.2, 0.8, 7.0).to_card()}
    )
    with attribute(model, examples[0].image, examples[0].prompt, ids, estimator=knowing) as read:
        done = list(read)[-1]
    rests = one.rests_on(knowing)
    assert rests.changes == pytest.approx(
        done.rests_on.changes, abs=5e-3
    )  # what is measured is what events carry
    assert [place for place, _ in rests.sources] == [place for place, _ in done.rests_on.sources]
    about = collection.read_run(tmp_path / "run")
    check_run(about, knowing)
    other = dataclasses.replace(estimator, weights=estimator.weights + 1)
    with pytest.raises(EyelineError, match="collected with another estimator"):
        check_run(about, other)
    with pytest.raises(DataError, match="another estimator"):
        list(collect(model, other, examples, tmp_path / "run", settings))


def test_an_estimator_keeps_what_it_says_of_earlier_text(tmp_path):
    estimator = random_estimator(tiny_model("qwen3_vl"))
    knowing = dataclasses.replace(
        estimator, text=TRUE, card={**estimator.card, "chances": Chances(0.3, 1.2, 0.8, 7.0).to_card()}
    )
    save_estimator(knowing, tmp_path / "e")
    again = read_estimator(tmp_path / "e")
    assert again.text.equal(TRUE)
    assert again.chances == Chances(0.3, 1.2, 0.8, 7.0)
    save_estimator(dataclasses.replace(knowing, text=TRUE[:, :2]), tmp_path / "f")
    with pytest.raises(EyelineError, match="weights of earlier text in another number"):
        read_estimator(tmp_path / "f")


def test_the_command_refuses_a_folder_that_is_no_collection(tmp_path):
    estimator = random_estimator(tiny_model("qwen3_vl"))
    save_estimator(estimator, tmp_path / "e")
    found = CliRunner().invoke(
        main, ["fit-through", str(tmp_path), "--estimator", str(tmp_path / "e"), "--out", str(tmp_path / "o")]
    )
    assert found.exit_code != 0
    assert "is no collection" in found.output
