"""Which tensor keeps how many bits, and the folder in which re-packed weights wait for the next start.

Knows what each rounding costs in perplexity and bytes, and the cache file: one safetensors file per source and
layout, named by the sha256 of its own content, written to a temporary name and renamed. Does not know arithmetic.

What is kept (Qwen2.5-Coder-0.5B Q4_K_M, several thousand tokens, perplexity 14.60 with the exact values):

    stored as           kept as        change of perplexity  bytes per weight
    Q4_0, Q4_1, Q4_K    4 bits         exact                 0.625
    Q5_0                5 bits         exact                 0.688
    Q6_K                5 bits         +0.16 %               0.688
    Q8_0, F16 and up    8 bits         exact for Q8_0        1.063
    output matrix       5 bits         +0.39 %               0.688

Without the project's own C++, torch's products know 4 bits in groups and 8 bits per output only: the feed-forward and
output matrices take 4 bits (+3.0 % and +0.8 %), the others 8.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import StorageError
from ..kernels.decoder_layers import LayerWeights
from ..kernels.quantized_matmul import GROUP, Bits, Layout, PackedWeight, best_layout, dequantize_packed, pack, quantize
from .architecture import ModelConfig
from .source import LAYER_MATRICES, Source
from .tokenizer import Tokenizer, tokenizer_from_json

log = logging.getLogger("perdure")

Precision = Literal["quantized", "bfloat16", "float32"]
FORMAT = 1
_FOUR = {"Q4_0", "Q4_1", "Q4_K", "IQ4_NL", "IQ4_XS", "Q2_K", "MXFP4"}
_FIVE = {"Q5_0", "Q6_K", "Q3_K"}
_MLP = ("ffn_gate", "ffn_up")


@dataclass(frozen=True)
class Embedding:
    """Rows of the token embedding: 5 or 8-bit codes with a scale per 32 values, or plain floats."""

    rows: Tensor
    """uint8 codes or float [vocab, hidden]."""
    scales: Tensor | None
    """float16 [vocab, hidden / 32]."""
    offset: int
    """Subtracted from the codes."""

    def __call__(self, ids: Tensor) -> Tensor:
        """float32 [M, hidden] of int64 ids [M]."""
        rows = self.rows[ids]
        if self.scales is None:
            return rows.float()
        groups = (rows.float() - self.offset).view(len(ids), -1, GROUP)
        return (groups * self.scales[ids].float()[..., None]).view(len(ids), -1)


@dataclass(frozen=True)
class ModelWeights:
    """Everything that the decoder needs, ready to run.

    Attributes:
        sha256: identity of the weights: source bytes, format and layout.
    """

    config: ModelConfig
    sha256: str
    source_sha256: str
    tokenizer: Tokenizer
    chat_template: str
    embedding: Embedding
    layers: tuple[LayerWeights, ...]
    norm_out: Tensor
    output: PackedWeight

    @property
    def bytes_per_token(self) -> int:
        """Bytes of weights that one decoded token reads."""
        matrices = [w for x in self.layers for w in (x.q, x.k, x.v, x.o, x.gate, x.up, x.down)]
        return self.output.bytes + sum(w.bytes for w in matrices)


def load_weights(source: Source, precision: Precision = "quantized") -> ModelWeights:
    """Read and pack all tensors of a source, without any cache."""
    return _assemble(_pack_all(source, precision), source.config, _identity(source.sha256, precision), source)


def plain_weights(weights: ModelWeights, device: torch.device | str) -> ModelWeights:
    """The same weights as bfloat16 matrices on a device, with an identity of their own.

    Raises:
        BadInput: weights in a layout that cannot be unpacked; load them in ``bfloat16``.
    """

    def matrix(w: PackedWeight) -> PackedWeight:
        return PackedWeight("dense", 16, w.rows, w.cols, dequantize_packed(w).to(device, torch.bfloat16))

    def part(x: Any) -> Any:
        return matrix(x) if isinstance(x, PackedWeight) else x.to(device) if isinstance(x, Tensor) else x

    layers = tuple(LayerWeights(**{f: part(x) for f, x in vars(layer).items()}) for layer in weights.layers)
    rows, scales = weights.embedding.rows.to(device), weights.embedding.scales
    return replace(
        weights,
        sha256=hashlib.sha256(f"{weights.sha256} bfloat16".encode()).hexdigest(),
        embedding=replace(weights.embedding, rows=rows, scales=None if scales is None else scales.to(device)),
        layers=layers,
        norm_out=weights.norm_out.to(device),
        output=matrix(weights.output),
    )


def cached_weights(cache_dir: Path, sha256: str) -> ModelWeights | None:
    """The re-packed weights of a source, memory-mapped; None if they are not cached or the file is damaged."""
    prefix = _prefix(sha256)
    for path in sorted(cache_dir.glob(f"{prefix}.*.safetensors")):
        digest = path.name.split(".")[1]
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found.startswith(digest):
            return _open(path, sha256)
        log.warning("runtime: %s does not have the content that its name says; it is made again", path)
        path.unlink()
    return None


def store_weights(source: Source, cache_dir: Path) -> ModelWeights:
    """Pack a source, keep it in the cache folder for the next start, and open it from there.

    One process packs at a time; a second one waits and finds the result.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with FileLock(cache_dir / ".lock"):
            for leftover in cache_dir.glob("*.tmp"):  # of a process that was killed
                leftover.unlink()
            return cached_weights(cache_dir, source.sha256) or _store(source, cache_dir)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"expected to keep the re-packed weights in {cache_dir}, got {error}; free space or give another folder"
        ) from error


