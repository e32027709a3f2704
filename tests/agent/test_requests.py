"""Requests that are still to be met: what was done is not done again, what failed is tried again, but not for ever."""

import pytest
from perdure.agent.requests import MOST_TRIES
from perdure.records import Effect, OutcomeStatus


def _act(agent, cause, status, effect=Effect.REVERSIBLE, name="i"):
    with agent.memory.step() as step:
        step.intent(f"{name}{agent.memory.journal.last_seq()}", "walk", {}, effect, cause)
        intent = step.drafts[0].payload["intent"]
        if status is not None:
            step.outcome(intent, status)


@pytest.mark.parametrize(
    ("effect", "status", "is_open"),
    [
        (Effect.REVERSIBLE, OutcomeStatus.DONE, False),
        (Effect.REVERSIBLE, OutcomeStatus.FAILED, True),
        (Effect.REVERSIBLE, OutcomeStatus.UNKNOWN, True),
        (Effect.IRREVERSIBLE, OutcomeStatus.FAILED, True),
        (Effect.IRREVERSIBLE, OutcomeStatus.UNKNOWN, False),
        (Effect.REVERSIBLE, None, False),
    ],
)
def test_whether_a_request_is_open_follows_from_how_its_act_ended(butler, effect, status, is_open):
    told = butler.tell("Walk.", request=True)
    assert butler.open_requests() == [told.seq]
    _act(butler, told.seq, status, effect)
    assert butler.open_requests() == ([told.seq] if is_open else [])


def test_it_is_not_tried_for_ever(butler):
    told = butler.tell("Walk.", request=True)
    for _ in range(MOST_TRIES):
        assert butler.open_requests() == [told.seq]
        _act(butler, told.seq, OutcomeStatus.FAILED)
    assert butler.open_requests() == []


def test_what_was_declined_stays_declined(butler):
    told = butler.tell("Fly.", request=True)
    with butler.memory.step() as step:
        step.note("declined", {"told": told.seq})
    assert butler.open_requests() == []


def test_a_request_that_is_too_old_is_let_go_but_only_after_a_try(butler):
    told = butler.tell("Walk.", request=True)
    object.__setattr__(butler, "still_wants", lambda record: False)
    assert butler.open_requests() == [told.seq]
    _act(butler, told.seq, OutcomeStatus.FAILED)
    assert butler.open_requests() == []
