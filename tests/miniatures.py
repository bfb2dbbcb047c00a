"""Embedded models of random weights, each built once in a process."""

import functools

import torch

from eyeline.training.minis import MINIS, build_tokenizer

MINI = "qwen3-vl-mini"


@functools.cache
def tokenizer(name=MINI):
    return build_tokenizer(MINIS[name])


@functools.cache
def model(name=MINI):
    torch.manual_seed(0)
    return MINIS[name].build(tokenizer(name)).eval()
