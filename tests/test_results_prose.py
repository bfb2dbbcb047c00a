"""Sentences beside the tables of docs/results.md, and who is ahead of whom, held to results/."""

import csv
import re

from results_names import METHODS
from test_results_page import NUMBER, ROOT, holds, numbers, row_of


def said(name, method, metric, at="", family="mean"):
    return numbers(row_of(name, method=method, metric=metric, at=at, family=family))[0]


def planted(method, measure):
    return numbers(row_of("planted", method=method, measure=measure))


def ahead(method):
    """By how much a method is ahead of what the heat shows, in LDS: value, low and high."""
    given = {"versus": METHODS["what the heat shows"], "metric": "lds", "at": "0.5", "family": "mean"}
    return numbers(row_of("faithfulness_versus", method=method, **given))


def test_every_rival_that_is_cheaper_than_exhaustive_ablation_is_behind_by_a_paired_interval():
    with (ROOT / "results" / "faithfulness_versus.csv").open(encoding="utf-8") as file:
        rivals = {row["method"] for row in csv.DictReader(file)}
    rivals -= {each for each in rivals if each.startswith(METHODS["what the heat shows"])}
    assert rivals > {"exhaustive", "regression-64", "ridge-256"}
    ahead_or_level = {each for each in rivals if ahead(each)[2] >= 0}
    assert ahead_or_level == {"exhaustive", "regression-64", "ridge-256"}


def cells_held(metric):
    """In how many cells of models and families the fitted estimator is best, or second to exhaustive ablation."""
    with (ROOT / "results" / "by_family.csv").open(encoding="utf-8") as file:
        cells = [row for row in csv.DictReader(file) if row["metric"] == metric and row["family"] != "mean"]
    assert len(cells) == 10
    return sum(row["stands"] != "behind" for row in cells)


