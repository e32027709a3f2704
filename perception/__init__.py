"""Perception: turning video and text into percepts, events and statements.

This room knows pixels, frames, words and encoders. It does not know what is remembered, or why anybody looks.
Names are imported where they are used first (PEP 562): words need no torch, and vectors need no OpenCV.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bench import bench_perception as bench_perception
    from .capture import Camera as Camera
    from .capture import Pictures as Pictures
    from .capture import Source as Source
    from .capture import VideoFile as VideoFile
    from .capture import limit_threads as limit_threads
    from .capture import open_source as open_source
    from .encoders import OpenClipEncoder as OpenClipEncoder
    from .encoders import load_image_encoder as load_image_encoder
    from .events import EventSegmenter as EventSegmenter
    from .events import EventSettings as EventSettings
    from .events import describe as describe
    from .imagenet_bridge import ImagenetBridge as ImagenetBridge
    from .protocols import ImageEncoder as ImageEncoder
    from .protocols import Look as Look
    from .protocols import TextEncoder as TextEncoder
    from .scenes import SceneReader as SceneReader
    from .scenes import SceneSettings as SceneSettings
    from .stream import Watcher as Watcher
    from .stream import WatchStats as WatchStats
    from .text import BertTextEncoder as BertTextEncoder
    from .text import HashingTextEncoder as HashingTextEncoder
    from .text import load_text_encoder as load_text_encoder

_HOME = {
    "Camera": ".capture",
    "EventSegmenter": ".events",
    "EventSettings": ".events",
    "Pictures": ".capture",
    "SceneReader": ".scenes",
    "SceneSettings": ".scenes",
    "Source": ".capture",
    "VideoFile": ".capture",
    "WatchStats": ".stream",
    "Watcher": ".stream",
    "bench_perception": ".bench",
    "describe": ".events",
    "limit_threads": ".capture",
    "open_source": ".capture",
    "BertTextEncoder": ".text",
    "HashingTextEncoder": ".text",
    "ImageEncoder": ".protocols",
    "ImagenetBridge": ".imagenet_bridge",
    "Look": ".protocols",
    "OpenClipEncoder": ".encoders",
    "TextEncoder": ".protocols",
    "load_image_encoder": ".encoders",
    "load_text_encoder": ".text",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_HOME)
