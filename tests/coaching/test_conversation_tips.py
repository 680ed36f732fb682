"""What tips are made of and hold, and the end of a call."""

from __future__ import annotations

from math import inf

import pytest

from coach.coaching.conversation import MAX_LINES, MAX_TIPS, Emit
from coach.coaching.messages import Stage, Summary
from coach.coaching.situation import Line, Usage
from tests.coaching.driver import EPOCH_MS, Call, warmed_up

# Tips


def test_every_tip_has_an_id_of_its_own_that_begins_with_the_calls() -> None:
    call = Call()
    for second in range(5):
        call.at(second).alternative()
    ids = [tip.recommendation_id for tip in call.tips]
    assert len(set(ids)) == 5
    assert all(id_.startswith("c0ffee.") for id_ in ids)
    assert {tip.conversation_id for tip in call.tips} == {"c0ffee"}


def test_a_tip_says_what_to_do_and_what_it_rests_on() -> None:
    call = Call()
    call.options = ("price", "meet")
    call.at(7).caller()
    call.request()
    tip = call.tips[0]
    assert (tip.stage, tip.heading) == (Stage.OBJECTION_HANDLING, "Price")
    assert tip.context == "They ask what it costs."
    assert [option.id for option in tip.options] == ["price", "meet"]
    assert [option.label for option in tip.options] == ["Price", "Suggest a meeting"]
    assert (tip.source, tip.based_on, tip.timestamp) == ("llm", 1, EPOCH_MS + 7000)


def test_tips_of_every_trigger_can_be_chosen_from() -> None:
    call = warmed_up("hybrid")
    call.at(181).caller()
    call.at(211).alternative()
    call.at(212).request()
    call.select(1)
    call.at(213).agent()
    call.at(214).caller()
    call.at(220)
    triggers = [trigger for _, trigger in call.shown]
    assert triggers == ["warmup", "interval", "alternative", "requested", "reaction"]
    for tip in call.tips:
        for number, option in enumerate(tip.options, start=1):
            call.select(number, tip)
            call.agent()
            call.caller()
            call.at(call.time + 3)
            assert call.asks[-1][1].situation.said == option.script


@pytest.mark.parametrize("option", [-3, -1, 0, 4])
def test_an_option_that_a_tip_does_not_have_is_refused(option: int) -> None:
    call = warmed_up("event-driven")
    with pytest.raises(LookupError):
        call.select(option)
    assert call.deadline == inf


def test_a_tip_that_was_never_shown_is_refused() -> None:
    call = warmed_up("event-driven")
    for unknown in ("c0ffee.2", "c0ffee", "other.1", ""):
        with pytest.raises(LookupError):
            call.conversation.select(unknown, 1, call.now)


def test_only_the_oldest_of_too_many_tips_are_forgotten() -> None:
    call = Call()
    for second in range(MAX_TIPS + 2):
        call.at(second).alternative()
    oldest, next_oldest, *kept = call.tips
    for tip in (oldest, next_oldest):
        with pytest.raises(LookupError):
            call.select(1, tip)
    for tip in kept:
        call.select(1, tip)
    assert len(kept) == MAX_TIPS


def test_the_newest_tip_is_the_one_on_display() -> None:
    call = Call()
    assert call.conversation.tip_on_display is None
    call.request()
    call.alternative()
    assert call.conversation.tip_on_display is call.tips[1]


# What whoever makes a tip gets to know


def test_it_is_the_newest_fifty_lines_in_order() -> None:
    call = Call()
    for number in range(MAX_LINES + 10):
        call.at(number).caller(f"Line {number}.")
    call.request()
    lines = call.asks[0][1].situation.lines
    assert [line.text for line in lines] == [f"Line {number}." for number in range(10, 60)]
    assert [line.seq for line in lines] == list(range(11, 61))
    assert lines[0].at_ms == EPOCH_MS + 10_000
    assert call.conversation.seq == 60


def test_a_clients_own_transcript_serves_only_where_nothing_was_heard() -> None:
    call = Call()
    history = (Line(0, "caller", "How much is it?", 0),)
    call.request(history=history)
    assert call.asks[0][1].situation.lines == history
    call.caller("Hello?")
    call.request(history=history)
    assert [line.text for line in call.asks[1][1].situation.lines] == ["Hello?"]


