"""Playbooks: the form that is accepted, and what their scripts become on a call."""

from __future__ import annotations

import re
from collections import Counter
from importlib.resources import files

import pytest

from coach.coaching.messages import Stage
from coach.coaching.playbook import (
    MAX_VALUE,
    Playbook,
    PlaybookError,
    Script,
    clean_value,
    parse_playbook,
)
from tests.coaching.driver import PLAYBOOK, script

DEFAULT = parse_playbook(files("coach").joinpath("playbooks/default.toml").read_text("utf-8"))

SCRIPT = """
[[scripts]]
id = "{id}"
stage = "{stage}"
label = "Hello"
text = "{text}"
when = "Always."
triggers = ["hello"]
"""


def toml(
    text: str = "Hi, [name] here.",
    *more: str,
    stage: str = "GREETING",
    script_id: str = "hi",
    name: str = "Dana",
) -> str:
    head = f'title = "T"\ngoal = "G"\n[placeholders]\nname = "{name}"\n'
    return head + SCRIPT.format(id=script_id, stage=stage, text=text) + "".join(more)


# Reading


def test_a_playbook_is_read_from_toml() -> None:
    assert parse_playbook(toml()) == Playbook(
        title="T",
        goal="G",
        placeholders={"name": "Dana"},
        scripts=(Script("hi", Stage.GREETING, "Hello", "Hi, [name] here.", "Always.", ("hello",)),),
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("title = ", "Invalid value"),
        ('title = "T"', "missing required field"),
        (toml(stage="REBUTTAL"), "REBUTTAL"),
        (toml(script_id=""), "length >= 1"),
        (toml(script_id="x" * 81), "length <= 80"),
        (toml() + 'colour = "red"', "colour"),
        ('title = "T"\ngoal = "G"\nscripts = []\nplaceholders = {}', "at least one script"),
        (toml("Hi.", SCRIPT.format(id="hi", stage="CLOSING", text="Bye.")), "'hi' stands there"),
        (toml("Hi [nobody]."), r"'hi': \[nobody\] has no default"),
        (toml(name=""), r"'hi': \[name\] has no default"),
        (toml("Hi [your name]."), "'hi': a bracket"),
        (toml("Hi [name."), "'hi': a bracket"),
        (toml("Hi []."), "'hi': a bracket"),
    ],
    ids=[
        "no TOML",
        "fields missing",
        "no stage",
        "empty id",
        "long id",
        "unknown field",
        "no scripts",
        "id twice",
        "no default",
        "empty default",
        "two words",
        "never closed",
        "empty brackets",
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(PlaybookError, match=complaint):
        parse_playbook(text)


@pytest.mark.parametrize("default", ["[your name]", "<name>", "   "])
def test_a_default_that_would_not_read_well_is_refused(default: str) -> None:
    with pytest.raises(PlaybookError, match="name"):
        parse_playbook(toml(name=default))


# Scripts


def test_a_script_is_found_by_its_id() -> None:
    assert PLAYBOOK.script("price") is PLAYBOOK.scripts[2]
    assert PLAYBOOK.script("Price") is None


def test_a_script_names_its_placeholders_once() -> None:
    assert script("hello").placeholders == ("agentName", "company")
    assert script("price").placeholders == ()
    twice = Script("x", Stage.CLOSING, "X", "[b] and [a] and [b]", "", ())
    assert twice.placeholders == ("b", "a")


def test_placeholders_become_values_else_defaults() -> None:
    hello = script("hello")
    assert PLAYBOOK.render(hello, {}) == (
        "Hello, this is the caller from our team, do you have half a minute for me?"
    )
    assert PLAYBOOK.render(hello, {"agentName": " Dana ", "company": "[]", "day": "Friday"}) == (
        "Hello, this is Dana from our team, do you have half a minute for me?"
    )


def test_a_value_is_no_template() -> None:
    rendered = PLAYBOOK.render(script("hello"), {"agentName": "[company]", "company": r"\1 & Co"})
    assert rendered.startswith(r"Hello, this is company from \1 & Co, do")


@pytest.mark.parametrize(
    ("value", "clean"),
    [
        ("Dana", "Dana"),
        ("  O'Brien & S\u00f6hne, Inc.  ", "O'Brien & S\u00f6hne, Inc."),
        ("[agentName]", "agentName"),
        ("<script>alert(1)</script>", "script alert(1) /script"),
        ("{{x}}", "x"),
        ("one\r\n\ttwo\x00\x7f", "one two"),
        ("one\u2028two\u2029\x85three", "one two three"),
        ("[]", ""),
        ("", ""),
        ("x" * (MAX_VALUE + 1), "x" * MAX_VALUE),
        ("x" * (MAX_VALUE - 1) + " y", "x" * (MAX_VALUE - 1)),
    ],
)
def test_a_value_is_one_bounded_line_without_markup(value: str, clean: str) -> None:
    assert clean_value(value) == clean


# The playbook that is shipped


def test_the_default_playbook_covers_every_stage() -> None:
    assert len(DEFAULT.scripts) >= 30
    assert set(Counter(script.stage for script in DEFAULT.scripts)) == set(Stage)


def test_the_default_playbooks_ids_are_unique_and_its_placeholders_have_defaults() -> None:
    ids = [script.id for script in DEFAULT.scripts]
    assert len(set(ids)) == len(ids)
    used = {name for script in DEFAULT.scripts for name in script.placeholders}
    assert used <= DEFAULT.placeholders.keys()
    assert all(DEFAULT.placeholders[name] for name in used)


def test_the_default_playbooks_phrases_can_be_heard() -> None:
    for each in DEFAULT.scripts:
        assert each.triggers, each.id
        for phrase in each.triggers + each.avoid:
            assert re.fullmatch(r"[a-z0-9' -]+", phrase), (each.id, phrase)


def test_the_default_playbook_reads_without_brackets_when_nothing_is_known() -> None:
    for each in DEFAULT.scripts:
        assert not set("[]{}<>") & set(DEFAULT.render(each, {})), each.id
        assert not set("[]{}<>") & set(each.label + each.when), each.id
