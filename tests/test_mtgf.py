"""The gate mixes what it says it mixes, and changes nothing before it has learned anything."""

from __future__ import annotations

import torch
from test_facet import make_batch, make_model
from torch.nn import functional as F

from train.model.mtgf import CosineHead, TextGuidedFusion

DIM = 32


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    text, face, tokens = (
        F.normalize(torch.randn(shape, generator=generator), dim=-1) for shape in ((4, DIM), (3, DIM), (3, 5, DIM))
    )
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 3:] = False
    return text, face, tokens, mask


def test_starts_as_the_face_itself() -> None:
    text, face, tokens, mask = inputs()
    torch.testing.assert_close(TextGuidedFusion(DIM)(text, face, tokens, mask), CosineHead()(text, face, tokens, mask))
    assert not list(CosineHead().parameters())


def test_gate_is_the_definition() -> None:
    text, face, tokens, mask = inputs()
    fusion = TextGuidedFusion(DIM)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    found = fusion(text, face, tokens, mask)
    for b in range(3):
        for c in range(4):
            m = fusion.attention(text[None, c : c + 1], tokens[b : b + 1], mask[b : b + 1])[0, 0]
            g = torch.sigmoid(fusion.gate(torch.cat([text[c], face[b], m])))
            f = g * face[b] + (1 - g) * m
            torch.testing.assert_close(found[b, c], f / f.norm(), atol=1e-5, rtol=1e-4)
    changed = tokens.clone()
    changed[1, 3:] = 7.0  # masked
    torch.testing.assert_close(fusion(text, face, changed, mask), found)


@torch.no_grad()
def test_the_model_asks_with_unit_words_and_scores_with_their_mean() -> None:
    """Class c: s · f_c · mean_k t_{c,k}, where f_c is what the unit vector along that mean picks out of all tokens."""
    model, batch = make_model(), make_batch()
    output = model(batch)
    cameras = batch.cameras.repeat(1, 2, 1)  # modality by modality
    tokens = model.fusion(output.views, output.mask, cameras, torch.tensor([0, 0, 0, 1, 1, 1]))[0]
    words = model.text_mean / model.text_mean.norm(dim=1, keepdim=True)
    picked = model.head(words, output.face, tokens, output.mask)
    wanted = [[model.scale * picked[b, c] @ model.text_mean[c] for c in range(3)] for b in range(4)]
    torch.testing.assert_close(output.logits, torch.tensor(wanted), atol=1e-5, rtol=1e-4)


def test_first_step_reaches_every_part() -> None:
    """With zeros at the start, something must still receive a gradient, or nothing is ever learned."""
    text, face, tokens, mask = inputs()
    fusion = TextGuidedFusion(DIM)
    fusion(text, face, tokens, mask).square().cumsum(-1).sum().backward()
    assert fusion.attention.to_out.weight.grad is not None
    assert fusion.attention.to_out.weight.grad.abs().sum() > 0
    gate = torch.sigmoid(fusion.gate(torch.randn(1, 3 * DIM)))  # 0.88 whatever it sees
    assert gate.min() > 0.85 and gate.max() < 0.9
