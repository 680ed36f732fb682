"""The local matcher on the playbook that is shipped."""

from __future__ import annotations

from importlib.resources import files

import msgspec
import pytest

from coach.coaching.matcher import MAX_HEARD, MAX_OPTIONS, Matcher, words
from coach.coaching.messages import Stage
from coach.coaching.playbook import Playbook, parse_playbook
from coach.coaching.situation import Line, Situation
from tests.coaching.driver import PLAYBOOK

DEFAULT = parse_playbook(files("coach").joinpath("playbooks/default.toml").read_text("utf-8"))
MATCHER = Matcher(DEFAULT)


def heard(
    *turns: str,
    stage: Stage = Stage.GREETING,
    given: tuple[str, ...] = (),
    excluded: frozenset[str] = frozenset(),
    playbook: Playbook = DEFAULT,
) -> Situation:
    """What was said; "A: " marks the agent's lines."""
    lines = tuple(
        Line(seq, "agent" if text.startswith("A: ") else "caller", text.removeprefix("A: "), 0)
        for seq, text in enumerate(turns, start=1)
    )
    return Situation(playbook, {}, lines, stage, None, given, excluded)


def ranked(situation: Situation, matcher: Matcher = MATCHER) -> list[str]:
    return [script.id for script in matcher.rank(situation)]


def best(*turns: str, stage: Stage = Stage.GREETING) -> str:
    return ranked(heard(*turns, stage=stage))[0]


@pytest.mark.parametrize("stage", [Stage.GREETING, Stage.DISCOVERY, Stage.NEXT_STEPS])
@pytest.mark.parametrize(
    ("line", "script_id"),
    [
        ("Look, I'm not interested.", "objection-not-interested"),
        ("We already have a website, thanks.", "objection-have-website"),
        ("Can you call me back later? I'm swamped.", "next-callback"),
        ("How much does it cost?", "objection-price"),
        ("Just send me an email.", "objection-send-info"),
        ("Sorry, who is this?", "greeting-who-is-calling"),
        ("I'm up on a roof right now, it's a bad time.", "objection-busy"),
        ("How did you get my number?", "objection-how-got-number"),
        ("Please just take me off your list.", "close-remove-from-list"),
        ("Is this a scam?", "objection-scam"),
        ("Honestly, we get all our work by word of mouth.", "objection-word-of-mouth"),
        ("Sounds good, let's do it.", "close-buying-signal"),
        ("I'd need to talk to my wife first.", "objection-partner-decides"),
        ("Leave a message after the beep.", "greeting-voicemail"),
        ("We got burned by the last company we used.", "objection-bad-experience"),
        ("Uh, I'd have to think about it.", "objection-think-about-it"),
        ("The owner isn't here, can I take a message?", "greeting-owner-out"),
        ("We\u2019re booked solid until June.", "objection-fully-booked"),
        ("OKAY, HOW DOES THAT WORK?", "value-how-it-works"),
        ("Is this call recorded?", "greeting-transcription-question"),
    ],
)
def test_plain_words_find_their_script_at_any_stage(
    line: str, script_id: str, stage: Stage
) -> None:
    assert best(line, stage=stage) == script_id


def test_a_turn_may_take_several_lines() -> None:
    assert best("Well, how much", "does it cost?") == "objection-price"


def test_only_the_callers_newest_turn_counts() -> None:
    assert best("How much does it cost?", "A: It depends.", "Send me an email.") == (
        "objection-send-info"
    )


def test_what_the_agent_said_since_does_not_hide_it() -> None:
    assert best("How much does it cost?", "A: Good question.", "A: Well...") == "objection-price"


def test_the_agents_own_words_call_for_nothing() -> None:
    silent = heard()
    assert ranked(heard("A: How much is it, you ask?")) == ranked(silent)


def test_without_evidence_the_call_goes_one_stage_further() -> None:
    picked = MATCHER.draft(heard("Mm-hm.", stage=Stage.GREETING)).scripts
    assert {script.stage for script in picked} == {Stage.DISCOVERY}
    picked = MATCHER.draft(heard(stage=Stage.CLOSING)).scripts
    assert {script.stage for script in picked} == {Stage.CONVERSION}
    picked = MATCHER.draft(heard(stage=Stage.CONVERSION)).scripts
    assert {script.stage for script in picked} == {Stage.CONVERSION}


