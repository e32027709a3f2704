"""Image encoders by name: any open_clip model, or the offline `imagenet-bridge`.

This module knows how an encoder is named, loaded and identified. It does not know where vectors are kept or what they
are searched for. open_clip is imported when such a model is asked for: it takes four seconds.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import BadInput, WeightsError
from ..records import Image, Label, Space
from .encoding import identity, one_thread, unit
from .imagenet_bridge import NAME as BRIDGE
from .imagenet_bridge import load_imagenet_bridge
from .protocols import ImageEncoder, Look, TextEncoder, Vectors

__all__ = ["ImageEncoder", "Look", "OpenClipEncoder", "TextEncoder", "load_image_encoder"]


class OpenClipEncoder:
    """Both towers of an open_clip model (Radford et al. 2021): images and texts in one space.

    Each image and each text is encoded alone, on one thread, so its vector does not depend on its neighbours.
    Safe to call from several threads.
    """

    def __init__(self, model: str, pretrained: str | None = None, *, vocabulary: Sequence[str] = ()) -> None:
        """Load a model.

        Args:
            model: a name that open_clip knows, ``local-dir:/path`` or ``hf-hub:owner/name``.
            pretrained: a tag that open_clip knows for that name, or a file; not for the two other kinds.
            vocabulary: what `look` chooses its labels from, as captions (``a photo of a cup``).

        Raises:
            WeightsError: the weights cannot be had, or do not fit the model.
        """
        import open_clip

        try:
            self._model, self._preprocess = open_clip.create_model_from_pretrained(model, pretrained=pretrained)
            self._tokenizer = open_clip.get_tokenizer(model)
        except (OSError, RuntimeError, ValueError, KeyError, AssertionError, pickle.UnpicklingError) as error:
            wanted = f"{model}:{pretrained}" if pretrained else model
            raise WeightsError(
                f"the open_clip model {wanted} cannot be loaded: {' '.join(str(error).split())[:400]}; give a file "
                f"(NAME:/path/to/weights.safetensors), a folder (local-dir:/path), or use {BRIDGE}"
            ) from error
        self._model.eval()
        prepared = {str(k): str(v) for k, v in open_clip.get_model_preprocess_cfg(self._model).items()}
        with one_thread():
            dim = int(self._text_tower("a").shape[-1])
        name = model if pretrained is None else f"{model}:{Path(pretrained).name}"
        self.space = Space(
            identity([_state_hash(self._model)], image=prepared, model=type(self._model).__name__), dim, name=name
        )
        self._vocabulary = tuple(vocabulary)
        self._vocabulary_vectors = self.encode_texts(self._vocabulary)

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Vectors of images.

        Args:
            images: uint8 arrays [height, width, 3], RGB.

        Returns:
            float32 [len(images), dim], unit rows.

        Raises:
            BadInput: not such an array.
        """
        return self._rows([self._image_tower(image) for image in images])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, float32 [len(texts), dim], unit rows; cut at the model's context length."""
        with one_thread():
            return self._rows([self._text_tower(text) for text in texts])

    def look(self, image: Image, k: int = 5) -> Look:
        """Vector of one image and the k captions of the vocabulary that fit it best (none without a vocabulary).

        The probabilities are those of CLIP's zero-shot classifier: softmax of scaled cosines over the vocabulary.
        """
        vector = self.encode_images([image])[0]
        if not self._vocabulary:
            return Look(vector, ())
        scale = float(self._model.logit_scale.detach().exp())
        logits = scale * (self._vocabulary_vectors @ vector)
        p = np.exp(logits - logits.max())
        p /= p.sum()
        best = np.argsort(-p, kind="stable")[:k]
        return Look(vector, tuple(Label(self._vocabulary[i], float(p[i])) for i in best))

    def _rows(self, rows: list[torch.Tensor]) -> Vectors:
        if not rows:
            return np.empty((0, self.space.dim), np.float32)
        return unit(torch.cat(rows).float().numpy())

    def _image_tower(self, image: Image) -> torch.Tensor:
        from PIL.Image import fromarray

        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise BadInput(f"expected uint8 [height, width, 3] (RGB), got {image.dtype} {list(image.shape)}")
        with one_thread():
            out: torch.Tensor = self._model.encode_image(self._preprocess(fromarray(image))[None], normalize=True)
        return out

    def _text_tower(self, text: str) -> torch.Tensor:
        out: torch.Tensor = self._model.encode_text(self._tokenizer([text]), normalize=True)
        return out


def load_image_encoder(
    spec: str = BRIDGE, *, cache_dir: str | os.PathLike[str] | None = None, vocabulary: Sequence[str] = ()
) -> ImageEncoder:
    """The image encoder that `spec` names.

    Args:
        spec: ``imagenet-bridge`` (offline; see its module for what it cannot see), ``local-dir:/path`` (an open_clip
            folder), ``hf-hub:owner/name``, ``ViT-B-32:/path/to/weights.safetensors``, ``ViT-B-32:laion2b_s34b_b79k``
            (downloaded by open_clip), or ``ViT-B-32`` (its first tag).
        cache_dir: where `imagenet-bridge` finds its weights; see `runtime.weights.cache_folder`.
        vocabulary: what an open_clip model chooses labels from; the bridge has its own.

    Raises:
        BadInput: no such model.
        WeightsError: its weights cannot be had or do not fit.
    """
    if spec == BRIDGE:
        return load_imagenet_bridge(cache_dir=cache_dir)
    if spec.startswith(("local-dir:", "hf-hub:")):
        return OpenClipEncoder(spec, vocabulary=vocabulary)
    name, _, pretrained = spec.partition(":")
    return OpenClipEncoder(name, _checked(name, pretrained), vocabulary=vocabulary)


def _checked(name: str, pretrained: str) -> str:
    """The tag or file to load for a model name."""
    import open_clip

    known: list[Any] = open_clip.list_models()
    if name not in known:
        near = difflib.get_close_matches(name, [BRIDGE, *known], 1)
        hint = (
            f"did you mean {near[0]!r}?"
            if near
            else f"use {BRIDGE}, local-dir:/path, or one of open_clip.list_models()"
        )
        raise BadInput(f"no image encoder named {name!r}; {hint}")
    tags: list[str] = open_clip.list_pretrained_tags_by_model(name)
    if pretrained in tags or Path(pretrained).is_file():
        return pretrained
    if pretrained or not tags:
        raise BadInput(
            f"{name} has no pretrained weights {pretrained!r} and there is no such file; tags: {', '.join(tags)}"
        )
    return tags[0]


def _state_hash(model: nn.Module) -> bytes:
    """sha256 of all weights as loaded (name, shape, dtype, bytes): the same whichever file they came in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()
