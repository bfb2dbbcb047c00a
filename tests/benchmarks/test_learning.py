"""What an estimator needs, on collections whose effects are made of known features, heads and families."""

import csv
import dataclasses
import json
from collections import Counter

import pytest
import torch
from click.testing import CliRunner
from scipy.stats import spearmanr
from torch.nn.functional import logsigmoid

from benchmarks import learning
from benchmarks.learning import draw, evaluate, read_both, share
from eyeline import metrics
from eyeline.errors import DataError
from eyeline.estimator import SURE, WIDTH, Estimator
from eyeline.features import KINDS
from eyeline.training.collect import Collected, Settings, draw_subsets, save_collected
from eyeline.training.heads import learn
from eyeline.training.weights import UNKNOWN, FitSettings, training_data

LAYERS, HEADS = 3, 6  # two heads a layer
FEATURES = HEADS * len(KINDS)
FAST = FitSettings(KINDS, "identity", steps=40, batch=32, rate=0.4)
RUN = {
    "version": "0", "model": "synthetic", "fingerprint": "f",
    "settings": {"hiding": "attention", "regions": "native", "kinds": list(KINDS)},
}  # fmt: skip


def weights_of(**by_kind):
    """Weights of a collection's features: for each kind, that of some heads, the others 0."""
    weights = torch.zeros(len(KINDS), HEADS)
    for kind, values in by_kind.items():
        for head, value in values.items():
            weights[KINDS.index(kind), head] = value
    return weights.flatten()


def synthetic(truth, count=24, *, noise=0.0, prefix="fit", seed=0, spans=3):
    """So many images of each family, spans of one token, effects linear in features; `truth` holds a family's weights."""
    rng = torch.Generator().manual_seed(seed)
    images = []
    for family, weights in truth.items():
        for number in range(count):
            name = f"{prefix}-{family}-{number}"
            subsets, rates = draw_subsets(8, Settings(subsets=16), name)
            features = torch.randn(spans, 8, FEATURES, generator=rng).half()
            falls = torch.einsum("skf,f,mk->sm", features.float(), weights, subsets.float())
            falls = falls + noise * torch.randn(falls.shape, generator=rng)
            of_one = tuple({"start": at, "end": at + 1} for at in range(spans))
            odds = torch.zeros(spans)
            images.append(
                Collected(name, family, "3", of_one, features, odds, subsets, rates, falls, None, (([0],),))
            )
    return images


def linear(weights, link="identity"):
    return Estimator("", weights, UNKNOWN, UNKNOWN, KINDS, link)


PLAIN = weights_of(attention={0: 1.0, 3: 0.5}, value={2: -1.0}, odds={5: 0.7})


def test_lds_is_spearmans_of_random_subsets_without_flat_spans_and_images():
    images = synthetic({"math": PLAIN, "code": PLAIN}, 3, noise=1.0)
    images[0].token_falls[1] *= 1e-3  # a span that hardly varies
    images[4].token_falls[:] *= 1e-3  # an image of such
    weights = torch.randn(1, FEATURES, generator=torch.Generator().manual_seed(1))
    expected = {"math": [], "code": []}
    for number, one in enumerate(images):
        kept = {0: [0, 2], 4: []}.get(number, [0, 1, 2])
        random = one.subsets[:16].float()
        values = [
            spearmanr(random @ one.features[span].float() @ weights[0], one.falls[span, :16]).statistic
            for span in kept
        ]
        expected[one.family] += [sum(values) / len(values)] if values else []
    found = evaluate(linear(weights), images)
    assert {family: len(values) for family, values in found.items()} == {"math": 3, "code": 2}
    assert found == {family: pytest.approx(values, abs=1e-6) for family, values in expected.items()}
    assert evaluate(linear(torch.zeros(1, FEATURES)), images) == {"math": [0.0] * 3, "code": [0.0] * 2}


def test_lds_with_log_odds_is_of_what_these_leave_of_each_tokens_log_prob():
    (one,) = synthetic({"math": PLAIN}, 1)
    odds, weights = torch.tensor([7.0, -1.0, 4.0]), torch.stack([PLAIN, 4 * PLAIN.roll(1)])
    sure = torch.sigmoid((odds - SURE) / WIDTH)[:, None]
    of_tokens = (1 - sure) * weights[0] + sure * weights[1]
    tokens = torch.einsum("tkf,tf,mk->tm", one.features.float(), of_tokens, one.subsets.float())
    falls = logsigmoid(odds)[:, None] - logsigmoid(odds[:, None] - tokens)
    spans = ({"start": 0, "end": 2}, {"start": 2, "end": 3})
    one = dataclasses.replace(one, spans=spans, log_odds=odds, token_falls=falls)
    assert evaluate(linear(weights, "log-odds"), [one])["math"] == pytest.approx([1.0])
    for other in (weights[:1].expand(2, -1), weights[1:].expand(2, -1), weights.flip(0)):
        assert evaluate(linear(other, "log-odds"), [one])["math"][0] < 0.95
    assert evaluate(linear(weights[:1]), [one])["math"][0] < 0.95


