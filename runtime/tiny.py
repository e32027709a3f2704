"""A language model of a megabyte: the architecture, files and tokenizer of a real one, with random weights.

Tests of every room use it where the words do not matter. `make_tiny_model` writes the same weights twice, as a folder
of safetensors and as a GGUF file; the bytes are the same on every machine with the same library versions.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Core
from torch import Tensor

from .source import LAYER_MATRICES, LAYER_VECTORS, hf_name
from .tokenizer import SPLITS

_TEXT = (
    "The keys are on the kitchen table. The robot saw the red cup next to the lamp and moved it to the shelf. ",
    "Yesterday evening somebody opened the window, and the cat walked through the living room. ",
    'def where(thing):\n    return {"name": thing, "place": "table", "time": [1, 2, 3]}\n',
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
Kind = Literal["F32", "Q8_0", "Q5_0", "Q4_0"]


@dataclass(frozen=True)
class TinyModel:
    """Where the two forms of the tiny model lie."""

    folder: Path
    gguf: Path


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the tiny model; ``family`` is qwen2 or llama, ``tied`` makes the output matrix the embedding."""

    family: Literal["qwen2", "llama"] = "qwen2"
    vocab: int = 390
    layers: int = 3
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 128
    context: int = 2048
    theta: float = 10000.0
    eps: float = 1e-6
    tied: bool = False

    @property
    def dim(self) -> int:
        """Width of a head."""
        return self.hidden // self.heads


def make_tiny_model(into: Path, shape: TinyShape | None = None, kind: Kind = "F32", seed: int = 0) -> TinyModel:
    """Write ``into/tiny`` (safetensors folder, float32) and ``into/tiny.gguf``.

    Args:
        into: existing folder.
        kind: number format of the matrices in the GGUF file; the folder holds the float32 values before rounding.
        seed: of the random weights.
    """
    shape = shape or TinyShape()
    core = _train_tokenizer(shape.vocab)
    tensors = _random_tensors(shape, seed)
    folder = into / "tiny"
    folder.mkdir(exist_ok=True)
    save_file({hf_name(name): t for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_hf_config(shape, core), indent=1))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": core.token_to_id("<|im_end|>")}))
    (folder / "tokenizer.json").write_text(core.to_str())
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "chat_template": _TEMPLATE,
            }
        )
    )
    path = into / "tiny.gguf"
    _write_gguf(path, shape, core, tensors, kind)
    return TinyModel(folder, path)


def _train_tokenizer(vocab: int) -> Core:
    """Byte-level BPE with Qwen2's split, of exactly ``vocab`` tokens; the last three are special."""
    core = Core(models.BPE(fuse_unk=False))
    core.normalizer = normalizers.NFC()
    split = SPLITS["qwen2"]
    assert split is not None
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab - len(_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        min_frequency=1,
    )
    core.train_from_iterator(_TEXT, trainer)
    core.add_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    assert core.get_vocab_size() == vocab, core.get_vocab_size()
    return core


def _random_tensors(shape: TinyShape, seed: int) -> dict[str, Tensor]:
    """Normal weights, large enough that the next token is no coin toss."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int, std: float) -> Tensor:
        return torch.randn(*size, generator=generator) * std

    kv, x = shape.kv_heads * shape.dim, shape.hidden
    sizes = {
        "attn_q": (x, x),
        "attn_k": (kv, x),
        "attn_v": (kv, x),
        "attn_output": (x, x),
        "ffn_gate": (shape.ffn, x),
        "ffn_up": (shape.ffn, x),
        "ffn_down": (x, shape.ffn),
    }
    tensors = {"token_embd.weight": normal(shape.vocab, x, std=1.0)}
    for i in range(shape.layers):
        for name in LAYER_MATRICES:
            rows, cols = sizes[name]
            tensors[f"blk.{i}.{name}.weight"] = normal(rows, cols, std=1.5 * cols**-0.5)
        for name in LAYER_VECTORS:
            tensors[f"blk.{i}.{name}.weight"] = 1 + normal(x, std=0.1)
        if shape.family == "qwen2":
            for name in LAYER_MATRICES[:3]:
                tensors[f"blk.{i}.{name}.bias"] = normal(sizes[name][0], std=0.5)
    tensors["output_norm.weight"] = 1 + normal(x, std=0.1)
    if not shape.tied:
        tensors["output.weight"] = normal(shape.vocab, x, std=3.0 * x**-0.5)
    return tensors


def _hf_config(shape: TinyShape, core: Core) -> dict[str, Any]:
    names = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
    return {
        "architectures": [names[shape.family]],
        "model_type": shape.family,
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.eps,
        "rope_theta": shape.theta,
        "tie_word_embeddings": shape.tied,
        "eos_token_id": core.token_to_id("<|im_end|>"),
        "dtype": "float32",
    }


def _write_gguf(path: Path, shape: TinyShape, core: Core, tensors: dict[str, Tensor], kind: Kind) -> None:
    writer = gguf.GGUFWriter(str(path), shape.family)
    writer.add_name("tiny")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_rope_freq_base(shape.theta)
    model = json.loads(core.to_str())["model"]
    tokens = sorted(core.get_vocab(with_added_tokens=True).items(), key=lambda item: item[1])
    special = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([token for token, _ in tokens])
    writer.add_token_types([special[0] if token in _SPECIAL else special[1] for token, _ in tokens])
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in model["merges"]])
    writer.add_eos_token_id(core.token_to_id("<|im_end|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(_TEMPLATE)
    heads = {"attn_q": shape.heads, "attn_k": shape.kv_heads}
    for name, tensor in tensors.items():
        part = name.split(".")[-2]
        if shape.family == "llama" and part in heads:
            tensor = _neighbours(tensor, heads[part])
        values = tensor.numpy().astype(np.float32)
        quantized = gguf.GGMLQuantizationType[kind]
        if tensor.ndim == 1 or kind == "F32":
            writer.add_tensor(name, values)
        else:
            writer.add_tensor(name, gguf.quants.quantize(values, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _neighbours(tensor: Tensor, heads: int) -> Tensor:
    """Rows of q or k from two halves to neighbouring rotary pairs, as GGUF stores Llama."""
    return tensor.view(heads, 2, -1, *tensor.shape[1:]).transpose(1, 2).reshape(tensor.shape).contiguous()
