"""Text to token ids and back, straight from a model's own metadata.

Knows byte-level BPE as GGUF stores it (vocabulary, merges, token types, name of the pre-tokenizer) and
``tokenizer.json`` as folders store it. Does not know models, prompts or chat templates.

transformers' own GGUF path converts the same data in about eleven seconds; building `tokenizers` objects directly
takes about one, and the JSON that comes out is kept in the weight cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as Core

from ..errors import WeightsError

_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# llama.cpp names the split of each family; these are the ones whose split is exactly known.
SPLITS: dict[str, str | None] = {
    "qwen2": _LETTERS + r"\p{N}" + _REST,
    "llama-bpe": _LETTERS + r"\p{N}{1,3}" + _REST,
    "gpt-2": None,
}
_NORMALISES = {"qwen2"}
_CONTROL, _USER_DEFINED = 3, 4


class Tokenizer:
    """Ids and text. Special tokens in the text become their own ids; decoding can leave them out.

    Attributes:
        core: the `tokenizers` object.
        eos: ids that end an answer.
        bos: id put before every prompt, or None.
    """

    def __init__(self, core: Core, eos: Sequence[int], bos: int | None = None) -> None:
        self.core = core
        self.eos = tuple(eos)
        self.bos = bos

    def __len__(self) -> int:
        return int(self.core.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Token ids of a text; special tokens written in it are recognised, none is added but ``bos``."""
        ids: list[int] = self.core.encode(text, add_special_tokens=False).ids
        return ids if self.bos is None or ids[:1] == [self.bos] else [self.bos, *ids]

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Text of token ids; bytes that are not yet valid UTF-8 come out as U+FFFD."""
        return str(self.core.decode(list(ids), skip_special_tokens=skip_special))

    def token_id(self, token: str) -> int | None:
        """Id of one token written as in the vocabulary, or None."""
        found = self.core.token_to_id(token)
        return None if found is None else int(found)

    def to_json(self) -> str:
        """The whole tokenizer as ``tokenizer.json`` text."""
        return str(self.core.to_str())


def tokenizer_from_gguf(metadata: Mapping[str, Any], eos: Sequence[int], bos: int | None = None) -> Tokenizer:
    """Build the tokenizer that a GGUF file describes.

    Args:
        metadata: the ``tokenizer.ggml.*`` keys of the file.
        eos: ids that end an answer.
        bos: id before every prompt, or None.

    Raises:
        WeightsError: the file has another kind of tokenizer than byte-level BPE.
    """
    kind = metadata.get("tokenizer.ggml.model")
    pre = str(metadata.get("tokenizer.ggml.pre", "gpt-2"))
    if kind != "gpt2" or pre not in SPLITS:
        raise WeightsError(
            f"expected a byte-level BPE tokenizer ('gpt2' with split {', '.join(sorted(SPLITS))}), "
            f"got '{kind}' with split '{pre}'; use the model's safetensors folder with its tokenizer.json instead"
        )
    tokens: list[str] = list(metadata["tokenizer.ggml.tokens"])
    types: list[int] = list(metadata.get("tokenizer.ggml.token_type", [1] * len(tokens)))
    # A merge is "left right"; neither side contains a blank, because byte-level BPE writes it as another letter.
    merges = [(left, right) for left, _, right in (m.partition(" ") for m in metadata["tokenizer.ggml.merges"])]
    added = {i for i, t in enumerate(types) if t in (_CONTROL, _USER_DEFINED)}
    core = Core(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges, fuse_unk=False))
    if pre in _NORMALISES:
        core.normalizer = normalizers.NFC()
    split = SPLITS[pre]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    core.pre_tokenizer = (
        byte_level
        if split is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), behavior="isolated"), byte_level])
    )
    core.decoder = decoders.ByteLevel()
    core.add_tokens([AddedToken(tokens[i], normalized=False, special=types[i] == _CONTROL) for i in sorted(added)])
    return Tokenizer(core, eos, bos)


def tokenizer_from_json(text: str, eos: Sequence[int], bos: int | None = None) -> Tokenizer:
    """Build a tokenizer from ``tokenizer.json`` text."""
    return Tokenizer(Core.from_str(text), eos, bos)


def tokenizer_from_folder(folder: Path, eos: Sequence[int], bos: int | None = None) -> Tokenizer:
    """Build a tokenizer from the ``tokenizer.json`` of a model folder.

    Raises:
        WeightsError: there is no such file.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise WeightsError(f"expected {path} (the model's fast tokenizer), found none; save it with save_pretrained")
    return tokenizer_from_json(path.read_text(encoding="utf-8"), eos, bos)
