from functools import partial

import pytest
import torch
from conftest import FAMILIES, build_tiny, picture, tiny_model
from slow_hiding import extended, slow_log_probs, trace_of

from eyeline.evaluation.baselines.gradient import (
    differentiable,
    first_order,
    input_gradient,
    integrated_gradients,
    look,
)
from eyeline.regions import Regions
from eyeline.spans import Span
from eyeline.teacher_forcing import Vision, mean_tokens, read, teacher_force, trace_log_probs

BOUNDS = ((0, 5), (5, 12), (12, 21))
LABELS = (torch.tensor([[0, 1, 1], [2, 0, 1]]), torch.tensor([[3, 4], [3, 4], [6, 5]]))
REGIONS = Regions(LABELS, 7)
CELLS = Regions((torch.arange(6).view(2, 3), torch.arange(6, 12).view(3, 2)), 12)  # one region a token
each = pytest.mark.parametrize(
    "method",
    [input_gradient, partial(integrated_gradients, steps=4)],
    ids=["input gradient", "integrated gradients"],
)


def spans_of(bounds=BOUNDS):
    return [Span(index, "thinking", start, end, "", False) for index, (start, end) in enumerate(bounds)]


def question_of(model):
    """Two images, of 2 rows and 3 columns and of 3 rows and 2 columns."""
    inputs = model.inputs([picture(seed=1), picture(64, 96, seed=2)], "How many?")
    assert [(image.rows, image.cols) for image in model.image_grids(inputs)] == [(2, 3), (3, 2)]
    return inputs


def slow_gradients(model, inputs, trace_ids, spans):
    """Ordinary autograd through the whole transformers model: what the vision tower puts out is replaced by leaves.

    Returns for every span the input-times-gradient of each visual token, x . dlog p / dx, at each input.
    """
    leaves = []

    def cut(tower, args, output):
        parts = [output.pooler_output, *(output.deepstack_features if model.adapter.deepstack else [])]
        leaves.extend(part.detach().requires_grad_() for part in parts)
        output.pooler_output = leaves[0]
        if model.adapter.deepstack:
            output.deepstack_features = leaves[1:]
        return output

    handle = model.adapter.vision_tower(model.hf).register_forward_hook(cut)
    try:
        model.hf.model.rope_deltas = None
        logits = model.hf(**extended(model, inputs, trace_ids), use_cache=False).logits[0]
    finally:
        handle.remove()
        model.hf.model.rope_deltas = None
    log_probs = logits[inputs["input_ids"].shape[1] - 1 : -1].log_softmax(-1)
    chosen = log_probs[torch.arange(len(trace_ids)), trace_ids]
    rows = []
    for span in spans:
        total = chosen[span.start : span.end].sum()
        gradients = torch.autograd.grad(total, leaves, retain_graph=True)
        rows.append(torch.stack([(leaf * grad).sum(1) for leaf, grad in zip(leaves, gradients, strict=True)]))
    return torch.stack(rows).detach()  # (span, input, patch)


def span_log_probs(model, inputs, trace_ids, visual, spans):
    """Each span's log-prob with these visual inputs."""
    with torch.no_grad():
        trace = teacher_force(model, inputs, trace_ids)
        features, *deepstack = visual.split(1)
        states, _ = read(model, trace, Vision(features, deepstack), 1, use_cache=False)
        log_probs = trace_log_probs(model, states[:, -len(trace_ids) :], trace_ids)[0]
    return torch.stack([log_probs[span.start : span.end].sum() for span in spans])


def test_input_gradient_is_ordinary_autograd_through_the_whole_model(tiny):
    inputs, trace_ids, spans = question_of(tiny), trace_of(tiny), spans_of()
    slow = slow_gradients(tiny, inputs, trace_ids, spans)
    assert slow.shape[1] == (3 if tiny.adapter.deepstack else 1)
    assert slow.abs().amax(dim=(0, 2)).min() > 1e-3  # every input counts
    expected = torch.zeros(len(spans), REGIONS.count)
    for patch, region in enumerate(REGIONS.of_patch.tolist()):
        expected[:, region] += slow[:, :, patch].sum(1).abs()
    effects = input_gradient(tiny, inputs, trace_ids, spans, REGIONS)
    torch.testing.assert_close(effects, expected, rtol=1e-3, atol=1e-5)


def test_the_gradient_is_the_limit_of_finite_differences(tiny):
    inputs, trace_ids, spans, step = question_of(tiny), trace_of(tiny), spans_of(), 1e-2
    with differentiable(tiny):
        trace, visual = look(tiny, inputs, trace_ids)
        terms = first_order(tiny, trace, visual, visual, trace_ids, spans)
    for patch in (0, 4, 11):
        change = torch.zeros_like(visual)
        change[:, patch] = step * visual[:, patch]
        ends = [span_log_probs(tiny, inputs, trace_ids, visual + way * change, spans) for way in (1, -1)]
        torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), terms[:, patch], rtol=0.02, atol=2e-3)
    assert terms.abs().max() > 0.1


def test_the_passes_give_the_models_own_log_probs(tiny):
    inputs, trace_ids, spans = question_of(tiny), trace_of(tiny), spans_of()
    with differentiable(tiny):
        _, visual = look(tiny, inputs, trace_ids)
    own = slow_log_probs(tiny, inputs, trace_ids)
    expected = torch.stack([own[span.start : span.end].sum() for span in spans])
    torch.testing.assert_close(
        span_log_probs(tiny, inputs, trace_ids, visual, spans), expected, rtol=0, atol=1e-4
    )


