import importlib
import threading

import pytest
import torch
from conftest import FAMILIES, build_tiny, tiny_model
from slow_hiding import trace_of
from test_baselines_gradient import CELLS, LABELS, REGIONS, question_of, spans_of
from torch import nn

from eyeline.evaluation.baselines.gradient import differentiable, look
from eyeline.evaluation.baselines.lrp import ATTN_LRP, CP_LRP, attn_lrp, cp_lrp, relevance_rules
from eyeline.regions import Regions
from eyeline.teacher_forcing import Vision, read

METHODS = {attn_lrp: ATTN_LRP, cp_lrp: CP_LRP}
both = pytest.mark.parametrize("method", METHODS)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradient(model, factors, function, x, upper):
    """What comes down at x under the rules when `upper` comes in at function(x); and function(x)."""
    x = x.clone().requires_grad_()
    with relevance_rules(model, factors):
        output = function(x)
    return torch.autograd.grad(output, x, upper)[0], output.detach()


def first_layer(model):
    return model.adapter.layers(model.hf)[0]


def rotary(model, positions):
    """Cosines and sines for the text model's layers, and the family's function that turns queries and keys by them."""
    text = model.adapter.text_model(model.hf)
    module = importlib.import_module(type(text).__module__)
    return text.rotary_emb(torch.zeros(1), positions), module.apply_rotary_pos_emb


# --- each rule by itself


def test_a_norm_is_differentiated_as_a_product_with_a_constant(tiny):
    text = tiny.adapter.text_model(tiny.hf)
    names = [name for name, module in text.named_modules() if name.rpartition(".")[2].endswith("norm")]
    assert len(names) == 1 + 3 * {"qwen3_vl": 4, "glm4v": 4, "qwen2_5_vl": 2}[tiny.adapter.family]
    for seed, name in enumerate(names):
        norm = text.get_submodule(name)
        x, upper = random(5, len(norm.weight), seed=seed), random(5, len(norm.weight), seed=seed + 100)
        found, output = gradient(tiny, ATTN_LRP, norm, x, upper)
        rms = (x.square().mean(1, keepdim=True) + norm.variance_epsilon).sqrt()
        torch.testing.assert_close(found, upper * norm.weight / rms)
        all_relevance = (output * upper).sum()
        torch.testing.assert_close((x * found).sum(), all_relevance, rtol=1e-4, atol=1e-4)


def test_an_activation_is_differentiated_as_a_product_with_f_of_x_over_x(tiny):
    mlp = first_layer(tiny).mlp
    act = mlp.activation_fn if tiny.adapter.family == "glm4v" else mlp.act_fn
    x, upper = torch.cat([random(50) * 4, torch.zeros(1)]), random(51, seed=1)
    found, output = gradient(tiny, ATTN_LRP, act, x, upper)
    torch.testing.assert_close(found, upper * nn.functional.silu(x) / (x + 1e-10))
    assert found[-1] == 0
    torch.testing.assert_close(x * found, output * upper)


def test_gate_and_gated_get_half_of_the_gradient_each(tiny):
    mlp, x, upper = first_layer(tiny).mlp, random(1, 5, 64), random(1, 5, 64, seed=1)
    if tiny.adapter.family == "glm4v":
        gate_weight, up_weight = mlp.gate_up_proj.weight.chunk(2)
    else:
        gate_weight, up_weight = mlp.gate_proj.weight, mlp.up_proj.weight
    gate, up = x @ gate_weight.T, x @ up_weight.T
    active = nn.functional.silu(gate)
    at_product = upper @ mlp.down_proj.weight
    expected = (at_product * up / 2 * active / (gate + 1e-10)) @ gate_weight
    expected += (at_product * active / 2) @ up_weight
    found, output = gradient(tiny, ATTN_LRP, mlp, x, upper)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close((x * found).sum(), (output * upper).sum(), rtol=1e-4, atol=1e-4)


