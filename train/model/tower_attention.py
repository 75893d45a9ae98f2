"""Where an image tower looks: the last attention of its forward pass, patch by patch, for the towers that have one.

The weights are computed again from what that attention was given, row by row of interest: the fused kernels give none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_GRID = 16  # maps with more patches a side are drawn no better
# (module, its inputs) → weights of all patches f32 (n, P), in row-major order; what went to a class token is left out.
Weigh = Callable[[Any, tuple[Any, ...]], Tensor]


def find_patch_attention(tower: nn.Module) -> tuple[nn.Module, Weigh] | None:
    """The module whose inputs tell what the pooled features of a tower were gathered from; None for other towers.

    open_clip's vision transformers and CLIP's residual networks, and timm's vision transformers: the attention from the class
    token where features are read from it, from all patches on average where they are pooled, from the pooling's own query.
    """
    from open_clip.modified_resnet import AttentionPool2d
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer

    if isinstance(tower, VisionTransformer) and tower.attn_pool is None and tower.pool_type in ("tok", "avg"):
        attention = getattr(tower.transformer.resblocks[-1], "attn", None)
        if isinstance(attention, nn.MultiheadAttention):
            return attention, _from_class_token if tower.pool_type == "tok" else _from_patches
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
    attention = getattr(trunk.blocks[-1], "attn", None)
    if type(attention) is not Attention or trunk.global_pool not in ("token", "avg"):
        return None
    of_token = trunk.global_pool == "token" and num_prefix > 0

    def weigh(module: Any, inputs: tuple[Any, ...]) -> Tensor:
        q, k, _ = module.qkv(inputs[0]).unflatten(-1, (3, module.num_heads, -1)).permute(2, 0, 3, 1, 4)
        rows = q[:, :, :1] if of_token else q[:, :, num_prefix:]
        return _softmax(module.q_norm(rows), module.k_norm(k), module.scale)[:, num_prefix:]

    return attention, weigh


def fold_maps(weights: Tensor) -> Tensor | None:
    """Weights (n, P) → maps (n, G, G), G at most MAX_GRID, with the same sums; None where patches are no square."""
    side = math.isqrt(weights.shape[1])
    if side * side != weights.shape[1]:
        return None
    maps = weights.float().unflatten(1, (side, side))
    if side <= MAX_GRID:
        return maps
    small = F.adaptive_avg_pool2d(maps[:, None], MAX_GRID)[:, 0]
    return small * (maps.sum((1, 2), keepdim=True) / small.sum((1, 2), keepdim=True).clamp(min=1e-12))


def _from_class_token(module: Any, inputs: tuple[Any, ...]) -> Tensor:
    return _multihead(module, inputs[0], slice(0, 1))


def _from_patches(module: Any, inputs: tuple[Any, ...]) -> Tensor:
    return _multihead(module, inputs[0], slice(1, None))


def _multihead(module: Any, tokens: Tensor, rows: slice) -> Tensor:
    """torch's self-attention: tokens (n, 1 + P, d), or (1 + P, n, d); the class token first."""
    if not module.batch_first:
        tokens = tokens.transpose(0, 1)
    to_q, to_k, _ = module.in_proj_weight.chunk(3)
    q_bias, k_bias = (None, None) if module.in_proj_bias is None else module.in_proj_bias.chunk(3)[:2]
    q = F.linear(tokens[:, rows], to_q, q_bias)
    k = F.linear(tokens, to_k, k_bias)
    q, k = (x.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for x in (q, k))
    return _softmax(q, k, q.shape[-1] ** -0.5)[:, 1:]


def _from_mean(module: Any, inputs: tuple[Any, ...]) -> Tensor:
    """CLIP's attention pooling: features (n, d, h, w), their mean is the query and the first key."""
    x = inputs[0].flatten(2).mT
    x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + module.positional_embedding.to(x.dtype)
    q, k = (
        y.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for y in (module.q_proj(x[:, :1]), module.k_proj(x))
    )
    return _softmax(q, k, q.shape[-1] ** -0.5)[:, 1:]


def _from_latent(module: Any, x: Tensor) -> Tensor:
    """timm's pooling by learned queries: tokens (n, P, d)."""
    if module.pos_embed is not None:
        x = x + module.pos_embed.unsqueeze(0).to(x.dtype)
    q = module.q(module.latent.expand(len(x), -1, -1)).unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
    k = module.kv(x).chunk(2, dim=-1)[0].unflatten(-1, (module.num_heads, -1)).transpose(1, 2)
    return _softmax(module.q_norm(q), module.k_norm(k), module.scale)


def _softmax(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """q (n, heads, Q, e), k (n, heads, L, e) → softmax(q kᵀ · scale), the mean over heads and queries, f32 (n, L)."""
    return ((q @ k.mT).float() * scale).softmax(-1).mean((1, 2))
