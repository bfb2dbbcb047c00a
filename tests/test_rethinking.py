"""Thinking again with regions hidden, held against its definition: one picture, one trace and one pass at a time."""

import pytest
import torch
from conftest import build_tiny, picture, tiny_model
from slow_hiding import slow_log_probs, slow_pixels

from eyeline import load, rethinking, rewriting
from eyeline.errors import DataError, PromptError, RegionError
from eyeline.generation import end_tokens, segmenter
from eyeline.rethinking import ANSWER_ROOM, NULLS, guessed_fall, rethink
from eyeline.rewriting import Noise, _Sampled, parse
from eyeline.scenes import sample
from eyeline.training import collect

NEAR = {"rtol": 0, "atol": 2e-4}
LABELS = torch.tensor([0, 0, 1, 2, 1, 2])
SETS = torch.tensor([[True, False, False], [False, True, False], [True, True, False], [True, True, True]])


class Closing:
    """Scores under which a tiny model thinks for some tokens, closes, answers for some and ends; what it says is its own."""

    def __init__(self, model, prompt, thinking=7, answer=4):
        self.prompt, self.thinking, self.answer = prompt, thinking, answer
        self.opens, self.marker = model.tokenizer("<think></think>", add_special_tokens=False)["input_ids"]
        self.opened = model.adapter.family != "glm4v"
        (self.end,) = end_tokens(model.hf.generation_config)

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores[:, 256:] -= 1e4  # no special token by itself
        for row, ids in enumerate(input_ids[:, self.prompt :].tolist()):
            if not ids and not self.opened:
                scores[row, self.opens] = 1e5
            elif self.marker in ids:
                if len(ids) - ids.index(self.marker) > self.answer:
                    scores[row, self.end] = 1e5
            elif len(ids) >= self.thinking + sum(ids) % 3:  # longer for some texts than for others
                scores[row, self.marker] = 1e5
        return scores


def asked(model, images=1, **lengths):
    """Inputs with two images at most, the labels of their cells, and options with which the model thinks and answers."""
    pictures = [picture(seed=1), picture(64, 64, seed=2)][:images]
    inputs = model.inputs(pictures, "How many?")
    cells = int(inputs["mm_token_type_ids"].sum())
    labels = torch.cat([LABELS, torch.full((cells - 6,), 2)])
    processor = Closing(model, inputs["input_ids"].shape[1], **lengths)
    return inputs, labels, {"do_sample": False, "logits_processor": [processor]}


def generated(model, inputs, options):
    model.hf.model.rope_deltas = None
    ids = model.hf.generate(**inputs, **options, max_new_tokens=200)[
        0, inputs["input_ids"].shape[1] :
    ].tolist()
    model.hf.model.rope_deltas = None
    return ids


def halves(model, ids):
    """Thinking with its marker, and the answer."""
    (marker,) = model.tokenizer("</think>", add_special_tokens=False)["input_ids"]
    at = ids.index(marker) + 1
    return ids[:at], ids[at:]


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize(
    "positions", [{}, {"positions_held": 1, "positions_read": 1}], ids=["batched", "singly"]
)
def test_four_arms_are_those_of_traces_written_and_read_one_by_one(tiny, images, positions):
    inputs, labels, options = asked(tiny, images)
    ids = generated(tiny, inputs, options)
    thinking, answer = halves(tiny, ids)
    found = rethink(tiny, inputs, ids, labels, SETS, generation=options, **positions)

    def log_prob(pixels, thought):
        whole = torch.tensor([*thought, *answer])
        return float(slow_log_probs(tiny, inputs, whole, pixel_values=pixels)[len(thought) :].sum())

    whole = log_prob(inputs["pixel_values"], thinking)
    assert found.log_prob == pytest.approx(whole, abs=1e-3)
    falls, changes = [], []
    for subset, (again,) in zip(SETS, found.again, strict=True):
        pixels = slow_pixels(tiny, inputs, subset[labels])
        new, said = halves(tiny, generated(tiny, {**inputs, "pixel_values": pixels}, options))
        assert list(again.thinking_ids) == new
        assert list(again.answer_ids) == said
        arms = (pixels, thinking), (inputs["pixel_values"], new), (pixels, new)
        falls.append([whole - log_prob(*arm) for arm in arms])
        decoded = [tiny.tokenizer.decode(each, skip_special_tokens=True).strip() for each in (answer, said)]
        changes.append(float(decoded[0] != decoded[1]))
    torch.testing.assert_close(found.falls + found.nulls.mean(0), torch.tensor(falls), **NEAR)
    assert found.changes.tolist() == changes
    assert max(changes) == 1
    assert found.through.abs().max() > 0.1
    torch.testing.assert_close(found.interaction, found.total - found.direct - found.through)


