"""The training of embedded models: its optimizer, and what it computes in another way than transformers."""

import copy
import tempfile

import pytest
import torch
import torch.distributed as dist
from miniatures import model, tokenizer
from torch import nn

from eyeline.scenes import draw
from eyeline.training.mini import Muon, embed_still, see
from eyeline.training.packing import collate


def test_muon_steps_as_torchs_own_does():
    rng = torch.Generator().manual_seed(0)
    start, *gradients = torch.randn(3, 8, 12, generator=rng)
    ours, theirs = (nn.Parameter(start.clone()) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
        steps = (
            Muon([ours], lr=0.05),
            torch.optim.Muon(
                [theirs], lr=0.05, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            ),
        )
        for parameter, optimizer in zip((ours, theirs), steps, strict=True):
            for gradient in gradients:
                parameter.grad = gradient.clone()
                optimizer.step()
        dist.destroy_process_group()
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)  # bfloat16


@pytest.mark.parametrize("name", ["qwen3-vl-mini", "glm4v-mini", "mimo-vl-mini"])
def test_embedding_and_merging_as_products_of_matrices_change_nothing(name):
    fresh = copy.deepcopy(model(name))
    batch = collate([draw("math", 1), draw("code", 1)], tokenizer(), 1)
    with torch.no_grad():
        expected = torch.cat(see(fresh, batch).pooler_output)
        embed_still(fresh)
        torch.testing.assert_close(torch.cat(see(fresh, batch).pooler_output), expected, atol=1e-5, rtol=1e-4)
