"""One text, read once, made short in many ways, each asked the same questions.

Knows what every way needs to see while the text is read, and what is measured. Does not know how results are shown.
"""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from ...errors import BadInput
from ...kernels.decode_attention import RaggedKV
from ..decoder import Decoder
from ..ragged import from_cache_rows
from ..tokenizer import Tokenizer
from . import rivals
from .asking import Continuation, read_after
from .budgets import HeadBudgets
from .matching import Plan, compact
from .measures import attention_errors
from .queries import PeakLog, QueryLog, joined, log_for, repeat_prefill, self_study, surprised_read, weights_of
from .questions import Question, make_diary

_T = TypeVar("_T")
METHODS = (
    "full",
    "am",
    "drop oldest",
    "h2o",
    "snapkv",
    "expected",
    "kvzip",
    "summary",
    "retrieve",
    "am-highest",
    "am-uniform",
    "am-even",
    "am-sample",
    "am-context",
    "am-study",
    "am-traffic",
)
_ASK_SUMMARY = "\nThe text above in short, with all names, numbers and facts:\n"
_SUMMARY_TOKENS = 400
"""More is not written: a small model repeats itself from there on."""
_RETRIEVED = 3
"""Sentences that "retrieve" reads again before a question."""


class Kept(NamedTuple):
    """What a method leaves: caches, the seconds that it took beside reading the text, and how questions are asked."""

    caches: Sequence[RaggedKV]
    seconds: float
    texts: Sequence[Continuation]
    decoder: Decoder


