import copy
import dataclasses
import itertools
import json
import os

import pytest
import torch
from conftest import build_tiny, picture, tiny_model
from safetensors.torch import load_file
from test_features import slow_features
from test_leak import slow_map
from test_rereading import slow_change

import eyeline.training.collect
from eyeline.ablation import ablate
from eyeline.errors import DataError, ImageError
from eyeline.examples import Example
from eyeline.game import orders
from eyeline.generation import write
from eyeline.head_set import KINDS, SET, as_set
from eyeline.regions import Regions
from eyeline.training.collect import (
    ALONE,
    WHOLE,
    Settings,
    _seed,
    collect,
    collect_one,
    draw_subsets,
    place,
    read_collected,
    read_run,
    read_saved,
    regions_of,
    save_example,
)
from eyeline.training.weights import columns_of

SETTINGS = Settings(
    rates=(0.5, 0.25), subsets=4, max_new_tokens=16, ordered=2, ordered_share=0.0, kinds=KINDS
)


def examples(count=3):
    return [
        Example(f"scene-{n}", picture(seed=n), f"How many {n}?", "3", "math", "bars") for n in range(count)
    ]


def everything(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- one example


@pytest.fixture(scope="module")
def lively():
    """Makes greedy traces of the tiny models have several spans: line breaks are likely."""
    models = {}

    def make(family):
        if family not in models:
            models[family] = build_tiny(family)
            newline = models[family].tokenizer("\n", add_special_tokens=False)["input_ids"][0]
            models[family].hf.generation_config.sequence_bias = [[[newline], 8.0]]
            models[family].hf.generation_config.repetition_penalty = 1.5 if family == "qwen3_vl" else 2.0
        return models[family]

    return make


@pytest.mark.parametrize("hiding", ["pixels", "attention"])
def test_features_and_falls_equal_a_literal_rerun(tiny, lively, hiding):
    """Where pixels are filled, features are gathered by what the tower alone moves; otherwise from regions' own tokens."""
    model = lively(tiny.adapter.family)
    example = examples(2)[1]
    one = collect_one(model, example, dataclasses.replace(SETTINGS, hiding=hiding))
    inputs = model.inputs(example.image, example.prompt)
    ids = model.hf.generate(**inputs, do_sample=False, max_new_tokens=16)[0, inputs["input_ids"].shape[1] :]
    spans, regions = one.spans, max(map(max, one.labels[0])) + 1
    assert len(spans) > 1
    assert [spans[0]["start"], spans[-1]["end"]] == [0, len(ids)]
    slow, _ = slow_features(tiny.adapter.family, [example.image], example.prompt, ids)
    labels = [label for row in one.labels[0] for label in row]
    own = torch.tensor([[label == region for label in labels] for region in range(regions)]).float()
    if hiding == "pixels":
        own = slow_map(model, inputs, Regions((torch.tensor(one.labels[0]),), regions))
    change, _ = slow_change(model, inputs, ids, Regions((torch.tensor(one.labels[0]),), regions), hiding)
    expected = torch.cat(
        [torch.einsum("flhtp,kp->tkflh", slow[:3], own).flatten(2), change.permute(2, 3, 0, 1).flatten(2)],
        dim=2,
    )
    torch.testing.assert_close(one.features.float(), expected, rtol=4e-3, atol=2e-5)  # all spans are kept
    assert one.falls.shape == (len(spans), 8 + regions + 1)
    for at, subset in enumerate(one.subsets):
        hidden = torch.tensor([[bool(subset[label]) for label in labels]])
        falls = ablate(model, inputs, ids, hidden, hiding).falls[0]
        for number, span in enumerate(spans):
            expected = falls[span["start"] : span["end"]].sum()
            torch.testing.assert_close(one.falls[number, at], expected, rtol=1e-3, atol=1e-4)
    assert one.falls[:, -1].abs().min() > 1e-3
    starts = [0, *one.lengths.cumsum(0).tolist()]
    of_spans = [one.token_falls[a:b].sum(0) for a, b in itertools.pairwise(starts)]
    torch.testing.assert_close(one.falls, torch.stack(of_spans))


def test_features_of_heads_as_a_set_are_those_of_every_head_brought_together(lively):
    model, example = lively("qwen3_vl"), examples(1)[0]
    heads = collect_one(model, example, SETTINGS)
    one = collect_one(model, example, dataclasses.replace(SETTINGS, kinds=SET))
    assert one.features.shape == (*heads.features.shape[:2], len(SET))
    torch.testing.assert_close(one.features.float(), as_set(heads.features.float()), rtol=4e-3, atol=2e-4)
    assert torch.equal(one.token_falls, heads.token_falls)


@pytest.mark.parametrize("family", ["qwen3_vl", "glm4v"])
def test_features_of_some_heads_are_the_columns_of_all(lively, family):
    model, example = lively(family), examples(1)[0]
    config = model.adapter.text_config(model.hf)
    count = config.num_attention_heads * config.num_hidden_layers
    heads = (0, count - 1)  # of the first and the last layer
    some = dataclasses.replace(SETTINGS, heads=heads, heads_in_all=count)
    whole, found = collect_one(model, example, SETTINGS), collect_one(model, example, some)
    assert torch.equal(
        found.features, whole.features[..., columns_of(whole.features.shape[-1], KINDS, heads)]
    )
    assert torch.equal(found.token_falls, whole.token_falls)
    with pytest.raises(DataError, match=f"chosen among {count + 1}, and .* has {count}"):
        collect_one(model, example, dataclasses.replace(some, heads_in_all=count + 1))


def test_contributions_are_measured_along_orders_of_the_example_on_a_share_of_the_images(lively):
    model, example = lively("qwen3_vl"), examples(1)[0]
    where = place(example.id)
    plain = collect_one(model, example, dataclasses.replace(SETTINGS, ordered_share=where))
    assert plain.token_contributions is None
    assert plain.contributions is None
    one = collect_one(model, example, dataclasses.replace(SETTINGS, ordered_share=where + 1e-9))
    assert torch.equal(one.subsets, plain.subsets), "the same beside them"
    torch.testing.assert_close(one.token_falls, plain.token_falls, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one.features, plain.features)
    inputs, regions = model.inputs(example.image, example.prompt), one.subsets.shape[1]
    ids = model.hf.generate(**inputs, do_sample=False, max_new_tokens=16)[0, inputs["input_ids"].shape[1] :]
    labels = torch.tensor(one.labels[0]).flatten()

    def fall(hidden):
        if not hidden:
            return torch.zeros(len(ids))
        return ablate(model, inputs, ids, torch.isin(labels, torch.tensor(hidden))[None]).falls[0]

    along = orders(regions, 2, seed=_seed(f"order {SETTINGS.seed} {example.id}")).tolist()
    expected = torch.zeros(len(ids), regions)
    for order in [*along, *(each[::-1] for each in along)]:
        for step, region in enumerate(order):
            expected[:, region] += (fall(order[: step + 1]) - fall(order[:step])) / 4
    torch.testing.assert_close(one.token_contributions, expected, rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(one.contributions.sum(1), one.falls[:, -1], rtol=1e-3, atol=1e-3)


def test_a_trace_with_more_spans_than_allowed_keeps_some_spread_evenly(lively):
    model = lively("qwen3_vl")
    every = collect_one(model, examples(1)[0], SETTINGS)
    few = collect_one(model, examples(1)[0], dataclasses.replace(SETTINGS, max_spans=2))
    assert len(every.spans) > 2
    assert few.spans == (every.spans[0], every.spans[-1])
    torch.testing.assert_close(few.falls, every.falls[[0, -1]])
    rows = torch.arange(len(every.features)).split(every.lengths.tolist())
    kept = torch.cat([rows[0], rows[-1]])
    torch.testing.assert_close(few.features, every.features[kept])
    torch.testing.assert_close(few.log_odds, every.log_odds[kept])


def test_collecting_leaves_rope_deltas_and_attention_as_they_were(tiny):
    inner, mark = tiny.hf.model, torch.tensor([[17]])
    before, inner.rope_deltas = inner.rope_deltas, mark
    try:
        collect_one(tiny, examples(1)[0], SETTINGS)
        assert inner.rope_deltas is mark
        assert tiny.hf.config.text_config._attn_implementation == "sdpa"
    finally:
        inner.rope_deltas = before


def test_finding_regions_leaves_rope_deltas_as_they_were(tiny):
    inner, mark = tiny.hf.model, torch.tensor([[17]])
    before, inner.rope_deltas = inner.rope_deltas, mark
    try:
        regions_of(tiny, [picture()], tiny.inputs(picture(), "How many?"))
        assert inner.rope_deltas is mark
    finally:
        inner.rope_deltas = before


def test_a_trace_with_the_models_own_image_token_is_collected():
    model = build_tiny("qwen3_vl")
    token = model.adapter.image_token_id(model.hf)
    model.hf.generation_config.sequence_bias = [[[token], 100.0]]
    (written,) = write(model, model.inputs(picture(), "How many?"), 3)
    assert written.ids == [token] * 3
    assert collect_one(model, examples(1)[0], SETTINGS).falls.isfinite().all()


def test_a_bfloat16_model_is_collected_with_effects_in_float32(tiny):
    model = build_tiny(tiny.adapter.family)
    model.hf.to(torch.bfloat16)
    one = collect_one(model, examples(1)[0], SETTINGS)
    assert one.log_odds.dtype == one.falls.dtype == torch.float32
    assert one.features.dtype == torch.float16
    assert one.features.isfinite().all()
    assert one.falls.isfinite().all()


def overflowing():
    model = build_tiny("qwen3_vl")
    layer = model.adapter.layers(model.hf)[1]
    layer.mlp.down_proj.weight.data.mul_(1e6)
    model.hf.to(torch.float16)
    return model


def test_a_model_whose_numbers_are_not_finite_is_refused_in_a_sentence(tmp_path):
    model, run = overflowing(), tmp_path / "run"
    with pytest.raises(
        DataError, match=r"'scene-0' cannot be collected: .*not finite numbers in float16.*float32"
    ) as caught:
        list(collect(model, examples(1), run, SETTINGS))
    assert "\n" not in str(caught.value)
    assert sorted(everything(run)) == ["run.json"]


def test_subsets_depend_only_on_the_seed_and_the_example():
    subsets, rates = draw_subsets(9, SETTINGS, "scene-1")
    torch.manual_seed(5)
    again, _ = draw_subsets(9, dataclasses.replace(SETTINGS, hiding="attention", max_spans=3), "scene-1")
    assert torch.equal(subsets, again)
    others = [draw_subsets(9, SETTINGS, "scene-2")[0]]
    others.append(draw_subsets(9, dataclasses.replace(SETTINGS, seed=1), "scene-1")[0])
    assert all(not torch.equal(subsets[:8], other[:8]) for other in others)
    assert rates.tolist() == [0.5] * 4 + [0.25] * 4 + [ALONE] * 9 + [WHOLE]
    assert torch.equal(subsets[8:17], torch.eye(9, dtype=torch.bool))
    assert subsets[17].all()


def test_subsets_hide_each_region_at_their_rate():
    subsets, rates = draw_subsets(50, Settings(rates=(0.5, 0.1), subsets=200), "scene-1")
    for rate in (0.5, 0.1):
        assert subsets[rates == torch.tensor(rate)].float().mean().item() == pytest.approx(rate, abs=0.02)


# --- runs


def test_what_is_collected_can_be_read_again(tmp_path):
    model, first = tiny_model("qwen3_vl"), min(place("scene-0"), place("scene-1"))
    settings = dataclasses.replace(SETTINGS, ordered_share=first + 1e-9)
    assert list(collect(model, examples(2), tmp_path / "run", settings)) == ["scene-0", "scene-1"]
    assert read_run(tmp_path / "run")["settings"]["rates"] == [0.5, 0.25]
    for one, example in zip(read_collected(tmp_path / "run"), examples(2), strict=True):
        fresh = collect_one(model, example, settings)
        assert (one.token_contributions is None) == (place(one.id) > first)
        assert (one.id, one.family, one.answer) == (example.id, "math", fresh.answer)
        assert one.spans == fresh.spans
        assert list(map(list, one.labels)) == list(map(list, fresh.labels))
        for name in ("features", "log_odds", "subsets", "rates", "token_falls", "token_contributions"):
            ours, theirs = getattr(one, name), getattr(fresh, name)
            assert ours is theirs is None or torch.equal(ours, theirs)


def test_falls_go_by_the_same_name_in_files_whatever_their_field_is_called(tmp_path):
    """Kept collections and evaluations have these names."""
    falls = {"token_falls": torch.rand(2, 3), "falls": torch.rand(1, 3), "rates": torch.rand(3)}
    save_example(falls, {}, tmp_path / "examples" / "one.safetensors")
    kept = load_file(tmp_path / "examples" / "one.safetensors")
    assert set(kept) == {"token_drops", "drops", "rates"}
    (found,) = read_saved(tmp_path, lambda rest, tensors: tensors, "saved")
    assert set(found) == set(falls)
    assert all(torch.equal(found[name], tensor) for name, tensor in falls.items())


def test_a_run_that_was_killed_anywhere_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    model = tiny_model("qwen3_vl")
    list(collect(model, examples(), tmp_path / "whole", SETTINGS))
    expected = everything(tmp_path / "whole")
    assert len(expected) == 4

    class Killed(BaseException):
        pass

    # while measuring the second example
    def kill(*_, **__):
        raise Killed

    killed = tmp_path / "killed"
    running = collect(model, examples(), killed, SETTINGS)
    next(running)
    monkeypatch.setattr(eyeline.training.collect, "ablate", kill)
    with pytest.raises(Killed):
        next(running)
    monkeypatch.undo()
    assert len(read_collected(killed)) == 1
    # while writing the second file
    (killed / "examples" / ".scene-1.safetensors.0a1b.part").write_bytes(
        expected["scene-1.safetensors"][:100]
    )
    assert len(read_collected(killed)) == 1
    changed = (killed / "examples" / "scene-0.safetensors").stat().st_mtime_ns
    assert list(collect(model, examples(), killed, SETTINGS)) == ["scene-0", "scene-1", "scene-2"]
    assert everything(killed) == expected
    assert (killed / "examples" / "scene-0.safetensors").stat().st_mtime_ns == changed
    # while writing run.json
    early = tmp_path / "early"
    early.mkdir()
    (early / ".run.json.0a1b.part").write_text('{"version"')
    assert list(collect(model, [], early, SETTINGS)) == []
    assert everything(early) == {"run.json": expected["run.json"]}


def test_another_model_settings_or_folder_is_refused(tmp_path):
    model, run = tiny_model("qwen3_vl"), tmp_path / "run"
    list(collect(model, [], run, SETTINGS))
    renamed = dataclasses.replace(model, name="the same weights elsewhere")
    assert list(collect(renamed, [], run, SETTINGS)) == []
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    (tmp_path / "file").write_text("")
    broken = tmp_path / "broken"
    list(collect(model, [], broken, SETTINGS))
    (broken / "run.json").write_text('{"version"')
    cases = [
        (build_tiny("qwen3_vl", seed=1), run, SETTINGS, "another model;"),
        (model, run, dataclasses.replace(SETTINGS, seed=1), "another seed (0 there, 1 here);"),
        (
            build_tiny("glm4v"),
            run,
            dataclasses.replace(SETTINGS, subsets=5),
            f'another model ("qwen3_vl" there, "glm4v" here) and another subsets ({SETTINGS.subsets} there, 5 here);',
        ),
        (model, tmp_path / "other", SETTINGS, "no empty folder"),
        (model, tmp_path / "file", SETTINGS, "no empty folder"),
        (model, broken, SETTINGS, "no readable run.json"),
        (model, tmp_path / "new", dataclasses.replace(SETTINGS, rates=(0.5, 2.0)), "rates between 0 and 1"),
        (model, tmp_path / "new", dataclasses.replace(SETTINGS, rates=()), "rates"),
        (model, tmp_path / "new", dataclasses.replace(SETTINGS, subsets=1), "at least 2"),
    ]
    for other, out, settings, words in cases:
        with pytest.raises(DataError) as caught:
            list(collect(other, examples(1), out, settings))
        assert words in str(caught.value)
    assert not (tmp_path / "new").exists()
    assert sorted(everything(run)) == ["run.json"]


def test_an_example_of_the_same_id_with_another_image_or_question_is_refused_and_nothing_changes(tmp_path):
    model, run = tiny_model("qwen3_vl"), tmp_path / "run"
    (example,) = examples(1)
    list(collect(model, [example], run, SETTINGS))
    before = everything(run)
    for change in ({"image": picture(seed=7)}, {"prompt": "How many?"}, {"trace": ("One.",)}):
        with pytest.raises(DataError, match=r"scene-0.* of another image or question .*choose another --out"):
            list(collect(model, [dataclasses.replace(example, **change)], run, SETTINGS))
    example.image.save(tmp_path / "same.png")
    other = dataclasses.replace(example, image=tmp_path / "same.png")
    list(collect(model, [other], tmp_path / "files", SETTINGS))
    picture(seed=7).save(tmp_path / "same.png")
    with pytest.raises(DataError, match="another image or question"):
        list(collect(model, [other], tmp_path / "files", SETTINGS))
    assert everything(run) == before


def test_a_run_of_another_precision_is_refused(tmp_path):
    model, run = build_tiny("qwen3_vl"), tmp_path / "run"
    list(collect(model, [], run, SETTINGS))
    half = dataclasses.replace(model, hf=copy.deepcopy(model.hf).bfloat16())
    with pytest.raises(DataError, match=r'another precision \("float32" there, "bfloat16" here\)'):
        list(collect(half, [], run, SETTINGS))


def test_an_example_that_cannot_be_collected_is_named_and_the_rest_stays(tmp_path):
    model = tiny_model("qwen3_vl")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    good, bad = examples(2)
    data = [good, dataclasses.replace(bad, image=broken)]
    with pytest.raises(DataError, match=r"'scene-1' cannot be collected: .*broken.png") as caught:
        list(collect(model, data, tmp_path / "run", SETTINGS))
    assert isinstance(caught.value.__cause__, ImageError)
    assert [one.id for one in read_collected(tmp_path / "run")] == ["scene-0"]
    assert list(collect(model, examples(2), tmp_path / "run", SETTINGS)) == ["scene-0", "scene-1"]


@pytest.mark.parametrize(("ids", "words"), [(("a", "a"), "stands twice"), (("../a", "b"), "name of a file")])
def test_ids_that_cannot_name_files_of_their_own_are_refused(tmp_path, ids, words):
    data = [dataclasses.replace(example, id=name) for example, name in zip(examples(2), ids, strict=True)]
    with pytest.raises(DataError, match=words):
        list(collect(tiny_model("qwen3_vl"), data, tmp_path / "run", SETTINGS))


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"The disk is full: .*run\.json'"):
        list(collect(tiny_model("qwen3_vl"), examples(1), tmp_path / "run", SETTINGS))
    assert read_collected(tmp_path / "run") == []


def test_folders_and_files_that_are_no_collection_are_refused(tmp_path):
    for text in (None, "[]", "{}", json.dumps({"version": 1})):
        if text is not None:
            (tmp_path / "run.json").write_text(text)
        with pytest.raises(DataError, match="is no collection"):
            read_run(tmp_path)
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples" / "a.safetensors").write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"a\.safetensors is no collected example"):
        read_collected(tmp_path)
