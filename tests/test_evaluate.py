"""An evaluation from the command to its table, on a tiny model, against literal reruns."""

import csv
import dataclasses
import math
import re

import pytest
import torch
from conftest import SPREADS, build_tiny, picture
from PIL import Image

import eyeline.evaluation.evaluate
from eyeline.ablation import ablate
from eyeline.attribution import Attribution
from eyeline.errors import DataError, EstimatorError
from eyeline.estimator import Estimator
from eyeline.estimator_files import save_estimator
from eyeline.evaluation.baselines import NAMES
from eyeline.evaluation.evaluate import (
    TOPS,
    Settings,
    choose_methods,
    evaluate,
    find_evidence,
    read_evaluated,
)
from eyeline.evaluation.page import by_family, faithfulness_against_cost, write_results
from eyeline.evaluation.prediction import Prediction
from eyeline.evaluation.results import svg
from eyeline.evaluation.table import Row, table
from eyeline.examples import Example
from eyeline.features import KINDS
from eyeline.fingerprint import fingerprint
from eyeline.game import Game, orders
from eyeline.generation import write
from eyeline.metrics import joint, lds, top_regions, varies
from eyeline.reader import ReadSpan
from eyeline.spans import Span
from eyeline.training.collect import ALONE, WHOLE

METHODS = ("random", "raw-attention", "exhaustive")
SETTINGS = Settings(METHODS, hiding="pixels", rates=(0.5, 0.25), subsets=6, max_new_tokens=16)


@pytest.fixture(scope="module")
def lively():
    """A tiny model whose traces have several spans: line breaks are likely."""
    model = build_tiny("qwen3_vl")
    newline = model.tokenizer("\n", add_special_tokens=False)["input_ids"][0]
    model.hf.generation_config.sequence_bias = [[[newline], 8.0]]
    model.hf.generation_config.repetition_penalty = 1.5
    return model


def examples(count=2):
    return [
        Example(f"scene-{n}", picture(seed=n), f"How many {n}?", "3", ("math", "code")[n % 2], "bars")
        for n in range(count)
    ]


def fake_estimator(model, name="mine"):
    weights = torch.randn(2, 3 * 4 * len(KINDS), generator=torch.Generator().manual_seed(1))
    card = {"model": model.name, "fingerprint": fingerprint(model), "hiding": "attention", "coverage": 0.9}
    return Estimator(name, weights, *SPREADS, KINDS, card=card)


@pytest.fixture(scope="module")
def run(lively, tmp_path_factory):
    out = tmp_path_factory.mktemp("evaluation") / "run"
    chosen = choose_methods(lively, METHODS, (), "pixels")
    assert list(evaluate(lively, examples(), chosen.methods, out, SETTINGS)) == ["scene-0", "scene-1"]
    return out