def test_null_rows_are_the_images_as_they_are_the_plainest_region_filled_and_noise(tiny, monkeypatch):
    inputs, labels, options = asked(tiny)
    of_row = labels.repeat_interleave(tiny.adapter.merge_size(tiny.hf) ** 2)
    inputs["pixel_values"][of_row == 1] = 0.25  # of one colour, which is not the image's
    ids = generated(tiny, inputs, options)
    found = rethink(tiny, inputs, ids, labels, SETS[1:2], generation=options)
    assert NULLS == ("nothing", "plain", "noise")
    torch.testing.assert_close(found.nulls[0], torch.zeros(3), **NEAR)
    assert found.null_changes[0] == 0
    torch.testing.assert_close(found.nulls[1], found.falls[0] + found.nulls.mean(0), **NEAR)
    assert found.nulls[2, 0].abs() > 1e-3
    monkeypatch.setattr(rethinking, "NOISE", 0.0)
    silent = rethink(tiny, inputs, ids, labels, SETS[1:2], generation=options)
    torch.testing.assert_close(silent.nulls[2], torch.zeros(3), **NEAR)


def test_a_lone_region_is_no_null_row(tiny):
    inputs, labels, options = asked(tiny)
    ids = generated(tiny, inputs, options)
    found = rethink(tiny, inputs, ids, labels * 0, torch.ones(1, 1, dtype=torch.bool), generation=options)
    torch.testing.assert_close(found.nulls[1], torch.zeros(3), **NEAR)
    assert found.falls.abs().max() > 0.1


def guessed_slowly(model, inputs, before, answer):
    """The answer's log-prob after all images filled and other text instead of the thinking."""
    everything = torch.ones(sum(map(len, model.image_grids(inputs))), dtype=torch.bool)
    filled = slow_pixels(model, inputs, everything)
    read = slow_log_probs(model, inputs, torch.tensor([*before, *answer]), pixel_values=filled)
    return float(read[len(before) :].sum())


@pytest.mark.parametrize(("family", "images"), [("qwen3_vl", 1), ("qwen3_vl", 2), ("glm4v", 1)])
def test_a_guess_is_the_answer_without_the_images_and_without_thinking(family, images):
    model = tiny_model(family)
    inputs, _, options = asked(model, images)
    ids = generated(model, inputs, options)
    thinking, answer = halves(model, ids)
    opens, closes = model.tokenizer("<think></think>", add_special_tokens=False)["input_ids"]
    as_written = float(slow_log_probs(model, inputs, torch.tensor(ids))[len(thinking) :].sum())
    before = [opens, closes] if family == "glm4v" else [closes]  # GLM opens its thinking itself
    expected = as_written - guessed_slowly(model, inputs, before, answer)
    assert guessed_fall(model, inputs, ids, generation=options) == pytest.approx(expected, abs=1e-3)
    assert abs(expected) > 0.01