@both
def test_attention_scales_the_gradients_of_queries_keys_and_values_at_the_kernel(tiny, method):
    """By hand: softmax attention on leaves after the rotary embedding, their gradients scaled, then pulled back."""
    attention, x, upper = first_layer(tiny).self_attn, random(1, 5, 64), random(1, 5, 64, seed=1)
    for norm in ("q_norm", "k_norm"):
        assert hasattr(attention, norm) == (tiny.adapter.family == "qwen3_vl")
    turn, apply = rotary(tiny, torch.arange(5).expand(3, 1, 5))
    causal = torch.full((5, 5), torch.finfo(torch.float32).min).triu(1)[None, None]

    x_leaf = x.clone().requires_grad_()
    heads = {}
    for name in "qkv":
        projected = getattr(attention, f"{name}_proj")(x_leaf).view(1, 5, -1, attention.head_dim)
        if (norm := getattr(attention, f"{name}_norm", None)) is not None:
            rms = (projected.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt().detach()
            projected = norm.weight * projected / rms
        heads[name] = projected.transpose(1, 2)
    heads["q"], heads["k"] = apply(heads["q"], heads["k"], *turn)
    leaves = {name: part.detach().requires_grad_() for name, part in heads.items()}
    keys, values = (leaves[name].repeat_interleave(2, dim=1) for name in "kv")
    weights = (leaves["q"] @ keys.transpose(2, 3) * attention.head_dim**-0.5 + causal).softmax(-1)
    output = attention.o_proj((weights @ values).transpose(1, 2).flatten(2))
    at_kernel = torch.autograd.grad(output, list(leaves.values()), upper)
    factors = (0.25, 0.25, 0.5) if method is attn_lrp else (0.0, 0.0, 1.0)
    scaled = [grad * factor for grad, factor in zip(at_kernel, factors, strict=True)]
    (expected,) = torch.autograd.grad(list(heads.values()), x_leaf, scaled)

    found, ours = gradient(
        tiny,
        METHODS[method],
        lambda x: attention(hidden_states=x, position_embeddings=turn, attention_mask=causal)[0],
        x,
        upper,
    )
    torch.testing.assert_close(ours, output, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# --- the whole model, layer by layer, in float64


def into_linear(x, weight, z, relevance):
    """Eq. 8: each input of z_j = sum_i x_i w_ji + b_j gets its share of the relevance of z_j; a bias keeps its own."""
    return x * ((relevance / torch.where(z == 0, 1.0, z)) @ weight)


def into_terms(relevance, *terms):
    """Eq. 8 for a sum."""
    return [term * relevance / sum(terms) for term in terms]


def into_factors(a, b, relevance):
    """Proposition 3.3, for a @ b."""
    share = relevance / (2 * (a @ b))
    return a * (share @ b.transpose(-1, -2)), b * (a.transpose(-1, -2) @ share)


def into_softmax(x, softmax, relevance):
    """Proposition 3.1; x is finite, masked scores are 0 with a softmax of 0."""
    return x * (relevance - softmax * relevance.sum(-1, keepdim=True))


class Literal:
    """Forward and relevance of a text model, written out from its weights; no autograd.

    Norms and activations hand relevance on as it is (eq. 9, proposition 3.4), an elementwise product gives half to
    each factor (3.2); with `cp`, attention weights are constants and the values get all.
    """

    def __init__(self, model, trace, visual, *, cp):
        text = model.adapter.text_model(model.hf)
        self.weights = {name: weight.detach().double() for name, weight in text.named_parameters()}
        self.head = model.adapter.lm_head(model.hf).weight.detach().double()
        config = model.adapter.text_config(model.hf)
        self.cp, self.epsilon, self.layers = cp, config.rms_norm_eps, config.num_hidden_layers
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        turn, self.apply = rotary(model, trace.position_ids)
        self.turn = [part.double() for part in turn]
        self.patches = trace.patches
        self.length = trace.ids.shape[1]
        self.embeds = self.weights["embed_tokens.weight"][trace.ids[0]]
        features, *self.deepstack = visual.double()
        self.embeds[self.patches] = features

    def norm(self, name, x):
        rms = (x.square().mean(-1, keepdim=True) + self.epsilon).sqrt()
        return self.weights[f"{name}.weight"] * x / rms if f"{name}.weight" in self.weights else x

    def linear(self, name, x):
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)

    def split(self, x):  # (position, head * dim) -> (head, position, dim)
        return x.view(self.length, -1, self.embeds.shape[1] // self.heads).transpose(0, 1)

    def join(self, x):
        return x.transpose(0, 1).flatten(1)

    def turned(self, x):
        return self.apply(x[None], x[None], *self.turn)[0][0]

    def into_turned(self, x, relevance):
        """The rotary embedding is a linear map of each head's dimensions; its matrix by what it does to unit vectors."""
        dim = x.shape[-1]
        units = torch.eye(dim, dtype=x.dtype)[:, None].expand(dim, self.length, dim)
        matrix = self.turned(units).permute(1, 2, 0)  # (position, output, input)
        z = torch.einsum("poi,hpi->hpo", matrix, x)
        share = relevance / torch.where(z == 0, 1.0, z)
        return x * torch.einsum("poi,hpo->hpi", matrix, share)

    def relevance(self, target_of_logits):
        """Of every position's embedding and of each DeepStack addition, from the relevance at the logits."""
        stack, x = [], self.embeds
        for index in range(self.layers):
            x, back = self.layer(f"layers.{index}", x)
            stack.append(back)
            if index < len(self.deepstack):
                added = torch.zeros_like(x)
                added[self.patches] = self.deepstack[index]
                stack.append((x, added))
                x = x + added
        normed = self.norm("norm", x)
        logits = normed @ self.head.T
        relevance = into_linear(normed, self.head, logits, target_of_logits(logits))
        of_deepstack = []
        for back in reversed(stack):
            if isinstance(back, tuple):
                relevance, added = into_terms(relevance, *back)
                of_deepstack.insert(0, added[self.patches])
            else:
                relevance = back(relevance)
        return relevance, of_deepstack, logits

    def layer(self, name, x):
        normed = self.norm(f"{name}.input_layernorm", x)
        attended, into_attention = self.attention(f"{name}.self_attn", normed)
        attended = self.norm(f"{name}.post_self_attn_layernorm", attended)
        middle = x + attended
        mlp_in = self.norm(f"{name}.post_attention_layernorm", middle)
        written, into_mlp = self.mlp(f"{name}.mlp", mlp_in)
        written = self.norm(f"{name}.post_mlp_layernorm", written)

        def back(relevance):
            of_middle, of_written = into_terms(relevance, middle, written)
            of_x, of_attended = into_terms(of_middle + into_mlp(of_written), x, attended)
            return of_x + into_attention(of_attended)

        return middle + written, back

    def mlp(self, name, x):
        if f"{name}.gate_up_proj.weight" in self.weights:
            gate_weight, up_weight = self.weights[f"{name}.gate_up_proj.weight"].chunk(2)
        else:
            gate_weight, up_weight = (self.weights[f"{name}.{part}_proj.weight"] for part in ("gate", "up"))
        gate, up = x @ gate_weight.T, x @ up_weight.T
        product = gate * gate.sigmoid() * up
        down = self.weights[f"{name}.down_proj.weight"]
        output = product @ down.T

        def back(relevance):
            half = into_linear(product, down, output, relevance) / 2
            return into_linear(x, gate_weight, gate, half) + into_linear(x, up_weight, up, half)

        return output, back

    def attention(self, name, x):
        projected = {part: self.linear(f"{name}.{part}_proj", x) for part in "qkv"}
        parts = {part: self.norm(f"{name}.{part}_norm", self.split(projected[part])) for part in "qkv"}
        q, k = self.turned(parts["q"]), self.turned(parts["k"])
        repeat = self.heads // self.groups
        keys, values = (part.repeat_interleave(repeat, dim=0) for part in (k, parts["v"]))
        seen = torch.ones(self.length, self.length, dtype=torch.bool).tril()
        products = q @ keys.transpose(1, 2)
        scores = products * q.shape[-1] ** -0.5
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        mixed = weights @ values
        joined = self.join(mixed)
        output = self.linear(f"{name}.o_proj", joined)

        def gather(relevance):  # of repeated heads, to the one they repeat
            return relevance.unflatten(0, (self.groups, repeat)).sum(1)

        def back(relevance):
            at_mixed = self.split(
                into_linear(joined, self.weights[f"{name}.o_proj.weight"], output, relevance)
            )
            of_weights, of_values = into_factors(weights, values, at_mixed)
            at = {"v": gather(of_values * (2 if self.cp else 1))}
            if not self.cp:
                at_scores = into_softmax(scores.masked_fill(~seen, 0.0), weights, of_weights)
                of_q, of_keys = into_factors(q, keys.transpose(1, 2), at_scores)
                at["q"] = self.into_turned(parts["q"], of_q)
                at["k"] = self.into_turned(parts["k"], gather(of_keys.transpose(1, 2)))
            return sum(
                into_linear(x, self.weights[f"{name}.{part}_proj.weight"], projected[part], self.join(r))
                for part, r in at.items()
            )

        return output, back


def literal_effects(model, inputs, trace_ids, spans, *, cp):
    with torch.no_grad():
        trace, visual = look(model, inputs, trace_ids)
        literal = Literal(model, trace, visual, cp=cp)
        rows = []
        for span in spans:

            def target(logits, span=span):  # log p = logit - log sum exp, taken to first order at the logits
                relevance = torch.zeros_like(logits)
                for token in range(span.start, span.end):
                    row = trace.prompt_length - 1 + token
                    slope = -logits[row].softmax(-1)
                    slope[trace_ids[token]] += 1
                    relevance[row] = logits[row] * slope
                return relevance

            positions, deepstack, _ = literal.relevance(target)
            rows.append(positions[trace.patches] + sum(deepstack))
    return torch.stack(rows).sum(-1)  # (span, patch)


@both
def test_relevance_is_that_of_a_layer_by_layer_propagation(tiny, method):
    inputs, trace_ids, spans = question_of(tiny), trace_of(tiny), spans_of()
    expected = literal_effects(tiny, inputs, trace_ids, spans, cp=method is cp_lrp).float()
    effects = method(tiny, inputs, trace_ids, spans, CELLS)
    torch.testing.assert_close(effects, expected, rtol=1e-3, atol=1e-4)
    assert effects.min() < -0.05  # signed


# --- conservation


def bias_free(family):
    model = build_tiny(family)
    with torch.no_grad():
        for name, weight in model.adapter.text_model(model.hf).named_parameters():
            if name.endswith("bias"):
                weight.zero_()
    return model


def logit_relevance(model, factors):
    """A logit, and the relevance of every input of the text model for it: text, visual embeddings, each DeepStack."""
    inputs, trace_ids, text = question_of(model), trace_of(model), []

    def cut(module, args, output):
        text.append(output.detach().requires_grad_())
        return text[0]

    handle = model.adapter.text_model(model.hf).get_input_embeddings().register_forward_hook(cut)
    try:
        with differentiable(model), relevance_rules(model, factors):
            trace, visual = look(model, inputs, trace_ids)
            leaves = [part.requires_grad_() for part in visual.split(1)]
            states, _ = read(model, trace, Vision(leaves[0], leaves[1:]), 1, use_cache=False)
            logit = model.adapter.lm_head(model.hf)(states[0, -1])[trace_ids[-1]]
            everything = [text[0], *leaves]
            gradients = torch.autograd.grad(logit, everything)
    finally:
        handle.remove()
    return logit.item(), [(x * g).sum().item() for x, g in zip(everything, gradients, strict=True)]


@pytest.mark.parametrize("family", FAMILIES)
def test_cp_lrp_conserves_a_logit_over_text_visual_embeddings_and_deepstack(family):
    model = bias_free(family)
    logit, relevance = logit_relevance(model, CP_LRP)
    assert len(relevance) == (4 if model.adapter.deepstack else 2)
    assert min(abs(part) for part in relevance) > 0.005  # none may be left out
    assert sum(relevance) == pytest.approx(logit, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_attn_lrp_does_not_conserve_a_logit(family):
    logit, relevance = logit_relevance(bias_free(family), ATTN_LRP)
    assert abs(sum(relevance) - logit) > 0.05


# --- what is changed, and for whom


@both
def test_regions_merged_have_the_sum_of_their_relevance(tiny, method):
    inputs, trace_ids, spans = question_of(tiny), trace_of(tiny), spans_of()
    merged = Regions(tuple(torch.where(grid == 6, 0, grid) for grid in LABELS), 6)
    apart = method(tiny, inputs, trace_ids, spans, REGIONS)
    together = method(tiny, inputs, trace_ids, spans, merged)
    torch.testing.assert_close(together[:, 0], apart[:, 0] + apart[:, 6])
    torch.testing.assert_close(together[:, 1:], apart[:, 1:6])
    assert apart.abs().min() > 0


def state_of(model):
    """All that the rules could leave changed."""
    modules = list(model.hf.named_modules())
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for _, m in modules]
    forwards = [m.forward.__func__ for _, m in modules]
    own = [sorted(vars(m)) for _, m in modules]
    kernel = model.adapter.text_config(model.hf)._attn_implementation
    flags = [weight.requires_grad for weight in model.hf.parameters()]
    return [id(m) for _, m in modules], hooks, forwards, own, kernel, flags


def states_of(model):
    with torch.no_grad():
        trace, visual = look(model, question_of(model), trace_of(model))
        features, *deepstack = visual.split(1)
        return read(model, trace, Vision(features, deepstack), 1, use_cache=False)[0]


@both
def test_the_model_computes_the_same_before_within_and_after_the_block(tiny, method):
    before, outputs = state_of(tiny), states_of(tiny)
    with relevance_rules(tiny, METHODS[method]):
        assert state_of(tiny)[1] != before[1]
        assert torch.equal(states_of(tiny), outputs)
    method(tiny, question_of(tiny), trace_of(tiny), spans_of(), REGIONS)
    assert state_of(tiny) == before
    assert torch.equal(states_of(tiny), outputs)
    assert all(weight.grad is None for weight in tiny.hf.parameters())


@both
def test_an_exception_in_a_pass_leaves_the_model_as_it_was(tiny, method):
    before, outputs = state_of(tiny), states_of(tiny)

    def fail(module, args):
        raise KeyError("in the last layer")

    handle = tiny.adapter.layers(tiny.hf)[-1].register_forward_pre_hook(fail)
    try:
        with pytest.raises(KeyError, match="last layer"):
            method(tiny, question_of(tiny), trace_of(tiny), spans_of(), REGIONS)
    finally:
        handle.remove()
    assert state_of(tiny) == before
    assert torch.equal(states_of(tiny), outputs)


def test_a_rule_for_a_module_that_is_not_there_leaves_no_rule_behind():
    model = build_tiny("qwen3_vl")
    before = state_of(model)
    with pytest.raises(AttributeError), relevance_rules(model, {"self_attn.q_proj": 0.5, "mlp.nothing": 0.5}):
        pass
    assert state_of(model) == before


@both
def test_eager_attention_gives_the_same_relevance(tiny, method):
    eager = build_tiny(tiny.adapter.family)
    eager.hf.set_attn_implementation("eager")
    expected = method(tiny, question_of(tiny), trace_of(tiny), spans_of(), CELLS)
    effects = method(eager, question_of(eager), trace_of(eager), spans_of(), CELLS)
    torch.testing.assert_close(effects, expected, rtol=1e-3, atol=1e-4)
    assert eager.hf.config.text_config._attn_implementation == "eager"


def test_passes_of_another_thread_keep_their_gradients():
    model = tiny_model("qwen3_vl")
    mlp, x, upper = first_layer(model).mlp, random(1, 5, 64), random(1, 5, 64, seed=1)

    def ordinary():
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(mlp(leaf), leaf, upper)[0]

    expected, found = ordinary(), []
    with relevance_rules(model, ATTN_LRP):
        other = threading.Thread(target=lambda: found.append(ordinary()))
        other.start()
        other.join()
        assert not torch.allclose(ordinary(), expected, rtol=0.1)
    assert torch.equal(found[0], expected)


def test_threads_at_once_get_the_relevance_they_would_get_alone():
    model = build_tiny("qwen3_vl")
    inputs, trace_ids = question_of(model), trace_of(model)
    expected = {method: method(model, inputs, trace_ids, spans_of(), REGIONS) for method in METHODS}
    found, before = [], state_of(model)

    def run(method):
        found.append((method, method(model, inputs, trace_ids, spans_of(), REGIONS)))

    threads = [threading.Thread(target=run, args=(method,)) for method in [*METHODS] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(torch.equal(effects, expected[method]) for method, effects in found)
    assert state_of(model) == before


@both
@pytest.mark.parametrize("family", FAMILIES)
def test_a_bfloat16_model_gives_float32_relevance_close_to_that_in_float32(family, method):
    model = build_tiny(family)
    exact = method(model, question_of(model), trace_of(model), spans_of(), CELLS)
    model.hf.to(torch.bfloat16)
    effects = method(model, question_of(model), trace_of(model), spans_of(), CELLS)
    assert effects.dtype == torch.float32
    assert torch.corrcoef(torch.stack([effects.flatten(), exact.flatten()]))[0, 1] > 0.95


@both
def test_a_caller_in_inference_mode_gets_the_same_relevance(method):
    model = tiny_model("qwen3_vl")
    expected = method(model, question_of(model), trace_of(model), spans_of(), REGIONS)
    with torch.inference_mode():
        effects = method(model, question_of(model), trace_of(model), spans_of(), REGIONS)
    assert torch.equal(effects, expected)
