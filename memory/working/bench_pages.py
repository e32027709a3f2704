"""From a question to the first token of its answer: pages against reading the text of the same events again.

Knows both ways and asks both the same. Does not know recall: ten hits come in the order in which they happened, and
the one that answers is any of them.

Events are home prose with facts in it, made by rule; a question is a fact up to its last words ("The locker of Marlow
opens with the code"), and it is right if the whole rest has the greatest probability, token for token. The text of all
events is read by the same decoder in its fastest way, from an empty cache. The time of pages holds everything: reading
them from the disk (the kernel is asked to forget the files before), weighing, splicing and reading the question.
"""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import BadInput
from .pages import PageSettings, PageStore, folder_of

if TYPE_CHECKING:
    from ...runtime.planner import LocalPlanner

EVENTS = 10
_FIRST = "Mar Tol Ben Kar Wil Os Fen Dra Hul Jon Pel Ra Sti Tam Ul Ver Bri Cal Dor El".split()
_LAST = "low ven wick ston by mere den gard ham ley".split()
_THINGS = "umbrella torch passport violin camera toolbox kettle blanket lantern notebook telescope scarf drill".split()
_PLACES = "attic cellar garage pantry wardrobe hallway shed study laundry balcony bedroom kitchen".split()
_COLOURS = "red green blue yellow black white orange purple brown grey".split()
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_FOOD = "soup rice pancakes salad noodles fish bread curry pizza apples cheese beans".split()
_FILLER = (
    "It rained for most of the {t}, and the hall stayed cold until somebody closed the window.",
    "The {t} was quiet; only the fridge hummed and now and then a car went past the house.",
    "Somebody had left a cup on the stairs, so it was carried back to the sink before anyone tripped.",
    "The cat slept on the rug, woke when the door opened, and went to look at its empty bowl.",
    "A parcel came in the {t} and was put on the bench near the door because nobody was expecting it.",
    "The lamp in the corner flickered twice and then burned steadily for the rest of the {t}.",
    "After the meal the plates were stacked by the sink, and the table was wiped with a wet cloth.",
    "The washing machine ran its long programme and beeped until somebody came and switched it off.",
    "Outside the neighbours were talking about the new fence, loudly enough to be heard in the house.",
    "The radio played old songs for an hour, and then there was a long report about the weather.",
    "Two chairs had been moved to the window, where the light was better for reading in the {t}.",
    "The floor of the corridor was still wet, so everybody walked along the wall for a while.",
    "Someone watered the plants and forgot the can next to the sofa, where it stood all {t}.",
    "The heating was turned down a little, since the rooms on the south side had become too warm.",
)
Asked = tuple[str, str]
"""A fact up to its answer, and the answer."""


@dataclass
class _Answers:
    """What one way gave."""

    right: list[bool]
    log_probability: list[float]
    seconds: list[float]


@dataclass(frozen=True)
class _Event:
    text: str
    facts: tuple[Asked, ...]


