import numpy as np
import pytest
import torch
from conftest import build_tiny, picture
from hypothesis import given
from hypothesis import strategies as st
from slow_hiding import extended, trace_of
from test_baselines_attention import asked

from eyeline.evaluation.baselines.tam import (
    normalise,
    question_positions,
    rank_gaussian_filter,
    remove_interference,
    token_activation_map,
)
from eyeline.teacher_forcing import teacher_force

# --- the definition in METHOD.md, token by token, value by value


def last_hidden_states(model, inputs, trace_ids):
    with torch.no_grad():
        model.hf.model.rope_deltas = None
        states = model.hf.model(**extended(model, inputs, trace_ids), use_cache=False).last_hidden_state[0]
        model.hf.model.rope_deltas = None
    return states.double().numpy()


def slow_filter(grid):
    rows, cols = grid.shape
    padded = np.pad(grid, 1, mode="reflect")
    smooth = np.zeros_like(grid)
    for row in range(rows):
        for col in range(cols):
            window = sorted(padded[row + y, col + x] for y in range(3) for x in range(3))
            mean = sum(window) / 9
            if mean <= 0:
                continue
            c = (sum((value - mean) ** 2 for value in window) / 9) ** 0.5 / mean
            if c < 1e-6:
                smooth[row, col] = window[4]
                continue
            weights = [np.exp(-(q**2) / (2 * c**2)) for q in range(-4, 5)]
            smooth[row, col] = sum(w * v for w, v in zip(weights, window, strict=True)) / sum(weights)
    return smooth


def slow_maps(model, inputs, trace_ids, question="How many?"):
    """The map of every token of the trace, over all visual tokens."""
    states = last_hidden_states(model, inputs, trace_ids)
    unembedding = model.hf.lm_head.weight.detach().double().numpy()
    prompt = inputs["input_ids"][0].tolist()
    wanted = model.tokenizer(question, add_special_tokens=False)["input_ids"]
    starts = [at for at in range(len(prompt)) if prompt[at : at + len(wanted)] == wanted]
    assert len(starts) == 1
    visual = [at for at, token in enumerate(prompt) if token == model.adapter.image_token_id(model.hf)]
    # each token of the text with the position it scores at: its own in the question, the one before if written
    text = [(token, starts[0] + at) for at, token in enumerate(wanted)]
    text += [(token, len(prompt) - 1 + at) for at, token in enumerate(trace_ids.tolist())]
    strings = model.tokenizer.convert_ids_to_tokens([token for token, _ in text])

    def score(position, token):
        return max(0.0, float(states[position] @ unembedding[token]))

    raw = [np.array([score(position, token) for position in visual]) for token, _ in text]
    maps = []
    for at in range(len(wanted), len(text)):
        target, v = text[at][0], raw[at]
        earlier = [score(position, target) for _, position in text[:at]]
        others = [i for i in range(at) if strings[i] != strings[at]]
        total = sum(earlier[i] for i in others)
        interference = sum(earlier[i] / (total + 1e-8) * raw[i] for i in others)
        if interference @ interference > 0:
            v = v - (v @ interference) / (interference @ interference) * interference
            v = np.maximum(0, v)
        low, high = min([*v, *earlier]), max([*v, *earlier])
        scaled, done = (v - low) / (high - low), []
        for grid in model.image_grids(inputs):
            part, scaled = scaled[: len(grid)], scaled[len(grid) :]
            done.append(slow_filter(part.reshape(grid.rows, grid.cols)).flatten())
        maps.append(np.concatenate(done))
    return np.array(maps)


@pytest.mark.parametrize("images", [1, 2])
def test_every_effect_equals_its_slow_definition(tiny, images):
    inputs, trace_ids, spans, regions = asked(tiny, images)
    trace_ids[8] = trace_ids[2]  # a token comes again: it does not interfere with itself
    effects = token_activation_map(tiny, inputs, trace_ids, spans, regions)
    maps = slow_maps(tiny, inputs, trace_ids)
    for number, span in enumerate(spans):
        mean = maps[span.start : span.end].mean(axis=0)
        for region in range(regions.count):
            expected = mean[(regions.of_patch == region).numpy()].sum()
            assert effects[number, region].item() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert effects.std(dim=1).min() > 1e-3


