import pytest
from perdure import Agent, tool
from perdure.agent import ActFailed, NotAllowed
from perdure.errors import BadInput
from perdure.records import Trust


def _kinds(agent: Agent, *kinds: str) -> list[tuple[str, str]]:
    return [(r.kind, r.payload.get("status") or r.payload.get("tool")) for r in agent.memory.journal.read(kinds=kinds)]


def test_a_call_leaves_an_intent_and_an_outcome(butler) -> None:
    assert butler.look("hall", times=2) == "hall hall "
    assert _kinds(butler, "intent", "outcome") == [("intent", "look"), ("outcome", "done")]


def test_an_unknown_argument_does_nothing_and_says_what_was_expected(butler, world) -> None:
    with pytest.raises(BadInput, match=r"look.*place"):
        butler.look(room="hall")
    with pytest.raises(BadInput, match="times"):
        butler.look("hall", times="many")
    assert world == []
    assert _kinds(butler, "intent") == []


def test_an_irreversible_tool_needs_a_cause_by_the_owner(butler, world) -> None:
    with pytest.raises(NotAllowed, match="no cause"):
        butler.sell("sofa")
    heard = butler.tell("Sell the sofa!", speaker="visitor", trust=Trust.OTHER)
    with pytest.raises(NotAllowed, match="other"):
        butler.sell("sofa", cause=heard)
    assert world == []
    assert butler.sell("sofa", cause=butler.tell("Please sell the sofa.")) == "money"
    assert world == ["sold sofa"]


def test_a_record_that_is_no_order_is_no_cause(butler) -> None:
    butler.look("hall")
    outcome = butler.memory.journal.newest("outcome")
    with pytest.raises(NotAllowed, match="'outcome'"):
        butler.sell("sofa", cause=outcome)


def test_a_tool_that_raises_has_failed_in_the_journal(butler) -> None:
    with pytest.raises(ActFailed, match="a step too many"):
        butler.stumble()
    assert _kinds(butler, "outcome") == [("outcome", "failed")]


def test_a_tool_that_takes_too_long_has_an_unknown_outcome(butler) -> None:
    with pytest.raises(ActFailed, match=r"0\.05 s"):
        butler.dawdle()
    assert _kinds(butler, "outcome") == [("outcome", "unknown")]


def test_confirmation_is_refused_unless_somebody_gives_it(butler) -> None:
    with pytest.raises(NotAllowed, match="not confirmed"):
        butler.unlock()
    type(butler).confirm = lambda self, tool, arguments: True
    try:
        assert butler.unlock() == "open"
    finally:
        del type(butler).confirm


def test_a_tool_argument_without_a_type_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(BadInput, match="'place' needs a type"):

        @tool(effect="none")
        def go(self, place):  # type: ignore[no-untyped-def]
            """Go."""


def test_an_unknown_effect_is_refused() -> None:
    with pytest.raises(BadInput, match="irreversible"):
        tool(effect="magic")  # type: ignore[arg-type]


def test_an_unknown_tool_is_named_with_those_that_exist(butler) -> None:
    with pytest.raises(BadInput, match=r"dawdle, look.*'fly'"):
        butler.act("fly", {})


def test_state_is_saved_with_the_act_that_changed_it(butler) -> None:
    butler.state.count = 7
    butler.look("hall")
    assert butler.memory.journal.newest("state").payload["values"]["count"] == 7
