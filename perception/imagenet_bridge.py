"""`imagenet-bridge`: images into the space of a text encoder, by way of the thousand names of ImageNet (ConSE).

This module knows one classifier (EfficientNet-Lite0), its preprocessing, and how its probabilities become a vector. It
does not know open vocabulary: the bridge sees only ImageNet's 1,000 nouns. It sees no attributes, actions, relations,
faces or counts, and what has no name there (a person, a table) is at best guessed from what usually stands near it.
It is not CLIP; it is what works where no CLIP weights can be had.

    image vector = sum over the T most probable classes c of p(c) * text_vector(name of c), scaled to unit length

Norouzi et al. 2013, "Zero-shot learning by convex combination of semantic embeddings", equation 4, T = 10.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import pickle
import re
import threading
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import BadInput, WeightsError
from ..records import Image, Label, Space
from ..runtime import weights
from .encoding import identity, one_thread, unit
from .protocols import Look, TextEncoder, Vectors
from .text import load_text_encoder

NAME = "imagenet-bridge"
CLASSIFIER = "efficientnet-lite0"
SIZE = 224
RESIZED = 256
"""The short side before cropping: 224 / 0.875, the usual ImageNet evaluation crop."""
TOP = 10
"""T of ConSE. Norouzi et al. found 10 best of 1, 10 and 1,000 on most splits."""
MAX_CROPS = 3
"""A frame is looked at in as many square crops along its long side as its aspect ratio, rounded, but at most this many.
On ten frames of a 2.35:1 clip of a cyclist, the mean cosine of "a bicycle" minus that of "a cat" was 0.167 with one
crop, 0.185 with two; squashing the whole frame into one square lost more labels than it gained."""


class ImagenetBridge:
    """Image encoder in the space of a text encoder; the classifier is loaded when the first image comes.

    Safe to call from several threads.
    """

    def __init__(self, checkpoint: Path, text: TextEncoder, names: Sequence[str], name_vectors: Vectors) -> None:
        """Args: the classifier's file; the text encoder; the class names, and their vectors of that encoder."""
        self._checkpoint, self._text = checkpoint, text
        self._names, self._name_vectors = tuple(names), name_vectors
        self._model: nn.Module | None = None
        self._loading = threading.Lock()
        encoder = identity(
            [checkpoint],
            text=text.space.encoder,
            names=hashlib.sha256("\n".join(names).encode()).hexdigest(),
            preprocessing=[SIZE, RESIZED, "bicubic", MAX_CROPS, 0.5, 0.5],
            top=TOP,
        )
        self.space = Space(encoder, text.space.dim, name=NAME)

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Vectors of images.

        Args:
            images: uint8 arrays [height, width, 3], RGB.

        Returns:
            float32 [len(images), dim], unit rows.

        Raises:
            BadInput: not such an array.
            WeightsError: the classifier's file is not an EfficientNet-Lite0.
        """
        if not images:
            return np.empty((0, self.space.dim), np.float32)
        return np.stack([self.look(image, 0).vector for image in images])

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts, comparable with those of images: plain vectors of the text encoder."""
        return self._text.encode_texts(texts)

    def look(self, image: Image, k: int = 5) -> Look:
        """Vector and the k most probable ImageNet names of one image, mean of its crops; see `encode_images`."""
        model = self._classifier()
        with one_thread():
            crops = [crop[None].contiguous(memory_format=torch.channels_last) for crop in _crops(image)]
            p = torch.stack([model(crop)[0].softmax(0) for crop in crops]).mean(0).numpy()
        best = np.argsort(-p, kind="stable")
        top = best[:TOP]
        vector = unit(p[top] @ self._name_vectors[top])
        return Look(vector, tuple(Label(self._names[i], float(p[i])) for i in best[:k]))

    def _classifier(self) -> nn.Module:
        with self._loading:
            if self._model is None:
                self._model = _load_classifier(self._checkpoint)
            return self._model


def load_imagenet_bridge(*, cache_dir: str | os.PathLike[str] | None = None) -> ImagenetBridge:
    """The bridge over the catalogue's EfficientNet-Lite0 and MiniLM, which must have been fetched.

    Raises:
        WeightsError: not fetched, or damaged.
    """
    checkpoint = weights.require(CLASSIFIER, cache_dir=cache_dir)
    text = load_text_encoder(cache_dir=cache_dir)
    names, vectors = _name_vectors(text, weights.cache_folder(cache_dir) / "derived")
    return ImagenetBridge(checkpoint, text, names, vectors)