def test_only_subsets_of_the_rate_one_half_count():
    images = synthetic({"math": PLAIN}, 3)
    assert evaluate(linear(PLAIN[None]), images)["math"] == pytest.approx([1.0] * 3)
    for one in images:
        one.rates[:8] = 0.25
        one.token_falls[:, :8] *= -1
    assert evaluate(linear(PLAIN[None]), images)["math"] == pytest.approx([1.0] * 3)
    for one in images:
        one.rates[:16] = 0.25
    assert evaluate(linear(PLAIN[None]), images) == {}


def test_a_share_is_a_ratio_of_means_whose_interval_is_of_images_drawn_in_pairs():
    rng = torch.Generator().manual_seed(0)
    base = {family: (0.6 + 0.2 * torch.randn(40, generator=rng)).tolist() for family in ("a", "b")}
    near = {
        family: [0.9 * one + 0.01 * float(torch.randn(1, generator=rng)) for one in some]
        for family, some in base.items()
    }
    ratio, low, high = share(near, base)
    assert ratio == pytest.approx(metrics.bootstrap(near)[0] / metrics.bootstrap(base)[0])
    draws = []
    for _ in range(1000):  # the slow way
        at = {family: torch.randint(40, (40,), generator=rng) for family in base}
        means = [sum(torch.tensor(some[f])[at[f]].mean() for f in base) for some in (near, base)]
        draws.append(float(means[0] / means[1]))
    expected = torch.tensor(draws).quantile(torch.tensor([0.025, 0.975])).tolist()
    assert [low, high] == pytest.approx(expected, abs=2e-3)
    assert high - low < 0.02  # unpaired it would be about 0.1
    assert share(base, base) == pytest.approx((1, 1, 1))
    assert share(base, {family: [0.0] * 40 for family in base}) == (None, None, None)


def test_draws_are_even_over_families_nested_and_independent_of_order():
    images = synthetic({"math": PLAIN, "code": PLAIN, "general": PLAIN}, 20)
    drawn = draw(images, 30)
    assert Counter(one.family for one in drawn) == {"math": 10, "code": 10, "general": 10}
    assert len({one.id for one in drawn}) == 30
    assert [one.id for one in draw(images[::-1], 30)] == [one.id for one in drawn]
    assert [one.id for one in draw(images, 12)] == [one.id for one in drawn][:12]
    assert {one.id for one in draw(images, 30, seed=1)} != {one.id for one in drawn}
    with pytest.raises(AssertionError, match="more than there are"):
        draw(images[:-1], 60)  # 19 of one family


def test_more_scenes_are_better_and_sizes_are_those_there_are_enough_scenes_for(monkeypatch):
    truth = {"math": PLAIN, "code": PLAIN}
    monkeypatch.setattr(learning, "SIZES", (4, 16, 48, 64))
    monkeypatch.setattr(learning, "DRAWS", 2)
    images = synthetic(truth, 30, noise=2.0, spans=1) + synthetic({"math": PLAIN}, 10, prefix="odd", spans=1)
    tested = synthetic(truth, 12, prefix="test", seed=1)
    rows = learning.scenes(images, tested, FAST)
    assert [(row.setting, row.scenes) for row in rows] == [
        ("4", 4),
        ("16", 16),
        ("48", 48),
        ("all", 70),
    ]  # not 64
    assert rows[0].lds + 0.1 < rows[1].lds < rows[2].lds
    assert rows[0].share < 0.9
    assert rows[-1].share == pytest.approx(1)
    assert all(row.low < row.lds < row.high and row.images == 24 for row in rows)


