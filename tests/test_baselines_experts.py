"""AttnLRP and CP-LRP of models with experts, against a propagation written out layer by layer."""

import pytest
import test_baselines_lrp
import torch
from conftest import build_tiny
from slow_hiding import trace_of
from test_baselines_gradient import CELLS, question_of, spans_of
from test_baselines_lrp import Literal, both, into_linear, into_terms, literal_effects

from eyeline.evaluation.baselines.lrp import cp_lrp


class WithExperts(Literal):
    """Each expert by itself; how much it counts for a token is a constant."""

    def __init__(self, model, *args, **options):
        super().__init__(model, *args, **options)
        self.routers = dict(model.adapter.text_model(model.hf).named_modules())

    def mlp(self, name, x):
        if f"{name}.experts.down_proj" not in self.weights:
            return super().mlp(name, x)
        _, weights, chosen = self.routers[f"{name}.gate"](x.float()[None])
        shares = torch.zeros(len(x), len(self.weights[f"{name}.gate.weight"]), dtype=x.dtype)
        shares = shares.scatter(1, chosen, weights.to(x.dtype))
        assert set((shares > 0).sum(1).tolist()) == {2}
        experts = [self.expert(name, number, x) for number in range(shares.shape[1])]
        terms = [shares[:, [number]] * output for number, (output, _) in enumerate(experts)]
        backs = [back for _, back in experts]
        if f"{name}.shared_experts.down_proj.weight" in self.weights:
            output, back = super().mlp(f"{name}.shared_experts", x)
            terms, backs = [*terms, output], [*backs, back]

        def back(relevance):
            parts = into_terms(relevance, *terms)
            return sum(back(part) for back, part in zip(backs, parts, strict=True))

        return sum(terms), back

    def expert(self, name, number, x):
        gate_weight, up_weight = self.weights[f"{name}.experts.gate_up_proj"][number].chunk(2)
        down = self.weights[f"{name}.experts.down_proj"][number]
        gate, up = x @ gate_weight.T, x @ up_weight.T
        product = gate * gate.sigmoid() * up
        output = product @ down.T

        def back(relevance):
            half = into_linear(product, down, output, relevance) / 2
            return into_linear(x, gate_weight, gate, half) + into_linear(x, up_weight, up, half)

        return output, back


@both
@pytest.mark.parametrize("family", ["qwen3_vl_moe", "glm4v_moe"])
def test_relevance_is_that_of_a_propagation_through_each_expert(family, method, monkeypatch):
    monkeypatch.setattr(test_baselines_lrp, "Literal", WithExperts)
    model = build_tiny(family)
    inputs, trace_ids, spans = question_of(model), trace_of(model), spans_of()
    expected = literal_effects(model, inputs, trace_ids, spans, cp=method is cp_lrp).float()
    effects = method(model, inputs, trace_ids, spans, CELLS)
    torch.testing.assert_close(effects, expected, rtol=1e-3, atol=1e-4)
    assert effects.min() < -0.05  # signed