def test_the_draft_is_the_three_best() -> None:
    situation = heard("We already have a website.")
    draft = MATCHER.draft(situation)
    assert draft.source == "playbook"
    assert [script.id for script in draft.scripts] == ranked(situation)[:MAX_OPTIONS]
    assert (draft.values, draft.usage.tokens) == ({}, 0)


def test_a_small_playbook_gives_fewer_options() -> None:
    small = Playbook("Small", "Sell", {}, PLAYBOOK.scripts[1:2])
    assert [script.id for script in Matcher(small).draft(heard(playbook=small)).scripts] == [
        "source"
    ]


def test_the_same_situation_is_ranked_the_same() -> None:
    situation = heard("We have a website and no budget, send me an email.")
    assert ranked(situation) == ranked(situation) == ranked(situation, Matcher(DEFAULT))
    assert sorted(ranked(situation)) == sorted(script.id for script in DEFAULT.scripts)


def test_the_script_shown_last_does_not_come_again() -> None:
    again = heard("How does it work?", given=("objection-price", "value-how-it-works"))
    assert "value-how-it-works" not in ranked(again)


def test_scripts_shown_before_it_stand_back() -> None:
    question = "Mm-hm, we have a website."
    fresh = ranked(heard(question))
    older = ranked(heard(question, given=(fresh[1], fresh[2], "objection-price")))
    assert older[:2] == [fresh[0], fresh[3]]
    assert {fresh[1], fresh[2]} <= set(older[-2:])


def test_excluded_scripts_never_come() -> None:
    excluded = frozenset({"objection-price", "value-how-it-works"})
    assert excluded.isdisjoint(ranked(heard("How much does it cost?", excluded=excluded)))


def test_with_every_script_excluded_any_may_come() -> None:
    everything = frozenset(script.id for script in DEFAULT.scripts)
    situation = heard("How much does it cost?", excluded=everything)
    assert ranked(situation) == ranked(heard("How much does it cost?"))


def test_excluded_scripts_do_not_come_for_want_of_another_than_the_one_shown_last() -> None:
    others = frozenset({"hello", "source", "price"})
    situation = heard("Hello?", given=("meet",), excluded=others, playbook=PLAYBOOK)
    assert ranked(situation, Matcher(PLAYBOOK)) == ["meet"]


def test_what_a_script_avoids_puts_it_last() -> None:
    matcher = Matcher(PLAYBOOK)
    asked = heard("Tell me, how much is it?", playbook=PLAYBOOK)
    refused = heard("Not interested, however much is it.", playbook=PLAYBOOK)
    assert ranked(asked, matcher)[0] == "price"
    assert ranked(refused, matcher)[-1] == "price"
    assert best("Take me off your list, I'm not interested.") == "close-remove-from-list"


def test_a_trigger_said_nearly_counts_but_less_than_one_said_exactly() -> None:
    matcher = Matcher(PLAYBOOK)
    nearly = heard("So, how much, um, is it?", playbook=PLAYBOOK)
    assert ranked(nearly, matcher)[0] == "price"
    barely = heard("Tell.", playbook=PLAYBOOK)
    assert ranked(barely, matcher) == ranked(heard(playbook=PLAYBOOK), matcher)


def test_of_a_long_turn_the_newest_words_count() -> None:
    rambling = "um " * MAX_HEARD
    assert best(rambling + "how much does it cost?") == "objection-price"
    assert ranked(heard("How much does it cost? " + rambling)) == ranked(heard(rambling))


@pytest.mark.parametrize("said", ["", "...", "How much is it?"])
@pytest.mark.parametrize("phrase", ["", "...", " "])
def test_a_phrase_without_words_is_never_heard(phrase: str, said: str) -> None:
    wordless = tuple(
        msgspec.structs.replace(
            script, triggers=(phrase, *script.triggers), avoid=(phrase, *script.avoid)
        )
        for script in PLAYBOOK.scripts
    )
    playbook = msgspec.structs.replace(PLAYBOOK, scripts=wordless)
    assert ranked(heard(said, playbook=playbook), Matcher(playbook)) == ranked(
        heard(said, playbook=PLAYBOOK), Matcher(PLAYBOOK)
    )


def test_words_are_lower_case_and_keep_apostrophes_of_any_form() -> None:
    assert words("We\u2019re CLOSED (24/7), don't call!") == (
        "we're",
        "closed",
        "24",
        "7",
        "don't",
        "call",
    )
    assert words("...?!") == ()
