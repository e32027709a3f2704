"""A planner behind an OpenAI-compatible address: vLLM, SGLang, llama.cpp's server and their like.

Knows ``/v1/chat/completions`` with streaming and ``response_format``. Does not know what runs behind it. The standard
library does the talking: one request, one stream, no connection pool is needed.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import BadInput, PerdureError
from .chat import check_messages
from .generate import Completion, Sampling, Stopped
from .planner import grammar_hash


class EndpointError(PerdureError):
    """The endpoint cannot be reached or did not answer as an OpenAI-compatible server does."""


class EndpointPlanner:
    """A chat model behind an address.

    Args:
        spec: ``http://host:port/v1#model``; without ``#model`` the server chooses.
        api_key: sent as a bearer token, if given.
        timeout_s: longest silence of the server.

    Raises:
        BadInput: the address cannot be used.
    """

    def __init__(self, spec: str, *, api_key: str | None = None, timeout_s: float = 120.0) -> None:
        address, _, model = spec.partition("#")
        self._parts = urlsplit(address.rstrip("/"))
        if self._parts.scheme not in ("http", "https") or not self._parts.hostname:
            raise BadInput(f"expected http(s)://host/v1#model, got {spec}")
        self._path = self._parts.path or "/v1"
        self._model, self._key, self._timeout_s = model, api_key, timeout_s
        self.name = model or address
        # The bytes of the weights are unknown; this tells endpoints apart, no more.
        self.model_hash = hashlib.sha256(spec.encode()).hexdigest()

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
        """See `Planner.chat`. The server must honour ``response_format`` for ``schema`` to hold; the answer is checked
        to be JSON.

        Raises:
            BadInput: ``lark``, which the protocol does not carry, or unusable messages.
            EndpointError: no answer, or one that is not of this protocol.
        """
        if lark is not None:
            raise BadInput("expected a JSON schema or no grammar for an endpoint, got Lark; use a local model for it")
        check_messages(messages)
        sampling = Sampling(temperature, top_p, seed)
        body: dict[str, Any] = {
            "messages": [dict(m) for m in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "seed": seed,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self._model:
            body["model"] = self._model
        if schema is not None:
            form = {"name": "answer", "schema": dict(schema), "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        started = time.perf_counter()
        text, first, reason, usage = self._collect(body, cancel, on_text)
        ended = time.perf_counter()
        first = ended if first is None else first
        if schema is not None and reason == "end":
            _check_json(text)
        details = usage.get("prompt_tokens_details") or {}
        return Completion(
            text=text,
            prompt_tokens=int(usage.get("prompt_tokens", 0)),
            reused_tokens=int(details.get("cached_tokens") or 0),
            new_tokens=int(usage.get("completion_tokens", 0)),
            prefill_s=first - started,
            decode_s=ended - first,
            stopped=reason,
            sampling={
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "seed": sampling.seed,
                "max_tokens": max_tokens,
                "grammar": grammar_hash(schema, None),
            },
        )

    def save_state(self, path: Path) -> None:
        """The state is the server's; there is nothing to write."""

    def load_state(self, path: Path) -> None:
        """The state is the server's; there is nothing to read."""

    def _collect(
        self, body: dict[str, Any], cancel: threading.Event | None, on_text: Callable[[str], None] | None
    ) -> tuple[str, float | None, Stopped, dict[str, Any]]:
        """Text, time of its first piece, why it ended, and usage."""
        pieces: list[str] = []
        first: float | None = None
        reason: Stopped = "end"
        usage: dict[str, Any] = {}
        for event in self._events(body):
            if cancel is not None and cancel.is_set():
                return "".join(pieces), first, "cancelled", usage
            usage = event.get("usage") or usage
            for choice in event.get("choices", []):
                piece = (choice.get("delta") or {}).get("content")
                if piece:
                    first = time.perf_counter() if first is None else first
                    pieces.append(piece)
                    if on_text is not None:
                        on_text(piece)
                if choice.get("finish_reason") == "length":
                    reason = "length"
        return "".join(pieces), first, reason, usage

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The server-sent events of one request; leaving the loop early closes the connection."""
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        assert self._parts.hostname is not None
        connection = kind(self._parts.hostname, self._parts.port, timeout=self._timeout_s)
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        try:
            connection.request("POST", f"{self._path}/chat/completions", json.dumps(body), headers)
            response = connection.getresponse()
            if response.status != 200:
                said = response.read(500).decode(errors="replace")
                raise EndpointError(f"expected an answer from {self.name}, got HTTP {response.status}: {said}")
            for raw in response:
                line = raw.strip()
                if line.startswith(b"data:") and line != b"data: [DONE]":
                    yield json.loads(line[5:])
        except (OSError, http.client.HTTPException, ValueError) as error:
            where = f"{self._parts.scheme}://{self._parts.netloc}{self._path}"
            raise EndpointError(f"expected a chat server at {where}, got {error!r}; is it running?") from error
        finally:
            connection.close()


def _check_json(text: str) -> None:
    try:
        json.loads(text)
    except ValueError:
        raise EndpointError(
            f"expected JSON, because a schema was sent, got {text[:100]!r}; this server ignores response_format"
        ) from None
