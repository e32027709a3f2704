"""How a text becomes a page: read alone after a short preamble, then compacted to few keys a head.

Knows which queries a page will be asked with and which heads need many keys. Does not know files or records.

A page is read in a decoder of its own, so the planner's cache is left alone and it can be made at any time. The
preamble takes the attention sinks (its first token draws what attention has no other aim) and is no part of the page.

Reference queries are those of the text's own sentences read again in another order: each begins like a question about
the text and ends like its answer. Keys are dealt out over all heads together, to those that these queries look at most
(in the manner of AdaKV, arXiv 2407.11550), because few heads fetch words from afar and those need nearly all keys: of
24 questions about six texts of 290 tokens, a tenth of the keys answered 23 (22 without the pursuit), and 3 where every
head got the same share.

    H heads of all layers, T tokens, N queries, D channels
"""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...errors import BadInput
from ...kernels.compaction_solvers import compact_kv
from ...kernels.decode_attention import RaggedKV, quantize_kv
from ...runtime.compaction import QueryLog, observed_read
from ...runtime.decoder import Decoder
from ...runtime.quantize import ModelWeights
from ...runtime.ragged import from_cache_rows, rotated


@dataclass(frozen=True)
class PageSettings:
    """How pages are made.

    Attributes:
        ratio: tokens of which one key is left, on the average over heads; 1 keeps all, rounded to int8.
        least_keys: a head keeps so many on the average, however short the text.
        floor: every single head keeps so many.
        queries: reference queries of each KV head.
        least_tokens: a shorter text gets no page: to read it costs as little.
        most_tokens: a longer one gets none either: its attention would have to be kept whole while it is made.
        preamble: what is read before the text, and spliced before the first page of an empty cache.
    """

    ratio: float = 4.0
    least_keys: int = 12
    floor: int = 2
    queries: int = 2048
    least_tokens: int = 16
    most_tokens: int = 1024
    preamble: str = "Notes of what happened.\n"

    def __post_init__(self) -> None:
        if self.ratio < 1 or not 1 <= self.floor <= self.least_keys <= self.least_tokens <= self.most_tokens:
            raise BadInput(
                f"expected ratio >= 1 and 1 <= floor <= least_keys <= least_tokens <= most_tokens, got {self}"
            )
        if self.queries < 1 or not self.preamble:
            raise BadInput(f"expected at least one query and some preamble, got {self}")