def test_integrated_gradients_sum_to_the_fall_in_log_prob(tiny):
    inputs, trace_ids, spans = question_of(tiny), trace_of(tiny), spans_of()
    with differentiable(tiny):
        trace, visual = look(tiny, inputs, trace_ids)
        baseline = mean_tokens(visual, trace.images)
    fall = span_log_probs(tiny, inputs, trace_ids, visual, spans) - span_log_probs(
        tiny, inputs, trace_ids, baseline, spans
    )
    assert fall.abs().min() > 0.01
    errors = {}
    for steps in (1, 4, 16, 64):
        effects = integrated_gradients(tiny, inputs, trace_ids, spans, REGIONS, steps=steps)
        errors[steps] = float((effects.sum(1) - fall).abs().max())
    assert errors[1] > 0.05  # one step is the gradient at the middle, and not complete
    assert errors[4] < errors[1] / 4
    assert errors[16] < 0.02
    assert errors[64] < 1e-4


def test_integrated_gradients_are_a_fine_riemann_sum_of_ordinary_gradients():
    model = tiny_model("qwen3_vl")
    inputs, trace_ids, spans, pieces = question_of(model), trace_of(model), spans_of(), 60
    with differentiable(model):
        trace, visual = look(model, inputs, trace_ids)
        baseline = mean_tokens(visual, trace.images)
        total = torch.zeros(len(spans), 12)
        for piece in range(pieces):
            point = baseline + (piece + 0.5) / pieces * (visual - baseline)
            total += first_order(model, trace, point, visual - baseline, trace_ids, spans) / pieces
    effects = integrated_gradients(model, inputs, trace_ids, spans, CELLS, steps=32)
    torch.testing.assert_close(effects, total, rtol=1e-2, atol=2e-3)
    assert effects.min() < -0.01  # signed
    assert effects.max() > 0.01


def test_the_baseline_is_the_mean_token_of_each_image_at_each_input(tiny):
    inputs, trace_ids = question_of(tiny), trace_of(tiny)
    with differentiable(tiny):
        trace, visual = look(tiny, inputs, trace_ids)
        baseline = mean_tokens(visual, trace.images)
    for inputs_of_one, means in zip(visual, baseline, strict=True):
        for patches in (range(6), range(6, 12)):
            mean = sum(inputs_of_one[patch] for patch in patches) / len(patches)
            for patch in patches:
                torch.testing.assert_close(means[patch], mean)


@each
def test_regions_merged_have_the_sum_of_their_effects(tiny, method):
    inputs, trace_ids, spans = question_of(tiny), trace_of(tiny), spans_of()
    merged = Regions(tuple(torch.where(grid == 6, 0, grid) for grid in LABELS), 6)
    apart = method(tiny, inputs, trace_ids, spans, REGIONS)
    together = method(tiny, inputs, trace_ids, spans, merged)
    torch.testing.assert_close(together[:, 0], apart[:, 0] + apart[:, 6])
    torch.testing.assert_close(together[:, 1:], apart[:, 1:6])
    assert apart.abs().min() > 0


def test_a_spans_gradient_is_the_sum_over_its_tokens(tiny):
    inputs, trace_ids = question_of(tiny), trace_of(tiny)
    with differentiable(tiny):
        trace, visual = look(tiny, inputs, trace_ids)
        tokens = spans_of([(at, at + 1) for at in range(5, 12)])
        alone = first_order(tiny, trace, visual, visual, trace_ids, tokens)
        whole = first_order(tiny, trace, visual, visual, trace_ids, spans_of([(5, 12)]))
    torch.testing.assert_close(alone.sum(0), whole[0], rtol=1e-3, atol=1e-5)
    assert (alone[0] - alone[1]).abs().max() > 1e-3


@each
def test_parameters_get_no_gradient_and_keep_their_flags(tiny, method):
    inputs, trace_ids = question_of(tiny), trace_of(tiny)
    frozen = next(tiny.hf.parameters())
    frozen.requires_grad_(False)
    try:
        before = {name: weight.requires_grad for name, weight in tiny.hf.named_parameters()}
        method(tiny, inputs, trace_ids, spans_of(), REGIONS)
        assert {name: weight.requires_grad for name, weight in tiny.hf.named_parameters()} == before
        assert set(before.values()) == {True, False}
        assert all(weight.grad is None for weight in tiny.hf.parameters())
    finally:
        frozen.requires_grad_(True)


def test_flags_come_back_after_an_exception():
    model = build_tiny("qwen3_vl")

    def fail():
        with differentiable(model):
            assert not any(weight.requires_grad for weight in model.hf.parameters())
            raise KeyError("in the block")

    with pytest.raises(KeyError):
        fail()
    assert all(weight.requires_grad for weight in model.hf.parameters())


@each
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_caller_without_gradients_gets_the_same_effects(method, mode):
    model = tiny_model("qwen3_vl")
    expected = method(model, question_of(model), trace_of(model), spans_of(), REGIONS)
    with mode():
        effects = method(model, question_of(model), trace_of(model), spans_of(), REGIONS)
    assert torch.equal(effects, expected)
    assert not effects.requires_grad


@each
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bfloat16_model_gives_float32_effects_close_to_those_in_float32(family, method):
    model = build_tiny(family)
    exact = method(model, question_of(model), trace_of(model), spans_of(), CELLS)
    model.hf.to(torch.bfloat16)
    effects = method(model, question_of(model), trace_of(model), spans_of(), CELLS)
    assert effects.dtype == torch.float32
    assert torch.corrcoef(torch.stack([effects.flatten(), exact.flatten()]))[0, 1] > 0.95
    assert all(weight.dtype == torch.bfloat16 for weight in model.hf.parameters())


@each
def test_no_spans_give_no_effects(method):
    model = tiny_model("glm4v")
    assert method(model, question_of(model), trace_of(model), [], REGIONS).shape == (0, 7)