def prose():
    """Sentences beside the tables, with `#` in the place of each number, and the numbers."""
    heat, alone = "eyeline (eyeline-mini)", "eyeline (eyeline-mini), alone"
    now, before, ten = "faithfulness", "faithfulness_knockout", "contributions"
    half = "coverage_over_half_a_nat"
    heat_lds, alone_lds, measured_lds = (
        said(now, each, "lds", "0.5") for each in (heat, alone, "exhaustive")
    )
    first = "mark named first"
    second, fitted = "table_glm4v-mini", "eyeline (eyeline-glm4v-mini)"

    def of_exhaustive(method):
        return said(second, method, "lds", "0.5") / said(second, "exhaustive", "lds", "0.5")

    kinds = "general/scatter", "document/table", "code/plot", "math/bars"
    return {
        "the heat has # of the LDS of exhaustive ablation": [of_exhaustive(fitted)],
        "The heat of general weights has # of exhaustive ablation's LDS here, that of weights calibrated on ten images #": [
            of_exhaustive("eyeline (general)"), of_exhaustive("eyeline (calibrated)")
        ],
        "R2 in nats of single regions is # fitted and # calibrated on ten images": [
            said(second, f"{method}, alone", "r2_nats", "alone", "all") for method in (fitted, "eyeline (calibrated)")
        ],
        "glm4v-mini: LDS # [#, #], # of exhaustive ablation's, and # [#, #] ahead of AttnLRP": [
            *numbers(row_of("left_out", method="eyeline (general)", metric="lds", at="0.5", family="mean")),
            said("left_out", "eyeline (general)", "lds", "0.5") / said("left_out", "exhaustive", "lds", "0.5"),
            *(-each for each in numbers(
                row_of("left_out_versus", method="attn-lrp", metric="lds", at="0.5", family="mean"), low="high", high="low"
            )),
        ],
        "on # other scenes: AUC # [#, #] of `rests_on`, # [#, #] ahead of FlashTrace's best reading": [
            50, *numbers(row_of(f"{second}_through", method="eyeline", metric="AUC", at="", family="mean")),
            *numbers(
                row_of(f"{second}_through", method="flashtrace-3-mean", metric="AUC", at="", family="mean"),
                "ahead", "ahead_low", "ahead_high",
            ),
        ],
        "Its Brier score is # times the base rate's": [
            said(f"{second}_through", "eyeline", "Brier score over the base rate's", family="all")
        ],
        "Sentences name their sources with an LDS of #": [
            said(f"{second}_through", "eyeline", "LDS of sources", "thinking")
        ],
        "in # of # cells; by top-5 drop in # of #": [
            count for metric in ("lds", "top_drop") for count in (cells_held(metric), 10)
        ],
        "The paper's tortuosity, of which # is reported at # % of a trace, has # [#, #] there": [
            0.69, 30, *numbers(row_of(
                "looking", scenes="all", part="0.3000", measures="the paper's tortuosity", added_to="",
            )),
        ],
        "so that the shipped model is wrong in #": [
            numbers(row_of("looking", scenes="all", part="1.0000", measures="text", added_to=""), "wrong", "", "")[0]
        ],
        "On the scenes that are not blurred nothing is added (# [#, #])": numbers(row_of(
            "looking", scenes="as photographed", part="1.0000", measures="bag + order", added_to="text",
        )),
        "All measures together add # to the text's own": [
            numbers(row_of("looking", scenes="all", part="1.0000", measures="bag + order", added_to="text"))[0]
        ],
        "counting scattered objects (# % photographed), tables (# %), plots (# %) and bar charts (# %)": [
            numbers(row_of("accuracy", input="image", family=kind, times=100), "right")[0] for kind in kinds
        ],
        "Between # % (document) and # % (code) of the spans": [
            100 * said(now, "all", "spans_left_out", "0.5", family) for family in ("document", "code")
        ],
        "What the heat shows has # of exhaustive ablation's LDS": [heat_lds / measured_lds],
        "they have # more LDS than single effects": [heat_lds - alone_lds],
        "then empty on # of the spans that rest on the image instead of #, with LDS # beside #": [
            said("measured_whole", each, metric, at)
            for metric, at in (("empty_heat", ""), ("lds", "0.5"))
            for each in (f"{heat}, whole measured", heat)
        ],
        "On # test scenes with such a mark, each drawn with two numbers, it answers with both in #, and thinks the same of both, "
        "word by word, in #. The mark is named first in # of them, with the general weights in # [#, #]; a region taken at "
        "random holds it in #": [
            *numbers(row_of("planted", method="the cheat", measure="answers with the mark"), "count", "", ""),
            *(planted("the cheat", each)[0] for each in ("answers with the mark", "thinks the same of both")),
            planted("eyeline", first)[0],
            *planted("eyeline, general", first),
            planted("by chance", first)[0],
        ],
        "The nearest is the paper's estimator, # behind": [-ahead("eyeline (paper-attention)")[0]],
        "regression on # subsets (# passes) are level with it. Ridge regression on # subsets (# passes) is # ahead": [
            64, said(now, "regression-64", "forward_passes"),
            256, said(now, "ridge-256", "forward_passes"), ahead("ridge-256")[0],
        ],
        "A drawn collection of # images of # tokens and # regions, heads as a set, takes # GB on the disk. A fit on it holds # "
        "GB of memory at most, and # GB with": [
            numbers(row_of("fit_memory", what=what))[0]
            for what in (
                "images", "tokens of an image", "regions of an image", "disk, GB", "memory at most, GB", "with mapped files, GB",
            )
        ],
        "Thinking again with all regions in one batch is # times as fast": [
            numbers(row_of("rethinking", id="median"), "times_faster", "")[0]
        ],
        "Two Ray workers collect # images a minute on two cores, one #: # times as many": [
            numbers(row_of("workers", workers="2"), "images_per_minute", "")[0],
            numbers(row_of("workers", workers="1"), "images_per_minute", "")[0],
            numbers(row_of("workers", workers="2"), "over_one", "")[0],
        ],
        "is # ms later with its first byte (median of 12 questions), its chunks are # ms late (median) and # ms at most, and its "
        "throughput is # of its own": [
            numbers(row_of("follow_pace", measure=measure))[0]
            for measure in (
                "first byte later, median ms", "chunk late, median ms", "chunk late, most ms", "throughput, least share",
            )
        ],
        "The # % intervals of single effects hold # % of them, and # % of those above half a nat": [
            90, 100 * said(now, alone, "coverage", "alone", "all"), 100 * said(now, alone, half, "alone", "all"),
        ],
        "Their median width is # times that": [said(now, alone, "median_width_over_constant", "alone", "all")],
        "standard error of # nats": [said(ten, "all", "contribution_standard_error_nats", family="all")],
        "what the heat shows has R2 #, and measured contributions grow # times as fast": [
            said(ten, heat, metric, "contributions", "all") for metric in ("r2_nats", "slope")
        ],
        "The # % intervals hold # % of contributions, and # % of those above half a nat": [
            90, *(100 * said(ten, heat, metric, "contributions", "all") for metric in ("coverage", half)),
        ],
        "Eyeline #, the regression #, exhaustive ablation #": [
            said(before, method, "deletion") for method in (heat, "regression-32", "exhaustive")
        ],
        "Insertion areas (small is good): #, # and #": [
            said(before, method, "insertion") for method in (heat, "regression-32", "exhaustive")
        ],
        "# of single effects, # of hiding everything": [
            said(before, heat, metric, family="all") for metric in ("r2_nats", "r2_nats_whole")
        ],
        "suits these spans best, has #; regression on # subsets has #": [
            said(before, "exhaustive", "r2_nats_whole_calibrated_here", family="all"), 32,
            said(before, "regression-32", "r2_nats_whole_calibrated_here", family="all"),
        ],
        "hold # % of single effects, and # % of those above half a nat, at # times the width": [
            100 * said(before, heat, "coverage", family="all"), 100 * said(before, heat, half, family="all"),
            said(before, heat, "median_width_over_constant", family="all"),
        ],
    }  # fmt: skip