def to_timm(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename the tensors of the published checkpoint to those of timm's `tf_efficientnet_lite0`.

    The checkpoint numbers its blocks 0 to 15; timm groups them into stages. Its batch norms are numbered from 0 where
    timm's are from 1, except in block 0, which has no expansion and hence no first norm.

    Raises:
        WeightsError: a tensor has no counterpart.
    """
    blocks: Any = model.blocks
    places = [f"blocks.{s}.{b}" for s, stage in enumerate(blocks) for b in range(len(stage))]
    renamed = {}
    for key, tensor in state.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", key):
            number, part, leaf = int(match[1]), match[2], match[3]
            parts = _FIRST_BLOCK if number == 0 else _BLOCK
            if number >= len(places) or part not in parts:
                raise WeightsError(f"{key} has no place in EfficientNet-Lite0")
            renamed[f"{places[number]}.{parts[part]}.{leaf}"] = tensor
        else:
            part, _, leaf = key.partition(".")
            if part not in _AROUND:
                raise WeightsError(f"{key} has no place in EfficientNet-Lite0")
            renamed[f"{_AROUND[part]}.{leaf}"] = tensor
    return renamed


_AROUND = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw",
    "_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def _load_classifier(checkpoint: Path) -> nn.Module:
    """TensorFlow's padding and batch-norm epsilon (1e-3).

    Logits are bit for bit those of the checkpoint's own implementation; within 6e-6 in the channels-last layout, which
    takes 17 ms an image on one thread instead of 26.
    """
    import timm  # takes two seconds, and a question in words needs no classifier

    model: nn.Module = timm.create_model("tf_efficientnet_lite0")
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        model.load_state_dict(to_timm(state, model))
    except pickle.UnpicklingError as error:  # its own text advises to load it unsafely
        raise WeightsError(
            f"{checkpoint} is not an EfficientNet-Lite0 checkpoint: it holds no plain tensors"
        ) from error
    except (OSError, RuntimeError, AttributeError, ValueError, EOFError, KeyError) as error:
        raise WeightsError(f"{checkpoint} is not an EfficientNet-Lite0 checkpoint: {str(error)[:300]}") from error
    return model.eval().to(memory_format=torch.channels_last)


def _crops(image: Image) -> Tensor:
    """float32 [crops, 3, 224, 224], scaled from -1 to 1."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise BadInput(f"expected uint8 [height, width, 3] (RGB), got {image.dtype} {list(image.shape)}")
    height, width = image.shape[:2]
    scale = RESIZED / min(height, width)
    size = (max(RESIZED, round(height * scale)), max(RESIZED, round(width * scale)))
    x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    x = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)[0]
    x = x / 127.5 - 1.0
    long = max(size)
    count = min(MAX_CROPS, round(max(height, width) / min(height, width)))
    starts = [round((long - SIZE) * (2 * i + 1) / (2 * count)) for i in range(count)]
    other = (RESIZED - SIZE) // 2
    if width >= height:
        return torch.stack([x[:, other : other + SIZE, s : s + SIZE] for s in starts])
    return torch.stack([x[:, s : s + SIZE, other : other + SIZE] for s in starts])


def _name_vectors(text: TextEncoder, folder: Path) -> tuple[list[str], Vectors]:
    """Names of the thousand classes and their vectors, from a file if it is there (making them takes ten seconds)."""
    version = importlib.metadata.version("open-clip-torch")  # whose list of names it is
    key = hashlib.sha256(f"{text.space.encoder} {version}".encode()).hexdigest()[:16]
    path = folder / f"imagenet-names-{key}.npz"
    with (
        suppress(OSError, ValueError, KeyError, zipfile.BadZipFile),
        np.load(path) as stored,
    ):  # torn or foreign: remade
        names, vectors = [str(name) for name in stored["names"]], np.ascontiguousarray(stored["vectors"])
        if vectors.shape == (len(names), text.space.dim) and vectors.dtype == np.float32:
            return names, vectors
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES  # imports all of open_clip: four seconds

    names = list(IMAGENET_CLASSNAMES)
    vectors = text.encode_texts(names)
    with suppress(OSError):  # a cache that cannot be written only costs the ten seconds again
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{path.name}.{os.getpid()}.tmp"
        with unfinished.open("wb") as out:
            np.savez(out, names=np.array(names), vectors=vectors)
            out.flush()
            os.fsync(out.fileno())
        unfinished.replace(path)
    return names, vectors
