"""Working memory: a bounded cache that is what the journal says, whatever happened to the process."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from perdure.errors import BadInput, DamagedError
from perdure.memory import Memory
from perdure.memory.working import lives, snapshot, spans, story
from perdure.memory.working.projection import WorkingMemory
from perdure.memory.working.stream import Policy, Stream
from perdure.records import Effect
from perdure.runtime.decoder import Decoder
from perdure.runtime.planner import LocalPlanner, load_planner
from perdure.runtime.tiny import TinyModel, make_tiny_model

sys.path.insert(0, str(Path(__file__).parent))
import working_life

POLICY = working_life.POLICY


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyModel:
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def planner(tiny: TinyModel, caches: Path) -> LocalPlanner:
    torch.set_num_threads(1)
    found = load_planner(tiny.folder, cache_dir=caches)
    assert isinstance(found, LocalPlanner)
    return found


@pytest.fixture(scope="module")
def lived(tiny: TinyModel, caches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which 40 lines were told."""
    root = tmp_path_factory.mktemp("lived") / "agent"
    working_life.live(tiny.folder, root, caches, 40)
    return root


@pytest.fixture
def copy(lived: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(lived, tmp_path / "agent"))


@pytest.fixture
def working(copy: Path, planner: LocalPlanner) -> Iterator[WorkingMemory]:
    with Memory.open(copy) as memory:
        yield WorkingMemory(memory, planner, POLICY)


def fresh(planner: LocalPlanner, policy: Policy = POLICY) -> Stream:
    return Stream(planner.engine.weights, policy, planner.tokenizer.encode("The story:\n"))  # type: ignore[attr-defined]


def fed(planner: LocalPlanner, tokens: int, policy: Policy = POLICY) -> tuple[Stream, list[str]]:
    """A stream that has read so many tokens, and what it had to do for it."""
    stream, done = fresh(planner, policy), []
    for at in range(0, tokens, policy.read_tokens):
        while (due := stream.due(policy.read_tokens)) is not None:
            getattr(stream, due)()
            done.append(due)
        stream.read([(at + 7 * i) % 380 for i in range(policy.read_tokens)])
    return stream, done


# --- sizes ------------------------------------------------------------------------------------------------------------


def test_a_story_of_any_length_stays_within_the_budget_with_room_for_a_branch(planner: LocalPlanner) -> None:
    stream, most, done = fresh(planner), 0.0, []
    for at in range(0, 2400, POLICY.read_tokens):
        while (due := stream.due(POLICY.read_tokens)) is not None:
            getattr(stream, due)()
            done.append(due)
            most = max(most, stream.slots)
        stream.read([(at + 7 * i) % 380 for i in range(POLICY.read_tokens)])
        most = max(most, stream.slots)
    assert most + POLICY.branch_tokens <= POLICY.budget_slots
    assert {"compact", "merge", "rebase"} == set(done)
    assert stream.cache.base + stream.cache.capacity <= stream.horizon
    assert sum(span.tokens for span in stream.spans) + stream.cache.length == stream.read_tokens


def test_older_spans_stand_for_longer_stretches(planner: LocalPlanner) -> None:
    stream, _ = fed(planner, 2400)
    sizes = [span.tokens for span in stream.spans]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 4 * sizes[-1]


def test_a_policy_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(BadInput, match="more budget_slots"):
        Policy(budget_slots=700)
    with pytest.raises(BadInput, match="branch_tokens"):
        Policy(branch_tokens=100)