def test_a_small_number_of_scenes_is_the_mean_of_several_draws(monkeypatch):
    monkeypatch.setattr(learning, "SIZES", (4,))
    monkeypatch.setattr(learning, "DRAWS", 3)
    images = synthetic({"math": PLAIN, "code": PLAIN}, 12, noise=2.0, spans=1)
    tested = synthetic({"math": PLAIN}, 12, prefix="test", seed=1)
    draws = [evaluate(learn(training_data(draw(images, 4, seed), KINDS), FAST), tested) for seed in range(3)]
    means = [metrics.bootstrap(values)[0] for values in draws]
    assert len(set(means)) == 3
    assert learning.scenes(images, tested, FAST)[0].lds == pytest.approx(sum(means) / 3)


def test_a_family_of_other_weights_neither_gives_nor_takes():
    other = weights_of(attention={1: 1.0}, value={4: 1.0}, odds={2: 1.0})
    truth = {"code": PLAIN, "general": other, "math": PLAIN}
    images = synthetic(truth, 16, noise=0.3) + synthetic({"math": PLAIN}, 16, prefix="more")
    images += synthetic({"science": PLAIN}, 4)  # which is not tested
    rows = {
        row.setting: row
        for row in learning.transfer(images, synthetic(truth, 10, prefix="test", seed=1), FAST)
    }
    assert {row.scenes for row in rows.values()} == {16}  # as many as the smallest family has
    assert rows["math -> code"].share > 0.95
    assert rows["math -> general"].share < 0.5
    assert rows["general -> math"].share < 0.5
    assert rows["others -> general"].share < 0.5 < rows["others -> math"].share
    for family in truth:
        assert rows[f"{family} -> {family}"].lds > 0.9
        assert rows[f"{family} -> {family}"].share == pytest.approx(1)
    cells = [rows[f"{source} -> {target}"].lds for source in truth for target in truth if source != target]
    assert rows["one other family"].lds == pytest.approx(sum(cells) / 6)
    left_out = [rows[f"others -> {target}"].lds for target in truth]
    assert rows["all other families"].lds == pytest.approx(sum(left_out) / 3)
    assert rows["all other families"].share == pytest.approx(sum(left_out) / 3 / rows["same family"].lds)
    assert len(rows) == 9 + 3 + 3


def test_transfer_between_fewer_than_two_families_is_refused():
    images, tested = (
        synthetic({"math": PLAIN, "code": PLAIN}, 4),
        synthetic({"code": PLAIN, "general": PLAIN}, 4),
    )
    with pytest.raises(DataError, match="two families that are in both collections, which share code;"):
        learning.transfer(images, tested, FAST)


def test_every_subset_of_the_features_is_evaluated_and_what_effects_are_made_of_wins():
    truth = {"math": weights_of(value={0: 1.0, 4: 0.5}, odds={2: 0.7})}
    settings = dataclasses.replace(FAST, link="log-odds", hidden=2, tokens=0.0, ranks=0.0, alone=0.0)
    rows = learning.features(synthetic(truth, 24), synthetic(truth, 10, prefix="test", seed=1), settings)
    lds, everything = {row.setting: row.lds for row in rows}, "+".join(KINDS)
    plain = [name for name in lds if "," not in name]
    assert [name for name in plain if "+" not in name] == list(KINDS)
    assert plain[-1] == everything
    assert {frozenset(name.split("+")) for name in plain} == {
        frozenset(kind for at, kind in enumerate(KINDS) if number >> at & 1)
        for number in range(1, 2 ** len(KINDS))
    }
    assert {f"{name}{way}" for name in plain for way in ("", ", no network", ", identity")} == set(lds)
    assert lds["value+odds, identity"] > 0.95
    assert lds[f"{everything}, identity"] > 0.95
    assert lds["value+odds, no network"] > 0.95
    assert abs(lds["attention, identity"]) < 0.3 < lds["odds, identity"] < lds["value, identity"] < 0.95
    shares = {row.setting: row.share for row in rows}
    assert shares["value"] == pytest.approx(lds["value"] / lds[everything])


def test_with_the_two_heads_that_matter_little_is_lost_and_the_layers_of_the_others_are_skipped(monkeypatch):
    truth = {"math": weights_of(attention={1: 1.0}, value={1: 0.5, 4: 0.5}, odds={4: 0.5})}
    monkeypatch.setattr(learning, "FRACTIONS", (1.0, 0.34, 0.02))
    monkeypatch.setattr("eyeline.training.heads.QUICK", FAST)
    images, tested = synthetic(truth, 30, noise=0.3), synthetic(truth, 10, prefix="test", seed=1)
    full, two, one = learning.heads(images, tested, FAST, LAYERS)
    assert [(row.setting, row.heads, row.layers_skipped) for row in (full, two, one)] == [
        ("1", 6, 0), ("0.34", 2, 1), ("0.02", 1, 2),
    ]  # fmt: skip
    assert two.lds > 0.95
    assert two.share > 0.98
    assert one.share < 0.95