def _store(source: Source, cache_dir: Path) -> ModelWeights:
    tensors = _pack_all(source, "quantized")
    tensors["tokenizer"] = _text_tensor(source.tokenizer.to_json())
    tensors["chat_template"] = _text_tensor(source.chat_template)
    packed = {name: [w.layout, w.bits, w.rows, w.cols] for name, w in _packed(tensors).items()}
    plain = {name: t for name, t in tensors.items() if isinstance(t, Tensor)}
    for name, weight in _packed(tensors).items():
        plain[name] = weight.data
        if weight.scales is not None:
            plain[f"{name}.scales"] = weight.scales
    about = {"format": FORMAT, "source": source.sha256, "config": source.config.to_dict(), "packed": packed}
    descriptor, temporary = tempfile.mkstemp(dir=cache_dir, suffix=".tmp")
    os.close(descriptor)
    save_file(plain, temporary, metadata={"perdure": json.dumps(about)})
    with Path(temporary).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    target = cache_dir / f"{_prefix(source.sha256)}.{digest[:16]}.safetensors"
    Path(temporary).replace(target)
    return _open(target, source.sha256)


def choose_bits(name: str, kind: str, layout: Layout) -> Bits:
    """Bits for one matrix: see the table above.

    Args:
        name: GGUF name, ``blk.3.ffn_up.weight``.
        kind: number format in the source, ``Q5_0`` or ``BF16``.
        layout: where it will be multiplied.
    """
    own: Bits = 4 if kind in _FOUR else 5 if kind in _FIVE else 8
    if layout == "torch":
        small = own == 4 or name == "output.weight" or any(part in name for part in _MLP)
        return 4 if (small and own < 8) or name == "output.weight" else 8
    return min(own, 5) if name == "output.weight" else own


def _prefix(sha256: str) -> str:
    return f"{sha256[:32]}-{best_layout()}-{FORMAT}"


def _identity(sha256: str, precision: Precision) -> str:
    """The KV cache depends on the arithmetic as well as on the bytes."""
    layout = best_layout() if precision == "quantized" else precision
    return hashlib.sha256(f"{sha256} {FORMAT} {layout}".encode()).hexdigest()


def _pack_all(source: Source, precision: Precision) -> dict[str, Tensor | PackedWeight]:
    """All tensors by GGUF name: vectors as float32, matrices packed, the embedding as codes and scales."""
    names = [f"blk.{i}.{m}.weight" for i in range(source.config.layers) for m in LAYER_MATRICES]
    tensors: dict[str, Tensor | PackedWeight] = {}
    for name in source.kinds:
        if name not in names and name not in ("token_embd.weight", "output.weight") and _wanted(name, source.config):
            tensors[name] = source.read(name)
    for name in names:
        tensors[name] = _pack_one(name, source.read(name), source.kinds[name], precision)
    # The two largest matrices, one after the other unless they are the same: each is half a gigabyte as float32.
    tied = "output.weight" not in source.kinds
    largest = "token_embd.weight" if tied else "output.weight"
    embedding = source.read(largest)
    tensors["output.weight"] = _pack_one("output.weight", embedding, source.kinds[largest], precision)
    if not tied:
        del embedding
        embedding = source.read("token_embd.weight")
    if precision != "quantized" or embedding.shape[1] % GROUP:
        tensors["token_embd.weight"] = embedding if precision != "bfloat16" else embedding.to(torch.bfloat16)
        return tensors
    # Only the rows of the prompt are ever read: Q5_0 is kept exactly, everything else in 8 bits.
    codes = quantize(embedding, 5 if source.kinds["token_embd.weight"] == "Q5_0" else 8)
    tensors["token_embd.weight"], tensors["token_embd.scales"] = codes.codes_NK, codes.scale_NG
    tensors["token_embd.offset"] = torch.tensor(16 if codes.bits == 5 else 128)
    return tensors


