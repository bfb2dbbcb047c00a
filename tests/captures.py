"""Greedy generation of tiny models under a capture."""

import torch

from eyeline.attention import attention_to

QUESTION = "How many blocks are there?"
NEW_TOKENS = 12


def generate(model, inputs, tokens=NEW_TOKENS, **options):
    return model.hf.generate(**inputs, max_new_tokens=tokens, do_sample=False, **options)


def pad_left(inputs, padding, pad_token):
    """The same prompt behind `padding` masked tokens."""

    def widen(tensor, value):
        return torch.nn.functional.pad(tensor, (padding, 0), value=value)

    return inputs | {
        "input_ids": widen(inputs["input_ids"], pad_token),
        "attention_mask": widen(inputs["attention_mask"], 0),
        "mm_token_type_ids": widen(inputs["mm_token_type_ids"], 0),
    }


def attention_of(capture, steps):
    """(layer, head, token, patch), of tokens taken from a capture."""
    keys, _ = capture.image_columns(slice(None))
    return attention_to(steps, keys, capture.scaling, capture.visible(steps))