@pytest.mark.parametrize(("family", "text"), [("qwen3_vl", "</think>"), ("glm4v", "<think></think>")])
def test_a_guess_of_what_was_not_thought_about_is_the_answer_without_the_images(family, text):
    model = tiny_model(family)
    inputs, _, options = asked(model)
    closed, answer = (model.tokenizer(each, add_special_tokens=False)["input_ids"] for each in (text, "24"))
    as_written = float(slow_log_probs(model, inputs, torch.tensor(closed + answer))[len(closed) :].sum())
    expected = as_written - guessed_slowly(model, inputs, closed, answer)
    found = guessed_fall(model, inputs, closed + answer, generation=options)
    assert found == pytest.approx(expected, abs=1e-3)
    with pytest.raises(DataError, match="no answer"):
        guessed_fall(model, inputs, closed, generation=options)


def test_thinking_and_an_answer_that_do_not_end_do_so_at_twice_their_first_lengths(tiny):
    inputs, labels, options = asked(tiny)
    ids = generated(tiny, inputs, options)
    thinking, answer = halves(tiny, ids)
    options["logits_processor"] = [Closing(tiny, inputs["input_ids"].shape[1], thinking=1000, answer=1000)]
    found = rethink(tiny, inputs, ids, labels, SETS, generation=options)
    for (again,) in found.again:
        assert again.closed
        assert len(again.thinking_ids) == 2 * len(thinking) + 1
        assert len(again.answer_ids) == 2 * len(answer) + ANSWER_ROOM
    assert not found.first.closed


def test_a_sampled_run_is_thought_again_by_its_own_sampler_with_the_same_noise_whatever_is_hidden(tiny):
    inputs, labels, options = asked(tiny)
    ids = generated(tiny, inputs, options)
    sampler = {**options, "do_sample": True, "temperature": 0.7, "top_k": 20}
    found = rethink(tiny, inputs, ids, labels, SETS, generation=sampler, samples=9, seed=3)
    pixels = slow_pixels(tiny, inputs, SETS[0][labels])
    for number, again in enumerate(found.again[0]):
        expected = gumbel(tiny, {**inputs, "pixel_values": pixels}, options, 3 + number)
        assert [*again.thinking_ids, *again.answer_ids] == expected
    assert len({again.thinking for again in found.again[0]}) > 1
    same = rethink(tiny, inputs, ids, labels, SETS, generation=sampler, samples=9, seed=3, positions_held=1)
    assert same.again == found.again
    torch.testing.assert_close(same.falls, found.falls, **NEAR)
    other = rethink(tiny, inputs, ids, labels, SETS, generation=sampler, samples=9, seed=30)
    assert other.again != found.again


def gumbel(model, inputs, options, seed):
    """One sample, token by token without a cache: the largest of the warped scores and noise."""
    rng, ids = torch.Generator().manual_seed(seed), []
    processor = options["logits_processor"][0]
    while not ids or ids[-1] not in end_tokens(model.hf.generation_config):
        full = torch.cat([inputs["input_ids"], torch.tensor([ids], dtype=torch.long)], dim=1)
        more = torch.zeros(1, len(ids), dtype=torch.long)
        model.hf.model.rope_deltas = None
        with torch.inference_mode():
            logits = model.hf(
                **{
                    **inputs, "input_ids": full,
                    "attention_mask": torch.ones_like(full),
                    "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], more.int()], dim=1),
                },
                use_cache=False,
            ).logits[:, -1].float()  # fmt: skip
        model.hf.model.rope_deltas = None
        scores = processor(full, logits) / 0.7
        scores[scores < scores.topk(20).values[:, -1:]] = -torch.inf
        noise = torch.empty(scores.shape[1]).exponential_(generator=rng).log()
        ids.append(int((scores[0] - noise).argmax()))
    return ids


def test_noise_with_a_seed_draws_tokens_as_often_as_they_are_likely():
    scores = torch.tensor([0.5, 0.3, 0.2]).log()
    rows = 4000
    noise = _Sampled(Noise(tuple(range(rows)), tuple(range(rows))), torch.device("cpu")).next(
        3, torch.arange(rows)
    )
    counts = (scores + noise).argmax(1).bincount(minlength=3) / rows
    torch.testing.assert_close(counts, scores.exp(), rtol=0, atol=0.03)


