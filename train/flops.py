"""How much arithmetic a training step is, and how much of it a device could do: their ratio is the MFU.

Model FLOPs utilisation as Chowdhery et al. 2022 ("PaLM", appendix B): what the model needs, without what activation
checkpointing computes twice, over the dense bf16 peak of the device's data sheet.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from train.facet import Batch, Facet

# Dense bf16 tensor operations a second, by NVIDIA's data sheets (which print twice as many, for sparse matrices). The first
# name that is part of the device's name counts.
PEAK_BF16_FLOPS = {
    "B200": 2.25e15,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
}


def find_peak_flops(device: torch.device) -> float | None:
    """Dense bf16 operations a second at most; None where they are not known."""
    if device.type != "cuda":
        return None
    words = torch.cuda.get_device_name(device)
    return next((peak for name, peak in PEAK_BF16_FLOPS.items() if name in words.replace("-", " ")), None)


def count_flops_per_sample(model: Facet, batch: Batch) -> float:
    """Floating point operations of a training step (forward and backward, of what is trained) for one sample.

    Counted on tensors without storage, from the shapes of a real batch: neither time nor memory of the device is taken.
    """
    meta = {name: value.detach().to("meta") for name, value in (*model.named_parameters(), *model.named_buffers())}
    for name, parameter in model.named_parameters():
        meta[name].requires_grad_(parameter.requires_grad)
    one = {name: value[:1].to("meta") for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    checkpointing = [m for m in model.modules() if getattr(m, "grad_checkpointing", False)]
    for module in checkpointing:
        module.grad_checkpointing = False  # type: ignore[assignment]
    try:
        with FlopCounterMode(display=False) as counter:
            functional_call(model, meta, (replace(batch, complete=True, **one),)).logits.sum().backward()
    finally:
        for module in checkpointing:
            module.grad_checkpointing = True  # type: ignore[assignment]
    return float(counter.get_total_flops())
