"""The models that an agent runs with when nobody names others. Each is loaded here and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..errors import WeightsError
from .agent import Parts

DEFAULT_PLANNER = "qwen2.5-coder-0.5b-instruct-q4_k_m"
DEFAULT_IMAGE_ENCODER = "imagenet-bridge"
DEFAULT_TEXT_ENCODER = "all-minilm-l6-v2"


def default_parts(
    *,
    planner: str | None = DEFAULT_PLANNER,
    image_encoder: str | None = DEFAULT_IMAGE_ENCODER,
    text_encoder: str | None = DEFAULT_TEXT_ENCODER,
    threads: int | None = None,
    cache_dir: Path | None = None,
) -> Parts:
    """Load the models for an agent.

    Args:
        planner: name in the weights catalogue, GGUF path, model folder, Hugging Face id, URL of an OpenAI-compatible
            endpoint (``http://host/v1#model``), or None for none.
        image_encoder: ``imagenet-bridge``, an open_clip model (``ViT-B-32:/path/to/weights`` or ``local-dir:/path``),
            or None for none.
        text_encoder: ``all-minilm-l6-v2`` or None for none.
        threads: CPU threads for the planner; all by default.
        cache_dir: where weights are; the platform's cache folder by default.

    Raises:
        WeightsError: weights are missing or damaged; nothing is downloaded here.
    """
    # Here and not at the top: what is not asked for is not imported (torch alone takes a second).
    loaded = Parts()
    if planner is not None:
        from ..runtime import load_planner

        loaded = replace(
            loaded, planner=load_planner(located(planner, cache_dir), threads=threads, cache_dir=cache_dir)
        )
    if text_encoder is not None:
        from ..perception import load_text_encoder

        loaded = replace(loaded, text_encoder=load_text_encoder(text_encoder, cache_dir=cache_dir))
    if image_encoder is not None:
        from ..perception import load_image_encoder

        loaded = replace(loaded, image_encoder=load_image_encoder(image_encoder, cache_dir=cache_dir))
    return loaded


def located(planner: str, cache_dir: Path | None) -> str:
    """The path of a planner named in the catalogue; any other name is returned as it is.

    Raises:
        WeightsError: it is in the catalogue and not on this machine.
    """
    from ..runtime import catalogue, locate

    if planner not in catalogue():
        return planner
    path = locate(planner, cache_dir=cache_dir)
    if path is None:
        raise WeightsError(
            f"expected the weights {planner!r} on this machine, they are not there; run `perdure weights fetch`, "
            "or choose other weights with --planner (none: answer with rules and plain sentences)"
        )
    return str(path)