@pytest.mark.parametrize("shape", [(5, 4), (2, 3), (1, 6), (6, 1), (1, 1)])
def test_the_filter_equals_explicit_loops_over_windows(shape):
    grids = torch.rand(7, *shape, generator=torch.Generator().manual_seed(0))
    grids = torch.where(grids < 0.5, 0, grids)  # some windows are all zero
    grids[0] = 0
    smooth = rank_gaussian_filter(grids)
    expected = np.array([slow_filter(grid) for grid in grids.double().numpy()])
    np.testing.assert_allclose(smooth.numpy(), expected, rtol=1e-4, atol=1e-6)


@given(value=st.floats(1e-3, 1e3), rows=st.integers(1, 5), cols=st.integers(1, 5))
def test_a_constant_map_passes_the_filter_unchanged(value, rows, cols):
    grid = torch.full((1, rows, cols), value)
    torch.testing.assert_close(rank_gaussian_filter(grid), grid)


@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0.1, 10.0))
def test_the_filter_scales_with_its_map(seed, factor):
    grids = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(rank_gaussian_filter(factor * grids), factor * rank_gaussian_filter(grids))


def test_the_filter_is_scarcely_moved_by_one_bright_cell_in_an_even_map():
    grid = torch.full((1, 5, 5), 1.0)
    grid[0, 2, 2] = 2.0
    assert rank_gaussian_filter(grid)[0, 2, 2] == pytest.approx(1.0, abs=1e-3)


def test_a_map_that_copies_an_earlier_one_is_all_interference():
    rng = torch.Generator().manual_seed(0)
    text_maps = torch.rand(3, 12, generator=rng)
    copies = torch.stack([2.5 * text_maps[1], 2.5 * text_maps[1]])
    scores = torch.tensor([[0.0, 4.0, 0.0], [0.0, 4.0, 0.0]])
    other = torch.tensor([[True, True, False], [True, False, False]])
    cleaned = remove_interference(copies, text_maps, scores, other)
    assert cleaned[0].abs().max() < 1e-6
    assert torch.equal(cleaned[1], copies[1])  # that token is not counted: nothing interferes


def test_what_is_left_is_where_the_map_exceeds_its_best_fit():
    text_maps = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    maps = torch.tensor([[5.0, 1.0, 2.0, 0.0]])
    cleaned = remove_interference(
        maps, text_maps, torch.tensor([[1.0, 0.0]]), torch.ones(1, 2, dtype=torch.bool)
    )
    torch.testing.assert_close(cleaned, torch.tensor([[2.0, 0.0, 2.0, 0.0]]))  # a = 3


def test_maps_and_earlier_text_are_scaled_together():
    maps, scores = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[5.0, 9.0], [0.0, 9.0]])
    earlier = torch.tensor([[True, False], [True, False]])
    scaled = normalise(maps, scores, earlier)
    torch.testing.assert_close(scaled, torch.tensor([[0.0, 0.25], [0.0, 0.0]]))


def test_later_text_changes_nothing(tiny):
    inputs, trace_ids, spans, regions = asked(tiny)
    whole = token_activation_map(tiny, inputs, trace_ids, spans, regions)
    cut = token_activation_map(tiny, inputs, trace_ids[: spans[1].end], spans[:2], regions)
    torch.testing.assert_close(cut, whole[:2], rtol=1e-3, atol=1e-4)


def test_the_question_is_what_stands_after_the_image_without_the_templates_tokens(tiny):
    inputs = tiny.inputs(picture(), "Which bar is the tallest?")
    trace = teacher_force(tiny, inputs, trace_of(tiny))
    found = tiny.tokenizer.decode(trace.ids[0, question_positions(tiny, trace)].tolist())
    assert found == "Which bar is the tallest?"


def test_only_the_rows_of_the_text_are_read_from_the_unembedding(monkeypatch):
    model = build_tiny("qwen3_vl")
    given = asked(model)
    monkeypatch.setattr(model.hf.lm_head, "forward", None)  # no logits
    expected = token_activation_map(model, *given)
    absent = sorted(
        set(range(len(model.hf.lm_head.weight))) - {*given[1].tolist(), *given[0]["input_ids"][0].tolist()}
    )
    with torch.no_grad():
        model.hf.lm_head.weight[absent] = torch.nan
    assert torch.equal(token_activation_map(model, *given), expected)


def test_a_bfloat16_model_gives_float32_effects(tiny):
    model = build_tiny(tiny.adapter.family)
    model.hf.to(torch.bfloat16)
    effects, exact = token_activation_map(model, *asked(model)), token_activation_map(tiny, *asked(tiny))
    assert effects.dtype == torch.float32
    assert torch.corrcoef(torch.stack([effects.flatten(), exact.flatten()]))[0, 1] > 0.98
