"""Cost against length: what is timed, how samples are scaled up, and the command to its last row."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from conftest import SPREADS, picture, tiny_model

from benchmarks import cost
from eyeline import decoding, features
from eyeline import stream as streaming
from eyeline.errors import DataError
from eyeline.estimator import Estimator
from eyeline.estimator_files import save_estimator
from eyeline.evaluation.baselines import baseline
from eyeline.evaluation.meter import Meter
from eyeline.events import SpanAttribution
from eyeline.examples import Example, write_examples
from eyeline.features import KINDS
from eyeline.fingerprint import fingerprint

TRACE = ("Bar 1 says tea 4.", "Bar 2 says milk 7.", "So it is 11.")
EXAMPLE = Example("bars-0", picture(), "How many?", "11", "math", "bars", TRACE)
METHODS = ("generate", "stream", "eyeline", "exhaustive", "attn-lrp", "regression-32")


def fake_estimator(model, hiding="pixels"):
    weights = torch.randn(2, 3 * 4 * len(KINDS), generator=torch.Generator().manual_seed(1))
    card = {"model": model.name, "fingerprint": fingerprint(model), "hiding": hiding, "coverage": 0.9}
    return Estimator("mine", weights, *SPREADS, KINDS, card=card)


def case(model, tokens=60, hiding="pixels", positions=10**6):
    return cost.make_case(model, EXAMPLE, tokens, fake_estimator(model), hiding, positions)


@pytest.fixture
def counting(monkeypatch):
    """A clock that goes on by a second for each position of a row through the text model, forward or backward."""
    model = tiny_model("qwen3_vl")
    with Meter(model) as meter:

        def now() -> float:
            return float(sum(meter._forward + meter._backward))

        monkeypatch.setattr(cost, "time", SimpleNamespace(process_time=now))
        yield model


def test_the_command_writes_every_method_at_every_length_and_a_figure(tmp_path, monkeypatch):
    model, threads = tiny_model("qwen3_vl"), torch.get_num_threads()
    monkeypatch.setattr(cost, "load", lambda name, device: model)
    save_estimator(fake_estimator(model, "attention"), tmp_path / "estimator")
    write_examples([EXAMPLE], tmp_path / "data")
    asked = ["--data", tmp_path / "data", "--estimator", tmp_path / "estimator", "--out", tmp_path / "c.csv"]
    asked += ["--tokens", 24, "--tokens", 60, "--rounds", 1, "--positions", 250]
    result = CliRunner().invoke(cost.main, [str(each) for each in asked], catch_exceptions=False)
    assert result.exit_code == 0
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {(row["method"], row["tokens"]) for row in rows} == {(m, t) for m in METHODS for t in ("24", "60")}
    assert len(rows) == 2 * len(METHODS)
    by_name = {(row["method"], row["tokens"]): row for row in rows}
    assert by_name["exhaustive", "60"]["regions"] == "6"
    assert by_name["exhaustive", "60"]["hiding"] == "attention"
    assert by_name["attn-lrp", "60"]["spans"] == str(len(case(model).spans))
    assert float(by_name["eyeline", "24"]["over_eyeline"]) == 1
    for row in rows:
        assert float(row["seconds"]) > 0
        assert float(row["ms_per_token"]) == pytest.approx(
            1e3 * float(row["seconds"]) / int(row["tokens"]), rel=2e-3
        )
        assert 0 < float(row["low"]) <= float(row["over_eyeline"]) <= float(row["high"])
    shares = {method: float(by_name[method, "60"]["measured"]) for method in METHODS}
    assert {method for method, share in shares.items() if share < 1} == {
        "exhaustive",
        "attn-lrp",
        "regression-32",
    }
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("hiding", ["pixels", "attention"])
def test_rows_at_their_best_measure_what_the_baseline_does(tiny, hiding):
    mine = case(tiny, hiding=hiding)
    alone = torch.eye(mine.regions.count, dtype=torch.bool)
    _, falls = cost._time_hiding(tiny, mine, alone)
    theirs = baseline("exhaustive", hiding)(tiny, mine.inputs, mine.ids, mine.spans, mine.regions)
    torch.testing.assert_close(falls, theirs, rtol=1e-3, atol=1e-4)


def test_a_sample_is_scaled_up_to_the_whole(counting):
    whole = case(counting)
    length = whole.inputs["input_ids"].shape[1] + len(whole.ids) - 1
    spans = len(whole.spans)
    assert spans > 3
    few = case(counting, positions=3 * length)
    expected = {
        cost.time_exhaustive: (
            7,
            3 / 7,
        ),  # passes, share; a row for each of 6 regions, and one with none hidden
        cost.time_regression: (33, 3 / 33),
        cost.time_attn_lrp: (1 + spans, 3 / spans),
    }
    for timer, (passes, share) in expected.items():
        (full,), (sampled,) = timer(counting, whole).values(), timer(counting, few).values()
        assert (full.seconds, full.measured) == (pytest.approx(passes * length), 1)
        assert (sampled.seconds, sampled.measured) == (pytest.approx(passes * length), pytest.approx(share))


def test_a_batch_is_bounded_however_many_rows_there_are(counting, monkeypatch):
    mine = case(counting)
    length = mine.inputs["input_ids"].shape[1] + len(mine.ids) - 1
    monkeypatch.setattr(cost, "POSITIONS_AT_ONCE", 2 * length + 1)
    largest = []
    text = counting.adapter.text_model(counting.hf)
    handle = text.register_forward_hook(lambda _, __, output: largest.append(len(output[0])))
    try:
        cost.time_exhaustive(counting, mine)
    finally:
        handle.remove()
    assert largest == [2, 2, 2, 1]


def test_a_stream_writes_the_trace_and_attributes_its_spans(tiny):
    mine = case(tiny)
    stream = tiny.stream(
        EXAMPLE.image, EXAMPLE.prompt, estimator=mine.estimator, temperature=0, **mine.writing()
    )
    found = [(event.start, event.end) for event in stream if isinstance(event, SpanAttribution)]
    assert stream.ids == mine.ids.tolist()
    assert found == [(span.start, span.end) for span in mine.spans]
    work = streaming.work
    timed = cost.time_stream(tiny, mine)
    assert 0 < timed["eyeline"].seconds < timed["stream"].seconds
    assert streaming.work is work


# --- an 8B model's width, made tiny here

TINY_8B = {
    "text_config": {
        "vocab_size": 1100, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 36, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "rope_parameters": {"rope_type": "default", "mrope_section": [4, 2, 2]},
    },
    "vision_config": {
        "depth": 1, "hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "out_hidden_size": 64,
        "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
    },
}  # fmt: skip
WIDE_METHODS = ("eyeline", "exhaustive", "attn-lrp")


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_command_times_layers_of_another_width_without_decoding(tmp_path, monkeypatch, precision):
    measure, dtypes = cost.measure, []
    monkeypatch.setattr(
        cost, "measure", lambda model, *rest: dtypes.append(model.hf.dtype) or measure(model, *rest)
    )
    monkeypatch.setattr(cost, "load", lambda name, device: tiny_model("qwen3_vl"))
    monkeypatch.setattr(cost, "QWEN3_VL_8B", TINY_8B)
    monkeypatch.setattr(cost, "Large", lambda: SimpleNamespace(patches=100))
    write_examples([EXAMPLE], tmp_path / "data")
    asked = [
        "--data",
        tmp_path / "data",
        "--wide",
        2,
        "--tokens",
        40,
        "--rounds",
        1,
        "--precision",
        precision,
        "--out",
        tmp_path / "c.csv",
    ]
    result = CliRunner().invoke(cost.main, [str(each) for each in asked], catch_exceptions=False)
    assert result.exit_code == 0
    with (tmp_path / "c.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    assert tuple(rows) == WIDE_METHODS
    assert dtypes == [getattr(torch, precision)]
    assert all(float(row["seconds"]) > 0 and not row["over_added"] for row in rows.values())


@pytest.fixture
def wide(monkeypatch):
    monkeypatch.setattr(cost, "QWEN3_VL_8B", TINY_8B)
    monkeypatch.setattr(cost, "Large", lambda: SimpleNamespace(patches=100))
    return cost.wide(tiny_model("qwen3_vl"), 2, torch.bfloat16)


def test_a_wide_model_has_the_layers_asked_for_and_images_of_their_size(wide):
    model, estimator = wide
    assert len(model.adapter.layers(model.hf)) == 2
    assert model.hf.dtype == torch.bfloat16
    inputs = model.inputs(picture(), "How many?")
    assert 80 <= sum(map(len, model.image_grids(inputs))) <= 100
    assert estimator.network is not None
    assert estimator.weights.shape == (2, 3 * 2 * 4)


def test_a_given_trace_leaves_the_logits_that_decoding_would(wide, monkeypatch):
    model, estimator = wide
    mine = cost.make_case(model, EXAMPLE, 30, estimator, "attention", 1000)
    taken = []
    likeliest_of = features.likeliest_of
    monkeypatch.setattr(
        features, "likeliest_of", lambda model, steps: taken.append(steps) or likeliest_of(model, steps)
    )
    before = decoding.Along
    cost.time_attribute(model, mine)
    assert decoding.Along is before
    assert sum(map(len, taken)) == len(mine.ids)
    for steps in taken:
        assert steps.likeliest is not None
        kept = likeliest_of(model, steps)
        again = likeliest_of(model, replace(steps, likeliest=None))
        torch.testing.assert_close(
            *(each.logits.sort().values for each in (kept, again)), rtol=0.05, atol=0.05
        )


def test_a_trace_is_the_examples_own_over_and_over():
    model = tiny_model("qwen3_vl")
    text = model.tokenizer.decode(case(model, tokens=100).ids)
    assert text == (" ".join(TRACE) + " " + " ".join(TRACE) + " " + " ".join(TRACE))[:100]


@pytest.mark.parametrize(("trace", "tokens"), [((), 10), (TRACE, 5000)])
def test_no_trace_and_one_beyond_the_context_are_refused(trace, tokens):
    model = tiny_model("qwen3_vl")
    example = Example("bars-0", picture(), "How many?", "11", "math", "bars", trace)
    with pytest.raises(DataError, match=f"gives no trace of {tokens} tokens"):
        cost.make_case(model, example, tokens, fake_estimator(model), "pixels", 1000)