@pytest.fixture
def collections(tmp_path):
    """Two folders as `eyeline collect` writes them."""
    truth = {"math": PLAIN, "code": PLAIN}
    for name, seed in (("fit", 0), ("test", 1)):
        (tmp_path / name / "examples").mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps(RUN))
        for one in synthetic(truth, 13, noise=0.5, prefix=name, seed=seed):
            save_collected(one, tmp_path / name / "examples" / f"{one.id}.safetensors")
    return tmp_path / "fit", tmp_path / "test"


def run(collections, out, *more):
    options = ["--fit", str(collections[0]), "--test", str(collections[1]), "--out", str(out)]
    return CliRunner().invoke(learning.main, [*options, "--steps", "5", "--layers", str(LAYERS), *more])


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_command_writes_a_table_and_figures_the_same_each_time(collections, tmp_path, monkeypatch):
    monkeypatch.setattr("eyeline.training.heads.QUICK", FitSettings(steps=2))
    monkeypatch.setattr(learning, "FRACTIONS", (1.0, 0.34, 0.02))
    monkeypatch.setattr(learning, "DRAWS", 1)
    monkeypatch.setattr(learning, "SIZES", (25,))
    first, second = tmp_path / "first", tmp_path / "second"
    result = run(collections, first / "learning.csv")
    assert result.exit_code == 0, result.output
    pictures = {f"learning_{name}.png" for name in learning.EXPERIMENTS}
    assert {path.name for path in first.iterdir()} == {"learning.csv", *pictures}
    rows = table(first / "learning.csv")
    assert list(rows[0])[:5] == ["experiment", "setting", "lds", "low", "high"]
    expected = {"scenes": 2, "transfer": 9, "features": 3 * (2 ** len(KINDS) - 1), "heads": 3}
    assert Counter(row["experiment"] for row in rows) == expected
    assert {"value+odds", "attention, identity"} < {row["setting"] for row in rows}
    assert all(float(row["low"]) <= float(row["lds"]) <= float(row["high"]) for row in rows)

    torch.manual_seed(7)
    result = run(collections, second / "learning.csv", "--experiment", "heads")
    assert result.exit_code == 0, result.output
    assert {path.name for path in second.iterdir()} == {"learning.csv", "learning_heads.png"}
    assert table(second / "learning.csv") == [row for row in rows if row["experiment"] == "heads"]
    assert (second / "learning_heads.png").read_bytes() == (first / "learning_heads.png").read_bytes()


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"fingerprint": "other"}, "different models;"),
        ({"settings": {**RUN["settings"], "hiding": "pixels"}}, "different ways of hiding;"),
        (
            {"settings": {**RUN["settings"], "regions": "grid", "kinds": ["value"]}},
            "different regions and features;",
        ),
    ],
)
def test_collections_that_cannot_be_compared_are_refused_in_a_sentence(collections, tmp_path, about, message):
    (collections[1] / "run.json").write_text(json.dumps({**RUN, **about}))
    result = run(collections, tmp_path / "out.csv")
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
    assert len(result.output.splitlines()) == 1
    assert not (tmp_path / "out.csv").exists()


def test_collections_of_other_features_than_this_versions_are_refused(collections):
    for place in collections:  # as they were written when there were fewer
        (place / "run.json").write_text(
            json.dumps({**RUN, "settings": {"hiding": "attention", "regions": "native"}})
        )
    with pytest.raises(DataError, match=f"fit holds other features than {', '.join(KINDS)} of every head;"):
        read_both(*collections)


def test_too_few_images_common_ones_and_tests_without_varying_spans_are_refused(collections):
    fit, test = collections
    paths = sorted((test / "examples").iterdir())
    with pytest.raises(DataError, match=r"26 images are in both collections \(first 'fit-code-0'"):
        read_both(fit, fit)
    for path in paths[:3]:
        path.unlink()
    with pytest.raises(DataError, match=r"23 images in .*test are too few; expected 24"):
        read_both(fit, test)
    for one in synthetic({"math": PLAIN}, 24, prefix="flat"):
        save_collected(
            dataclasses.replace(one, token_falls=one.token_falls * 1e-6),
            test / "examples" / f"{one.id}.safetensors",
        )
    for path in paths[3:]:
        path.unlink()
    with pytest.raises(DataError, match=r"no span whose effects vary over subsets of the rate 0\.5"):
        read_both(fit, test)
