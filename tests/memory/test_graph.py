"""The memory graph: what is in a view, what it costs, and GraphML that comes back unchanged."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from perdure.errors import BadInput, StorageError
from perdure.memory import Memory
from perdure.memory.graph import export_graphml, frame_of, seqs_of
from perdure.records import Effect, Event, Interval, KeyFrame, Label, OutcomeStatus, Trust


def tell(memory: Memory, text: str, **given: Any) -> int:
    with memory.step() as step:
        step.told(text, **given)
    return step.records[0].seq


def see(memory: Memory, text: str = "a bicycle leaves", label: str = "moped") -> int:
    start = memory.now()
    image = np.full((24, 32, 3), 90, np.uint8)
    frames = (KeyFrame(start, image, 0.2), KeyFrame(start, image + 50, 0.9))
    with memory.step() as step:
        step.event(
            Event(start, start + timedelta(seconds=2), "cam", text=text, key_frames=frames, labels=(Label(label, 0.5),))
        )
    return step.records[0].seq


def edges(graph: nx.MultiDiGraph, kind: str) -> set[tuple[str, str]]:
    return {(one, other) for one, other, found in graph.edges(data="kind") if found == kind}


def test_a_fact_is_an_edge_between_entities_and_names_its_record(memory: Memory) -> None:
    seq = tell(memory, "The keys are in the drawer.")
    graph = memory.graph()
    assert edges(graph, "fact") == {("entity:key", "entity:drawer")}
    fact = graph.get_edge_data("entity:key", "entity:drawer")[0]
    assert (fact["predicate"], fact["value"], seqs_of(fact, "evidence")) == ("location", "in the drawer", [seq])
    assert fact["valid_from"] == fact["known_from"] == memory.journal.get([seq])[seq].start.isoformat()
    assert ("entity:key", f"told:{seq}") in edges(graph, "evidence")


def test_a_place_that_is_also_a_thing_is_one_entity(memory: Memory) -> None:
    tell(memory, "The keys are in the drawer.")
    tell(memory, "The drawer is in the hall.")
    assert edges(memory.graph(), "fact") == {("entity:key", "entity:drawer"), ("entity:drawer", "entity:hall")}


def test_what_is_no_longer_believed_stays_in_the_graph_with_both_intervals(memory: Memory, clock: Any) -> None:
    tell(memory, "The keys are in the drawer.")
    clock.wait(hours=1)
    seq = tell(memory, "The keys are on the shelf.")
    facts = [data for *_, data in memory.graph().edges(data=True) if data["kind"] == "fact"]
    ended = [fact for fact in facts if fact["value"] == "in the drawer" and fact["valid_to"]]
    assert [fact["valid_to"] for fact in ended] == [memory.journal.get([seq])[seq].start.isoformat()]
    assert seqs_of(ended[0], "ended_by") == [seq]
    assert any(fact["known_to"] for fact in facts)


def test_events_follow_one_another_and_name_entities_by_word_or_label(memory: Memory) -> None:
    tell(memory, "The bicycle is blue.")
    tell(memory, "The moped is in the yard.")
    first, second = see(memory), see(memory, "nothing moves", "street")
    graph = memory.graph()
    assert edges(graph, "next") == {(f"event:{first}", f"event:{second}")}
    named = {entity for one, entity in edges(graph, "mentions") if one == f"event:{first}"}
    assert {graph.nodes[entity]["label"] for entity in named} == {"bicycle", "moped"}
    assert not any(one == f"event:{second}" for one, _ in edges(graph, "mentions"))


def test_what_a_sentence_says_on_the_way_to_its_point_is_no_belief(memory: Memory) -> None:
    tell(memory, "Anna took the keys and put them in the drawer.")
    facts = [data for *_, data in memory.graph().edges(data=True) if data["kind"] == "fact"]
    assert [fact["value"] for fact in facts if fact["predicate"] == "location"] == ["in the drawer"]


def test_the_frame_of_an_event_is_its_most_novel_one(memory: Memory) -> None:
    seq = see(memory)
    blob = frame_of(memory.graph().nodes[f"event:{seq}"])
    assert blob is not None
    assert memory.frame(blob).mean() == pytest.approx(140, abs=2)
    assert frame_of({"kind": "told"}) is None


def test_an_act_is_joined_to_its_cause_and_its_outcome(memory: Memory) -> None:
    cause = tell(memory, "Close the door.")
    with memory.step() as step:
        step.intent("x", "close", {"door": "front"}, Effect.REVERSIBLE, cause)
        step.outcome("x", OutcomeStatus.DONE, result="closed")
    intent, outcome = (record.seq for record in step.records)
    graph = memory.graph()
    assert edges(graph, "cause") == {(f"intent:{intent}", f"told:{cause}")}
    assert edges(graph, "outcome") == {(f"intent:{intent}", f"outcome:{outcome}")}
    assert graph.nodes[f"intent:{intent}"]["text"] == "close(door='front')"


def test_an_answer_is_joined_to_its_question_and_its_evidence(memory: Memory) -> None:
    told = tell(memory, "The keys are in the drawer.")
    with memory.step() as step:
        step.note("asked", {"question": "Where?"})
    asked = step.records[0].seq
    answer = {"asked": asked, "text": "In the drawer.", "evidence": [told], "confidence": 0.9, "reason": "fact"}
    with memory.step() as step:
        step.note("answered", answer)
    answered = f"answered:{step.records[0].seq}"
    assert edges(memory.graph(), "answers") == {(answered, f"asked:{asked}")}
    assert (answered, f"told:{told}") in edges(memory.graph(), "evidence")


def test_a_death_is_an_outage_with_its_interval(open_memory: Callable[..., Memory], clock: Any) -> None:
    memory = open_memory()
    tell(memory, "The keys are in the drawer.")
    died = clock.now()
    memory._release()
    clock.wait(hours=5)
    with open_memory() as memory:
        outages = [data for _, data in memory.graph().nodes(data=True) if data["kind"] == "outage"]
        assert [(o["time"], o["end"], o["clean"]) for o in outages] == [
            (died.isoformat(), clock.now().isoformat(), False)
        ]
        before = Interval(None, died)
        assert not [k for _, k in memory.graph(when=before).nodes(data="kind") if k == "outage"]


def test_when_keeps_the_records_and_facts_that_overlap_it(memory: Memory, clock: Any) -> None:
    old = tell(memory, "The keys are in the drawer.")
    until = clock.wait(hours=1)
    new = tell(memory, "The keys are on the shelf.")
    early, late = memory.graph(when=Interval(None, until)), memory.graph(when=Interval(until, None))
    assert f"told:{old}" in early
    assert f"told:{new}" not in early
    assert "entity:shelf" not in early
    assert f"told:{new}" in late
    assert f"told:{old}" not in late


def test_about_is_found_in_another_wording_and_leaves_out_what_is_not_connected(memory: Memory) -> None:
    key, _ = tell(memory, "My keys are in the drawer."), tell(memory, "The drawer is in the hall.")
    milk = tell(memory, "The milk is in the fridge.")
    graph = memory.graph("the keys")
    assert {"entity:key", "entity:drawer", "entity:hall", f"told:{key}"} <= set(graph)
    assert "entity:milk" not in graph
    assert f"told:{milk}" not in graph


def test_about_something_never_heard_of_is_an_empty_graph(memory: Memory) -> None:
    tell(memory, "The keys are in the drawer.")
    assert len(memory.graph("the zeppelin")) == 0


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 40])
def test_a_view_has_at_most_limit_nodes(memory: Memory, limit: int) -> None:
    for number in range(30):
        tell(memory, f"Box {number} is on shelf {number}.")
    assert 1 <= len(memory.graph(limit=limit)) <= limit
    assert len(memory.graph("box 3", limit=limit)) <= limit


def test_a_limit_below_one_is_refused(memory: Memory) -> None:
    with pytest.raises(BadInput, match="at least 1 node"):
        memory.graph(limit=0)


def test_graphml_gives_back_every_node_and_edge_whatever_was_said(memory: Memory, tmp_path: Path) -> None:
    tell(memory, 'The keys are in the "drawer" & <hall>.\r\nBell \x07, naïve 🗝 .', speaker="a\x00b", trust=Trust.OTHER)
    tell(memory, "The keys are in the drawer.")
    see(memory)
    graph = memory.graph()
    export_graphml(graph, tmp_path / "g.graphml")
    back = nx.read_graphml(tmp_path / "g.graphml", force_multigraph=True)
    assert dict(back.nodes(data=True)) == dict(graph.nodes(data=True))
    assert sorted(map(str, back.edges(data=True))) == sorted(map(str, graph.edges(data=True)))


def test_graphml_replaces_a_file_whole_or_not_at_all(memory: Memory, tmp_path: Path) -> None:
    tell(memory, "The keys are in the drawer.")
    path = tmp_path / "g.graphml"
    path.write_text("old")
    export_graphml(memory.graph(), path)
    assert path.read_text().startswith("<graphml")
    assert [p.name for p in tmp_path.glob("*graphml*")] == ["g.graphml"]
    with pytest.raises(StorageError, match="writing"):
        export_graphml(memory.graph(), tmp_path / "nowhere" / "g.graphml")


def test_the_same_memory_gives_the_same_graph(memory: Memory) -> None:
    for number in range(5):
        tell(memory, f"Box {number} is on shelf {number}.")
    one, other = memory.graph(), memory.graph()
    assert list(one.nodes(data=True)) == list(other.nodes(data=True))
    assert list(one.edges(data=True)) == list(other.edges(data=True))