def test_what_is_measured_equals_a_literal_rerun(lively, run):
    example, one = examples()[1], read_evaluated(run)[1]
    inputs = lively.inputs(example.image, example.prompt)
    (written,) = write(lively, inputs, 16)
    ids, spans = written.ids, written.spans
    regions = one.subsets.shape[1]
    assert len(spans) > 1
    assert one.tokens == len(ids)
    assert one.rates.tolist() == [0.5] * 6 + [0.25] * 6 + [ALONE] * regions + [WHOLE]
    labels = torch.arange(6)  # of the tiny image's cells: as few as that are regions of their own
    assert regions == 6

    def falls(subset):
        found = ablate(lively, inputs, torch.tensor(ids), subset[labels][None], "pixels").falls[0]
        return torch.stack([found[span.start : span.end].sum() for span in spans])

    for at in (0, 7, 12, 18):
        torch.testing.assert_close(one.falls[:, at], falls(one.subsets[at]), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(
        one.effects["exhaustive"], one.falls[:, one.rates == ALONE], rtol=1e-3, atol=1e-4
    )
    for name in METHODS:
        torch.testing.assert_close(one.predicted[name], one.effects[name] @ one.subsets.float().T)
        for number, count in enumerate(TOPS):
            top = top_regions(one.effects[name], count)
            for span in range(len(spans)):
                expected = falls(top[span])[span], falls(~top[span])[span]
                found = one.hidden[name][span, number], one.shown[name][span, number]
                torch.testing.assert_close(torch.stack(found), torch.stack(expected), rtol=1e-3, atol=1e-4)


def test_a_run_goes_on_where_it_stopped_to_the_same_numbers(lively, run, tmp_path, monkeypatch):
    chosen = choose_methods(lively, METHODS, (), "pixels")
    going = evaluate(lively, examples(), chosen.methods, tmp_path / "run", SETTINGS)
    next(going)
    going.close()
    assert len(read_evaluated(tmp_path / "run")) == 1
    calls = []
    real = eyeline.evaluation.evaluate.evaluate_one
    monkeypatch.setattr(
        eyeline.evaluation.evaluate, "evaluate_one", lambda *args: calls.append(args[1].id) or real(*args)
    )
    list(evaluate(lively, examples(), chosen.methods, tmp_path / "run", SETTINGS))
    assert calls == ["scene-1"]
    for ours, theirs in zip(read_evaluated(tmp_path / "run"), read_evaluated(run), strict=True):
        assert torch.equal(ours.falls, theirs.falls)
        for name in METHODS:
            assert torch.equal(ours.effects[name], theirs.effects[name])
            assert torch.equal(ours.predicted[name], theirs.predicted[name])
            assert torch.equal(ours.hidden[name], theirs.hidden[name])


def test_a_run_of_other_settings_or_another_model_is_refused(lively, run):
    chosen = choose_methods(lively, METHODS, (), "pixels")
    with pytest.raises(DataError, match=rf"another seed \({SETTINGS.seed} there, 2 here\)"):
        list(evaluate(lively, examples(), chosen.methods, run, dataclasses.replace(SETTINGS, seed=2)))
    with pytest.raises(DataError, match=r"another estimators \("):
        list(evaluate(lively, examples(), chosen.methods, run, SETTINGS, {"estimators": {"mine": "0"}}))
    with pytest.raises(DataError, match="another model"):
        list(evaluate(build_tiny("qwen3_vl", seed=1), examples(), chosen.methods, run, SETTINGS))


def test_contributions_along_a_single_pair_of_orders_are_refused_as_they_have_no_standard_error(
    lively, tmp_path
):
    methods = choose_methods(lively, METHODS, (), "pixels").methods
    with pytest.raises(DataError, match=r"1 pair of orders .* no standard error; expected 0 or at least 2"):
        list(
            evaluate(lively, examples(), methods, tmp_path / "run", dataclasses.replace(SETTINGS, ordered=1))
        )
    assert not (tmp_path / "run").exists()


def test_a_model_without_an_estimator_of_its_own_is_evaluated_with_the_general_one(lively):
    chosen = choose_methods(lively, ["eyeline"], ())
    assert list(chosen.methods) == ["eyeline (general)"]
    assert chosen.hiding == "pixels"


def test_unknown_methods_name_the_choices_and_attention_or_a_foreign_estimator_is_refused(lively, tmp_path):
    with pytest.raises(DataError, match="No method 'gaze'; expected some of random, raw-attention"):
        choose_methods(lively, ["gaze"], ())
    with pytest.raises(DataError, match="`attention` is no estimator"):
        choose_methods(lively, ["eyeline"], ["attention"])
    save_estimator(fake_estimator(build_tiny("qwen3_vl", seed=1)), tmp_path / "foreign")
    with pytest.raises(EstimatorError, match="was fitted for"):
        choose_methods(lively, ["eyeline"], [tmp_path / "foreign"])


def test_estimators_that_would_be_left_out_or_mixed_up_are_refused(lively, tmp_path):
    mine = fake_estimator(lively)
    save_estimator(mine, tmp_path / "one")
    save_estimator(mine, tmp_path / "same")
    other = dataclasses.replace(mine, id="other", card={**mine.card, "hiding": "blur"})
    save_estimator(other, tmp_path / "other")
    with pytest.raises(DataError, match="add it, or leave --estimator out"):
        choose_methods(lively, ["random"], [tmp_path / "one"])
    with pytest.raises(DataError, match="have the same id"):
        choose_methods(lively, ["eyeline"], [tmp_path / "one", tmp_path / "same"])
    both = [tmp_path / "one", tmp_path / "other"]
    with pytest.raises(DataError, match="choose one as --hiding"):
        choose_methods(lively, ["eyeline"], both)
    assert len(choose_methods(lively, ["eyeline"], both, "attention").estimators) == 2


def test_all_methods_with_an_estimator_end_in_a_table_and_a_page(lively, tmp_path):
    save_estimator(fake_estimator(lively), tmp_path / "estimator")
    chosen = choose_methods(lively, ["all"], [tmp_path / "estimator"])
    assert set(chosen.methods) == {"eyeline (mine)", *NAMES}
    assert chosen.hiding == "attention"
    settings = dataclasses.replace(SETTINGS, methods=tuple(chosen.methods), hiding=chosen.hiding, ordered=2)
    out = tmp_path / "run"
    list(evaluate(lively, examples(), chosen.methods, out, settings, chosen.cards))
    write_results(lively, chosen, out)
    with (out / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {row["method"] for row in rows}
    ours = ["eyeline (mine)", "eyeline (mine), alone", "eyeline (mine), joint"]
    assert names == {"all", *ours, *NAMES}
    found = {name: {(row["metric"], row["at"]) for row in rows if row["method"] == name} for name in ours}
    for each in found.values():
        assert {metric for metric, _ in each} >= {
            "lds", "r2_span", "agreement", "empty_heat", "top_drop", "deletion", "insertion",
            "contribution_correlation", "contribution_lds", "r2_nats", "slope", "ms_per_token", "forward_passes",
            "backward_passes", "vision_passes", "extra_memory_mib",
        }  # fmt: skip
    shown, alone, together = found.values()
    assert {at for metric, at in shown if metric in ("r2_nats", "slope", "coverage")} == {"contributions"}
    assert {at for metric, at in alone if metric in ("r2_nats", "slope", "coverage")} == {"alone"}
    assert {at for metric, at in together if metric in ("r2_nats", "slope", "coverage")} == {
        "0.5", "0.25", "alone", "whole",
    }  # fmt: skip
    assert "contribution_standard_error_nats" in {row["metric"] for row in rows if row["method"] == "all"}
    page = (out / "page.html").read_text()
    assert all(name.removesuffix("-mean") in page for name in NAMES)  # of two readings the better one
    columns = ("time per token, ms", "forward passes", "backward passes", "extra memory, MiB")
    assert all(f">{column}</th>" in page for column in columns)
    assert "<svg" in page
    assert not re.search(r"\b(nan|None)\b", page)  # of intervals, which one image a family leaves out
    assert all(row["low"] == "" for row in rows)
    exhaustive = next(
        row
        for row in rows
        if (row["method"], row["metric"], row["family"]) == ("exhaustive", "agreement", "mean")
    )
    assert float(exhaustive["value"]) == pytest.approx(1, abs=1e-3)


def test_a_trace_of_one_token_of_a_white_image_makes_a_table_of_finite_numbers(lively, tmp_path):
    save_estimator(fake_estimator(lively), tmp_path / "estimator")
    chosen = choose_methods(lively, ["eyeline", "random", "exhaustive"], [tmp_path / "estimator"], "pixels")
    white = [
        dataclasses.replace(example, image=Image.new("RGB", (96, 64), "white")) for example in examples(1)
    ]
    settings = dataclasses.replace(SETTINGS, methods=tuple(chosen.methods), max_new_tokens=1)
    list(evaluate(lively, white, chosen.methods, tmp_path / "run", settings))
    (one,) = read_evaluated(tmp_path / "run")
    assert len(one.falls) == 1
    rows = table([one], chosen.estimators)
    assert all(
        math.isfinite(number)
        for row in rows
        for number in (row.value, row.low, row.high)
        if number is not None
    )
    assert not [row for row in rows if (row.metric, row.at) == ("r2_nats", "whole")]
    with pytest.raises(DataError, match=r"table.csv is written, but no page"):
        write_results(lively, chosen, tmp_path / "run")
    assert "nan" not in (tmp_path / "run" / "table.csv").read_text()


def test_an_ablation_that_is_not_finite_is_refused(tmp_path):
    model = build_tiny("qwen3_vl")
    model.adapter.layers(model.hf)[1].mlp.down_proj.weight.data.mul_(1e6)
    model.hf.to(torch.float16)
    methods = choose_methods(model, ["random"], (), "pixels").methods
    with pytest.raises(DataError, match="log-probs are not finite numbers in float16"):
        list(evaluate(model, examples(1), methods, tmp_path / "run", SETTINGS))


def test_the_largest_region_has_a_rate_of_its_own(run):
    def evidence(span, covers):
        return {"span": span, "covers": [covers], "areas": [4.0, 9.0, 4.0, 4.0, 4.0, 4.0], "boxes": [4.0]}

    one = read_evaluated(run)[0]
    hit, miss = evidence(0, [0.0, 4.0, 0.0, 0.0, 0.0, 0.0]), evidence(1, [4.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    for spans, expected in (((hit,), 1.0), ((miss,), 0.0), ((hit, miss), 0.5)):
        rows = table([dataclasses.replace(one, evidence=spans)], {})
        (mean,) = [row for row in rows if row.metric == "pointing_of_largest" and row.family == "mean"]
        assert mean.value == expected
    assert not [row for row in table([one], {}) if row.metric == "pointing_of_largest"]


def test_an_estimator_is_evaluated_by_its_heat_by_single_effects_and_by_joint_falls(lively, tmp_path):
    estimator = fake_estimator(lively)
    save_estimator(dataclasses.replace(estimator, weights=60 * estimator.weights), tmp_path / "estimator")
    chosen = choose_methods(lively, ["eyeline"], [tmp_path / "estimator"], "pixels")
    list(evaluate(lively, examples(1), chosen.methods, tmp_path / "run", SETTINGS))
    (one,) = read_evaluated(tmp_path / "run")
    shown, alone, together = "eyeline (mine)", "eyeline (mine), alone", "eyeline (mine), joint"
    assert set(one.effects) == set(one.predicted) == {shown, alone, together}
    for name in (shown, alone):
        torch.testing.assert_close(one.predicted[name], joint(one.effects[name], one.subsets))
    assert torch.equal(one.effects[together], one.effects[shown])
    torch.testing.assert_close(one.predicted[together][:, one.rates == ALONE], one.effects[alone])
    whole = one.predicted[together][:, one.rates == WHOLE][:, 0]
    torch.testing.assert_close(one.effects[shown].sum(1), whole, rtol=1e-4, atol=1e-4)
    assert set(one.intervals) == {shown, alone}
    assert one.costs[shown] == one.costs[alone] == one.costs[together]
    half = one.rates == 0.5
    kept = varies(one.falls[:, half])
    rows = {(row.method, row.metric, row.at, row.family): row for row in table([one], chosen.estimators)}
    values = {}
    for name in (shown, alone, together):
        of_spans = lds(one.predicted[name][kept][:, half], one.falls[kept][:, half])
        values[name] = rows[name, "lds", "0.5", "mean"].value
        assert values[name] == pytest.approx(float(of_spans.mean()))
    assert abs(values[together] - values[alone]) > 0.01
    for at, rate in (("0.5", 0.5), ("alone", ALONE), ("whole", WHOLE)):
        drawn = torch.isclose(one.rates, torch.tensor(rate))
        predicted, falls = one.predicted[together][:, drawn], one.falls[:, drawn]
        left = (falls - predicted).square().sum() / (falls - falls.mean()).square().sum()
        assert rows[together, "r2_nats", at, "all"].value == pytest.approx(
            1 - float(left), rel=1e-3, abs=1e-4
        )
        slope = float((predicted * falls).sum() / predicted.square().sum())
        assert rows[together, "slope", at, "all"].value == pytest.approx(slope, rel=1e-3, abs=1e-4)


def test_contributions_are_measured_along_orders_of_hiding_and_their_reverse(lively, tmp_path):
    chosen = choose_methods(lively, ["exhaustive"], (), "pixels")
    settings = dataclasses.replace(SETTINGS, ordered=2)
    list(evaluate(lively, examples(1), chosen.methods, tmp_path / "run", settings))
    (one,) = read_evaluated(tmp_path / "run")
    example = examples(1)[0]
    inputs = lively.inputs(example.image, example.prompt)
    (written,) = write(lively, inputs, 16)
    spans, regions = written.spans, one.subsets.shape[1]

    def falls(regions_hidden):
        hidden = torch.isin(torch.arange(regions), torch.tensor(regions_hidden, dtype=torch.long))
        found = ablate(lively, inputs, torch.tensor(written.ids), hidden[None], "pixels").falls[0]
        return torch.stack([found[span.start : span.end].sum() for span in spans])

    pairs = []
    for order in orders(regions, 2, settings.seed).tolist():
        shares = torch.zeros(len(spans), regions)
        for way in (order, order[::-1]):
            for place, region in enumerate(way):
                shares[:, region] += (falls(way[: place + 1]) - falls(way[:place])) / 2
        pairs.append(shares)
    torch.testing.assert_close(one.contributions, (pairs[0] + pairs[1]) / 2, rtol=1e-3, atol=2e-4)
    error = (pairs[0] - pairs[1]).abs() / 2  # of a mean of two
    torch.testing.assert_close(one.contribution_errors, error, rtol=1e-3, atol=2e-4)
    whole = one.falls[:, one.rates == WHOLE][:, 0]
    torch.testing.assert_close(one.contributions.sum(1), whole, rtol=1e-3, atol=1e-3)


def test_regions_are_hidden_in_one_order_and_shown_in_another(lively, tmp_path):
    first, second = (
        torch.randperm(6, generator=torch.Generator().manual_seed(seed)).float() for seed in (0, 1)
    )

    def sums(order):
        return lambda model, inputs, trace, spans, regions: order.expand(len(spans), -1)

    class Both(Prediction):
        def order(self, *, showing):
            return (second if showing else first).expand(len(self.spans), -1)

    def both(model, inputs, trace, spans, regions):
        nothing = torch.zeros(6, 2)
        said = Attribution(first, nothing, second, nothing, [], [], torch.zeros(()))
        none = torch.zeros(1, 0)
        game = Game(first[None], torch.zeros(1, 0, 6), none, none, None)
        return Both([ReadSpan(said, game, said.shown, torch.zeros(6), torch.zeros(1)) for _ in spans])

    methods = {"first": sums(first), "second": sums(second), "both": both}
    list(evaluate(lively, examples(1), methods, tmp_path / "run", SETTINGS))
    (one,) = read_evaluated(tmp_path / "run")
    for row, hidden, shown in (
        ("both, joint", "first", "second"),
        ("both, alone", "first", "first"),
        ("both", "second", "second"),
    ):
        assert torch.equal(one.hidden[row], one.hidden[hidden])
        assert torch.equal(one.shown[row], one.shown[shown])
    assert not torch.equal(one.hidden["first"], one.hidden["second"])
    assert not torch.equal(one.shown["first"], one.shown["second"])


def test_what_a_method_costs_is_measured_kept_and_tabled(run):
    images = read_evaluated(run)
    rows = {(row.method, row.metric, row.family): row for row in table(images, {}) if not row.at}
    for name, passes in (("random", 0), ("raw-attention", 1), ("exhaustive", 7)):  # of 6 regions, and of none
        assert [one.costs[name].forward_passes for one in images] == [passes, passes]
        assert rows[name, "forward_passes", "mean"].value == passes
        assert rows[name, "vision_passes", "code"].value == passes
        assert rows[name, "backward_passes", "mean"].value == 0
    seconds = [1e3 * one.costs["exhaustive"].seconds / one.tokens for one in images]
    assert rows["exhaustive", "ms_per_token", "mean"].value == pytest.approx(sum(seconds) / 2)


def test_the_tables_means_are_over_spans_then_images_then_families(run):
    images = read_evaluated(run)
    images = [images[0], dataclasses.replace(images[0], id="again"), images[1]]  # two of math, one of code
    rows = {(row.method, row.metric, row.at, row.family): row for row in table(images, {})}
    of_image = [float(one.hidden["random"][:, TOPS.index(3)].mean()) for one in images]
    math, code = (of_image[0] + of_image[1]) / 2, of_image[2]
    assert rows["random", "top_drop", "3", "math"].value == pytest.approx(math, abs=1e-5)
    assert rows["random", "top_drop", "3", "mean"].value == pytest.approx((math + code) / 2, abs=1e-5)
    assert rows["random", "top_drop", "3", "mean"].count == 3


def test_evidence_belongs_to_the_first_span_that_says_it():
    image = picture(96, 64)
    trace = ("The ring is top left.", "The star is top right.", "The ring is top left.")
    boxes = (((0, 0, 32, 32),), ((64, 0, 96, 32),), ())
    example = Example("nine", image, "Where is the ring?", "top left", "general", "nine", trace, boxes)
    spans = [Span(at, "thinking", 3 * at, 3 * at + 3, text, cut=False) for at, text in enumerate(trace)]
    found = find_evidence(example, spans, torch.arange(6).view(2, 3), (96, 64))
    assert [each["span"] for each in found] == [0, 1]
    only_the_conclusion = find_evidence(example, spans[2:], torch.arange(6).view(2, 3), (96, 64))
    assert [each["span"] for each in only_the_conclusion] == [0]


def test_a_run_in_which_nothing_varies_is_tabled_and_told(lively, tmp_path, monkeypatch):
    monkeypatch.setattr("eyeline.metrics.MIN_SPREAD", 1e9)
    chosen = choose_methods(lively, METHODS, (), "pixels")
    list(evaluate(lively, examples(), chosen.methods, tmp_path / "run", SETTINGS))
    with pytest.raises(DataError, match="no span depends on the image"):
        write_results(lively, chosen, tmp_path / "run")
    assert (tmp_path / "run" / "table.csv").exists()


def test_what_agreement_leaves_out_is_told_by_family(run):
    images = read_evaluated(run)
    flat = images[0].falls.clone()
    flat[0, images[0].rates == ALONE] = 0.25
    images[0] = dataclasses.replace(images[0], falls=flat)
    rows = {(row.metric, row.at, row.family): row for row in table(images, {}) if row.method == "all"}
    for one in images:
        row = rows["spans_left_out", "alone", one.family]
        left = [not bool(kept) for kept in varies(one.falls[:, one.rates == ALONE])]
        assert (row.value, row.count) == (pytest.approx(sum(left) / len(left)), len(one.spans))
    assert rows["spans_left_out", "alone", images[0].family].value > 0


def test_without_a_large_effect_its_coverage_is_left_out(lively, run):
    one = read_evaluated(run)[0]
    name = "random, alone"
    ends = one.effects["random"][..., None] + torch.tensor([-1.0, 1.0])
    by_method = {
        kind: {name: getattr(one, kind)["random"]}
        for kind in ("effects", "predicted", "hidden", "shown", "costs")
    }
    one = dataclasses.replace(one, intervals={name: ends}, **by_method)
    largest = float(one.falls[:, one.rates == ALONE].abs().max())
    for factor, there in ((0.49 / largest, False), (0.51 / largest, True)):
        rows = table([dataclasses.replace(one, falls=factor * one.falls)], {"random": fake_estimator(lively)})
        found = {row.metric: row for row in rows if row.family == "all"}
        assert ("coverage_over_half_a_nat" in found) == there
        assert all(row.value == row.value for row in found.values())  # no NaN
        assert found["coverage"].count == 1


@pytest.mark.parametrize(
    ("names", "families", "costs"),
    [
        (["a"], ["math"], [5.0]),
        (["a", "b"], ["math"], [5.0, 5.0]),
        (["a", "b"], ["math"], [0.0, 1e-12]),
        (["eyeline (模型 $x_$)", "eyeline (a$b)"], ["العربية", "of\ntwo lines"], [1.0, 700.0]),
        (["eyeline (" + "x" * 200 + ")"], ["y" * 200], [3.0]),
        ([f"method {number}" for number in range(14)], ["math"], [3.0] * 14),
    ],
    ids=["one method", "equal costs", "no costs", "names in other letters", "long names", "many methods"],
)
def test_figures_of_any_names_and_costs_are_drawn_without_a_warning(names, families, costs):
    """Warnings are errors here."""
    rows = [
        Row(method, metric, at, family, value, None, None, 1)
        for method, cost in zip(names, costs, strict=True)
        for family in (*families, "mean")
        for metric, at, value in (("lds", "0.5", 0.5), ("top_drop", "5", 1.0), ("ms_per_token", "", cost))
    ]
    means = {(row.method, row.metric, row.at): row for row in rows if row.family == "mean"}
    for figure in (faithfulness_against_cost(means, names), by_family(rows, names)):
        assert svg(figure).startswith("<svg")
        drawn = [axes.get_window_extent().width for axes in figure.axes]
        assert min(drawn) > 40  # pixels at 100 dots an inch: names leave room for what they name


def test_heat_is_empty_of_thinking_spans_that_rest_on_the_image_and_false_of_those_that_do_not(run):
    one = read_evaluated(run)[0]
    halves = one.rates == 0.5
    falls = torch.zeros(3, len(one.rates))
    falls[:2, halves] = torch.tensor([[2.0] + [0.0] * 5, [4.0] + [0.0] * 5])
    shown = torch.zeros(3, one.subsets.shape[1])
    shown[:, 1] = torch.tensor(
        [0.19, 0.41, -0.3]
    )  # under a tenth of 2 nats, over a tenth of 4, and where nothing falls
    spans = tuple({"channel": "thinking"} for _ in range(3))
    tops = torch.zeros(3, len(TOPS))
    images = [
        dataclasses.replace(
            one, spans=of, falls=falls, effects={"random": shown}, predicted={"random": joint(shown, one.subsets)},
            hidden={"random": tops}, shown={"random": tops}, evidence=(),
        )
        for of in (spans, ({"channel": "answer"}, *spans[1:]))
    ]  # fmt: skip
    for image, empty in zip(images, (0.5, 0.0), strict=True):
        rows = {(row.metric, row.family): row.value for row in table([image], {}) if row.method == "random"}
        assert rows["empty_heat", "mean"] == empty
        assert rows["false_heat_nats", "mean"] == pytest.approx(0.3)
