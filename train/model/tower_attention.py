"""Attention maps of an image tower: the weights of its last attention over patches.

The weights are computed again from the inputs of that attention, because fused kernels do not return them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_GRID = 16  # larger maps are averaged
# (module, its inputs) → weights of all patches f32 (n, P), row-major, without class tokens.
Weigh = Callable[[Any, tuple[Any, ...]], Tensor]


def find_patch_attention(tower: nn.Module) -> tuple[nn.Module, Weigh] | None:
    """Return the last attention of a tower and a function of its inputs that gives the weights; None for other towers.

    Known are vision transformers of open_clip and timm, and CLIP's residual networks. The weights are those from the class
    token, or the mean from all patches, or from the query of the pooling: whichever the tower's features are computed by.
    """
    from open_clip.modified_resnet import AttentionPool2d
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(tower, VisionTransformer) and tower.attn_pool is None and tower.pool_type in ("tok", "avg"):
        attention = getattr(tower.transformer.resblocks[-1], "attn", None)
        if isinstance(attention, nn.MultiheadAttention):
            rows = slice(0, 1) if tower.pool_type == "tok" else slice(1, None)
            return attention, lambda module, inputs: _multihead(module, inputs[0], rows)
    if isinstance(pool := getattr(tower, "attnpool", None), AttentionPool2d):
        return pool, _from_mean
    return _find_in_timm(tower.trunk) if isinstance(tower, TimmModel) else None


def _find_in_timm(trunk: nn.Module) -> tuple[nn.Module, Weigh] | None:
    from timm.layers.attention import Attention
    from timm.layers.attention_pool import AttentionPoolLatent
    from timm.models.vision_transformer import VisionTransformer

    if not isinstance(trunk, VisionTransformer):
        return None
    num_prefix = trunk.num_prefix_tokens
    if isinstance(trunk.attn_pool, AttentionPoolLatent):
        return trunk.attn_pool, lambda module, inputs: _from_latent(module, inputs[0])[:, num_prefix:]
    attention: Any = getattr(trunk.blocks[-1], "attn", None)
    if type(attention) is not Attention or trunk.global_pool not in ("token", "avg"):
        return None
    of_token = trunk.global_pool == "token" and num_prefix > 0

    def weigh(module: Any, inputs: tuple[Any, ...]) -> Tensor:
        q, k, _ = module.qkv(inputs[0]).unflatten(-1, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
        rows = q[:, :, :1] if of_token else q[:, :, num_prefix:]
        return _softmax(module.q_norm(rows), module.k_norm(k), module.scale)[:, num_prefix:]

    return attention, weigh


def fold_maps(weights: Tensor) -> Tensor | None:
    """Return weights (n, P) as maps (n, G, G) with the same sums, G ≤ MAX_GRID; None if P is no square."""
    side = math.isqrt(weights.shape[1])
    if side * side != weights.shape[1]:
        return None
    maps = weights.float().unflatten(1, (side, side))
    if side <= MAX_GRID:
        return maps
    small = F.adaptive_avg_pool2d(maps[:, None], MAX_GRID)[:, 0]
    return small * (maps.sum((1, 2), keepdim=True) / small.sum((1, 2), keepdim=True).clamp(min=1e-12))


def _multihead(module: Any, tokens: Tensor, rows: slice) -> Tensor:
    """Compute the weights of torch's self-attention on tokens (n, 1 + P, d), or (1 + P, n, d), class token first."""
    if not module.batch_first:
        tokens = tokens.transpose(0, 1)
    to_q, to_k, _ = module.in_proj_weight.chunk(3)
    q_bias, k_bias = (None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)[:2]
    q = F.linear(tokens[:, rows], to_q, q_bias)
    k = F.linear(tokens, to_k, k_bias)
    q, k = (x.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for x in (q, k))
    return _softmax(q, k, q.shape[-1] ** -0.5)[:, 1:]


def _from_mean(module: Any, inputs: tuple[Any, ...]) -> Tensor:
    """Compute the weights of CLIP's attention pooling of (n, d, h, w); the mean is the query and the first key."""
    x = inputs[0].flatten(2).mT
    x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + module.positional_embedding.to(x.dtype)
    q, k = (
        y.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for y in (module.q_proj(x[:, :1]), module.k_proj(x))
    )
    return _softmax(q, k, q.shape[-1] ** -0.5)[:, 1:]


def _from_latent(module: Any, x: Tensor) -> Tensor:
    """Compute the weights of timm's pooling of tokens (n, P, d) by learned queries."""
    if module.pos_embed is not None:
        x = x + module.pos_embed.unsqueeze(0).to(x.dtype)
    q = module.q(module.latent.expand(len(x), -1, -1)).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
    k = module.kv(x).chunk(2, dim=-1)[0].unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
    return _softmax(module.q_norm(q), module.k_norm(k), module.scale)


def _softmax(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """Return softmax(q kᵀ · scale), the mean over heads and queries, f32 (n, L), of q (n, heads, Q, e), k (n, heads, L, e)."""
    return ((q @ k.mT).float() * scale).softmax(-1).mean((1, 2))
