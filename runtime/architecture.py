"""What a model is made of: sizes and conventions of the Qwen2 and Llama family, whatever file they came from.

Knows the keys of GGUF and of ``config.json``. Does not know tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import WeightsError

_GGUF_FAMILIES = ("qwen2", "llama")
# llama.cpp ends an answer on any of these as well as on the file's own end token.
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>")
_HF_FAMILIES = {"qwen2": "qwen2", "llama": "llama", "mistral": "llama"}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of one decoder.

    Attributes:
        name: for people.
        family: ``qwen2`` or ``llama``.
        head_dim: width of an attention head.
        ffn: width inside the feed-forward part.
        vocab: rows of the embedding; may exceed the tokenizer's.
        eps: added to the mean square in RMSNorm.
        inverse_frequencies: of the rotary embedding, one per pair, radians per position.
        context: positions that the model was trained for.
        window: a token sees only that many positions; None for all.
        eos: ids that end an answer.
        bos: id before every prompt, or None.
    """

    name: str
    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    eps: float
    inverse_frequencies: tuple[float, ...]
    context: int
    window: int | None
    eos: tuple[int, ...]
    bos: int | None

    def __post_init__(self) -> None:
        ok = self.heads % self.kv_heads == 0 and len(self.inverse_frequencies) * 2 == self.head_dim
        if not ok or min(self.layers, self.hidden, self.ffn, self.vocab) < 1:
            raise WeightsError(f"expected consistent sizes of a decoder, got {self}; the file is damaged")

    def to_dict(self) -> dict[str, Any]:
        """For JSON; the inverse of `from_dict`."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> ModelConfig:
        """The config that `to_dict` described."""
        tuples = {key: tuple(values[key]) for key in ("inverse_frequencies", "eos")}
        return ModelConfig(**{**values, **tuples})


def rotary_frequencies(theta: float, dim: int) -> tuple[float, ...]:
    """theta ** (-2 i / dim) for i in 0 .. dim / 2 - 1 (Su et al. 2021)."""
    return tuple(theta ** (-2 * i / dim) for i in range(dim // 2))


def config_from_gguf(metadata: Mapping[str, Any], vocab: int) -> ModelConfig:
    """Read the sizes from the metadata of a GGUF file.

    Raises:
        WeightsError: another architecture, or a key is missing.
    """
    family = str(metadata.get("general.architecture", "unknown"))
    if family not in _GGUF_FAMILIES:
        raise WeightsError(
            f"expected a GGUF file of {' or '.join(_GGUF_FAMILIES)}, got architecture '{family}'; "
            "give its Hugging Face id or folder instead, which runs through transformers"
        )

    def get(key: str) -> Any:
        if f"{family}.{key}" not in metadata:
            raise WeightsError(f"expected the key '{family}.{key}' in the GGUF metadata, found none; get another file")
        return metadata[f"{family}.{key}"]

    scaling = metadata.get(f"{family}.rope.scaling.type", "none")
    if scaling != "none":
        raise WeightsError(
            f"expected plain rotary positions, got scaling '{scaling}'; give the Hugging Face id instead"
        )
    heads, hidden = int(get("attention.head_count")), int(get("embedding_length"))
    dim = int(metadata.get(f"{family}.attention.key_length", hidden // heads))
    window = metadata.get(f"{family}.attention.sliding_window")
    ends = [metadata[k] for k in ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id") if k in metadata]
    ends += [i for i, token in enumerate(metadata.get("tokenizer.ggml.tokens", ())) if token in _ENDS]
    bos = metadata.get("tokenizer.ggml.bos_token_id") if metadata.get("tokenizer.ggml.add_bos_token", False) else None
    return ModelConfig(
        name=str(metadata.get("general.name", "unnamed")),
        family=family,
        layers=int(get("block_count")),
        hidden=hidden,
        heads=heads,
        kv_heads=int(metadata.get(f"{family}.attention.head_count_kv", heads)),
        head_dim=dim,
        ffn=int(get("feed_forward_length")),
        vocab=vocab,
        eps=float(get("attention.layer_norm_rms_epsilon")),
        inverse_frequencies=rotary_frequencies(float(metadata.get(f"{family}.rope.freq_base", 10000.0)), dim),
        context=int(get("context_length")),
        window=int(window) if window else None,
        eos=tuple(dict.fromkeys(int(i) for i in ends)),
        bos=None if bos is None else int(bos),
    )


def unsupported_hf(config: Mapping[str, Any]) -> str:
    """Why our own decoder cannot run a ``config.json``; the empty string if it can."""
    kind = config.get("model_type")
    if kind not in _HF_FAMILIES:
        return f"model_type '{kind}' is not one of {', '.join(_HF_FAMILIES)}"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    scaling = rope.get("rope_type", rope.get("type", "default"))
    if scaling != "default":
        return f"rotary scaling '{scaling}'"
    if config.get("hidden_act", "silu") != "silu":
        return f"activation '{config['hidden_act']}'"
    if config.get("mlp_bias") or (kind != "qwen2" and config.get("attention_bias")):
        return "biases outside q, k and v"
    if kind == "qwen2" and config.get("use_sliding_window"):
        return "a window in some layers only"
    return ""


def config_from_hf(config: Mapping[str, Any], generation: Mapping[str, Any], name: str) -> ModelConfig:
    """Read the sizes from ``config.json`` and ``generation_config.json``.

    Raises:
        WeightsError: the model is not one of ours; see `unsupported_hf`.
    """
    reason = unsupported_hf(config)
    if reason:
        raise WeightsError(f"expected a plain Qwen2 or Llama decoder, got {reason}; load it through transformers")
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    dim = int(config.get("head_dim") or hidden // heads)
    rope = config.get("rope_parameters") or {}
    ends = generation.get("eos_token_id", config.get("eos_token_id"))
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    window = config.get("sliding_window") if config["model_type"] == "mistral" else None
    return ModelConfig(
        name=name,
        family=_HF_FAMILIES[config["model_type"]],
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=dim,
        ffn=int(config["intermediate_size"]),
        vocab=int(config["vocab_size"]),
        eps=float(config.get("rms_norm_eps", 1e-6)),
        inverse_frequencies=rotary_frequencies(float(rope.get("rope_theta", config.get("rope_theta", 1e4))), dim),
        context=int(config.get("max_position_embeddings", 4096)),
        window=int(window) if window else None,
        eos=tuple(int(i) for i in ends),
        bos=None,
    )
