"""Asking for tips: one ask at a time, and which one."""

from __future__ import annotations

from itertools import pairwise
from math import inf

from coach.coaching.situation import Line
from tests.coaching.driver import Call, warmed_up


def test_a_request_is_asked_at_once_and_answered_once() -> None:
    call = Call(delay=None)
    call.at(10).caller("How much is it?")
    call.request()
    assert call.asked_at == [10]
    call.at(12.5).answer()
    call.answer()
    assert call.shown == [(12.5, "requested")]


def test_nobody_need_have_spoken() -> None:
    call = Call()
    call.request()
    assert call.shown == [(0, "requested")]
    assert call.tips[0].based_on == 0


def test_an_answer_to_another_ask_is_dropped() -> None:
    call = Call(delay=None)
    call.answer(17)
    call.request()
    call.answer(17)
    assert call.shown == []
    call.answer()
    assert len(call.shown) == 1


def test_a_second_request_for_the_same_words_joins_the_first() -> None:
    call = Call(delay=None)
    call.at(10).caller()
    call.request()
    call.at(11).request()
    call.at(12).answer()
    assert call.asked_at == [10]
    assert call.shown == [(12, "requested")]


def test_a_request_joins_an_automatic_ask_which_becomes_a_requested_one() -> None:
    call = warmed_up("hybrid", delay=None)
    call.at(181).request()
    call.at(182).answer()
    call.at(200)
    assert call.asked_at == [180]
    assert call.shown == [(182, "requested")]


def test_a_request_for_the_choice_that_is_being_answered_joins_its_ask() -> None:
    call = warmed_up("event-driven")
    call.select(1)
    call.delay = None
    call.at(182).agent()
    call.at(183).caller()
    call.at(187).request((call.tips[0].recommendation_id, 1))
    call.request()
    call.answer()
    assert call.asked_at == [180, 186]
    assert call.shown[1:] == [(187, "requested")]


def test_a_request_joins_an_alternative_in_the_making() -> None:
    call = Call(delay=None)
    call.alternative("price")
    call.request()
    call.answer()
    assert call.shown == [(0, "alternative")]
    assert len(call.asks) == 1


def test_newer_words_supersede() -> None:
    call = Call(delay=None)
    call.at(10).caller("How much is it?")
    call.request()
    call.at(11).caller("Never mind.")
    call.request()
    (_, first), (_, second) = call.asks
    assert first.id != second.id
    assert second.situation.lines[-1].text == "Never mind."
    call.answer(first.id)
    assert call.shown == []
    call.answer(second.id)
    assert [tip.based_on for tip in call.tips] == [2]


def test_another_choice_supersedes() -> None:
    call = warmed_up("event-driven", delay=None)
    call.answer()
    shown = call.tips[0].recommendation_id
    call.at(185).caller()
    for key in ((shown, 1), (shown, 2)):
        call.request(key)
    assert call.asked_at == [180, 185, 185]
    call.answer()
    assert len(call.shown) == 2


def test_an_alternative_always_supersedes() -> None:
    call = Call(delay=None)
    call.caller()
    call.request()
    call.alternative("source")
    call.alternative("source", "price")
    assert [ask.situation.excluded for _, ask in call.asks] == [
        frozenset(),
        {"source"},
        {"source", "price"},
    ]
    for _, ask in call.asks:
        call.answer(ask.id)
    assert call.shown == [(0, "alternative")]


def test_what_comes_by_itself_never_supersedes() -> None:
    call = Call("hybrid", delay=None)
    call.at(170).caller()
    call.request()
    call.at(175).caller()
    assert call.deadline == inf
    call.at(230).caller()
    call.tick()
    assert call.asked_at == [170]
    call.answer()
    assert call.shown == [(230, "requested")]
    assert call.deadline == 260


def test_what_fell_due_meanwhile_is_asked_with_the_answer() -> None:
    call = warmed_up("event-driven")
    call.delay = None
    call.select(1)
    call.at(182).agent()
    call.request()
    call.at(183).caller()
    call.at(190).answer()
    assert call.asked_at == [180, 182, 190]


def test_the_client_goes_and_the_request_is_asked_again_when_it_is_back() -> None:
    call = Call(delay=None)
    call.at(10).caller("How much is it?")
    call.alternative("source")
    call.at(11).detach()
    call.answer()
    call.at(12).caller("Hello?")
    call.at(13).attach()
    assert (call.asked_at, call.shown) == ([10], [])
    call.tick()
    assert call.asked_at == [10, 13]
    assert call.asks[1][1].situation.excluded == {"source"}
    call.answer()
    assert call.shown == [(13, "alternative")]
    assert call.tips[0].based_on == 2


def test_a_request_for_a_choice_keeps_it_until_the_client_is_back() -> None:
    call = warmed_up("event-driven")
    call.delay = None
    call.select(1)
    call.at(182).agent()
    call.request((call.tips[0].recommendation_id, 1), said="Where from?")
    call.detach()
    call.attach()
    call.tick()
    assert call.asks[-1][1].situation.said == "Where from?"
    call.answer()
    assert call.shown[1:] == [(182, "requested")]
    assert call.deadline == inf


def test_a_request_made_while_the_client_is_away_is_kept_as_well() -> None:
    call = Call()
    call.detach()
    call.request()
    call.detach()
    call.at(5).attach()
    call.at(6).caller()
    assert call.shown == [(6, "requested")]


def test_a_request_of_a_call_that_nobody_heard_is_asked_again_with_its_own_history() -> None:
    call = Call(delay=None)
    history = (Line(0, "caller", "How much is it?", 0),)
    call.request(history=history)
    call.detach()
    call.attach()
    call.tick()
    assert [ask.situation.lines for _, ask in call.asks] == [history, history]


def test_ask_ids_are_never_used_again() -> None:
    call = Call(delay=None)
    for _ in range(10):
        call.alternative()
    ids = [ask.id for _, ask in call.asks]
    assert all(later > earlier for earlier, later in pairwise(ids))
