"""Embedded models of random weights, each built once in a process."""

import copy
import functools

import torch

from eyeline.training.minis import MINIS, build_tokenizer
from eyeline.training.speech import COSMOS

MINI = "qwen3-vl-mini"
SCENES = 60  # of each family, from which a tokenizer of the shipped size learns its words


@functools.cache
def tokenizer(name=MINI):
    if name == "cosmos-mini":  # which goes on with mimo-vl-mini's
        words = copy.deepcopy(tokenizer("mimo-vl-mini"))
        words.chat_template = COSMOS.template()
        return words
    return build_tokenizer(MINIS[name], SCENES)


@functools.cache
def model(name=MINI):
    torch.manual_seed(0)
    return MINIS[name].build(tokenizer(name)).eval()
