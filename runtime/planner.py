"""The language model that plans, behind one small interface, wherever it runs.

Knows which kind of model a spec names and gives each the same face. Does not know what is planned.

    spec                                   runs through
    model.gguf                             our decoder, quantised; re-packed weights are cached
    a folder of safetensors, Qwen2/Llama   our decoder, quantised; re-packed weights are cached
    another folder, a Hugging Face id      transformers, with our attention and our cache
    http(s)://host/v1#model                an OpenAI-compatible endpoint
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from ..errors import BadInput, StorageError, WeightsError
from ..kernels import native
from .chat import render_chat
from .decoder import Decoder
from .generate import Completion, Engine, Limits, Sampling, generate
from .grammar import GrammarCompiler
from .quantize import ModelWeights, cached_weights, load_weights, store_weights
from .source import Source, file_sha256, folder_source, read_json
from .tokenizer import Tokenizer

log = logging.getLogger("perdure")


class Planner(Protocol):
    """A chat model.

    Attributes:
        name: for people.
        model_hash: sha256 identity of the weights (of the address and model name, for an endpoint).
    """

    name: str
    model_hash: str

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        schema: Mapping[str, Any] | None = None,
        lark: str | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        cancel: threading.Event | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """Answer a conversation.

        Args:
            messages: oldest first, each with ``role`` and ``content``.
            schema: the answer is one JSON value that satisfies this JSON schema.
            lark: the answer follows this Lark grammar; not both.
            max_tokens: budget of the answer.
            temperature, top_p, seed: see `Sampling`.
            cancel: looked at before every token; the answer so far is returned.
            on_text: called with each new piece of text.

        Raises:
            BadInput: messages, grammar or sizes cannot be used.
        """

    def save_state(self, path: Path) -> None:
        """Write the working KV to a file, atomically."""

    def load_state(self, path: Path) -> None:
        """Continue exactly from such a file."""


class LocalPlanner:
    """A planner that runs here: an engine, its tokenizer and its chat template."""

    def __init__(self, name: str, model_hash: str, engine: Engine, tokenizer: Tokenizer, template: str) -> None:
        self.name, self.model_hash = name, model_hash
        self.engine, self.tokenizer, self.template = engine, tokenizer, template
        self._grammars: GrammarCompiler | None = None
        self._lock = threading.Lock()

    def chat(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        schema: Mapping[str, Any] | None = None,
        lark: str | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        cancel: threading.Event | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Completion:
        """See `Planner.chat`. One call at a time; a second thread waits."""
        sampling = Sampling(temperature, top_p, seed)
        prompt = self.tokenizer.encode(render_chat(messages, self.template))
        with self._lock, torch.inference_mode():
            grammar = None
            if schema is not None or lark is not None:
                if self._grammars is None:
                    self._grammars = GrammarCompiler(self.tokenizer, self.engine.vocab)
                grammar = self._grammars.compile(schema=schema, lark=lark)
            limits = Limits(max_tokens, cancel, on_text)
            done = generate(self.engine, self.tokenizer, prompt, sampling, limits, grammar)
        used = {**asdict(sampling), "max_tokens": max_tokens, "grammar": grammar_hash(schema, lark)}
        return replace(done, sampling=used)

    def save_state(self, path: Path) -> None:
        """See `Planner.save_state`.

        Raises:
            StorageError: the disk refused.
        """
        with self._lock:
            self.engine.cache.save(path)

    def load_state(self, path: Path) -> None:
        """See `Planner.load_state`.

        Raises:
            BadInput, VersionError, DamagedError, StorageError: see `KVCache.load`.
        """
        with self._lock:
            self.engine.cache.load(path)


def grammar_hash(schema: Mapping[str, Any] | None, lark: str | None) -> str | None:
    """Short identity of a grammar for the journal; None without one."""
    if schema is None and lark is None:
        return None
    text = lark if schema is None else json.dumps(dict(schema), sort_keys=True)
    return hashlib.sha256(str(text).encode()).hexdigest()[:16]


def load_planner(
    spec: str | Path, *, cache_dir: Path | None = None, threads: int | None = None, context_tokens: int = 4096
) -> Planner:
    """Load the model that a spec names; see the table at the top of this file.

    Args:
        spec: path, Hugging Face id, or address.
        cache_dir: folder for re-packed weights and the compiled library; default: the platform's cache folder.
        threads: for torch and our C++; default: as torch is set.
        context_tokens: room for prompt and answer.

    Raises:
        WeightsError: there is no such model, or its files are damaged.
        BadInput: the spec or a size cannot be used.
    """
    if context_tokens < 2 or (threads is not None and threads < 1):
        raise BadInput(f"expected context_tokens >= 2 and threads >= 1, got {context_tokens} and {threads}")
    text = str(spec)
    if text.startswith(("http://", "https://")):
        from .endpoint import EndpointPlanner

        return EndpointPlanner(text)
    if threads is not None:
        torch.set_num_threads(threads)
    path = Path(spec).expanduser()
    if path.suffix == ".gguf" or path.is_file():
        return _own_planner(path, _cache(cache_dir), context_tokens)
    if path.is_dir():
        from .architecture import unsupported_hf

        reason = unsupported_hf(read_json(path / "config.json"))
        if not reason:
            return _own_planner(path, _cache(cache_dir), context_tokens)
        log.info("runtime: %s runs through transformers, because of %s", path, reason)
    elif text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise WeightsError(f"expected a model at {path}, found nothing; check the path")
    from .hf import load_hf_planner

    return load_hf_planner(text, context_tokens)


def _cache(cache_dir: Path | None) -> Path:
    from .weights import cache_folder

    return cache_folder(cache_dir)


def _own_planner(path: Path, cache_dir: Path, context_tokens: int) -> LocalPlanner:
    """Our decoder on a GGUF file or folder, from the cache of re-packed weights where it has them."""
    native.enable(cache_dir / "native")
    packed_dir = cache_dir / "packed"
    sha256 = file_sha256(path) if path.is_file() else folder_source(path).sha256
    weights = cached_weights(packed_dir, sha256)
    if weights is None:
        source = open_source(path, sha256)
        log.info("runtime: re-packing %s once; the next start takes about a second", path)
        try:
            weights = store_weights(source, packed_dir)
        except StorageError as error:
            log.warning("runtime: %s; the model runs all the same, and is packed again at the next start", error)
            weights = load_weights(source)
    return own_planner(weights, context_tokens)


def own_planner(weights: ModelWeights, context_tokens: int) -> LocalPlanner:
    """Our decoder on weights that are loaded already."""
    engine = Decoder(weights, min(context_tokens, weights.config.context))
    fast = "our C++" if engine.fused else "torch operators"
    log.info("runtime: %s, %s, %d tokens", weights.config.name, fast, engine.cache.capacity)
    return LocalPlanner(weights.config.name, weights.sha256, engine, weights.tokenizer, weights.chat_template)


def open_source(path: Path, sha256: str | None = None) -> Source:
    """A GGUF file or a folder of safetensors, as a source of weights.

    Raises:
        WeightsError: it is neither, damaged, or of another architecture.
    """
    if path.is_dir():
        return folder_source(path)
    from .gguf_file import gguf_source

    return gguf_source(path, sha256)


def exact_planner(path: Path, context_tokens: int = 4096) -> LocalPlanner:
    """The same model with float32 weights and cache: slow and exact, for tests and for perplexity."""
    return own_planner(load_weights(open_source(path), "float32"), context_tokens)
