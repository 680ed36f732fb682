"""A choice on its way: read out, answered, followed by a tip."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest

from tests.coaching.driver import READS_SOURCE, Call, warmed_up

if TYPE_CHECKING:
    from coach.coaching.messages import Mode

with_selections = pytest.mark.parametrize("mode", ["event-driven", "hybrid"])
FIRST = (180, "warmup")


@with_selections
def test_a_tip_follows_a_choice_that_was_spoken_and_answered(mode: Mode) -> None:
    call = warmed_up(mode)
    call.at(183).select(1)
    call.at(186).agent()
    call.at(190).caller()
    call.at(192.9)
    assert call.shown == [FIRST]
    call.at(193)
    assert call.shown == [FIRST, (193, "reaction")]
    assert call.tips[-1].based_on == 3
    said = call.asks[-1][1].situation.said
    assert said == "Where do most of your new customers come from these days?"


@with_selections
def test_a_quick_reply_counts(mode: Mode) -> None:
    call = warmed_up(mode)
    call.at(183).select(1)
    call.at(186).agent()
    call.at(187).caller("Too expensive.")
    call.at(190)
    assert call.shown == [FIRST, (190, "reaction")]
    assert call.asks[-1][1].situation.lines[-1].text == "Too expensive."


def test_silence_counts_from_the_last_line_whoever_spoke() -> None:
    call = warmed_up("event-driven")
    call.select(1)
    call.at(186).agent()
    call.at(187).caller()
    call.at(189).caller()
    call.at(191).agent()
    call.at(200)
    assert call.shown == [FIRST, (194, "reaction")]


def test_a_reaction_that_does_not_pause_is_cut_after_ten_seconds() -> None:
    call = warmed_up("event-driven")
    call.select(1)
    call.at(186).agent()
    for second in range(190, 215, 2):
        call.at(second).caller()
    assert call.shown == [FIRST, (200, "reaction")]


def test_an_agent_who_goes_on_four_seconds_later_is_listened_to() -> None:
    call = warmed_up("event-driven")
    call.select(1)
    call.at(182).agent("Let me ask you this.")
    call.at(186).agent("Where do they come from?")
    call.at(188).caller("Referrals.")
    call.at(191)
    assert call.shown == [FIRST, (191, "reaction")]
    assert [line.text for line in call.asks[-1][1].situation.lines[1:]] == [
        "Let me ask you this.",
        "Where do they come from?",
        "Referrals.",
    ]


def test_what_a_caller_says_before_the_agent_spoke_is_no_reaction() -> None:
    call = warmed_up("event-driven")
    call.select(1)
    call.at(181).caller()
    call.at(190).agent()
    call.at(194).caller()
    call.at(200)
    assert call.shown == [FIRST, (197, "reaction")]


def test_a_choice_that_nobody_reads_out_expires_without_a_tip() -> None:
    call = warmed_up("event-driven")
    call.at(190).select(1)
    call.at(200).caller()
    assert call.deadline == 220
    call.at(221).agent()
    call.at(222).caller()
    call.at(300)
    assert call.shown == [FIRST]


def test_a_choice_without_a_reaction_brings_a_tip_as_it_expires() -> None:
    call = warmed_up("event-driven")
    call.at(190).select(1)
    call.at(200).agent()
    call.at(215).agent()
    call.at(244.9)
    assert call.shown == [FIRST]
    call.at(300)
    assert call.shown == [FIRST, (245, "reaction")]


def test_a_second_choice_replaces_the_first() -> None:
    call = warmed_up("event-driven")
    call.at(182).select(1)
    call.at(184).agent()
    call.at(185).select(2)
    call.at(190).agent()
    call.at(191).caller()
    call.at(300)
    assert call.shown == [FIRST, (194, "reaction")]
    said = call.asks[-1][1].situation.said
    assert said == "The price depends on which parts of the service you really need."


@with_selections
def test_a_choice_made_while_a_tip_is_in_the_making_survives_it(mode: Mode) -> None:
    call = warmed_up(mode)
    call.delay = 4
    call.at(182).caller()
    call.request()
    call.at(183).select(1)
    call.at(184).agent()
    call.at(188).caller()
    call.at(192)
    assert call.shown == [FIRST, (186, "requested")]
    call.at(196)
    assert call.shown == [FIRST, (186, "requested"), (195, "reaction")]


def test_a_choice_complete_while_a_tip_is_in_the_making_follows_it_at_once() -> None:
    call = warmed_up("event-driven")
    call.delay = 8
    call.at(182).caller()
    call.request()
    call.at(183).select(1)
    call.at(184).agent()
    call.at(185).caller()
    call.at(200)
    assert call.asked_at == [180, 182, 190]
    assert call.shown == [FIRST, (190, "requested"), (198, "reaction")]


def test_words_that_are_a_script_count_as_its_choice() -> None:
    call = warmed_up("event-driven")
    call.at(190).agent(READS_SOURCE)
    call.at(192).caller()
    call.at(195)
    assert call.shown == [FIRST, (195, "reaction")]
    assert call.asks[-1][1].situation.said == call.tips[0].options[0].script


def test_the_script_that_was_read_need_not_be_the_first() -> None:
    call = warmed_up("event-driven")
    call.at(190).agent("Well, the price depends on which parts of the service you need.")
    call.at(192).caller()
    call.at(195)
    assert call.asks[-1][1].situation.said == call.tips[0].options[1].script


@pytest.mark.parametrize(
    "words",
    [
        "Where do most customers",
        "Where, where, where do, do most customers?",
        "I was wondering where you and your brother buy your vans these days.",
    ],
    ids=["too few", "too few different ones", "too many others"],
)
def test_a_resemblance_is_no_choice(words: str) -> None:
    call = warmed_up("event-driven")
    call.at(190).agent(words)
    call.at(192).caller()
    call.at(300)
    assert call.shown == [FIRST]


def test_a_callers_words_are_no_choice() -> None:
    call = warmed_up("event-driven")
    call.at(190).caller(READS_SOURCE)
    call.at(191).agent()
    call.at(192).caller()
    call.at(300)
    assert call.shown == [FIRST]


def test_before_any_tip_no_words_are_a_choice() -> None:
    call = Call("event-driven")
    call.at(1).agent(READS_SOURCE)
    call.at(2).caller()
    call.at(100)
    assert call.shown == []


def test_an_explicit_choice_is_not_overruled_by_what_the_words_resemble() -> None:
    call = warmed_up("event-driven")
    call.select(2)
    call.at(190).agent(READS_SOURCE)
    call.at(192).caller()
    call.at(195)
    assert call.asks[-1][1].situation.said == call.tips[0].options[1].script


@with_selections
def test_a_turn_that_already_got_its_tip_gets_no_second_one(mode: Mode) -> None:
    call = warmed_up(mode)
    call.select(1)
    call.at(182).agent()
    call.at(184).caller()
    call.request()
    call.at(190)
    assert call.shown == [FIRST, (184, "requested")]


def test_a_caller_who_goes_on_after_the_tip_is_in_the_same_turn() -> None:
    call = warmed_up("event-driven")
    call.select(1)
    call.at(182).agent()
    call.at(184).caller()
    call.request()
    call.at(185).caller()
    call.at(250)
    assert call.shown == [FIRST, (184, "requested")]


def test_a_tip_before_the_reaction_does_not_stand_for_it() -> None:
    call = warmed_up("event-driven")
    call.select(1)
    call.at(182).agent()
    call.request()
    call.at(184).caller()
    call.at(190)
    assert call.shown == [FIRST, (182, "requested"), (187, "reaction")]


def test_a_request_for_the_choice_stands_for_its_reaction() -> None:
    call = warmed_up("event-driven")
    call.select(1)
    call.at(182).agent()
    call.at(183).caller()
    call.request((call.tips[0].recommendation_id, 1), said="Where from?")
    assert call.asks[-1][1].situation.said == "Where from?"
    assert call.deadline == inf
    call.at(184).caller()
    call.at(300)
    assert call.shown == [FIRST, (183, "requested")]


@with_selections
def test_a_click_that_comes_after_reading_out_forgets_nothing(mode: Mode) -> None:
    call = warmed_up(mode)
    call.at(190).agent(READS_SOURCE)
    call.at(190.5).select(1)
    call.at(192).caller()
    call.at(195)
    assert call.shown == [FIRST, (195, "reaction")]
