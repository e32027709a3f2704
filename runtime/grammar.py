"""Output that cannot be wrong in form: a mask over the vocabulary at every step, by llguidance.

Knows JSON schema, Lark grammars and regular expressions. Does not know probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from llguidance import LLMatcher, LLTokenizer
from torch import Tensor

from ..errors import BadInput
from .tokenizer import Tokenizer


class GrammarCompiler:
    """Grammars for one tokenizer; making it takes about a second for 150,000 tokens, so it is kept.

    Args:
        tokenizer: the model's tokenizer.
        vocab: width of the logits.
    """

    def __init__(self, tokenizer: Tokenizer, vocab: int) -> None:
        if not tokenizer.eos:
            raise BadInput("expected a tokenizer with an end token, got none; without it a grammar cannot end")
        self.vocab = vocab
        core = type(tokenizer.core).from_str(tokenizer.to_json())
        core.no_padding()
        core.no_truncation()
        self._tokenizer = LLTokenizer(core.to_str(), n_vocab=vocab, eos_token=list(tokenizer.eos))

    def compile(
        self, *, schema: Mapping[str, Any] | None = None, lark: str | None = None, regex: str | None = None
    ) -> Grammar:
        """A fresh grammar; exactly one of the three.

        Args:
            schema: JSON schema; the output is one compact JSON value that satisfies it.
            lark: grammar in the Lark variant of llguidance.
            regex: the whole output matches it.

        Raises:
            BadInput: none or several are given, or it is not valid.
        """
        if sum(g is not None for g in (schema, lark, regex)) != 1:
            raise BadInput("expected exactly one of schema, lark and regex")
        try:
            if schema is not None:
                # Without this a small model may write blanks until its budget is gone.
                source = LLMatcher.grammar_from_json_schema(
                    json.dumps(dict(schema)), defaults={"whitespace_flexible": False}
                )
            elif lark is not None:
                source = LLMatcher.grammar_from_lark(lark)
            else:
                assert regex is not None
                source = LLMatcher.grammar_from_regex(regex)
        except ValueError as error:
            raise BadInput(f"expected a valid grammar, got: {error}") from error
        matcher = LLMatcher(self._tokenizer, source)
        if matcher.is_error():
            raise BadInput(f"expected a valid grammar, got: {matcher.get_error()}")
        return Grammar(matcher, self.vocab)


class Grammar:
    """Where one output stands in its grammar."""

    def __init__(self, matcher: LLMatcher, vocab: int) -> None:
        self._matcher = matcher
        self._words = torch.zeros((vocab + 31) // 32, dtype=torch.int32)
        self._bits = torch.arange(32, dtype=torch.int32)
        self._vocab = vocab

    @property
    def stopped(self) -> bool:
        """Nothing can follow."""
        return bool(self._matcher.is_stopped())

    def mask(self, logits_V: Tensor) -> Tensor:
        """A copy of the logits in which every token that cannot come next is -inf."""
        self._matcher.unsafe_compute_mask_ptr(self._words.data_ptr(), self._words.numel() * 4)
        self._raise_error()
        allowed = (self._words[:, None] >> self._bits).bitwise_and_(1).bool().flatten()[: self._vocab]
        return logits_V.masked_fill(~allowed, -torch.inf)

    def forced(self) -> list[int]:
        """Tokens that must come next whatever the model says; they need no step of their own."""
        return [int(t) for t in self._matcher.compute_ff_tokens()]

    def consume(self, token: int) -> None:
        """Go one token further."""
        self._matcher.consume_token(token)
        self._raise_error()

    def _raise_error(self) -> None:
        if self._matcher.is_error():
            raise BadInput(f"the grammar cannot be followed: {self._matcher.get_error()}; make it simpler")