def test_sentences_beside_the_tables_say_what_was_measured():
    page = " ".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").split())
    wrong = []
    for sentence, expected in prose().items():
        pattern = re.escape(sentence).replace(re.escape("#"), f"({NUMBER.pattern})")
        found = re.findall(pattern, page)
        assert len(found) == 1, sentence
        shown = found if isinstance(found[0], str) else found[0]
        assert len(shown) == len(expected), sentence
        wrong += [sentence for cell, value in zip(shown, expected, strict=True) if not holds(cell, [value])]
    assert wrong == []


def test_what_answers_rest_on_is_said_better_than_by_every_rival_by_a_paired_interval():
    with (ROOT / "results" / "totals.csv").open(encoding="utf-8") as file:
        rivals = [row for row in csv.DictReader(file) if (row["metric"], row["family"]) == ("AUC", "mean")]
    rivals = [row for row in rivals if row["method"] != "eyeline"]
    assert len(rivals) >= 12
    assert all(float(row["ahead_low"]) > 0 for row in rivals)


def test_the_server_page_says_what_an_audit_measures():
    page = " ".join((ROOT / "docs" / "server.md").read_text(encoding="utf-8").split())
    (shown,) = re.findall(
        r"(\d+) spans of (\d+) questions have an LDS of ([\d.]+), and the sum is ([\d.]+) at most; measured anew by other "
        r"subsets the same spans have ([\d.]+)\. With the weights of its vision tower shuffled the (\d+)th span raises the "
        r"alarm", page,
    )  # fmt: skip
    here = ("spans", "questions", "LDS of the audit", "drift sum at most", "LDS measured anew")
    expected = [numbers(row_of("audit", model="as it is", measure=each))[0] for each in here]
    expected += numbers(row_of("audit", model="vision tower shuffled", measure="spans until the alarm"))
    assert all(holds(cell, [value]) for cell, value in zip(shown, expected, strict=True))


def test_the_readme_says_how_often_marks_are_right():
    (line,) = [
        line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "**marked**" in line
    ]
    shown = re.findall(r"(?:precision \[|recall |mini` |and )(\d\.\d+)", line)
    expected = [
        numbers(row_of(model, traces="all", family="all", measure=name))[0]
        for model in ("grounding", "grounding_glm4v")
        for name in ("precision", "recall")
    ]
    assert all(holds(cell, [value]) for cell, value in zip(shown, expected, strict=True))


def test_the_readme_says_what_was_measured_of_answers():
    (line,) = [
        line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "with AUC" in line
    ]
    ours = numbers(row_of("totals", method="eyeline", metric="AUC", family="mean"))
    best = numbers(row_of("totals", method="flashtrace-3-mean", metric="AUC", family="mean"))[0]
    assert holds(line.split("AUC")[1].split("]")[0], ours)
    assert holds(line.rsplit("has ", 1)[1].rstrip("."), [best])