@dataclass
class Measured:
    """One method at one ratio on one text.

    Attributes:
        right: per question 1.0 if every answer token is the most probable one, else 0.0.
        logprob: per question the log-probability of the answer, nats.
        kl: per question KL(full cache || this) per answer token, nats; empty without a full cache to compare with.
        sequel_nats: mean negative log-probability of a token of the text that follows.
        output_error, mass_error: means over heads (`attention_errors`), None where nothing attends in its place.
        nbytes: keys, values, biases.
        slots: keys of a head, on the average.
        seconds: of making it, beside reading the text; of those ``queries_s`` to get reference queries.
        ask_s: of one question.
        asked: indices of the questions that were asked.
    """

    seed: int
    method: str
    ratio: float
    right: list[float]
    logprob: list[float]
    kl: list[float]
    sequel_nats: float
    output_error: float | None
    mass_error: float | None
    nbytes: int
    slots: float
    seconds: float
    queries_s: float
    ask_s: float
    asked: list[int]

    def to_json(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


class Trial:
    """Reads a diary with everybody looking on.

    Args:
        decoder: a fresh one, with room for the text, a chunk of 2,048 tokens and 1,000 more.
        tokens: of the text.
        questions: about it.
        budgets: of the heads for ``am``; None: all the same.
        wanted: methods that will be asked for; what none of them needs is not done.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        seed: int,
        tokens: int,
        questions: int,
        budgets: HeadBudgets | None,
        wanted: Sequence[str],
    ) -> None:
        unknown = sorted(set(wanted) - set(METHODS))
        if unknown:
            raise BadInput(f"expected methods of {', '.join(METHODS)}, got {', '.join(unknown)}")
        self.decoder, self.tokenizer, self.seed, self.budgets = decoder, tokenizer, seed, budgets
        self.diary = make_diary(seed, tokens, questions, lambda text: len(tokenizer.encode(text)))
        layers = len(decoder.cache.layers)
        self.prefill, self.context_log = rivals.Prefill(layers), log_for(decoder, 8192, seed=1)
        ids = tokenizer.encode(self.diary.text)
        watch = rivals.watching(self.prefill, self.context_log)
        self.read_s, self.surprisal = self._timed(lambda: surprised_read(decoder, ids, watch))
        self.rows = decoder.cache.length
        self.repeat_log = log_for(decoder, 4096, seed=2)
        self.peaks = PeakLog(decoder.cache, self.rows)
        self.repeat_s = 0.0
        if {"am", "am-highest", "am-uniform", "am-even", "am-sample", "kvzip"} & set(wanted):
            self.repeat_s, _ = self._timed(self._repeat)
        self.study_log = log_for(decoder, 8192, seed=3)
        self.study_s = 0.0
        if "am-study" in wanted:
            self.study_s, _ = self._timed(lambda: self_study(decoder, self.study_log, tokenizer.encode))
        self.texts = [continuation(question, tokenizer) for question in self.diary.questions]
        self.sequel = whole(tokenizer.encode(self.diary.sequel))
        self.traffic_log = log_for(decoder, 8192, seed=4)
        self.traffic_s = 0.0
        if "am-traffic" in wanted:
            self.traffic_s, _ = self._timed(lambda: read_after(decoder, self.texts[::2], observe=self.traffic_log))
        # The queries that attention is compared on are those of the questions themselves.
        self.held_log = log_for(decoder, 512, seed=5)
        self.full: list[Tensor] = [x.half() for x in read_after(decoder, self.texts, observe=self.held_log)]
        self._summary: list[int] | None = None
        on = None if decoder.device.type == "cpu" else decoder.device
        self._second = Decoder(decoder.weights, _SUMMARY_TOKENS + 8, on)

    def measure(self, method: str, ratio: float) -> Measured:
        """Make the text short in one way and ask.

        Args:
            method: one of ``METHODS``; ``full`` keeps everything.
            ratio: bytes of the whole over bytes that may be left.
        """
        slots = int(self.rows / ratio)
        rivals.check_slots(self.rows, slots)
        kept = self._keep(method, ratio, slots)
        texts = [*kept.texts, self.sequel]
        ask_s, found = self._timed(lambda: read_after(kept.decoder, texts, kept=kept.caches))
        asked = list(range(1, len(self.texts), 2)) if method == "am-traffic" else list(range(len(self.texts)))
        right, logprob, kl = [], [], []
        for i in asked:
            ids = torch.tensor([self.texts[i].tokens[at] for at in self.texts[i].scored], device=found[i].device)
            full = self.full[i].float()
            right.append(float((found[i].argmax(-1) == ids).all()))
            logprob.append(float(found[i].gather(1, ids[:, None]).sum()))
            kl.append(float((full.exp() * (full - found[i])).sum(-1).mean().clamp_min(0.0)))
        ids = torch.tensor(self.sequel.tokens[1:], device=found[-1].device)
        output, mass = self._errors(kept, method)
        tokens = sum(len(text.tokens) for text in texts)
        queries_s = {"kvzip": self.repeat_s, "am-study": self.study_s, "am-traffic": self.traffic_s, "am-context": 0.0}
        needs = queries_s.get(method, self.repeat_s if method.startswith("am") else 0.0)
        return Measured(
            seed=self.seed,
            method=method,
            ratio=ratio,
            right=right,
            logprob=logprob,
            kl=kl,
            sequel_nats=-float(found[-1].gather(1, ids[:, None]).mean()),
            output_error=output,
            mass_error=mass,
            nbytes=sum(x.nbytes for x in kept.caches),
            slots=sum(x.k_ND.shape[0] / x.segments for x in kept.caches) / len(kept.caches),
            seconds=kept.seconds + needs,
            queries_s=needs,
            ask_s=ask_s * sum(len(text.tokens) for text in kept.texts) / tokens / len(kept.texts),
            asked=asked,
        )

    def _keep(self, method: str, ratio: float, slots: int) -> Kept:
        cache, rows = self.decoder.cache, self.rows
        frequencies = self.decoder.weights.config.inverse_frequencies
        simple: dict[str, Callable[[], Sequence[RaggedKV]]] = {
            "full": lambda: [from_cache_rows(cache, i, 0, rows) for i in range(len(cache.layers))],
            "drop oldest": lambda: rivals.drop_oldest(cache, rows, slots),
            "h2o": lambda: rivals.h2o(cache, rows, slots, self.prefill),
            "snapkv": lambda: rivals.snapkv(cache, rows, slots, self.prefill),
            "expected": lambda: rivals.expected_attention(cache, rows, slots, self.prefill, frequencies),
            "kvzip": lambda: rivals.kvzip(cache, rows, slots, self.peaks),
            "retrieve": lambda: rivals.drop_oldest(cache, rows, slots),
        }
        if method == "summary":
            seconds, caches = self._timed(lambda: self._summarised(slots))
            return Kept(caches, seconds, self.texts, self._second)
        if method in simple:
            seconds, caches = self._timed(simple[method])
            texts = self._with_sentences() if method == "retrieve" else self.texts
            return Kept(caches, seconds, texts, self.decoder)
        logs: dict[str, tuple[QueryLog | PeakLog, ...]] = {
            "am-context": (self.context_log,),
            "am-study": (self.study_log,),
            "am-traffic": (self.traffic_log,),
            "am-sample": (self.repeat_log,),
        }
        queries, plan = joined(*logs.get(method, (self.peaks, self.repeat_log))), self.plan(ratio, method)
        weight_N = None
        if method not in logs and method != "am-even":
            weight_N = weights_of(self.surprisal, queries[0].shape[1] - rows, ratio)
        seconds, caches = self._timed(lambda: compact(cache, rows, queries, plan, weight_N=weight_N))
        return Kept(caches, seconds, self.texts, self.decoder)

    def plan(self, ratio: float, method: str = "am") -> Plan:
        """That of attention matching at equal bytes: a slot costs a bias of 4 bytes more."""
        key = self.decoder.cache.layers[0].keys
        slot = 2 * key.shape[3] * key.element_size()
        plan = Plan(ratio * (slot + 4) / slot, budgets=self.budgets)
        if method == "am-highest":
            plan = replace(plan, method="highest")
        return replace(plan, budgets=None) if method == "am-uniform" else plan

    def _errors(self, kept: Kept, method: str) -> tuple[float | None, float | None]:
        if method == "summary":
            return None, None
        layers = self.decoder.cache.layers
        keys, values = ([getattr(x, name)[0, :, : self.rows] for x in layers] for name in ("keys", "values"))
        found = attention_errors([self.held_log.of(i) for i in range(len(layers))], keys, values, kept.caches)
        return float(found.output_H.mean()), float(found.mass_H.mean())

    def _repeat(self) -> None:
        watch = rivals.watching(self.repeat_log, self.peaks)
        repeat_prefill(self.decoder, watch, self.tokenizer.encode, on_span=self.peaks.on_span)

    def _summarised(self, slots: int) -> Sequence[RaggedKV]:
        """A text of at most ``slots`` tokens that the model wrote, read afresh."""
        if self._summary is None:
            self._summary = []
            logits = self.decoder.read(self.tokenizer.encode(_ASK_SUMMARY))
            while len(self._summary) < _SUMMARY_TOKENS:
                token = int(logits.argmax())
                if token in self.tokenizer.eos:
                    break
                self._summary.append(token)
                logits = self.decoder.read([token])
            self.decoder.cache.truncate(self.rows)
        second = self._second.cache
        second.reset()
        self._second.read((self._summary or self.tokenizer.encode("\n"))[:slots])
        return [from_cache_rows(second, i, 0, second.length) for i in range(len(second.layers))]

    def _with_sentences(self) -> list[Continuation]:
        """Each question after the sentences that BM25 finds for it."""
        sentences = [s.strip() + "." for s in re.split(r"[.;\n]", self.diary.text) if s.strip()]
        index = _Bm25(sentences)
        made = []
        for question in self.diary.questions:
            asked = "".join(text for text, scored in question.pieces if not scored)
            lead = "\n" + " ".join(index.best(asked, _RETRIEVED)) + "\n"
            made.append(continuation(question, self.tokenizer, lead))
        return made

    def _timed(self, work: Callable[[], _T]) -> tuple[float, _T]:
        device = self.decoder.cache.layers[0].keys.device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        found = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started, found


class _Bm25:
    """Robertson and Zaragoza 2009, k1 = 1.2, b = 0.75."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.counts = [Counter(_words(text)) for text in texts]
        self.lengths = [sum(c.values()) for c in self.counts]
        self.mean = sum(self.lengths) / len(texts)
        self.found = Counter(word for c in self.counts for word in c)

    def best(self, query: str, count: int) -> list[str]:
        """The texts of the highest scores, best first."""
        scores = [0.0] * len(self.texts)
        for word in set(_words(query)):
            n = self.found[word]
            idf = math.log(1 + (len(self.texts) - n + 0.5) / (n + 0.5))
            for i, c in enumerate(self.counts):
                if word in c:
                    scores[i] += idf * c[word] * 2.2 / (c[word] + 1.2 * (0.25 + 0.75 * self.lengths[i] / self.mean))
        return [self.texts[i] for i in sorted(range(len(scores)), key=lambda i: -scores[i])[:count]]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def continuation(question: Question, tokenizer: Tokenizer, lead: str = "\n") -> Continuation:
    """What is read to ask a question; its answers are scored."""
    tokens, scored = tokenizer.encode(lead), []
    for text, is_answer in question.pieces:
        ids = tokenizer.encode(text)
        scored += list(range(len(tokens), len(tokens) + len(ids))) if is_answer else []
        tokens = tokens + ids
    return Continuation(tuple(tokens), tuple(scored))


def whole(tokens: Sequence[int]) -> Continuation:
    """A text of which every token but the first is scored."""
    return Continuation(tuple(tokens), tuple(range(1, len(tokens))))