def test_what_means_the_same_is_no_change():
    model = tiny_model("qwen3_vl")
    inputs, labels, options = asked(model)
    ids = generated(model, inputs, options)
    compared = []

    def same(first, other):
        compared.append((first, other))
        return True

    found = rethink(model, inputs, ids, labels, SETS, generation=options, same=same)
    assert not found.changes.any()
    assert {first for first, _ in compared} == {found.first.answer}
    assert [other for _, other in compared[len(NULLS) :]] == [again.answer for (again,) in found.again]


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("qwen3_vl", "</think>24"),
        ("qwen3_vl", "\n\n</think>24"),
        ("glm4v", "24"),
        ("glm4v", "<think></think>24"),
    ],
)
def test_without_thinking_nothing_goes_through_it(family, text):
    model = tiny_model(family)
    inputs, labels, options = asked(model)
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    found = rethink(model, inputs, ids, labels, SETS, generation=options)
    assert not found.through.any()
    assert torch.equal(found.total, found.direct)
    assert found.total.abs().max() > 0.01
    assert found.first.answer == "24"
    expected = slow_log_probs(model, inputs, torch.tensor(ids))[len(ids) - 2 :].sum()
    assert found.log_prob == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.parametrize(
    ("text", "options", "error", "expected"),
    [
        ("It is so", {}, DataError, "thinking was cut off"),
        ("It is so.</think>\n", {}, DataError, "no answer"),
        ("It is.</think>24", {"samples": 8}, DataError, r"greedy \(temperature 0\).*leave out how many"),
        ("It is.</think>24", {"generation": {"do_sample": True}, "samples": 7}, DataError, "expected at least 8"),
        ("It is.</think>24", {"method": "attention"}, RegionError, "cannot hide by 'attention'"),
        ("It is.</think>24", {"sets": SETS & False}, RegionError, "at least one of the 3 regions"),
        ("It is.</think>24", {"generation": {"num_beams": 2}}, PromptError, "num_beams"),
    ],
)  # fmt: skip
def test_what_cannot_be_thought_again_is_told_in_a_sentence(text, options, error, expected):
    model = tiny_model("qwen3_vl")
    inputs, labels, _ = asked(model)
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    with pytest.raises(error, match=expected):
        rethink(model, inputs, ids, labels, **{"sets": SETS, **options})


def test_a_prompt_without_images_has_nothing_to_hide():
    model = tiny_model("qwen3_vl")
    inputs = model.inputs([], [{"role": "user", "content": "How many?"}])
    with pytest.raises(PromptError, match="no image"):
        rethink(model, inputs, [1, 2], LABELS, SETS)


def test_a_long_thinking_leaves_room_in_the_context_for_the_answer():
    model = build_tiny("qwen3_vl", max_position_embeddings=60)
    inputs, labels, options = asked(model, thinking=15)
    ids = generated(model, inputs, options)
    options["logits_processor"] = [Closing(model, inputs["input_ids"].shape[1], thinking=1000)]
    found = rethink(model, inputs, ids, labels, SETS, generation=options)
    _, answer = halves(model, ids)
    for (again,) in found.again:
        assert inputs["input_ids"].shape[1] + len(again.thinking_ids) + len(answer) == 60


def test_a_bfloat16_model_thinks_again_in_bfloat16():
    model = build_tiny("qwen3_vl")
    model.hf.to(torch.bfloat16)
    inputs, labels, options = asked(model)
    found = rethink(model, inputs, generated(model, inputs, options), labels, SETS, generation=options)
    assert found.falls.dtype == torch.float32
    assert found.nulls[0].abs().max() < 1.0


