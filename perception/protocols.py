"""What the rest of Perdure may expect of an encoder, whichever model is behind it.

This module knows the shapes that go in and come out. It knows no model. Every encoder names its `space` (hash of
weights and preprocessing); vectors are only ever compared with vectors of the same space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..records import Image, Label, Space, Vector

Vectors = NDArray[np.float32]
"""float32 [N, space.dim], C order, rows of unit length."""


class Look(NamedTuple):
    """What an encoder makes of one image in one pass."""

    vector: Vector
    """float32 [dim], unit length."""
    labels: tuple[Label, ...]
    """Most probable first; empty if the encoder has no vocabulary."""


class TextEncoder(Protocol):
    """Turns text into vectors. The same text gives the same bytes, whatever else is in the list."""

    @property
    def space(self) -> Space: ...

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Returns float32 [len(texts), space.dim], unit rows."""


class ImageEncoder(TextEncoder, Protocol):
    """Turns images, and text about images, into vectors of one space, so that words find pictures.

    The same image gives the same bytes, whatever else is in the list.
    """

    def encode_images(self, images: Sequence[Image]) -> Vectors:
        """Args: uint8 arrays [height, width, 3], RGB, any size. Returns float32 [len(images), space.dim], unit rows."""

    def look(self, image: Image, k: int = 5) -> Look:
        """Vector and the (at most) k most probable labels of one image, in one pass."""
