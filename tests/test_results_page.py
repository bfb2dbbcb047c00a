"""docs/results.md says what stands in results/: every cell of every table, to the digits that it shows."""

import csv
import re
from pathlib import Path

import pytest
from results_names import METHODS, METRICS

ROOT = Path(__file__).parent.parent
NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?")
LEARNED = "scenes to fit on (up to 2,000: means of two draws)"
TIMED = "decoding with attribution over `generate` with transformers' text streamer, median of 11 interleaved runs of 320 tokens"
SERVED = "time per token through the server over the library's stream, median of 21 runs of 160 tokens (11 of 40: 1.06)"
ASKED = (
    "500 requests by 20 clients, a third leaving, some reading a byte a second, the model's process killed once: lost, "
    "different from alone"
)


def row_of(name, *, times=1, **given):
    """The one row of a file of results/ whose columns are as given: its value and the ends of its interval."""
    with (ROOT / "results" / f"{name}.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if all(row[key] == each for key, each in given.items())]
    assert len(rows) == 1, (name, given, len(rows))
    return rows[0] | {"times": times}


def numbers(row, value="value", low="low", high="high"):
    return [float(row[key]) * row["times"] for key in (value, low, high) if row.get(key)]


def measured(name, row, column):
    """What an evaluation's table holds of a method."""
    method = METHODS[row]
    if column == "passes":
        ways = ("backward", "forward")
        back, forward = (
            numbers(row_of(name, method=method, metric=f"{way}_passes", family="mean"))[0] for way in ways
        )
        return [back or (forward if forward > 1 else 0)]  # beside the one that writes the trace
    found = [
        numbers(row_of(name, method=method, metric=metric, at=at, family="mean"))
        for metric, at in METRICS[column]
    ]
    return found[0] if len(found) == 1 else [each[0] for each in found]


ANSWERED = {
    "the image": "image",
    "the image before the question": "image",
    "the question before the image": "text first",
    "the image before it, with a system prompt": "system prompt",
    "the question before it, with a system prompt": "both",
    "whole image blank": "blank",
    "only the evidence blank": "evidence",
    "both of a counterfactual pair": "pairs",
    "the other's readings begin the trace: the other's answer": "trace",
}


def answers(photographed):
    def found(row, column):
        name = "accuracy_plain" if column == "as drawn, all" else photographed
        family = "mean" if column in ("all", "as drawn, all") else column
        return numbers(row_of(name, input=ANSWERED[row], family=family, times=100), "right")

    return found


def sizes(row, column):
    at = {"half of the regions hidden": "0.5", "a quarter": "0.25", "a tenth": "0.1", "one region": "alone"}
    given = {"method": "eyeline (eyeline-mini), joint", "at": at.get(row, "whole"), "family": "all"}
    return numbers(
        row_of("faithfulness", metric={"R2 in nats": "r2_nats", "growth": "slope"}[column], **given)
    )


def decoding_at_shape(row, column):
    what = {"wall": "wall of decoding", "CPU time of the decoding thread": "decoding thread's CPU"}[column]
    return numbers(row_of("whole", measure=f"{what} over generate's, {row}"))


def work_at_shape(row, column):
    key = {
        "attribution": f"attribution, ms a token at 1000, {row.removeprefix('attribution ')}",
        "exhaustive ablation, CPU time": "exhaustive, CPU ms a token at 1000",
        "AttnLRP, CPU time": "attn-lrp, CPU ms a token at 1000",
    }[re.match(r"attribution|.*", row)[0]]
    return [float(row_of("whole", measure=key)["value"])]


def streaming(row, column, latency="latency"):
    def value(name, key, times=1):
        return float(row_of(name, measure=key)["value"]) * times

    def times(key):
        return float(value(latency, key))

    timed = row_of(latency, measure="over_generate_with_streamer_quartiles")["value"].split()
    found = {
        TIMED: lambda: [times("over_generate_with_streamer_median"), *map(float, timed)],
        "the same over bare `generate`; in CPU time over `generate` with streamer": lambda: [
            times("over_bare_generate_median"), times("cpu_over_generate_with_streamer_median"),
        ],
        "attributions that arrive before the next span is finished": lambda: [
            value(latency, "attributions_before_the_next_span_ends", 100), times("spans"),
        ],
        "attribution, per token of a span, near position 250 / 4,000": lambda: [
            times("attribution_ms_per_token_at_250"), times("attribution_ms_per_token_at_4000"),
            times("ratio_4000_over_250"),
        ],
        "tokens a second with attribution": lambda: [times("tokens_per_s_with_attribution_median")],
        "first text after a question: the first one after loading; later, median of 15": lambda: [
            times("first_text_s_after_loading"), times("first_text_s_later_median"),
        ],
        SERVED: lambda: [value("load_cost", "time_per_token_ratio")],
        "from the model's process to the page's code in Chromium: text, span (medians)": lambda: [
            float(row_of("reach", event=event)["median_s"]) * 1000 for event in ("text", "span")
        ],
        ASKED: lambda: [value("load", "lost"), value("load", "different")],
        "memory of the server early and late in these": lambda: [
            value("load", "memory_before_mib"), value("load", "memory_after_mib"),
        ],
    }  # fmt: skip
    return found[row]()


def operations(row, column):
    method = {"exhaustive ablation": "exhaustive", "AttnLRP": "attn-lrp", "attribution": "eyeline"}.get(
        column, column
    )
    found = row_of("flops", method=method, tokens=row.replace(",", ""))
    return [float(found["gflop_per_token" if method in ("decoding", "eyeline") else "over_eyeline"])]


def wide(row, column):
    method, cpu = row.split(", ", 1)
    name = {"AVX-512": "cost_wide", "AMX": "cost_wide_amx", "AVX2, float32": "cost_wide_float32"}[cpu]
    tokens = column.split()[0].replace(",", "")
    method = {"exhaustive ablation": "exhaustive", "AttnLRP": "attn-lrp"}[method]
    return numbers(row_of(name, method=method, tokens=tokens), "over_eyeline")


def ceiling(row, column):
    predictor, passes = {
        "the best that one number for each region can do: ridge regression on 512 subsets": (
            "ceiling, linear",
            "512",
        ),
        "the same with interactions of two regions": ("ceiling, pairwise", "512"),
        "Eyeline": ("estimator", ""),
        "exhaustive ablation": ("exhaustive", ""),
        "ContextCite, LASSO as published, on 1,024 subsets": ("contextcite", "1024"),
    }[row]
    metric = {"LDS at 0.5": "lds", "R2": "r2_span"}[column]
    return numbers(row_of("ceiling", predictor=predictor, forward_passes=passes, metric=metric))


def learned(row, column):
    setting = "all" if row == "all 4,000" else row.replace(",", "")
    return numbers(row_of("learning", experiment="scenes", setting=setting), "lds")


def share(experiment):
    settings = {"half": "0.5", "a quarter": "0.25"}

    def found(row, column):
        setting = settings.get(row, "0.1" if row.startswith("a tenth") else row)
        given = row_of("learning", experiment=experiment, setting=setting, times=100)
        return numbers(given, "share", "share_low", "share_high")

    return found


def features(row, column):
    kinds = {"all three": "attention+value+odds", "value and odds": "value+odds"}.get(row, row)
    tail = {"with the network": "", "without it": ", no network", "linear in log-probs": ", identity"}[column]
    return numbers(row_of("learning", experiment="features", setting=kinds + tail), "lds")


def sources(row, column):
    source = {"native, 18 a scene": "native", "superpixels": "slic", "Voronoi cells": "voronoi"}.get(row, row)
    source = re.sub(r"^(\d+) native$", r"native:\1", source)
    predictor = {
        "estimator fitted on them": "fitted on this source",
        "estimator fitted on native regions": "fitted on native",
        "exhaustive ablation": "exhaustive",
    }[column]
    return numbers(row_of("sources", source=source, predictor=predictor), "lds")


def hiding(row, column):
    way = {
        "attention knockout": "attention",
        "mean token": "tokens",
        "mean colour": "pixels",
        "inpainting": "inpaint",
    }
    way = way.get(column, column)

    def of(measure):
        return numbers(row_of("hiding", way=way, measure=measure), "mean")

    if row == "effect of empty regions over that of all":
        return [of("effect_of_empty_regions")[0] / of("effect_of_regions")[0]]
    return of({
        "log-prob with all hidden, from no image at all, nats a token": "all_hidden_from_no_image",
        "change of tokens that the text alone gives away, nats": "drop_of_given_tokens",
        "single effects add up to joint ones (LDS)": "lds_of_single_effects",
        "strongest region is evidence": "pointing",
        "share of the mean colour's effect that it misses": "leak",
        "exhaustive ablation, times as fast as a loop of whole passes": "speed_up",
    }[row])  # fmt: skip


def totals(row, column):
    method = {
        "middle of the image (centre prior)": "centre",
        "the answer's own effects (direct)": "direct",
        "effects of the last sentence": "last-sentence",
        "FlashTrace as published: 1 hop, sum": "flashtrace-1-sum",
        "FlashTrace, best reading: 3 hops, mean": "flashtrace-3-mean",
        "one hop: the answer's links times what each token sees": "one-hop",
        "effects of all thinking, added up": "thinking-sum",
        "Eyeline, `rests_on.changes`": "eyeline",
        "measured: the region whose hiding costs most": "measured total",
    }[row]
    if column == "Eyeline ahead in AUC":
        return numbers(
            row_of("totals", method=method, metric="AUC", family="mean"), "ahead", "ahead_low", "ahead_high"
        )
    metric = {"first changes it": "named first"}.get(column, column)
    return numbers(row_of("totals", method=method, metric=metric, family="mean"))


def reliability(row, column):
    found = row_of("totals", method="eyeline", metric="reliability", at=row)
    return [float(found["value" if column == "change the answer" else "count"])]


def earlier_text(row, column):
    method = {
        "the nearer the more": "nearest",
        "attention, added up": "attention-sum",
        "written values, added up": "value-sum",
        "Eyeline, `sources`": "eyeline",
    }[row]
    return numbers(row_of("totals", method=method, metric="LDS of sources", at=column, family="mean"))


def without_looking(row, column):
    measure = {
        "Spearman of guessed and measured falls": "Spearman of guessed and measured falls",
        "mean fall where it is guessed, nats": "mean of reliance",
        "mean measured fall, nats": "mean of measured",
        "answers that change": "mean of measured_change",
    }[row]
    return numbers(row_of("reliance", scenes=column, measure=measure))


def sanity(row, column):
    check, method, measure = {
        "the trained model": ("weights", "trained", "{}"),
        "its weights shuffled": ("weights", "randomised", "{}"),
        "Eyeline, `rests_on.changes`": ("pairs", "eyeline", "{}"),
        "the answer's own effects (direct)": ("pairs", "direct", "{}"),
        "any region": ("pairs", "by chance", "{}"),
        "measured one by one, added up: LDS": ("sources", "measured alone", "LDS, {}"),
        "Eyeline: LDS": ("sources", "eyeline", "LDS, {}"),
        "Eyeline, single sources: Pearson": ("sources", "eyeline", "correlation with measured alone, {}"),
    }[row]
    return numbers(row_of("sanity_through", check=check, method=method, measure=measure.format(column)))


def levels(row, column):
    count, _, level = row.partition(", ")
    model = "shipped" if column.startswith("shipped") or column.startswith("R2") else "first"
    every = {"shipped": "535", "first": "142"}
    level = {"": "none", "the paper's map": "paper"}.get(level, level)
    found = row_of(
        "levels", model=model, level=level, images={"none": "0", "all": every[model]}.get(count, count)
    )
    return numbers(found, "lds") if column.endswith("LDS") else numbers(found, "r2_nats", low="", high="")


def without_images(row, column):
    metric, at = {
        "AUC of `rests_on`": ("AUC", ""),
        "FlashTrace, best reading": ("AUC", ""),
        "ahead": ("AUC", ""),
        "Brier score over the base rate's": ("Brier score over the base rate's", ""),
        "LDS of sources, thinking": ("LDS of sources", "thinking"),
        "answer": ("LDS of sources", "answer"),
    }[column]
    method = "flashtrace-3-mean" if column in ("FlashTrace, best reading", "ahead") else "eyeline"
    found = row_of(
        f"levels_through_{row.split()[0]}", method=method, metric=metric, at=at,
        family="all" if "Brier" in column else "mean",
    )  # fmt: skip
    return numbers(found, "ahead", "ahead_low", "ahead_high") if column == "ahead" else numbers(found)


def grounding(row, column):
    beginnings = {
        "first model: ": "grounding_first",
        "its ": "grounding_first",
        "glm4v-mini: ": "grounding_glm4v",
    }
    begins = next(filter(column.startswith, beginnings), "")
    traces, _, family = row.partition(", ")
    kind = {
        "all traces": "all", "own traces": "own", "a reading of another image": "crossed", "an image of one colour": "blank",
    }[traces]  # fmt: skip
    name, measure = beginnings.get(begins, "grounding"), column.removeprefix(begins)
    return numbers(row_of(name, traces=kind, family=family or "all", measure=measure))


ROWS_OF_LOOKING = {
    "text: length, log-probs, entropy, family": ("text", ""),
    "spans in any order": ("bag", ""),
    "their order": ("order", ""),
    "tortuosity": ("tortuosity", ""),
    "the paper's tortuosity": ("the paper's tortuosity", ""),
    "probe of hidden states": ("probe", ""),
    "agreement of five samples": ("agreement", ""),
    "spans in any order, to text": ("bag", "text"),
    "their order, to text": ("order", "text"),
    "both, to text": ("bag + order", "text"),
    "order, to text and spans in any order": ("order", "text + bag"),
    "order of shuffled spans, to the same": ("shuffled order", "text + bag"),
    "probe, to text": ("probe", "text"),
    "agreement, to text": ("agreement", "text"),
    "both, to text and probe": ("bag + order", "text + probe"),
    "both, to text and agreement": ("bag + order", "text + agreement"),
    "both, to all three": ("bag + order", "text + probe + agreement"),
}


def looking(row, column):
    part = {"a quarter": "0.2500", "half": "0.5000", "three quarters": "0.7500", "all": "1.0000"}[column]
    measures, base = ROWS_OF_LOOKING[row]
    return numbers(row_of("looking", scenes="all", part=part, measures=measures, added_to=base))


def families_left_out(row, column):
    measures, base = {
        "text": ("text", ""),
        "both added": ("bag + order", "text"),
        "probe added": ("probe", "text"),
    }[column]
    found = row_of("looking", scenes=f"{row} left out", part="1.0000", measures=measures, added_to=base)
    return numbers(found)


def evaluation(name):
    return lambda row, column: measured(name, row, column)


def by_family(metric):
    columns = {"fitted": "fitted", "exhaustive ablation": "exhaustive", "best rival": "of_rival"}

    def found(row, column):
        model, _, what = row.partition(", ")
        cell = row_of("by_family", model=model, metric=metric, family="mean" if column == "all" else column)
        ahead = what == "ahead of the best rival"
        return numbers(cell, "ahead") if ahead else numbers(cell, columns[what], "", "")

    return found


# A table is known by its heading and the first cell of its header
TABLES = {
    ("Does the model answer rightly?", "input"): answers("accuracy"),
    ("The second miniature", "glm4v-mini sees"): answers("accuracy_glm4v"),
    ("Are the attributions true?", "method"): evaluation("faithfulness"),
    ("Two models and five families", "LDS at 0.5"): by_family("lds"),
    ("Two models and five families", "top-5 drop, nats"): by_family("top_drop"),
    ("Two models and five families", "method, glm4v-mini"): evaluation("table_glm4v-mini"),
    ("What an estimator has seen", "images of the model itself"): levels,
    ("What an estimator has seen", "method, first model"): evaluation("levels_first"),
    ("What an estimator has seen", "method, shipped model"): evaluation("levels_shipped"),
    ("What an estimator has seen", "read without any image of it"): without_images,
    ("Sizes in nats", "joint fall with"): sizes,
    ("Contributions", "correlation with measured contributions (Pearson)"): evaluation("contributions"),
    ("What do answers rest on?", "one number a region"): totals,
    ("What do answers rest on?", "chance said"): reliability,
    ("What do answers rest on?", "LDS over sets of earlier spans"): earlier_text,
    ("What do answers rest on?", "one sentence hidden at a time"): sanity,
    ("What do answers rest on?", "who reads the trace"): sanity,
    ("What do answers rest on?", "named first"): sanity,
    ("Questions that can be answered without looking", "60 scenes"): without_looking,
    ("Does looking tell right from wrong?", "area under the ROC curve, after"): looking,
    ("Does looking tell right from wrong?", "added, after"): looking,
    (
        "Does looking tell right from wrong?",
        "family left out of the fit, all of the trace",
    ): families_left_out,
    ("What is not grounded", "marked as not grounded"): grounding,
    ("Cost of streaming", "what a stream costs"): streaming,
    ("Cost at a published shape", "decoding over `generate` with streamer"): decoding_at_shape,
    ("Cost at a published shape", "work of a token near position 1,000"): work_at_shape,
    ("Earlier: faithfulness", "method"): evaluation("faithfulness_knockout"),
    ("Earlier: cost of streaming", "measure"): lambda row, column: streaming(row, column, "latency_earlier"),
    ("Earlier: cost beside rivals, at the size of an 8B model", "tokens of the trace"): operations,
    ("Earlier: cost beside rivals, at the size of an 8B model", "method and CPU"): wide,
    ("Earlier: every method against its cost", "method"): evaluation("methods"),
    ("Earlier: how well any number for each region could do", "predictor"): ceiling,
    ("Earlier: what an estimator needs", LEARNED): learned,
    ("Earlier: what an estimator needs", "fitted on (800 scenes each)"): share("transfer"),
    ("Earlier: what an estimator needs", "heads kept"): share("heads"),
    ("Earlier: what an estimator needs", "features, fitted in 300 steps instead of 1,600"): features,
    ("Earlier: sources of regions", "regions"): sources,
    ("Earlier: ways of hiding", "measure"): hiding,
}


def tables():
    """Each table of the page: its heading, its header and its rows, without marks of emphasis and links."""
    heading, found, last = "", [], ""
    for line in (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines():
        heading = line.lstrip("#").strip() if line.startswith("#") else heading
        if line.startswith("|"):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", line.replace("*", ""))
            cells = [cell.strip() for cell in plain.strip("|").split("|")]
            if not last.startswith("|"):
                found.append((heading, cells, []))
            elif not set(line) <= set("|- "):
                found[-1][2].append(cells)
        last = line
    return found


def holds(cell, expected):
    """Whether the numbers of a cell are the expected ones, to the digits that it shows; an interval may be left out."""
    shown = NUMBER.findall(cell)
    return len(shown) in (1, len(expected)) and all(
        abs(float(each.replace(",", "")) - value) <= 0.5000001 * 10 ** -len(each.partition(".")[2])
        for each, value in zip(shown, expected, strict=False)
    )


def test_every_table_of_the_page_is_held_to_a_file():
    assert [(heading, header[0]) for heading, header, _ in tables()] == list(TABLES)


@pytest.mark.parametrize(
    ("heading", "header", "rows"), tables(), ids=lambda each: each if isinstance(each, str) else ""
)
def test_a_table_says_what_was_measured(heading, header, rows):
    found = TABLES[heading, header[0]]
    wrong, cells = [], 0
    for row in rows:
        assert len(row) == len(header)
        for column, cell in zip(header[1:], row[1:], strict=True):
            if cell:
                cells += 1
                expected = found(row[0], column)
                wrong += [] if holds(cell, expected) else [(row[0], column, cell, expected)]
    assert cells
    assert wrong == []


def test_numbers_of_earlier_versions_come_last():
    lines = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()
    earlier = [line.lstrip("# ").startswith("Earlier") for line in lines if line.startswith("##")]
    assert any(earlier)
    assert earlier == sorted(earlier)


@pytest.mark.parametrize(("cell", "expected", "right"), [
    ("0.69 [0.66, 0.72]", [0.6902, 0.664, 0.7168], True),
    ("0.69", [0.6902, 0.664, 0.7168], True),
    ("0.70", [0.6902, 0.664, 0.7168], False),
    ("0.69 [0.66, 0.73]", [0.6902, 0.664, 0.7168], False),
    ("1,257", [1257.0], True),
    ("", [1.0], False),
])  # fmt: skip
def test_a_cell_is_held_to_the_digits_that_it_shows(cell, expected, right):
    assert holds(cell, expected) == right