def test_an_answer_that_was_cut_off_does_not_change_by_going_on():
    model = tiny_model("qwen3_vl")
    inputs, labels, options = asked(model, answer=30)
    thinking, answer = halves(model, generated(model, inputs, options))
    cut = rethink(model, inputs, [*thinking, *answer[:6]], labels, SETS, generation=options)
    assert cut.null_changes[0] == 0
    assert [len(again.answer_ids) for (again,) in cut.again] == [6] * len(SETS)


def test_rows_that_write_the_first_trace_again_are_read_and_others_written_as_without_a_draft(
    tiny, monkeypatch
):
    inputs, labels, options = asked(tiny)
    ids = generated(tiny, inputs, options)
    agreed, real = [], rewriting._agreeing

    def watched(*args):
        agreed.append(real(*args))
        return agreed[-1]

    monkeypatch.setattr(rewriting, "_agreeing", watched)
    found = rethink(tiny, inputs, ids, labels, SETS, generation=options)
    agree, log_probs = agreed[0]
    assert agree[0]
    assert not agree.all()
    expected = slow_log_probs(tiny, inputs, torch.tensor(ids))
    torch.testing.assert_close(log_probs[0], expected, **NEAR)
    monkeypatch.setattr(rewriting, "LOGITS_AT_ONCE", 1)
    singly = rethink(tiny, inputs, ids, labels, SETS, generation=options)
    assert torch.equal(agreed[1][0], agree)
    torch.testing.assert_close(agreed[1][1], log_probs, **NEAR)
    none = torch.zeros(len(SETS) + len(NULLS), dtype=torch.bool)
    monkeypatch.setattr(rewriting, "_agreeing", lambda *args: (none, real(*args)[1]))
    written = rethink(tiny, inputs, ids, labels, SETS, generation=options)
    assert found.again == singly.again == written.again
    torch.testing.assert_close(found.falls, written.falls, **NEAR)


def test_a_trace_is_read_as_a_stream_reads_it():
    model = tiny_model("qwen3_vl")
    ids = model.tokenizer("So it is.</think>\n 24 ", add_special_tokens=False)["input_ids"]
    read = parse(model, ids, opened=True)
    assert (read.thinking, read.answer, read.channel) == ("So it is.", "24", "answer")
    assert (*read.thinking_ids, *read.answer_ids) == tuple(ids)
    assert model.tokenizer.decode(read.thinking_ids) == "So it is.</think>"
    follow = segmenter(model, opened=True)
    for token in ids:
        follow.push(token)
    follow.finish()
    assert follow.answer == read.answer
    assert parse(model, ids, opened=True, stop=("is",)).channel == "thinking"


def test_hiding_what_an_answer_is_read_from_changes_it_through_the_thinking():
    model, example = load("mini"), sample("math", 8_000_003)
    own = collect.answer(model, example, 512, 64)
    labels = collect.regions_of(model, own.pictures, own.inputs).labels[0]
    rows, cols = labels.shape
    width, height = own.pictures[0].size
    seen = {
        int(labels[y, x])
        for left, top, right, bottom in (box for boxes in example.evidence for box in boxes)
        for y in range(int(top / height * rows), min(rows, int(bottom / height * rows) + 1))
        for x in range(int(left / width * cols), min(cols, int(right / width * cols) + 1))
    }
    count = int(labels.max()) + 1
    evidence = torch.tensor([[region in seen for region in range(count)]])
    assert 0 < int(evidence.sum()) < count
    found = rethink(model, own.inputs, own.ids.tolist(), labels.flatten(), torch.cat([evidence, ~evidence]))
    assert found.first.answer == "salt"
    assert found.changes.tolist() == [1, 0]
    assert found.total[0] > 3
    assert found.through[0] > 3 * found.direct[0].abs()
    assert found.again[0][0].thinking != found.first.thinking
    assert found.total[1].abs() < 1
    assert found.nulls.abs().max() < 0.1
    assert not found.null_changes.any()
