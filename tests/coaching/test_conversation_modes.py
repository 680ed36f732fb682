"""When a tip comes by itself, to the second, in each mode."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest

from coach.coaching.selection import Timing
from tests.coaching.driver import MODES, READS_SOURCE, Call, warmed_up

if TYPE_CHECKING:
    from coach.coaching.messages import Mode

every_mode = pytest.mark.parametrize("mode", MODES)
FIRST = (180, "warmup")


# The warm-up


@every_mode
def test_the_first_tip_comes_exactly_when_the_warm_up_ends(mode: Mode) -> None:
    call = Call(mode)
    call.at(5).caller()
    assert call.deadline == 180
    call.at(179.9)
    assert call.shown == []
    call.at(180)
    assert call.shown == [FIRST]


@every_mode
def test_on_a_silent_call_the_first_tip_waits_for_the_first_line(mode: Mode) -> None:
    call = Call(mode)
    call.at(200)
    assert (call.shown, call.deadline) == ([], inf)
    call.at(207.5).agent()
    assert call.shown == [(207.5, "warmup")]


@every_mode
def test_a_tip_requested_earlier_does_not_replace_the_one_of_the_warm_up(mode: Mode) -> None:
    call = Call(mode)
    call.at(20).caller()
    call.request()
    call.at(60).caller()
    call.at(180)
    assert call.shown == [(20, "requested"), FIRST]


@every_mode
def test_after_a_request_that_used_every_line_the_warm_up_waits_for_another(mode: Mode) -> None:
    call = Call(mode)
    call.at(100).caller()
    call.request()
    call.at(181)
    assert call.shown == [(100, "requested")]
    call.at(190).agent()
    assert call.shown == [(100, "requested"), (190, "warmup")]


@every_mode
def test_a_request_answered_after_the_warm_up_is_the_first_tip(mode: Mode) -> None:
    call = Call(mode, delay=4)
    call.at(178).caller()
    call.request()
    call.at(190)
    assert call.shown == [(182, "requested")]
    call.caller()
    call.at(211)
    assert call.shown == [(182, "requested")]


# Auto


def test_auto_every_interval_brings_a_tip_if_something_new_was_said() -> None:
    call = warmed_up("auto")
    call.at(185).caller()
    call.at(215).agent()
    call.at(245)
    assert call.shown == [FIRST, (210, "interval"), (240, "interval")]
    assert [tip.based_on for tip in call.tips] == [1, 2, 3]


def test_auto_without_a_new_line_the_tip_comes_with_the_next_one_at_once() -> None:
    call = warmed_up("auto")
    call.at(300)
    assert (call.shown, call.deadline) == ([FIRST], inf)
    call.at(301.5).caller()
    assert call.shown == [FIRST, (301.5, "interval")]


def test_auto_the_interval_counts_from_a_tips_delivery() -> None:
    call = Call("auto", delay=4)
    for second in range(0, 300, 5):
        call.at(second).caller()
    assert call.asked_at == [180, 214, 248, 282]
    assert [time for time, _ in call.shown] == [184, 218, 252, 286]


def test_auto_a_requested_tip_starts_the_interval_anew() -> None:
    call = warmed_up("auto")
    call.at(190).caller()
    call.request()
    call.at(191).caller()
    call.at(230)
    assert call.shown == [FIRST, (190, "requested"), (220, "interval")]


def test_auto_a_selection_brings_no_tip_of_its_own() -> None:
    call = warmed_up("auto")
    call.at(182).select(1)
    call.at(183).agent(READS_SOURCE)
    call.at(184).caller()
    call.at(230)
    assert call.shown == [FIRST, (210, "interval")]


# Event-driven


def test_event_driven_there_are_no_tips_by_interval() -> None:
    call = warmed_up("event-driven")
    for second in range(181, 400, 3):
        call.at(second).caller()
    assert call.shown == [FIRST]
    assert call.deadline == inf


# Hybrid


def test_hybrid_keeps_the_interval() -> None:
    call = warmed_up("hybrid")
    call.at(185).caller()
    call.at(230)
    assert call.shown == [FIRST, (210, "interval")]


def test_hybrid_the_interval_waits_while_a_choice_is_followed() -> None:
    call = warmed_up("hybrid")
    call.at(200).select(1)
    call.at(206).agent()
    call.at(209).caller()
    call.at(211)
    assert call.shown == [FIRST]
    call.at(212)
    assert call.shown == [FIRST, (212, "reaction")]


def test_hybrid_after_a_choice_that_came_to_nothing_the_interval_is_due() -> None:
    call = warmed_up("hybrid")
    call.at(181).caller()
    call.at(190).select(1)
    call.at(300)
    assert call.shown == [FIRST, (220, "interval")]


def test_hybrid_after_a_choice_that_came_to_nothing_early_the_interval_is_still_to_come() -> None:
    call = warmed_up("hybrid", timing=Timing(selection_timeout=5))
    call.at(181).caller()
    call.at(190).select(1)
    call.at(300)
    assert call.shown == [FIRST, (210, "interval")]


def test_hybrid_the_interval_waits_while_a_tip_is_in_the_making() -> None:
    call = warmed_up("hybrid")
    call.delay = 6
    call.at(206).caller()
    call.request()
    call.at(208).caller()
    call.at(250)
    assert call.asked_at == [180, 206, 242]
    assert call.shown == [FIRST, (212, "requested"), (248, "interval")]


def test_hybrid_after_a_reaction_the_interval_counts_from_its_tip() -> None:
    call = warmed_up("hybrid")
    call.select(1)
    call.at(185).agent()
    call.at(186).caller()
    call.at(190).caller()
    call.at(230)
    assert call.shown == [FIRST, (189, "reaction"), (219, "interval")]


# The client goes and comes back


@pytest.mark.parametrize("mode", ["auto", "hybrid"])
def test_timers_keep_their_times_while_the_client_is_away(mode: Mode) -> None:
    call = warmed_up(mode)
    call.at(185).caller()
    call.detach()
    assert call.deadline == inf
    call.at(195)
    call.attach()
    assert call.deadline == 210
    call.at(230)
    assert call.shown == [FIRST, (210, "interval")]


def test_what_fell_due_while_the_client_was_away_comes_as_it_is_back() -> None:
    call = Call()
    call.at(5).caller()
    call.at(100).detach()
    call.at(200).caller()
    assert call.log == []
    call.attach()
    assert call.log == []
    call.at(203)
    assert [trigger for _, trigger in call.shown] == ["warmup"]


def test_a_choice_is_followed_while_the_client_is_away() -> None:
    call = warmed_up("event-driven")
    call.select(1)
    call.at(182).agent()
    call.detach()
    call.at(183).caller()
    call.at(185).attach()
    call.at(200)
    assert call.shown == [FIRST, (186, "reaction")]


def test_a_reactions_tip_in_the_making_is_asked_for_again_when_the_client_is_back() -> None:
    call = warmed_up("event-driven", delay=None)
    call.answer()
    call.select(1)
    call.at(182).agent()
    call.at(183).caller()
    call.at(187).detach()
    assert call.asked_at == [180, 186]
    call.at(190).attach()
    call.tick()
    call.answer()
    assert call.asked_at == [180, 186, 190]
    assert call.shown == [FIRST, (190, "reaction")]


# Faster calls


def test_a_call_at_ten_times_the_speed_has_a_tenth_of_every_time() -> None:
    call = Call("hybrid", timing=Timing().scaled(10))
    call.at(1).caller()
    call.at(18)
    assert call.shown == [(18, "warmup")]
    call.caller()
    call.at(21)
    assert call.shown == [(18, "warmup"), (21, "interval")]
    call.select(1)
    call.at(21.5).agent()
    call.at(22).caller()
    call.at(23)
    [(time, trigger)] = call.shown[2:]
    assert time == pytest.approx(22.3)
    assert trigger == "reaction"
