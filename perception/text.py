"""Text to vectors: MiniLM (or any small BERT sentence encoder), and a hashing encoder that needs no weights.

This module knows tokens, the BERT encoder forward and mean pooling. It does not know what the texts mean to the agent.
The forward is written out in torch because importing a model of `transformers` takes four seconds longer (5.8 s
against 1.7 s), which a question at the command line would wait for.

Shapes: T tokens, D width, H heads, K = D / H, F = feed-forward width.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from ..errors import BadInput, WeightsError
from ..records import Space
from ..runtime import weights
from .encoding import identity, one_thread, unit
from .protocols import Vectors

MINILM = "all-minilm-l6-v2"
MAX_TOKENS = 256
"""Longer texts are cut here, special tokens included: what all-MiniLM-L6-v2 was trained and published with."""


class BertTextEncoder:
    """A BERT sentence encoder: mean of the last layer over the tokens, scaled to unit length.

    Each text is encoded alone, so its vector does not depend on its neighbours. Safe to call from several threads.

    Equations: Devlin et al. 2018 (post-norm encoder, exact GELU); pooling as in Reimers and Gurevych 2019, section 3.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str | None = None) -> None:
        """Load from a folder with ``config.json``, ``tokenizer.json`` and ``model.safetensors``.

        Raises:
            WeightsError: a file is missing, or is not a BERT encoder.
        """
        root = Path(folder)
        files = [root / "model.safetensors", root / "tokenizer.json", root / "config.json"]
        if absent := [f.name for f in files if not f.is_file()]:
            raise WeightsError(
                f"{root} is not a text encoder: {', '.join(absent)} missing; give the folder of a BERT model"
            )
        config = json.loads(files[2].read_text(encoding="utf-8"))
        if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
            raise WeightsError(f"{files[2]}: expected a BERT encoder with gelu, got {config.get('model_type')!r}")
        self._heads = int(config["num_attention_heads"])
        self._eps = float(config["layer_norm_eps"])
        self._layers = int(config["num_hidden_layers"])
        self._w = {name.removeprefix("bert."): w.float() for name, w in load_file(files[0]).items()}
        try:
            self._fused = [self._fuse(layer) for layer in range(self._layers)]
        except KeyError as error:
            raise WeightsError(f"{files[0]} holds no tensor {error}; expected a BERT encoder") from error
        self._tokenizer = Tokenizer.from_file(str(files[1]))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(min(MAX_TOKENS, int(config["max_position_embeddings"])))
        encoder = identity(files, pooling="mean", max_tokens=MAX_TOKENS)
        self.space = Space(encoder, int(config["hidden_size"]), name=name or root.name)

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts; an empty text has one too (of the two special tokens).

        Args:
            texts: any length; only the first 256 tokens count.

        Returns:
            float32 [len(texts), dim], unit rows.
        """
        out = np.empty((len(texts), self.space.dim), np.float32)
        with one_thread():
            for row, text in enumerate(texts):
                ids = self._tokenizer.encode(text).ids
                out[row] = self._hidden(torch.tensor(ids)).mean(0).numpy()
        return unit(out)

    def _fuse(self, layer: int) -> tuple[Tensor, Tensor]:
        """Query, key and value projections of a layer as one matrix: one pass over the activations instead of three."""
        at = f"encoder.layer.{layer}.attention.self."
        parts = [(self._w.pop(f"{at}{p}.weight"), self._w.pop(f"{at}{p}.bias")) for p in ("query", "key", "value")]
        return torch.cat([w for w, _ in parts]), torch.cat([b for _, b in parts])

    def _hidden(self, ids_T: Tensor) -> Tensor:
        """Last layer of one text, [T, D]."""
        w = self._w
        x_TD = w["embeddings.word_embeddings.weight"][ids_T]
        x_TD = x_TD + w["embeddings.position_embeddings.weight"][: len(ids_T)]
        x_TD = self._norm(x_TD + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
        for layer in range(self._layers):
            x_TD = self._block(x_TD, layer)
        return x_TD

    def _block(self, x_TD: Tensor, layer: int) -> Tensor:
        at = f"encoder.layer.{layer}."
        tokens, width = x_TD.shape
        qkv = F.linear(x_TD, *self._fused[layer]).view(tokens, 3, self._heads, width // self._heads)
        q_HTK, k_HTK, v_HTK = qkv.permute(1, 2, 0, 3)
        mixed_HTK = F.scaled_dot_product_attention(q_HTK[None], k_HTK[None], v_HTK[None])[0]
        mixed_TD = mixed_HTK.transpose(0, 1).reshape(tokens, width)
        x_TD = self._norm(
            x_TD + self._linear(mixed_TD, at + "attention.output.dense"), at + "attention.output.LayerNorm"
        )
        inner_TF = F.gelu(self._linear(x_TD, at + "intermediate.dense"))
        return self._norm(x_TD + self._linear(inner_TF, at + "output.dense"), at + "output.LayerNorm")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._w[name + ".weight"], self._w[name + ".bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self._w[name + ".weight"], self._w[name + ".bias"], self._eps)


class HashingTextEncoder:
    """Words and pairs of words, crudely stemmed, hashed into a fixed number of signed buckets.

    It knows spelling, not meaning: "sofa" and "couch" are strangers. It needs no weights and is exact everywhere, which
    is what tests want. Weinberger et al. 2009, "Feature hashing for large scale multitask learning".
    """

    def __init__(self, dim: int = 256) -> None:
        if dim < 2:
            raise BadInput(f"expected at least 2 dimensions, got {dim}")
        self.space = Space(identity([], hashing="stem-1-2-gram", dim=dim), dim, name="hashing")

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dim], unit rows; a text without words is the first axis."""
        out = np.zeros((len(texts), self.space.dim), np.float32)
        for row, text in enumerate(texts):
            words = [_stem(word) for word in re.findall(r"\w+", text.lower())]
            for gram in words + [f"{a} {b}" for a, b in pairwise(words)]:
                digest = hashlib.blake2b(gram.encode(), digest_size=8).digest()
                bucket = int.from_bytes(digest[:7], "little") % self.space.dim
                out[row, bucket] += 1.0 if digest[7] & 1 else -1.0
        return unit(out)


def load_text_encoder(spec: str = MINILM, *, cache_dir: str | os.PathLike[str] | None = None) -> BertTextEncoder:
    """The text encoder of that name in the catalogue (it must have been fetched), or of a folder.

    Raises:
        WeightsError: not fetched, damaged, or no such model.
        BadInput: no such name.
    """
    if Path(spec).is_dir():
        return BertTextEncoder(spec)
    return _loaded(weights.require(spec, cache_dir=cache_dir), spec)


@cache
def _loaded(folder: Path, name: str) -> BertTextEncoder:
    """One instance per process: recall and the `imagenet-bridge` both need it, and it never changes."""
    return BertTextEncoder(folder, name)


def _stem(word: str) -> str:
    """Plural and tense endings off, if at least three letters stay."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