def bench_pages(
    planner: LocalPlanner,
    *,
    questions: int = 200,
    tokens: int = 300,
    facts: int = 5,
    ratios: Sequence[float] = (4.0, 10.0),
    seed: int = 1,
    say: Callable[[str], None] = lambda line: None,
) -> list[dict[str, Any]]:
    """Rows of a benchmark (docs/design.md, section 8).

    Args:
        planner: a local one with room for ten events and a question.
        questions: at least; whole sets of ten events are asked.
        tokens: of an event, at most.
        facts: in an event.
        ratios: of the pages.
        seed: of the first set; the next ones count up.
        say: told how far it is.

    Raises:
        BadInput: the planner has no room for ten events.
    """
    if planner.engine.cache.capacity < EVENTS * tokens + 128:
        raise BadInput(f"expected a planner with context_tokens of {EVENTS * tokens + 128}, load it with more")
    text = _Answers([], [], [])
    pages = {ratio: _Answers([], [], []) for ratio in ratios}
    sizes: dict[float, list[float]] = {ratio: [] for ratio in ratios}
    keys: dict[float, list[float]] = {ratio: [] for ratio in ratios}
    making: dict[float, list[float]] = {ratio: [] for ratio in ratios}
    lengths: list[int] = []
    sets = -(-questions // (EVENTS * facts))
    with tempfile.TemporaryDirectory(prefix="perdure-pages-") as folder, torch.inference_mode():
        for number in range(sets):
            events = make_events(seed + number, EVENTS, tokens, facts, planner.tokenizer.encode)
            lengths += [len(planner.tokenizer.encode(event.text)) for event in events]
            _ask_text(planner, events, text)
            for ratio in ratios:
                root = Path(folder) / f"{number}-{ratio:g}"
                store = PageStore(root, planner, PageSettings(ratio=ratio))
                for seq, event in enumerate(events, 1):
                    started = time.perf_counter()
                    store.write([seq], event.text)
                    making[ratio].append(time.perf_counter() - started)
                files = list(folder_of(root).iterdir())
                sizes[ratio] += [file.stat().st_size / 1e6 for file in files]
                _ask_pages(planner, store, events, pages[ratio], keys[ratio])
            say(
                f"set {number + 1} of {sets}: {len(text.right)} questions, text {_share(text):.3f}, "
                + ", ".join(f"pages {r:g}x {_share(pages[r]):.3f}" for r in ratios)
            )
    case = f"{EVENTS} events of {statistics.mean(lengths):.0f} tokens, {len(text.right)} questions"
    rows = [_seconds(f"{case}, text", text, None), *_quality(f"{case}, text", text, None)]
    for ratio in ratios:
        name = f"{case}, pages {ratio:g}x"
        rows += [_seconds(name, pages[ratio], text), *_quality(name, pages[ratio], text)]
        rows.append(_row(name, "bytes of a page", statistics.mean(sizes[ratio]), "MB"))
        rows.append(_row(name, "keys a head", statistics.mean(keys[ratio]), ""))
        rows.append(_row(name, "making a page", statistics.median(making[ratio]), "s"))
    return rows


def make_events(seed: int, count: int, tokens: int, facts: int, encode: Callable[[str], list[int]]) -> list[_Event]:
    """Events of prose with facts between other sentences, at most ``tokens`` tokens each; no name comes twice."""
    rng = random.Random(seed)
    names = [a + b for a in _FIRST for b in _LAST]
    rng.shuffle(names)
    events = []
    for _ in range(count):
        asked = tuple(_fact(rng, names.pop()) for _ in range(facts))
        part = rng.choice(("morning", "afternoon", "evening"))
        filler = [sentence.format(t=part) for sentence in _FILLER]
        rng.shuffle(filler)
        head, body = f"Day {rng.randint(1, 60)}, {part}:", [f"{lead}{answer}." for lead, answer in asked]
        while filler and len(encode(" ".join([head, *body, filler[-1]]) + "\n")) <= tokens:
            body.insert(rng.randint(0, len(body)), filler.pop())
        events.append(_Event(" ".join([head, *body]) + "\n", asked))
    return events


def _fact(rng: random.Random, name: str) -> Asked:
    kinds = (
        (f"The locker of {name} opens with the code", f" {rng.randint(1000, 9999)}"),
        (f"{name} keeps the {rng.choice(_THINGS)} in the", f" {rng.choice(_PLACES)}"),
        (f"The bicycle of {name} is", f" {rng.choice(_COLOURS)}"),
        (f"The visit of {name} is planned for", f" {rng.choice(_DAYS)}"),
        (f"The dish that {name} likes best is", f" {rng.choice(_FOOD)}"),
    )
    return rng.choice(kinds)


def _ask_text(planner: LocalPlanner, events: Sequence[_Event], answers: _Answers) -> None:
    """All questions of a set after one reading; it is timed with the first question, up to the first token."""
    cache, encode = planner.engine.cache, planner.tokenizer.encode
    prompt = [*encode(PageSettings().preamble), *(t for event in events for t in encode(event.text))]
    cache.reset()
    started = time.perf_counter()
    planner.engine.read(prompt + encode(events[0].facts[0][0])).argmax().item()
    answers.seconds.append(time.perf_counter() - started)
    cache.truncate(len(prompt))
    for event in events:
        for fact in event.facts:
            _score(planner, fact, answers)


def _ask_pages(
    planner: LocalPlanner, store: PageStore, events: Sequence[_Event], answers: _Answers, keys: list[float]
) -> None:
    """The same questions, each from the files on."""
    planner.engine.cache.reset()
    for event in events:
        for fact in event.facts:
            lead = planner.tokenizer.encode(fact[0])
            _forget_files(store)
            started = time.perf_counter()
            with store.spliced(planner.engine, range(1, len(events) + 1), lead) as spliced:
                planner.engine.read(lead).argmax().item()
                answers.seconds.append(time.perf_counter() - started)
                assert not spliced.missing
                keys.append(spliced.keys)
                planner.engine.cache.truncate(0)
                _score(planner, fact, answers)


def _score(planner: LocalPlanner, fact: Asked, answers: _Answers) -> None:
    """Whether greedy decoding would give the answer, by one read of both; the cache is as before."""
    lead, both = planner.tokenizer.encode(fact[0]), planner.tokenizer.encode(fact[0] + fact[1])
    length = planner.engine.cache.length
    logits = planner.engine.read(both, all_logits=True)[len(lead) - 1 : -1]
    planner.engine.cache.truncate(length)
    wanted = torch.tensor(both[len(lead) :])
    answers.right.append(bool((logits.argmax(-1) == wanted).all()))
    answers.log_probability.append(float(logits.log_softmax(-1).gather(1, wanted[:, None]).sum()))


def _forget_files(store: PageStore) -> None:
    """Ask the kernel to drop the pages from its cache, so that they are read from the disk."""
    for path in store.folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _share(answers: _Answers) -> float:
    return sum(answers.right) / len(answers.right)


def _seconds(case: str, answers: _Answers, peer: _Answers | None) -> dict[str, Any]:
    row = _row(case, "question to first token", statistics.median(answers.seconds), "s")
    row["spread"] = max(answers.seconds) - min(answers.seconds)
    if peer is not None:
        other = statistics.median(peer.seconds)
        row |= {"peer": "reading the text", "peer_value": other, "ratio": other / row["value"]}
    return row


def _quality(case: str, answers: _Answers, peer: _Answers | None) -> list[dict[str, Any]]:
    """Right answers with, as ``spread``, half the 95 % interval of the paired difference; log-probability."""
    right = _row(case, "right answers", _share(answers), "")
    sure = _row(case, "log-probability of the right answer", statistics.mean(answers.log_probability), "nat")
    if peer is not None:
        change = [float(a) - float(b) for a, b in zip(answers.right, peer.right, strict=True)]
        right["spread"] = 1.96 * statistics.pstdev(change) / len(change) ** 0.5
        right |= {"peer": "reading the text", "peer_value": _share(peer), "ratio": _share(answers) / _share(peer)}
        sure |= {"peer": "reading the text", "peer_value": statistics.mean(peer.log_probability)}
    return [right, sure]


def _row(case: str, metric: str, value: float, unit: str) -> dict[str, Any]:
    empty = {"spread": None, "peer": None, "peer_value": None, "ratio": None}
    return {"bench": "pages", "case": case, "metric": metric, "value": value, "unit": unit, **empty}
