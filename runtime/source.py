"""What every file of weights offers, whatever its format: a config, named matrices, a tokenizer and a chat template.

Tensors have GGUF's names (``blk.3.attn_q.weight``); matrices are [outputs, inputs] with the halves convention of
rotary embeddings. Does not know rounding.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import WeightsError
from .architecture import ModelConfig, config_from_hf
from .tokenizer import Tokenizer, tokenizer_from_folder

LAYER_MATRICES = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
LAYER_VECTORS = ("attn_norm", "ffn_norm")
_HF_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_HF_TOP = {"token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm"}


@dataclass(frozen=True)
class Source:
    """An open file or folder of weights.

    Attributes:
        sha256: identity of the bytes, hexadecimal.
        kinds: tensor name to the number format it is stored in (``Q5_0``, ``BF16`` ...).
        read: name to float32 tensor.
    """

    config: ModelConfig
    sha256: str
    tokenizer: Tokenizer
    chat_template: str
    kinds: Mapping[str, str]
    read: Callable[[str], Tensor]


def check_shapes(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Every tensor that the decoder needs is there, with the right shape.

    Raises:
        WeightsError: one is missing or has another shape.
    """
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "attn_q.weight": (q, config.hidden),
        "attn_k.weight": (kv, config.hidden),
        "attn_v.weight": (kv, config.hidden),
        "attn_output.weight": (config.hidden, q),
        "ffn_gate.weight": (config.ffn, config.hidden),
        "ffn_up.weight": (config.ffn, config.hidden),
        "ffn_down.weight": (config.hidden, config.ffn),
        "attn_norm.weight": (config.hidden,),
        "ffn_norm.weight": (config.hidden,),
    }
    optional: dict[str, tuple[int, ...]] = {"attn_q.bias": (q,), "attn_k.bias": (kv,), "attn_v.bias": (kv,)}
    needed: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config.vocab, config.hidden),
        "output_norm.weight": (config.hidden,),
    }
    may: dict[str, tuple[int, ...]] = {"output.weight": (config.vocab, config.hidden)}
    for i in range(config.layers):
        needed |= {f"blk.{i}.{name}": shape for name, shape in layer.items()}
        may |= {f"blk.{i}.{name}": shape for name, shape in optional.items()}
    for name, shape in (needed | may).items():
        got = shapes.get(name)
        if got is None and name in needed:
            raise WeightsError(f"expected the tensor {name} {shape} in {where}, found none; the file is incomplete")
        if got is not None and got != shape:
            raise WeightsError(f"expected {name} to be {shape}, got {got} in {where}; the file is damaged")


def folder_source(folder: Path) -> Source:
    """Open a folder of safetensors as `transformers` saves it.

    Raises:
        WeightsError: something is missing, damaged or not of the Qwen2 or Llama family.
    """
    raw = read_json(folder / "config.json")
    generation = read_json(folder / "generation_config.json") if (folder / "generation_config.json").is_file() else {}
    config = config_from_hf(raw, generation, folder.name)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"expected *.safetensors in {folder}, found none; save the model with save_pretrained")
    where: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    kinds: dict[str, str] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for theirs in opened.keys():  # noqa: SIM118  (not a mapping)
                    part, name = opened.get_slice(theirs), _gguf_name(theirs)
                    where[name], shapes[name], kinds[name] = file, tuple(part.get_shape()), str(part.get_dtype())
        except SafetensorError as error:
            raise WeightsError(
                f"expected a whole safetensors file, {file} is damaged ({error}); get it again"
            ) from None
    check_shapes(config, shapes, str(folder))

    def read(name: str) -> Tensor:
        with safe_open(where[name], framework="pt") as opened:
            tensor: Tensor = opened.get_tensor(hf_name(name))
            return tensor.float()

    if raw.get("tie_word_embeddings", False):
        kinds.pop("output.weight", None)
    return Source(
        config=config,
        sha256=_folder_hash(files, folder),
        tokenizer=tokenizer_from_folder(folder, config.eos, config.bos),
        chat_template=_template(folder),
        kinds=kinds,
        read=read,
    )


def hf_name(name: str) -> str:
    """``blk.3.ffn_up.weight`` to ``model.layers.3.mlp.up_proj.weight``, the name that `transformers` gives it."""
    parts = name.split(".")
    if parts[0] != "blk":
        return f"{_HF_TOP[parts[0]]}.{parts[1]}"
    return f"model.layers.{parts[1]}.{_HF_NAMES[parts[2]]}.{parts[3]}"


def _gguf_name(hf_name: str) -> str:
    """``model.layers.3.mlp.up_proj.weight`` to ``blk.3.ffn_up.weight``; an unknown name comes back as it is."""
    stem, _, kind = hf_name.rpartition(".")
    for name, hf in _HF_TOP.items():
        if stem == hf:
            return f"{name}.{kind}"
    parts = stem.split(".", 3)
    for name, hf in _HF_NAMES.items():
        if parts[:2] == ["model", "layers"] and parts[3:] == [hf]:
            return f"blk.{parts[2]}.{name}.{kind}"
    return hf_name


def _folder_hash(files: list[Path], folder: Path) -> str:
    """Identity of a folder: the hashes of its weights, config and tokenizer, in order of name."""
    digest = hashlib.sha256()
    for file in [*files, folder / "config.json", folder / "tokenizer.json"]:
        digest.update(f"{file.name} {file_sha256(file)}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file, hexadecimal.

    Raises:
        WeightsError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"expected to read {path}, got {error.strerror}; check the path") from error


def _template(folder: Path) -> str:
    """The chat template beside the tokenizer, in its own file or in tokenizer_config.json; empty if there is none."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text(encoding="utf-8")
    path = folder / "tokenizer_config.json"
    return str(read_json(path).get("chat_template") or "") if path.is_file() else ""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        WeightsError: it is missing or is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"expected {path}, got {error.strerror}; a model folder needs it") from error
    except ValueError as error:
        raise WeightsError(f"expected JSON in {path}, got {error}; get it again") from error
    if not isinstance(value, dict):
        raise WeightsError(f"expected a JSON object in {path}, got {type(value).__name__}; get it again")
    return value