def test_nothing_is_read_while_something_is_due(planner: LocalPlanner) -> None:
    stream, _ = fed(planner, POLICY.most_tail // POLICY.read_tokens * POLICY.read_tokens)
    while stream.due(POLICY.read_tokens) is None:
        stream.read([1] * POLICY.read_tokens)
    with pytest.raises(BadInput, match="compact"):
        stream.read([1] * POLICY.read_tokens)


# --- what compaction, merging and re-basing do to the answers ---------------------------------------------------------


def test_re_basing_moves_keys_and_queries_together_so_that_their_products_stay(planner: LocalPlanner) -> None:
    stream, _ = fed(planner, 1480, replace(POLICY, horizon=2048))

    def products() -> list[torch.Tensor]:
        query_SD = stream.recent.newest()[:, -1].float()
        newest = stream.spans[-1].kv
        first = newest.k_ND[newest.cu_len[:-1].long()].float()  # of each segment
        tail = torch.cat([layer.keys[0, :, 3] for layer in stream.cache.layers]).float()
        return [(query_SD * keys_SD).sum(-1) for keys_SD in (first, tail)]

    before, base, oldest = products(), stream.cache.base, stream.spans[0].kv.pos_N.min()
    stream.rebase()
    assert stream.cache.base == stream.horizon // 2 < base
    assert stream.spans[0].kv.pos_N.min() == max(stream.pinned.tokens, oldest - base + stream.cache.base)
    for old, new in zip(before, products(), strict=True):
        torch.testing.assert_close(new, old, rtol=0.01, atol=0.02)


def test_keeping_every_key_of_a_chunk_changes_nothing(planner: LocalPlanner) -> None:
    """A span with as many slots as tokens is the chunk itself: the answers stay."""
    policy = replace(POLICY, budget_slots=900, span_slots=48)
    stream, _ = fed(planner, 240, policy)
    length = stream.cache.length
    before = stream.ask([9, 8, 7], observe=False)
    stream.forget(length)
    spans_before = len(stream.spans)
    stream.compact()
    after = stream.ask([9, 8, 7], observe=False)
    assert len(stream.spans) == spans_before + 1
    torch.testing.assert_close(after.softmax(-1), before.softmax(-1), rtol=0, atol=0.02)


def test_slots_go_to_the_heads_that_look_back() -> None:
    """Two segments: the queries of one look at one key each, those of the other at nothing but what is elsewhere."""
    keys = torch.eye(16)[None].repeat(2, 1, 1) * 8
    queries = torch.eye(16)[None].repeat(2, 1, 1) * 8
    rows = spans.Rows(keys, keys, torch.zeros(2, 16), torch.zeros(2, 16, dtype=torch.int64))
    total = torch.stack([spans._mass(queries, rows)[0], torch.full((16,), 60.0)])
    assert spans.dealt(queries, rows, total, 16 + spans.LEAST) == [16, spans.LEAST]


# --- journal, snapshot, kill ------------------------------------------------------------------------------------------


def test_a_rebuild_from_the_journal_gives_the_same_bytes(working: WorkingMemory) -> None:
    before = working.digest()
    assert working.counts.read_tokens == 0, "waking reads nothing again when there is a snapshot"
    working.rebuild()
    assert working.digest() == before
    assert working.counts.compactions > 10


def test_how_often_it_reads_does_not_change_what_it_reads(tiny: TinyModel, caches: Path, tmp_path: Path) -> None:
    digests = []
    planner = load_planner(tiny.folder, cache_dir=caches)
    for name, every in (("often", 1), ("seldom", 17)):
        with Memory.open(tmp_path / name) as memory:
            working = WorkingMemory(memory, planner, POLICY)  # type: ignore[arg-type]
            for number in range(34):
                with memory.step() as step:
                    step.told(working_life.sentence(number))
                if number % every == every - 1:
                    working.advance()
            digests.append(working.digest())
    assert digests[0] == digests[1]


def test_what_takes_longer_than_there_is_time_is_put_off_and_made_up_for(tmp_path: Path, planner: LocalPlanner) -> None:
    digests = []
    for name, budgets in (("hurried", (30.0, 1e-9, 1e-9, None)), ("calm", (None, None, None, None))):
        with Memory.open(tmp_path / name) as memory:
            working = WorkingMemory(memory, planner, POLICY)
            for number, budget_s in enumerate(budgets):
                for line in range(4):
                    with memory.step() as step:
                        step.told(working_life.sentence(4 * number + line))
                level = working.advance(budget_s)
                assert level == (budget_s != 1e-9)
            digests.append(working.digest())
    assert digests[0] == digests[1]


def test_without_its_snapshot_it_is_made_again_from_the_journal(copy: Path, planner: LocalPlanner) -> None:
    with Memory.open(copy) as memory:
        before = WorkingMemory(memory, planner, POLICY).digest()
        (copy / "kv" / "stream.safetensors").unlink()
        assert WorkingMemory(memory, planner, POLICY).digest() == before


@pytest.mark.parametrize("harm", ["torn", "altered", "of another model", "ahead of the journal"])
def test_a_snapshot_that_cannot_be_trusted_is_refused_and_made_anew(
    copy: Path, planner: LocalPlanner, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = copy / "kv" / "stream.safetensors"
    with Memory.open(copy) as memory:
        good = WorkingMemory(memory, planner, POLICY)
        before = good.digest()
        data = path.read_bytes()
        if harm == "torn":
            path.write_bytes(data[: len(data) // 2])
        elif harm == "altered":
            path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        elif harm == "of another model":
            snapshot.store(path, good.stream, good.seq, {"model": "ab" * 32})
        else:
            identity = good._identity() | {"begun": good._begun, "place": {"seq": 1, "offset": 0, "heading": ""}}
            snapshot.store(path, good.stream, 10**6, identity)
        assert WorkingMemory(memory, planner, POLICY).digest() == before
    assert "refused" in caplog.text


def test_reading_a_torn_snapshot_says_what_it_is(tmp_path: Path, planner: LocalPlanner) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(DamagedError, match="torn"):
        snapshot.restore(path, fresh(planner), {})


def test_another_policy_begins_the_story_anew_from_the_first_record(copy: Path, planner: LocalPlanner) -> None:
    with Memory.open(copy) as memory:
        other = WorkingMemory(memory, planner, replace(POLICY, span_slots=10))
        other.advance()
        text = planner.tokenizer.decode(other.story_tokens())
    assert working_life.sentence(0) in text
    assert working_life.sentence(37) in text


def test_retold_without_a_record_it_is_as_if_that_had_never_been(tmp_path: Path, planner: LocalPlanner) -> None:
    digests = []
    for name, skipped in (("with", 5), ("never", None)):
        with Memory.open(tmp_path / name) as memory:
            working = WorkingMemory(memory, planner, POLICY)
            seqs = {}
            for number in range(20):
                if skipped is None and number == 5:
                    continue
                with memory.step() as step:
                    step.told(working_life.sentence(number))
                seqs[number] = step.records[0].seq
            working.advance()
            if skipped is not None:
                working.retell(without=[seqs[skipped]])
                working.advance()
            assert (working_life.sentence(5) in planner.tokenizer.decode(working.story_tokens())) is False
            digests.append(working.digest())
    assert digests[0] == digests[1]


def test_a_question_leaves_the_story_as_it_was(working: WorkingMemory) -> None:
    working.advance(whole=True)
    tokens, slots = list(working.stream.cache.tokens), working.stream.slots
    said = working.ask("The box number 3 is in room", max_tokens=4)
    assert said.tokens >= 1
    assert (working.stream.cache.tokens, working.stream.slots) == (tokens, slots)
    with pytest.raises(BadInput, match="at most"):
        working.ask("word " * 200)


def test_who_only_reads_can_look_and_writes_nothing(copy: Path, planner: LocalPlanner) -> None:
    with Memory.open(copy, read_only=True) as memory:
        last = memory.journal.last_seq()
        working = WorkingMemory(memory, planner, POLICY)
        working.ask("The box number 3 is in room", max_tokens=2)
        assert working.snapshot() is None
        assert memory.journal.last_seq() == last


def test_killed_at_random_instants_it_goes_on_as_if_it_had_not_been(
    tiny: TinyModel, caches: Path, lived: Path, planner: LocalPlanner, tmp_path: Path
) -> None:
    rng, root, kills = random.Random(4), tmp_path / "killed", 0
    command = [sys.executable, working_life.__file__, str(tiny.folder), str(root), str(caches), "40"]
    while True:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(rng.randrange(4, 16)):
                if not process.stdout.readline():
                    break
            time.sleep(rng.random() * 0.05)
            if process.poll() is None:
                process.kill()
                kills += 1
            if process.wait() == 0:
                break
    assert kills >= 2
    results = []
    for folder in (root, Path(shutil.copytree(lived, tmp_path / "twin"))):
        with Memory.open(folder) as memory:
            working = WorkingMemory(memory, planner, POLICY)
            working.advance(whole=True)
            said = working.ask(working_life.CUE, max_tokens=8)
            results.append((working.digest(), said, working.story_tokens()))
    assert results[0] == results[1]


# --- the story --------------------------------------------------------------------------------------------------------


def test_lines_are_short_and_what_is_as_before_has_none(tmp_path: Path) -> None:
    with Memory.open(tmp_path / "agent") as memory:
        with memory.step() as step:
            step.told("The  keys are\nin the hall.", speaker="Laura")
            step.intent("i", "set", {}, Effect.NONE, None)
            step.note(
                "outcome", {"intent": "i", "status": "done", "result": "the lamp is on", "error": None, "how": "act"}
            )
            step.note("asked", {"question": "?"})
        lines = [story.line(record) for record in step.records]
    assert lines == ["Laura said: The keys are in the hall.", None, "I did it: the lamp is on", None]


def test_a_made_up_life_is_the_same_for_a_seed_and_tells_each_fact_once() -> None:
    first = [line for line, _ in zip(lives.life(3), range(4000), strict=False)]
    assert first == [line for line, _ in zip(lives.life(3), range(4000), strict=False)]
    cues = [line.fact.cue for line in first if line.fact]
    assert len(cues) == len(set(cues)) > 300


@pytest.mark.weights
def test_what_was_told_and_compacted_is_still_known(tmp_path: Path) -> None:
    """On the default planner: facts told up to 1,000 tokens ago, with no word of them left as it was read."""
    from perdure.runtime.weights import locate

    path = locate("qwen2.5-coder-0.5b-instruct-q4_k_m")
    if path is None:
        pytest.skip("needs `perdure weights fetch`")
    planner = load_planner(path)
    policy = Policy(budget_slots=1536)
    with Memory.open(tmp_path / "agent") as memory:
        working = WorkingMemory(memory, planner, policy)  # type: ignore[arg-type]
        facts, told = [], 0
        for line in lives.life(2, fact_every=6):
            with memory.step() as step:
                step.told(line.text)
            told += len(working.encode(line.text))
            if line.fact:
                facts.append(line.fact)
            if told > 1000:
                break
        working.advance(whole=True)
        gone = [fact for fact in facts if f"{fact.cue}{fact.answer}" not in working.tail_text()]
        assert len(gone) >= 8
        right = sum(working.score(fact.cue, fact.answer)[0] for fact in gone)
    assert right >= 0.7 * len(gone)
    assert isinstance(working.stream.decoder, Decoder)
