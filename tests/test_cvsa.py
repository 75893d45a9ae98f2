"""Fusion of views: a set function, blind to what is masked, the plain mean before it has learned anything."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from train.model.attention import AttentionPool, FourierEmbedding, TemporalAttention, TokenAttention
from train.model.cvsa import CrossViewAttention
from train.model.mean_fusion import MeanFusion

DIM = 64


def random_module(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every weight drawn anew: as after training, nothing is zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return module


def random_tokens(num: int, tokens: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    e = F.normalize(torch.randn(num, tokens, DIM, generator=generator), dim=-1)
    mask = torch.rand(num, tokens, generator=generator) < 0.7
    mask[:, 0] = True
    cameras = torch.randn(num, tokens, 2, generator=generator)
    return e, mask, cameras, torch.arange(tokens) % 3


@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(1, 9), seed=st.integers(0, 1000), data=st.data())
def test_order_of_views_does_not_matter(tokens: int, seed: int, data: st.DataObject) -> None:
    fusion = random_module(CrossViewAttention(DIM, 3))
    e, mask, cameras, kinds = random_tokens(2, tokens, seed)
    order = data.draw(st.permutations(range(tokens)))
    mixed, z, alpha = fusion(e, mask, cameras, kinds)
    mixed_2, z_2, alpha_2 = fusion(e[:, order], mask[:, order], cameras[:, order], kinds[order])
    torch.testing.assert_close(z_2, z, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(alpha_2, alpha[:, order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mixed_2, mixed[:, order], atol=1e-5, rtol=1e-4)


@settings(max_examples=25, deadline=None)
@given(tokens=st.integers(2, 9), seed=st.integers(0, 1000))
def test_masked_views_are_as_if_they_were_not_there(tokens: int, seed: int) -> None:
    for fusion in (random_module(CrossViewAttention(DIM, 3)), MeanFusion()):
        e, mask, cameras, kinds = random_tokens(1, tokens, seed)
        there = mask[0]
        z, alpha = fusion(e, mask, cameras, kinds)[1:]
        z_2, alpha_2 = fusion(e[:, there], mask[:, there], cameras[:, there], kinds[there])[1:]
        torch.testing.assert_close(z, z_2, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alpha[:, there], alpha_2, atol=1e-5, rtol=1e-4)
        assert (alpha[:, ~there] == 0).all()
        assert alpha.sum().item() == pytest.approx(1, abs=1e-5)


def test_starts_as_the_mean() -> None:
    e, mask, cameras, kinds = random_tokens(3, 6, 1)
    tokens, z, alpha = CrossViewAttention(DIM, 3)(e, mask, cameras, kinds)
    wanted = MeanFusion()(e, mask, cameras, kinds)
    torch.testing.assert_close(tokens, e)
    torch.testing.assert_close(z, wanted[1])
    torch.testing.assert_close(alpha, wanted[2])


def test_camera_and_modality_are_seen_once_learned() -> None:
    fusion = random_module(CrossViewAttention(DIM, 3))
    e, mask, cameras, kinds = random_tokens(2, 4, 2)
    z = fusion(e, mask, cameras, kinds)[1]
    assert not torch.allclose(z, fusion(e, mask, -cameras, kinds)[1], atol=1e-3)
    assert not torch.allclose(z, fusion(e, mask, cameras, kinds.roll(1))[1], atol=1e-3)


def test_attention_is_the_textbook_formula() -> None:
    """Against softmax(q kᵀ / √d_head) v written out in NumPy-like loops."""
    attention = random_module(TokenAttention(DIM))
    assert isinstance(attention, TokenAttention)
    e, mask, _, _ = random_tokens(2, 5, 3)
    found = attention(e, e, mask)
    x_q, x_kv = attention.norm_queries(e), attention.norm_tokens(e)
    q, (k, v) = attention.to_queries(x_q), attention.to_keys_values(x_kv).chunk(2, -1)
    wanted = torch.zeros_like(e)
    size = DIM // attention.num_heads
    for b in range(2):
        for h in range(attention.num_heads):
            part = slice(h * size, (h + 1) * size)
            scores = q[b, :, part] @ k[b, :, part].T / math.sqrt(size)
            weights = torch.where(mask[b], scores.exp(), torch.zeros(()))
            wanted[b, :, part] = weights / weights.sum(1, keepdim=True) @ v[b, :, part]
    torch.testing.assert_close(found, attention.to_out(wanted) / math.sqrt(DIM), atol=1e-5, rtol=1e-4)


def test_heads_have_32_elements_or_as_few_more_as_divide() -> None:
    dims = {16: 1, 32: 1, 64: 2, 96: 3, 100: 2, 512: 16, 640: 20, 768: 24, 1024: 32}
    assert {dim: TokenAttention(dim).num_heads for dim in dims} == dims


def test_fourier_embedding_is_smooth_and_periodic() -> None:
    embed = random_module(FourierEmbedding(2, DIM))
    angles = torch.linspace(-math.pi, math.pi, 721)
    values = embed(torch.stack([angles, 0 * angles], -1))
    torch.testing.assert_close(values[0], values[-1], atol=1e-4, rtol=1e-4)
    assert (values[1:] - values[:-1]).norm(dim=1).max() < 0.1 * values.std(0).norm() * 2


def test_order_of_frames_matters_once_learned() -> None:
    frames = F.normalize(torch.randn(2, 5, DIM), dim=-1)
    fresh = TemporalAttention(DIM)
    torch.testing.assert_close(fresh(frames)[0], F.normalize(frames.mean(1), dim=-1))  # at the start: the mean
    learned = random_module(TemporalAttention(DIM))
    assert not torch.allclose(learned(frames)[0], learned(frames.flip(1))[0], atol=1e-3)


def test_pool_prefers_what_its_query_asks_for() -> None:
    pool = AttentionPool(2)
    pool.query.data = torch.tensor([math.log(3.0), 0.0])
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    z, alpha = pool(tokens, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(alpha, torch.tensor([[0.75, 0.25]]))
    torch.testing.assert_close(z, F.normalize(torch.tensor([[0.75, 0.25]]), dim=-1))
