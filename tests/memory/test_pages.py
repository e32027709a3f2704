"""Pages: recalled events lie in the cache as attention; each can be forgotten, checked and made again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from perdure.errors import BadInput, DamagedError, VersionError
from perdure.memory import Memory
from perdure.memory.working import page_file
from perdure.memory.working.page_maker import deal
from perdure.memory.working.pages import PageSettings, PageStore, check_pages, folder_of, page_text
from perdure.runtime.decoder import Decoder
from perdure.runtime.planner import LocalPlanner, exact_planner, load_planner
from perdure.runtime.tiny import TinyModel, TinyShape, make_tiny_model

TEXT = "The keys are on the kitchen table. The robot saw the red cup next to the lamp. The cat walked to the shelf.\n"
OTHER = "Yesterday evening somebody opened the window. The lamp is in the living room. Tom keeps the torch in a tin.\n"
ASK = "The keys are on the"
FULL = PageSettings(ratio=1.0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def planner(tiny: TinyModel) -> LocalPlanner:
    torch.set_num_threads(1)
    return exact_planner(tiny.folder, 512)


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def error(ours: torch.Tensor, exact: torch.Tensor) -> float:
    return float((ours - exact).norm() / exact.norm())


def after(planner: LocalPlanner, *texts: str) -> torch.Tensor:
    """Logits after the preamble and these texts, read in an empty cache."""
    decoder = Decoder(planner.engine.weights, 512)  # type: ignore[attr-defined]
    return decoder.read([t for text in (FULL.preamble, *texts) for t in planner.tokenizer.encode(text)])


def asked(planner: LocalPlanner, store: PageStore, seqs: list[int]) -> torch.Tensor:
    planner.engine.cache.reset()
    with store.spliced(planner.engine, seqs):
        return planner.engine.read(planner.tokenizer.encode(ASK))


def test_a_page_of_all_keys_is_the_text_but_for_the_rounding_to_int8(planner: LocalPlanner, tmp_path: Path) -> None:
    store = PageStore(tmp_path, planner, FULL)
    store.write([7], TEXT)
    exact = after(planner, TEXT, ASK)
    assert error(asked(planner, store, [7]), exact) < 0.05
    assert error(after(planner, ASK), exact) > 0.3


def test_pages_lie_one_after_another_the_best_last(planner: LocalPlanner, tmp_path: Path) -> None:
    """Two pages that were read in one text, as one page and then cut, would be exact; read alone they are near."""
    store = PageStore(tmp_path, planner, FULL)
    store.write([1], TEXT)
    store.write([2], OTHER)
    planner.engine.cache.reset()
    with store.spliced(planner.engine, [2, 1]) as spliced:
        kept = planner.engine.cache.kept
        assert kept is not None
        n, m, head = (len(planner.tokenizer.encode(x)) for x in (TEXT, OTHER, FULL.preamble))
        assert kept[0].pos_N[: n + m + head].tolist() == list(range(-n - m - head, 0))
        assert not kept[1].bias_N.any()
    assert spliced.pages == (2, 1)
    assert spliced.tokens == n + m


def test_pages_are_weighed_by_how_likely_they_make_the_question(planner: LocalPlanner, tmp_path: Path) -> None:
    store = PageStore(tmp_path, planner, FULL)
    store.write([1], TEXT)
    store.write([2], OTHER)
    question = planner.tokenizer.encode(ASK)
    n, m, head = (len(planner.tokenizer.encode(x)) for x in (TEXT, OTHER, FULL.preamble))

    def likely(text: str) -> float:
        tokens = [t for x in (FULL.preamble, text) for t in planner.tokenizer.encode(x)]
        logits = Decoder(planner.engine.weights, 512).read(tokens + question, all_logits=True)  # type: ignore[attr-defined]
        logits = logits[len(tokens) : -1].log_softmax(-1)
        return float(logits.gather(1, torch.tensor(question[1:])[:, None]).sum())

    best = 1 if likely(TEXT) > likely(OTHER) else 2
    planner.engine.cache.reset()
    for hits in ([1, 2], [2, 1]):
        with store.spliced(planner.engine, hits, question):
            kept = planner.engine.cache.kept
            assert kept is not None
            other = slice(head, head + (m if best == 1 else n))
            assert kept[0].bias_N[other].unique().item() == pytest.approx(
                max(-2.0, -abs(likely(TEXT) - likely(OTHER))), abs=0.2
            )
            assert not kept[0].bias_N[other.stop : head + n + m].any()


def test_fewer_keys_say_nearly_the_same(planner: LocalPlanner, tmp_path: Path) -> None:
    errors = {}
    exact = after(planner, TEXT, ASK)
    for ratio in (1.0, 2.0, 4.0):
        store = PageStore(tmp_path / str(ratio), planner, PageSettings(ratio=ratio, least_keys=4))
        page = store.write([1], TEXT)
        assert page is not None
        share = page.kv.k_ND.shape[0] / (page.kv.segments * len(page.tokens))
        assert share == pytest.approx(1 / ratio, abs=0.01)
        errors[ratio] = error(asked(planner, store, [1]), exact)
    assert errors[1.0] < errors[2.0] < errors[4.0] < error(after(planner, ASK), exact)


def test_keys_go_to_the_heads_that_look_at_the_text() -> None:
    q, k = torch.randn(2, 50, 8), torch.randn(2, 20, 8)
    sinks = torch.stack([torch.zeros(1, 8), 40 * q[1].mean(0, keepdim=True) / q[1].mean(0).norm() ** 2])
    q[1] = q[1].mean(0)  # this head looks at its sink alone
    share, budgets = deal(q, k, sinks, total=20, floor=2)
    assert budgets == [18, 2]
    assert share[0].min() > 0.5 > share[1].max()


def test_afterwards_the_cache_is_as_before(planner: LocalPlanner, tmp_path: Path) -> None:
    store = PageStore(tmp_path, planner, FULL)
    store.write([1], TEXT)
    cache = planner.engine.cache
    cache.reset()
    planner.engine.read(planner.tokenizer.encode(OTHER))
    alone = planner.engine.read(planner.tokenizer.encode(ASK))
    cache.truncate(len(planner.tokenizer.encode(OTHER)))
    tokens = list(cache.tokens)

    def fail() -> None:
        with store.spliced(planner.engine, [1]):
            assert error(planner.engine.read(planner.tokenizer.encode(ASK)), alone) > 0.05
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (cache.kept, cache.base, cache.tokens, cache.past) == (None, 0, tokens, [])
    assert torch.equal(planner.engine.read(planner.tokenizer.encode(ASK)), alone)


def test_what_a_cache_keeps_already_stays_beside_the_pages(planner: LocalPlanner, tmp_path: Path) -> None:
    store = PageStore(tmp_path, planner, FULL)
    store.write([1], TEXT)
    store.write([2], OTHER)
    planner.engine.cache.reset()
    with store.spliced(planner.engine, [1]):
        inner = planner.engine.cache.kept
        assert inner is not None
        with store.spliced(planner.engine, [2]):
            both = planner.engine.cache.kept
            assert both is not None
            assert both[0].k_ND.shape[0] == inner[0].k_ND.shape[0] + 2 * len(planner.tokenizer.encode(OTHER))
        assert planner.engine.cache.kept == inner
    planner.engine.cache.reset()


def test_records_without_a_page_are_named(planner: LocalPlanner, tmp_path: Path) -> None:
    store = PageStore(tmp_path, planner, FULL)
    assert store.write([3], "Too short.\n") is None
    store.write([1, 2], TEXT)
    planner.engine.cache.reset()
    with store.spliced(planner.engine, [3, 2, 1, 4]) as spliced:
        assert (spliced.pages, spliced.missing) == ((2, 1), (3, 4))
        assert spliced.tokens == len(planner.tokenizer.encode(TEXT))
    with store.spliced(planner.engine, [3]) as spliced:
        assert planner.engine.cache.kept is None
    assert (len(store), 1 in store, 3 in store) == (1, True, False)


def test_a_torn_page_never_answers(planner: LocalPlanner, tmp_path: Path) -> None:
    store = PageStore(tmp_path, planner, FULL)
    store.write([1], TEXT)
    [path] = folder_of(tmp_path).iterdir()
    data = bytearray(path.read_bytes())
    for at in (len(data) - 1, 200):
        torn = bytearray(data)
        torn[at] ^= 1
        path.write_bytes(torn)
        with pytest.raises(DamagedError):
            page_file.read_page(path, planner.model_hash)
    assert store.get(1) is None
    assert not path.exists()
    path.write_bytes(data[:100])
    assert PageStore(tmp_path, planner).get(1) is None


def test_a_page_of_another_model_or_a_newer_version_is_not_used(
    planner: LocalPlanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PageStore(tmp_path, planner, FULL)
    page = store.write([1], TEXT)
    assert page is not None
    other = tmp_path / "other" / "kv" / "pages"
    page_file.write_page(other, replace(page, model_sha256="0" * 64))
    assert PageStore(tmp_path / "other", planner).get(1) is None
    with pytest.raises(BadInput, match="of model"):
        page_file.read_page(next(other.iterdir()), planner.model_hash)
    monkeypatch.setattr(page_file, "VERSION", 2)
    newer = tmp_path / "newer" / "kv" / "pages"
    path = page_file.write_page(newer, page)
    monkeypatch.undo()
    with pytest.raises(VersionError, match="version 1"):
        page_file.read_page(path, planner.model_hash)
    assert PageStore(tmp_path / "newer", planner).get(1) is None
    assert path.exists()


def told(memory: Memory, *texts: str) -> list[int]:
    with memory.step() as step:
        for text in texts:
            step.told(text)
    return [record.seq for record in step.records]


def bytes_of(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder_of(root).iterdir()}


def test_pages_follow_the_journal_and_come_out_the_same_again(
    memory: Memory, planner: LocalPlanner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.memory.working.pages._GROUP_TOKENS", 120)
    store = PageStore(memory.root, planner)
    seqs = told(memory, TEXT, "The tin is red.", "The cup is blue.", OTHER, "One more.")
    assert not store.advance(memory.journal)
    groups = {store.get(seq).records for seq in seqs if store.get(seq) is not None}  # type: ignore[union-attr]
    assert sum(map(len, groups)) >= 3
    assert max(map(len, groups)) > 1
    assert seqs[-1] not in store, "it waits for more"
    assert check_pages(memory.root, memory.journal) == []
    before = bytes_of(memory.root)
    assert PageStore(memory.root, planner).advance(memory.journal) is False
    assert bytes_of(memory.root) == before
    assert PageStore(memory.root, planner).rebuild(memory.journal) == len(before)
    assert bytes_of(memory.root) == before


def test_a_forgotten_record_leaves_no_byte_and_the_pages_of_a_life_without_it(
    memory: Memory, planner: LocalPlanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.memory.working.pages._GROUP_TOKENS", 120)
    store = PageStore(memory.root, planner)
    seqs = told(memory, "The tin is red.", "The secret is under the lamp.", "The cup is blue.", TEXT, OTHER, TEXT)
    store.advance(memory.journal)
    page = store.get(seqs[1])
    assert page is not None
    ids = torch.tensor(planner.tokenizer.encode(" secret is under the lamp"), dtype=torch.int32).numpy().tobytes()
    assert any(ids in data for data in bytes_of(memory.root).values())
    assert store.forget([seqs[1]]) == [seq for seq in page.records if seq != seqs[1]]
    assert not any(ids in data for data in bytes_of(memory.root).values())
    assert seqs[1] not in PageStore(memory.root, planner)
    store.rebuild(memory.journal, without=[seqs[1]])
    twin = PageStore(tmp_path / "twin", planner, text=lambda r: "" if r.seq == seqs[1] else page_text(r))
    twin.advance(memory.journal)
    assert bytes_of(memory.root) == bytes_of(tmp_path / "twin")
    assert seqs[0] in store


def test_check_names_a_page_of_another_text_and_a_torn_one(memory: Memory, planner: LocalPlanner) -> None:
    store = PageStore(memory.root, planner)
    first, second = told(memory, TEXT, OTHER)
    store.write([first], TEXT)
    path = page_file.write_page(store.folder, replace(store.get(first), records=(second,)))  # type: ignore[type-var]
    path.write_bytes(path.read_bytes()[:-1])
    messages = [problem.message for problem in check_pages(memory.root, memory.journal)]
    assert ["was made of another text" in m for m in messages] == [True, False]
    assert "content that its name says" in messages[1]


def test_a_kill_while_writing_leaves_nothing_that_answers(
    planner: LocalPlanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PageStore(tmp_path, planner, FULL)
    store.write([1], TEXT)

    def killed(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write([2], OTHER)
    monkeypatch.undo()
    reopened = PageStore(tmp_path, planner)
    assert (1 in reopened, 2 in reopened) == (True, False)
    reopened.write([2], OTHER)
    assert not list(folder_of(tmp_path).glob("*.tmp"))


def test_settings_and_planners_that_cannot_serve_are_refused(planner: LocalPlanner, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="ratio"):
        PageSettings(ratio=0.5)
    with pytest.raises(BadInput, match="records"):
        PageStore(tmp_path, planner).write([], TEXT)
    made = make_tiny_model(tmp_path, TinyShape(layers=2), seed=1)
    other = exact_planner(made.folder, 64)
    with pytest.raises(BadInput, match="cache of model"), PageStore(tmp_path, planner).spliced(other.engine, []):
        pass
    windowed = replace(other.engine.weights, config=replace(other.engine.weights.config, window=8))  # type: ignore[attr-defined]
    other.engine.weights = windowed  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="without a window"):
        PageStore(tmp_path, other)


def test_the_header_of_a_page_says_what_it_was_made_of(planner: LocalPlanner, tmp_path: Path) -> None:
    store = PageStore(tmp_path, planner)
    store.write([5, 4], TEXT)
    [path] = folder_of(tmp_path).iterdir()
    about = page_file.read_about(path)
    assert about["records"] == [4, 5]
    assert about["made"] == asdict(store.settings)
    assert path.name.startswith("000000000004.")


@pytest.mark.weights
def test_a_quarter_of_the_keys_answers_and_the_question_finds_its_page(tmp_path: Path) -> None:
    from perdure.memory.working.bench_pages import make_events
    from perdure.runtime.weights import locate

    path = locate("qwen2.5-coder-0.5b-instruct-q4_k_m")
    if path is None:
        pytest.skip("needs `perdure weights fetch`")
    planner = load_planner(path, context_tokens=256)
    assert isinstance(planner, LocalPlanner)
    events = make_events(1, 3, 90, 1, planner.tokenizer.encode)
    store = PageStore(tmp_path, planner)
    for seq, event in enumerate(events, 1):
        store.write([seq], event.text)
    for seq, event in enumerate(events, 1):
        [(lead, answer)] = event.facts
        asked, both = planner.tokenizer.encode(lead), planner.tokenizer.encode(lead + answer)
        with store.spliced(planner.engine, [1, 2, 3], asked):
            kept = planner.engine.cache.kept
            assert kept is not None
            nearest = store.get(seq)
            assert nearest is not None
            last = int((nearest.kv.cu_len[1] - nearest.kv.cu_len[0]).item())
            end = int(kept[0].cu_len[1])
            assert not kept[0].bias_N[end - last : end].sub(nearest.kv.bias_N[:last]).any(), "it counts fully"
            logits = planner.engine.read(both, all_logits=True)[len(asked) - 1 : -1]
        assert logits.argmax(-1).tolist() == both[len(asked) :], lead


def test_an_agent_recollects_with_pages_and_names_what_it_had_in_mind(planner: LocalPlanner, tmp_path: Path) -> None:
    from perdure.agent import Agent
    from perdure.agent.agent import Parts

    with Agent.open(tmp_path / "agent", parts=Parts(planner, pages=PageSettings(least_tokens=16))) as agent:
        seqs = [agent.tell(text).seq for text in (TEXT, OTHER)]
        agent.tell("Something else that waits, so that the others are closed.", source="door")
        assert agent.recollection is not None
        agent.recollection.advance()
        assert len(agent.recollection.store) == 1
        answer = agent.recollect("The lamp is in the", k=2)
        assert {item.seq for item in answer.evidence} == set(seqs)
        assert "2 as pages" in answer.reason
        assert agent.recollect("The lamp is in the", k=2).text == answer.text
        agent.recollection.store.forget(seqs)
        assert "0 as pages" in agent.recollect("The lamp is in the", k=2).reason
        assert agent.recollect("zebra").value is None
    with Agent.open(tmp_path / "agent", parts=Parts(planner)) as agent, pytest.raises(BadInput, match="with pages"):
        agent.recollect("The lamp is in the")
