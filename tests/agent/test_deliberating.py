"""Proposals, foresight and choice: what may be proposed, and that the best prospects win."""

import json
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
from perdure.agent import Call, Menu, PlannerProposer
from perdure.agent.deliberating import call_schema, choose, menu_for
from perdure.records import Trust


class Obedient:
    """A planner that makes the first call that the schema allows, and remembers what it was asked."""

    model_hash = "obedient"

    def __init__(self) -> None:
        self.offered: list[list[str]] = []

    def chat(self, messages, *, schema, max_tokens, cancel):
        choices = [choice["properties"] for choice in schema["anyOf"]]
        self.offered.append([choice["tool"]["const"] for choice in choices])
        first = next((c for c in choices if c["tool"]["const"] != "nothing"), choices[0])
        values = {"integer": 1, "string": "hall"}
        arguments = {
            name: field.get("enum", [values[field["type"]]])[0]
            for name, field in first["arguments"].get("properties", {}).items()
        }
        text = json.dumps({"tool": first["tool"]["const"], "arguments": arguments})
        return SimpleNamespace(text=text, stopped="end", prompt_tokens=1, sampling={})


@pytest.fixture
def told(butler):
    return butler.tell("Look at the hall.", request=True)


def test_what_cannot_be_undone_is_never_forced_upon_the_planner(butler, told) -> None:
    planner = Obedient()
    calls = PlannerProposer(butler.memory, planner, each_tool=True).propose(told, Menu(butler.tools), threading.Event())
    assert "sell" in planner.offered[0]
    assert all(offered != ["sell"] for offered in planner.offered[1:])
    assert {call.tool for call in calls} == set(butler.tools) - {"sell"} | {calls[0].tool}


def test_every_model_call_is_journaled_with_what_it_was_about(butler, told) -> None:
    PlannerProposer(butler.memory, Obedient()).propose(told, Menu(butler.tools), threading.Event())
    call = butler.memory.journal.newest("model_call")
    assert (call.payload["purpose"], call.payload["about"]) == ("deliberation", told.seq)


def test_the_menu_of_somebody_else_holds_nothing_that_cannot_be_undone(butler, told) -> None:
    menu = Menu(butler.tools)
    assert "sell" in menu_for(told, menu).tools
    assert "sell" not in menu_for(replace(told, trust=Trust.OTHER), menu).tools


def test_an_argument_is_held_to_its_options_or_not_offered_at_all(butler) -> None:
    options = {"place": ["hall", "study"], "times": []}
    schema = call_schema(Menu({"look": butler.tools["look"]}, lambda tool, argument: options[argument]))
    look = schema["anyOf"][1]["properties"]["arguments"]["properties"]
    assert look["place"]["enum"] == ["hall", "study"]
    assert "times" not in look


def test_the_best_prospects_win_and_the_earlier_of_equals(butler, told) -> None:
    calls = [Call("look", {"place": place}, told.seq) for place in ("a", "b", "c")]
    prospects = {"a": 0.2, "b": 0.9, "c": 0.9}
    assert choose(butler.memory, told, calls, lambda call: prospects[call.arguments["place"]]) is calls[1]
    choice = butler.memory.journal.newest("choice")
    assert choice.payload["prospects"] == [0.2, 0.9, 0.9]
    assert choice.payload["chosen"] == 1


def test_without_prospects_nothing_is_done(butler, told) -> None:
    assert choose(butler.memory, told, [Call("look", {"place": "a"}, told.seq)], lambda call: 0.0) is None
    assert choose(butler.memory, told, [], lambda call: 1.0) is None
