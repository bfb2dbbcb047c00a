"""Tiny vision foundation models of random weights, saved as the Hub would hold them."""

import json

import torch
import transformers

VIT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56}
# family -> model, pixels of a patch, patches along a cell, tokens before the patches
FOUNDATIONS = {
    "dinov3_vit": (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig(**VIT, intermediate_size=48, num_register_tokens=3),
        (16, 2, 4),
    ),
    "dinov3_convnext": (
        transformers.DINOv3ConvNextModel,
        transformers.DINOv3ConvNextConfig(hidden_sizes=[8, 8, 16, 24], depths=[1, 1, 1, 1]),
        (32, 1, 1),
    ),
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config(**VIT, patch_size=14), (14, 2, 1)),
    "dinov2_with_registers": (
        transformers.Dinov2WithRegistersModel,
        transformers.Dinov2WithRegistersConfig(**VIT, patch_size=14, num_register_tokens=2),
        (14, 2, 3),
    ),
}
DINOV3_PROCESSOR = {  # as published; the class itself needs torchvision
    "image_processor_type": "DINOv3ViTImageProcessorFast", "do_rescale": True, "rescale_factor": 1 / 255,
    "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "do_normalize": True,
    "size": {"height": 224, "width": 224}, "do_resize": True, "resample": 2,
}  # fmt: skip


def save_foundation(family, folder):
    """A tiny model of random weights, with its image processor, as the Hub would hold it."""
    kind, config, _ = FOUNDATIONS[family]
    model, rng = kind(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():  # so wide that every part of the model shows in its features
            weight.copy_(
                torch.randn(weight.shape, generator=rng)
                * (weight[0].numel() ** -0.5 if weight.ndim > 1 else 1)
            )
    model.save_pretrained(folder)
    if family.startswith("dinov3"):
        (folder / "preprocessor_config.json").write_text(json.dumps(DINOV3_PROCESSOR))
    else:
        transformers.BitImageProcessorPil(
            image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]
        ).save_pretrained(folder)
    return str(folder)
