"""An open_clip model with its text tower and tokenizer. As in `shared.weights`, callers hand over open_clip and torch."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from shared.errors import FacetError, first_line
from shared.schema import View
from shared.text import TextEmbeddings
from shared.view_words import word_views
from shared.weights.identity import hash_arrays
from shared.weights.models import ADVICE, RANDOM, ModelLoader

TEXTS_PER_BATCH = 64


@dataclass(frozen=True)
class TextModel:
    """An open_clip model in evaluation mode on the CPU, and its tokenizer. name, pretrained: as in `ModelLoader.find`."""

    name: str
    pretrained: str
    clip: Any
    tokenizer: Any
    torch: Any
    kept_tokens: np.ndarray | None = None  # tokens that its table holds; None: all

    def tokenize(self, texts: Sequence[str]) -> np.ndarray:
        """Return the tokens of texts, i64 (n, context length).

        Raises:
            FacetError: the weights hold no embedding of a word; names it.
        """
        tokens = self.tokenizer(list(texts)).numpy()
        if self.kept_tokens is not None and not np.isin(tokens, self.kept_tokens).all():
            words = sorted({word for text in texts for word in text.split()})
            lacking = [w for w in words if not np.isin(self.tokenizer([w]).numpy(), self.kept_tokens).all()] or words
            raise FacetError(
                f"these weights know no {', '.join(lacking[:8])}{', …' * (len(lacking) > 8)}: they hold only the words that "
                "they were trained with; use other words, or another model"
            )
        return np.asarray(tokens)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens of texts, i64 (n, context length), and their embeddings, f32 (n, d), unit length."""
        tokens, torch = self.tokenize(texts), self.torch
        embedded = []
        with torch.inference_mode():
            for start in tqdm(range(0, len(tokens), TEXTS_PER_BATCH), "embed texts", unit="batch", delay=2, leave=None):
                embedded.append(
                    self.clip.encode_text(torch.from_numpy(tokens[start : start + TEXTS_PER_BATCH])).float()
                )
        vectors = torch.cat(embedded).numpy()
        return tokens, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def embed_prompts(self, prompts: Mapping[str, Sequence[str]], views: Sequence[View] = ()) -> TextEmbeddings:
        """Return the embeddings of prompts. prompts, views: as in `word_views`, which replaces {view}."""
        worded = word_views(prompts, views)
        vectors = self.encode([text for own in worded.values() for text, _ in own])[1]
        num_prompts = max(map(len, worded.values()))
        embeddings = np.zeros((len(worded), num_prompts, vectors.shape[1]), np.float32)
        mask = np.zeros(embeddings.shape[:2], bool)
        place = 0
        for label, own in enumerate(worded.values()):
            embeddings[label, : len(own)] = vectors[place : place + len(own)]
            mask[label, : len(own)] = True
            place += len(own)
        by_view = tuple(tuple(view for _, view in own) for own in worded.values())
        weights_hash, image_tower_hash = self.hash_weights()
        return TextEmbeddings(
            class_names=tuple(worded),
            prompts=tuple(tuple(text for text, _ in own) for own in worded.values()),
            embeddings=embeddings,
            mask=mask,
            model=self.name,
            pretrained=self.pretrained,
            weights_hash=weights_hash,
            image_tower_hash=image_tower_hash,
            logit_scale=float(self.clip.logit_scale.detach().exp()),
            random_weights=self.pretrained == RANDOM,
            views=by_view if any(map(any, by_view)) else (),
        )

    def hash_weights(self) -> tuple[str, str]:
        """Return `hash_arrays` of all weights, and of those of the image tower."""
        state = {key: tensor.float().numpy() for key, tensor in self.clip.state_dict().items()}
        image_tower = {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
        return hash_arrays(state), hash_arrays(image_tower)


def open_text_model(open_clip: Any, torch: Any, model: str, pretrained: str) -> TextModel:
    """Return an open_clip model with its tokenizer.

    Args:
        open_clip, torch: the modules; call `skip_unreachable_hub` before importing them.
        model, pretrained: as `ModelLoader.find`; random weights have seed 0.
    Raises:
        FacetError: no such model or weights; the file is something else, damaged, or of another model.
    """
    loader = ModelLoader(open_clip, torch)
    source = loader.find(model, pretrained)
    clip = loader.build(source)
    logging.disable(logging.ERROR)  # as in `ModelLoader.build`
    try:
        tokenizer = open_clip.get_tokenizer(model)
    except Exception as error:  # open_clip and transformers raise many kinds
        raise FacetError(f"the model {model} has no tokenizer here ({first_line(error)}); {ADVICE}") from error
    finally:
        logging.disable(logging.NOTSET)
    return TextModel(model, pretrained, clip.eval(), tokenizer, torch, source.kept_tokens)