class PageMaker:
    """Makes pages with one model.

    Args:
        weights: of the planner; shared, not copied.
        settings: sizes.
    """

    def __init__(self, weights: ModelWeights, settings: PageSettings) -> None:
        if weights.config.window is not None:
            raise BadInput("expected a model without a window: pages lie outside of it; have the text read instead")
        self.settings, self._weights = settings, weights
        self._head = weights.tokenizer.encode(settings.preamble)
        self._decoder: Decoder | None = None

    @property
    def preamble_tokens(self) -> int:
        """Tokens of the preamble."""
        return len(self._head)

    def encode(self, text: str) -> list[int]:
        """Ids of a text as it follows the preamble."""
        ids = self._weights.tokenizer.encode(text)
        return ids[1:] if self._weights.tokenizer.bos is not None else ids

    def preamble(self) -> RaggedKV:
        """The preamble's keys and values as they were read, at positions 0, 1, ..., all heads of all layers."""
        with torch.inference_mode():
            return _rows(self._ready(), 0, len(self._head))

    def make(self, tokens: list[int], text: str) -> RaggedKV:
        """The page of a text: int8, with positions from 0 at its first token.

        Args:
            tokens: what `encode` gives for the text.

        Raises:
            BadInput: it has fewer tokens than ``least_tokens`` or more than ``most_tokens``.
        """
        s, count, head = self.settings, len(tokens), len(self._head)
        if not s.least_tokens <= count <= s.most_tokens:
            raise BadInput(
                f"expected a text of {s.least_tokens} to {s.most_tokens} tokens for a page, got {count}; "
                "have it read instead"
            )
        with torch.inference_mode():
            decoder = self._ready()
            decoder.read(tokens)
            page = _rows(decoder, head, head + count)
            assert page.pos_N is not None
            k_HTD, v_HTD = (x.view(page.segments, count, -1).float() for x in (page.k_ND, page.v_ND))
            pos_HT = page.pos_N.view(page.segments, count)
            total = max(round(page.segments * count / s.ratio), page.segments * min(s.least_keys, count))
            if total >= page.segments * count:
                page = replace(page, bias_N=torch.zeros(page.k_ND.shape[0]))
            else:
                sinks_HPD = _rows(decoder, 0, head).k_ND.view(page.segments, head, -1).float()
                q_HND = self._queries(decoder, text)
                share_HN, budgets = deal(q_HND, k_HTD, sinks_HPD, total, s.floor)
                few = compact_kv(q_HND, k_HTD, v_HTD, budgets, share_HN=share_HN, method="omp", ridge=1e-4)
                owner = torch.arange(page.segments).repeat_interleave(few.cu_len.diff())
                page = RaggedKV(few.k_ND, few.v_ND, few.cu_len, few.bias_N, pos_HT[owner, few.index_N])
            return quantize_kv(rotated(page, -head, self._weights.config.inverse_frequencies), "int8")

    def _ready(self) -> Decoder:
        """The decoder with the preamble in its cache and nothing else."""
        if self._decoder is None:
            room = len(self._head) + 2 * self.settings.most_tokens + 64
            self._decoder = Decoder(self._weights, room)
            self._decoder.read(self._head)
        self._decoder.cache.truncate(len(self._head))
        return self._decoder

    def _queries(self, decoder: Decoder, text: str) -> Tensor:
        """float32 [H, N, D]: what the sentences of the text ask when they are read again in another order."""
        sentences = [x for x in re.split(r"(?<=[.!?;])\s+|\n+", text.strip()) if x]
        random.Random(hashlib.sha256(text.encode()).digest()).shuffle(sentences)
        tokens = self.encode("\n" + "\n".join(sentences))[: decoder.cache.room]
        layers, kv_heads = len(decoder.cache.layers), decoder.shape.kv_heads
        log = QueryLog(layers, kv_heads, self.settings.queries)
        observed_read(decoder, tokens, log, forget=True)
        return torch.cat([log.of(i) for i in range(layers)]).float()


def deal(q_HND: Tensor, k_HTD: Tensor, sinks_HPD: Tensor, total: int, floor: int) -> tuple[Tensor, list[int]]:
    """(share of its attention that each query gives to the text [H, N], keys that each head keeps).

    A head gets a key for each of its tokens that is among the ``total`` most looked at of all heads, by the root mean
    square over the queries of the attention that a token gets (of sinks and text together), and ``floor`` at least.
    """
    heads, count = k_HTD.shape[:2]
    scale = k_HTD.shape[2] ** -0.5
    share_HN = q_HND.new_empty(q_HND.shape[:2])
    seen_HT = q_HND.new_empty(heads, count)
    for head in range(heads):  # one at a time: all scores together would take hundreds of megabytes
        to_text = q_HND[head] @ k_HTD[head].T * scale
        of_all = torch.logaddexp(to_text.logsumexp(1), (q_HND[head] @ sinks_HPD[head].T * scale).logsumexp(1))
        attention = (to_text - of_all[:, None]).exp_()
        share_HN[head], seen_HT[head] = attention.sum(1), attention.square().mean(0).sqrt()
    seen_HT.scatter_(1, seen_HT.topk(min(floor, count), dim=1).indices, torch.inf)
    best = seen_HT.flatten().topk(max(total, heads * min(floor, count))).indices
    return share_HN, torch.bincount(best // count, minlength=heads).tolist()


def _rows(decoder: Decoder, first: int, last: int) -> RaggedKV:
    """Rows of the tail, all heads of all layers as segments, layer after layer."""
    parts = [from_cache_rows(decoder.cache, i, first, last) for i in range(len(decoder.cache.layers))]
    lengths = torch.cat([x.cu_len.diff() for x in parts])
    cu_len = torch.zeros(len(lengths) + 1, dtype=torch.int32)
    cu_len[1:] = lengths.cumsum(0)
    k, v = torch.cat([x.k_ND for x in parts]), torch.cat([x.v_ND for x in parts])
    return RaggedKV(k, v, cu_len, pos_N=torch.cat([x.pos_N for x in parts if x.pos_N is not None]))
