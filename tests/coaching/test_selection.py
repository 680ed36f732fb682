"""One chosen option on its way, and the times that govern it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from coach.coaching.selection import Selection, Timing
from coach.coaching.situation import Line

if TYPE_CHECKING:
    from coach.coaching.messages import Speaker

CHOSEN_AT = 1000.0


def follow(*turns: tuple[Speaker, float], timing: Timing | None = None) -> Selection:
    """A choice made at CHOSEN_AT, then lines so many seconds later, counted from seq 11."""
    selection = Selection(("c0ffee.1", 2), "Shall we meet?", timing or Timing(), CHOSEN_AT)
    for seq, (speaker, second) in enumerate(turns, start=11):
        selection.hear(Line(seq, speaker, "Words.", 0), CHOSEN_AT + second)
    return selection


def due(*turns: tuple[Speaker, float]) -> float:
    return follow(*turns).due_at - CHOSEN_AT


def test_a_choice_knows_what_was_chosen() -> None:
    selection = follow()
    assert selection.key == ("c0ffee.1", 2)
    assert selection.script == "Shall we meet?"


def test_a_choice_lives_for_thirty_seconds() -> None:
    assert due() == 30
    assert not follow().deserves_tip


def test_the_agents_lines_extend_its_life() -> None:
    assert due(("agent", 20)) == 50
    assert due(("agent", 5), ("agent", 20)) == 50
    assert follow(("agent", 5)).deserves_tip


def test_a_caller_speaking_before_the_agent_changes_nothing() -> None:
    assert due(("caller", 5)) == 30
    assert not follow(("caller", 5)).deserves_tip
    assert due(("caller", 1), ("agent", 5)) == 35


@pytest.mark.parametrize("second", [5.0, 6.0, 20.0])
def test_three_seconds_of_silence_end_a_reaction(second: float) -> None:
    assert due(("agent", 5), ("caller", second)) == second + 3


def test_further_lines_put_the_end_off() -> None:
    assert due(("agent", 5), ("caller", 6), ("caller", 8)) == 11
    assert due(("agent", 5), ("caller", 6), ("agent", 8)) == 11


def test_a_reaction_lasts_ten_seconds_at_most() -> None:
    assert due(("agent", 5), ("caller", 6), ("caller", 14)) == 16
    assert due(("agent", 5), ("caller", 6), ("agent", 15.5)) == 16
    assert due(("agent", 5), ("caller", 6), ("caller", 40)) == 16


def test_a_tip_answers_it_that_rests_on_the_reaction() -> None:
    reacted = follow(("agent", 5), ("agent", 6), ("caller", 7), ("caller", 8))
    assert [reacted.is_answered_by(seq) for seq in (11, 12, 13, 14)] == [False, False, True, True]


def test_without_a_reaction_a_tip_answers_it_that_rests_on_the_agents_last_line() -> None:
    spoken = follow(("agent", 5), ("agent", 6))
    assert [spoken.is_answered_by(seq) for seq in (11, 12)] == [False, True]


def test_what_nobody_spoke_is_answered_by_nothing() -> None:
    assert not follow(("caller", 1)).is_answered_by(99)


def test_times_can_be_set() -> None:
    timing = Timing(silence=1, reaction_limit=2, selection_timeout=5)
    assert follow(timing=timing).due_at == CHOSEN_AT + 5
    turns: list[tuple[Speaker, float]] = [("agent", 1), ("caller", 2), ("caller", 3.5)]
    assert follow(*turns[:2], timing=timing).due_at == CHOSEN_AT + 3
    assert follow(*turns, timing=timing).due_at == CHOSEN_AT + 4


def test_a_time_scale_divides_every_time() -> None:
    assert Timing().scaled(1) == Timing()
    assert Timing().scaled(10) == Timing(
        warmup=18, interval=3, silence=0.3, reaction_limit=1, selection_timeout=3
    )


def test_chosen_again_it_lives_on_and_keeps_what_was_heard() -> None:
    selection = follow(("agent", 2.0))
    selection.renew(CHOSEN_AT + 20)
    assert selection.due_at == CHOSEN_AT + 50
    assert selection.deserves_tip


def test_chosen_again_during_a_reaction_changes_nothing() -> None:
    selection = follow(("agent", 2.0), ("caller", 4.0))
    selection.renew(CHOSEN_AT + 5)
    assert selection.due_at == CHOSEN_AT + 7
