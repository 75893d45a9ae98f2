"""Floating point operations of a training step, and the peak of a device: their ratio gives the MFU.

Model FLOPs utilisation (Chowdhery et al. 2022, "PaLM", appendix B): operations of the model, without the recomputation of
activation checkpointing, over the dense bf16 peak of the device's data sheet.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from train.model.batch import Batch
from train.model.facet import Facet

# Dense bf16 tensor operations per second of NVIDIA's data sheets (which print twice as many, for sparse matrices). The first
# name that is part of the device's name is used.
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
    """Return the device's peak of dense bf16 operations per second; None if not known."""
    if device.type != "cuda":
        return None
    words = f" {torch.cuda.get_device_name(device).replace('-', ' ')} "
    return next((peak for name, peak in PEAK_BF16_FLOPS.items() if f" {name} " in words), None)


def count_flops_per_sample(model: Facet, batch: Batch) -> float:
    """Count the floating point operations of a training step for one sample: forward, and backward of trained weights.

    Counted on fake tensors with the shapes of a batch, without time or memory of the device.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow imports
    from torch.func import functional_call
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    tensors = {name: value[:1] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    checkpointing = [m for m in model.modules() if getattr(m, "grad_checkpointing", False)]
    for module in checkpointing:
        module.grad_checkpointing = False  # type: ignore[assignment]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # the counter cannot count its fused operation
    try:
        # plain attention: the counter cannot count every fused kernel, and some recompute operations
        plain = sdpa_kernel(SDPBackend.MATH)
        with FakeTensorMode() as mode, FlopCounterMode(display=False) as counter, plain:
            state = (*model.named_parameters(), *model.named_buffers())
            fake: dict[str, torch.Tensor] = {name: mode.from_tensor(value) for name, value in state}
            one = {name: mode.from_tensor(value) for name, value in tensors.items()}
            functional_call(model, fake, (replace(batch, complete=True, **one),)).logits.sum().backward()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module in checkpointing:
            module.grad_checkpointing = True  # type: ignore[assignment]
    return float(counter.get_total_flops())
