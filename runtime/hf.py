"""Any causal language model of `transformers`, with our attention and our cache, behind the same face.

Knows `AttentionInterface` and `AutoModelForCausalLM`. Does not know quantisation: such a model runs as it was saved.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from ..errors import BadInput, WeightsError
from ..kernels.append_attention import append_attention
from ..kernels.attention import attention
from .cache import KeptView, KVCache
from .decoder import Cancelled
from .planner import LocalPlanner
from .tokenizer import Tokenizer

ATTENTION = "perdure"
_CHUNK = 512


def perdure_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor | KeptView,
    value: Tensor | KeptView,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Our attention in the form that `transformers` calls.

    Args:
        query, key, value: [B, H, S, D], [B, K, T, D]. Or, from a `KVCache` with compacted keys, `KeptView`s: every
            query sees the kept keys and, causally, the tail; the mask is not looked at.
        attention_mask: bool or additive [B, 1, S, T]; None means causal, or everything if the layer is not.

    Returns:
        [B, S, H, D], and None for the weights, which are never made.

    Raises:
        BadInput: dropout, soft caps and attention sinks are not ours to compute.
    """
    if dropout or kwargs.get("softcap") is not None or kwargs.get("s_aux") is not None:
        raise BadInput("expected attention without dropout, softcap and sinks; use attn_implementation='eager'")
    if isinstance(key, KeptView) and isinstance(value, KeptView):
        tail = (key.tail.to(query.dtype), value.tail.to(query.dtype))
        out = append_attention(query, key.kept, *tail, scale=scaling).out_BHSD
        return out.transpose(1, 2).contiguous(), None
    assert isinstance(key, Tensor)
    assert isinstance(value, Tensor)
    queries, keys = query.shape[2], key.shape[2]
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    if attention_mask is None and not causal:
        attention_mask = torch.ones(1, 1, queries, keys, dtype=torch.bool, device=query.device)
    if attention_mask is None and 1 < queries < keys:
        # A static cache that was empty: transformers leaves the mask away and what lies behind is not filled yet.
        key, value = key[:, :, :queries], value[:, :, :queries]
    out = attention(query, key.to(query.dtype), value.to(query.dtype), scale=scaling, mask_BHST=attention_mask)
    return out.transpose(1, 2).contiguous(), None


def register_attention() -> str:
    """Make ``attn_implementation="perdure"`` known to `transformers`; returns that name. Harmless to repeat."""
    AttentionInterface.register(ATTENTION, perdure_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    return ATTENTION


class HfEngine:
    """A `transformers` model reading into our cache.

    Args:
        model: a causal language model in evaluation mode.
        capacity: positions there is room for.
        sha256: identity of its weights.
    """

    def __init__(self, model: Any, capacity: int, sha256: str) -> None:
        config = model.config.get_text_config()
        self.model, self.vocab = model, int(model.get_output_embeddings().weight.shape[0])
        layers = int(config.num_hidden_layers)
        self.cache = KVCache(layers, capacity, sha256, _windows(config, layers), _positions(config))

    def read(self, tokens: Sequence[int], *, all_logits: bool = False, cancel: threading.Event | None = None) -> Tensor:
        """See `Decoder.read`."""
        room = self.cache.room
        if not 1 <= len(tokens) <= room:
            raise BadInput(f"expected 1 to {room} more tokens, got {len(tokens)}; give a larger context_tokens")
        parts: list[Tensor] = []
        for start in range(0, len(tokens), _CHUNK):
            if cancel is not None and cancel.is_set():
                raise Cancelled
            chunk = list(tokens[start : start + _CHUNK])
            ids = torch.tensor([chunk], device=self.model.device)
            keep = 0 if all_logits else 1
            out = self.model(input_ids=ids, past_key_values=self.cache, use_cache=True, logits_to_keep=keep)
            self.cache.advance(chunk)
            parts.append(out.logits[0].float())
        return torch.cat(parts) if all_logits else parts[-1][-1]


def load_hf_planner(spec: str, context_tokens: int) -> LocalPlanner:
    """Load a folder or hub id with `transformers`.

    Raises:
        WeightsError: it cannot be had or is not a causal language model.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(spec)
        model = AutoModelForCausalLM.from_pretrained(spec, attn_implementation=register_attention(), dtype="auto")
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"expected a causal language model '{spec}' on this machine or the hub, got: {str(error).strip()[:300]}; "
            "give a GGUF file, a folder, or an id that this machine can reach"
        ) from error
    if not tokenizer.is_fast:
        raise WeightsError(f"expected a fast tokenizer for '{spec}', got a slow one; convert it to tokenizer.json")
    model.eval().requires_grad_(False)
    ends = model.generation_config.eos_token_id
    ends = tokenizer.eos_token_id if ends is None else ends
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    own = Tokenizer(tokenizer.backend_tokenizer, ends)
    sha256 = _identity(model)
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None) or context_tokens
    engine = HfEngine(model, min(context_tokens, int(limit)), sha256)
    return LocalPlanner(Path(spec).name, sha256, engine, own, str(tokenizer.chat_template or ""))


def _windows(config: Any, layers: int) -> list[int | None]:
    """The sliding window of each layer, None for those that see everything."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:  # one kind of layer: all slide if there is a window that is in use
        used = window is not None and getattr(config, "use_sliding_window", True)
        kinds = ["sliding_attention" if used else "full_attention"] * layers
    return [int(window) if kind == "sliding_attention" and window else None for kind in kinds]


def _positions(config: Any) -> int | None:
    """Positions that the model knows, where it says so."""
    known = getattr(config, "max_position_embeddings", None)
    return int(known) if known else None


def _identity(model: Any) -> str:
    """sha256 over names and bytes of all parameters."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