def test_a_line_that_is_sent_again_counts_once() -> None:
    call = Call()
    call.say("caller", "Yes.", said_at=1000)
    call.say("caller", "Yes.", said_at=1000)
    call.say("agent", "Yes.", said_at=1000)
    call.say("caller", "Yes.", said_at=1001)
    call.caller("Yes.")
    call.caller("Yes.")
    assert call.conversation.seq == 5
    call.request()
    assert len(call.asks[0][1].situation.lines) == 5


def test_scripts_given_before_are_named_the_newest_last() -> None:
    call = Call()
    for first in ("source", "price", "source"):
        call.options = (first, "meet")
        call.alternative()
    call.alternative()
    assert [ask.situation.given for _, ask in call.asks] == [
        (),
        ("source",),
        ("source", "price"),
        ("price", "source"),
    ]


def test_the_stage_is_that_of_the_newest_tip_but_an_objection_does_not_move_it() -> None:
    call = Call()
    for first in ("source", "price", "meet", "price"):
        call.options = (first,)
        call.alternative()
    call.alternative()
    assert [ask.situation.stage for _, ask in call.asks] == [
        Stage.GREETING,
        Stage.DISCOVERY,
        Stage.DISCOVERY,
        Stage.NEXT_STEPS,
        Stage.NEXT_STEPS,
    ]
    assert call.conversation.stage is Stage.NEXT_STEPS


@pytest.mark.parametrize(("lines", "stage"), [(7, Stage.GREETING), (8, Stage.DISCOVERY)])
def test_a_talk_that_went_on_without_a_tip_is_past_its_greeting(lines: int, stage: Stage) -> None:
    call = Call()
    for _ in range(lines):
        call.caller()
    call.request()
    assert call.asks[0][1].situation.stage is stage


def test_a_talk_past_its_greeting_does_not_fall_back_into_it() -> None:
    call = Call()
    for _ in range(20):
        call.caller()
    call.options = ("price",)
    call.request()
    call.alternative()
    assert [ask.situation.stage for _, ask in call.asks] == [Stage.DISCOVERY, Stage.DISCOVERY]


# Placeholders


def test_placeholders_are_filled_from_the_calls_values_else_from_the_playbook() -> None:
    call = Call(values={"agentName": "Dana", "nickname": "D"})
    call.options = ("hello",)
    call.request()
    assert call.tips[0].options[0].script == (
        "Hello, this is Dana from our team, do you have half a minute for me?"
    )


def test_the_calls_own_values_go_before_what_was_said_on_it() -> None:
    call = Call(values={"day": "on Monday"})
    call.options, call.slots = ("meet",), {"day": "on Friday"}
    call.request()
    assert "in the calendar for on Monday morning" in call.tips[0].options[0].script


def test_no_value_brings_a_bracket_or_markup_to_the_screen() -> None:
    call = Call(values={"agentName": "[company]", "company": "<b>\n{us}</b>"})
    call.options, call.slots = ("hello", "meet"), {"day": "[day]"}
    call.request()
    for option in call.tips[0].options:
        assert not set("[]<>{}\n") & set(option.script)


# The end


def test_the_end_sums_the_call_up_and_says_so_twice() -> None:
    call = Call(delay=2)
    call.usage = Usage(100, 0.000_000_4)
    call.at(10).caller()
    call.request()
    call.at(11).alternative()
    call.at(61.5)
    ended = call.end()
    assert ended.conversation_id == "c0ffee"
    assert ended.timestamp == EPOCH_MS + 61_500
    # The tip that came too late was paid for as well.
    assert ended.summary == Summary(61_500, transcripts=1, tips=1, tokens=200, cost_usd=0.000_001)
    assert call.conversation.ended is ended
    call.at(70)
    assert call.end() is ended
    assert [effect.name for _, effect in call.log if isinstance(effect, Emit)] == [
        "AI_TIP",
        "CONVERSATION_ENDED",
        "CONVERSATION_ENDED",
    ]


def test_after_the_end_nothing_comes_any_more() -> None:
    call = warmed_up("hybrid", delay=None)
    call.answer()
    call.select(1)
    call.at(182).agent()
    call.request()
    call.end()
    before = list(call.log)
    assert call.deadline == inf
    call.answer()
    call.at(186).caller()
    call.select(2)
    call.agent()
    call.request()
    call.alternative()
    call.detach()
    call.attach()
    call.at(1000).tick()
    assert call.log == before
    assert call.deadline == inf


def test_a_call_can_end_while_the_client_is_away() -> None:
    call = Call(delay=None)
    call.request()
    call.detach()
    ended = call.end()
    call.attach()
    call.tick()
    assert call.end() is ended
    assert len(call.asks) == 1