def _wanted(name: str, config: ModelConfig) -> bool:
    parts = name.split(".")
    return name == "output_norm.weight" or (parts[0] == "blk" and int(parts[1]) < config.layers)


def _pack_one(name: str, tensor: Tensor, kind: str, precision: Precision) -> PackedWeight:
    rows, cols = tensor.shape
    if precision == "float32":
        return PackedWeight("dense", 32, rows, cols, tensor)
    if cols % GROUP or precision == "bfloat16":
        return PackedWeight("dense", 16, rows, cols, tensor.to(torch.bfloat16))
    layout = best_layout()
    return pack(quantize(tensor, choose_bits(name, kind, layout)), layout)


def _packed(tensors: Mapping[str, Tensor | PackedWeight]) -> dict[str, PackedWeight]:
    return {name: t for name, t in tensors.items() if isinstance(t, PackedWeight)}


def _text_tensor(text: str) -> Tensor:
    return torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8)


def _open(path: Path, source_sha256: str) -> ModelWeights:
    """Memory-map a cache file whose hash was right."""
    with safe_open(path, framework="pt") as opened:
        about = json.loads(opened.metadata()["perdure"])
        plain = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  (not a mapping)
    config = ModelConfig.from_dict(about["config"])
    tensors: dict[str, Tensor | PackedWeight] = dict(plain)
    for name, (layout, bits, rows, cols) in about["packed"].items():
        if layout == "torch":
            # torch's products crash on memory that is not aligned as its own allocator does; ours do not mind.
            plain |= {key: plain[key].clone() for key in (name, f"{name}.scales")}
        tensors[name] = PackedWeight(layout, bits, rows, cols, plain[name], plain.get(f"{name}.scales"))
    tokenizer = tokenizer_from_json(bytes(plain["tokenizer"].numpy()).decode(), config.eos, config.bos)
    template = bytes(plain["chat_template"].numpy()).decode().strip()
    return _assemble(tensors, config, _identity(source_sha256, "quantized"), None, (source_sha256, tokenizer, template))


def _assemble(
    tensors: Mapping[str, Tensor | PackedWeight],
    config: ModelConfig,
    identity: str,
    source: Source | None,
    rest: tuple[str, Tokenizer, str] | None = None,
) -> ModelWeights:
    if source is not None:
        rest = source.sha256, source.tokenizer, source.chat_template
    assert rest is not None

    def packed(name: str) -> PackedWeight:
        weight = tensors[name]
        assert isinstance(weight, PackedWeight), name
        return weight

    def plain(name: str) -> Tensor:
        tensor = tensors[name]
        assert isinstance(tensor, Tensor), name
        return tensor

    def bias(name: str) -> Tensor | None:
        return plain(name) if name in tensors else None

    layers = tuple(_layer(i, packed, plain, bias) for i in range(config.layers))
    offset = int(plain("token_embd.offset").item()) if "token_embd.offset" in tensors else 0
    scales = plain("token_embd.scales") if "token_embd.scales" in tensors else None
    return ModelWeights(
        config=config,
        sha256=identity,
        source_sha256=rest[0],
        tokenizer=rest[1],
        chat_template=rest[2],
        embedding=Embedding(plain("token_embd.weight"), scales, offset),
        layers=layers,
        norm_out=plain("output_norm.weight"),
        output=packed("output.weight"),
    )


def _layer(
    i: int,
    packed: Callable[[str], PackedWeight],
    plain: Callable[[str], Tensor],
    bias: Callable[[str], Tensor | None],
) -> LayerWeights:
    return LayerWeights(
        q=packed(f"blk.{i}.attn_q.weight"),
        k=packed(f"blk.{i}.attn_k.weight"),
        v=packed(f"blk.{i}.attn_v.weight"),
        o=packed(f"blk.{i}.attn_output.weight"),
        gate=packed(f"blk.{i}.ffn_gate.weight"),
        up=packed(f"blk.{i}.ffn_up.weight"),
        down=packed(f"blk.{i}.ffn_down.weight"),
        norm_in=plain(f"blk.{i}.attn_norm.weight"),
        norm_ffn=plain(f"blk.{i}.ffn_norm.weight"),
        bias_q=bias(f"blk.{i}.attn_q.bias"),
        bias_k=bias(f"blk.{i}.attn_k.bias"),
        bias_v=bias(f"blk.{i}.attn_v.bias"),
    )
