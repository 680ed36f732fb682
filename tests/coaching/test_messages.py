"""How messages look on the wire."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from coach.coaching.messages import (
    EVENTS,
    ConversationEnded,
    ConversationStarted,
    EndConversation,
    HistoryLine,
    Notice,
    Option,
    OptionSelected,
    Pong,
    RequestAlternativeTip,
    RequestNextTip,
    Source,
    Stage,
    StartConversation,
    Summary,
    Tip,
    Transcript,
    Trigger,
)


def decode(name: str, payload: Any) -> Any:
    return msgspec.convert(payload, EVENTS[name])


# From clients


@pytest.mark.parametrize(
    ("name", "payload", "message"),
    [
        (
            "START_CONVERSATION",
            {"agentId": "agent-1700000000000", "metadata": {"source": "extension", "tabId": 7}},
            StartConversation("agent-1700000000000", {"source": "extension", "tabId": 7}),
        ),
        (
            "START_CONVERSATION",
            {"agentId": "agent-1", "conversationId": "c0ffee"},
            StartConversation("agent-1", {}, "c0ffee"),
        ),
        (
            "TRANSCRIPT",
            {
                "conversationId": "c0ffee",
                "speaker": "caller",
                "text": "Hello?",
                "isFinal": False,
                "timestamp": 1700000000000,
            },
            Transcript("c0ffee", "caller", "Hello?", is_final=False, timestamp=1700000000000),
        ),
        (
            "TRANSCRIPT",
            {"conversationId": "c0ffee", "speaker": "agent", "text": ""},
            Transcript("c0ffee", "agent", "", is_final=True),
        ),
        (
            "OPTION_SELECTED",
            {"recommendationId": "c0ffee.1", "selectedOption": 3},
            OptionSelected("c0ffee.1", 3),
        ),
        (
            "REQUEST_NEXT_TIP",
            {
                "conversationId": "c0ffee",
                "selectedRecommendationId": "c0ffee.1",
                "selectedOption": 2,
                "selectedScript": "Shall we meet?",
                "agentResponse": {"speaker": "agent", "text": "Shall we?", "confidence": 0.9},
                "customerReaction": {"speaker": "caller", "text": "No.", "timestamp": 1},
                "transcriptHistory": [{"speaker": "caller", "text": "Hello?"}],
            },
            RequestNextTip(
                "c0ffee",
                "c0ffee.1",
                2,
                "Shall we meet?",
                HistoryLine("agent", "Shall we?"),
                HistoryLine("caller", "No."),
                [HistoryLine("caller", "Hello?")],
            ),
        ),
        ("REQUEST_NEXT_TIP", {"conversationId": "c0ffee"}, RequestNextTip("c0ffee")),
        (
            "REQUEST_ALTERNATIVE_TIP",
            {"conversationId": "c0ffee", "currentStage": "CLOSING", "currentScriptId": "price"},
            RequestAlternativeTip("c0ffee", "CLOSING", "price"),
        ),
        ("END_CONVERSATION", {"conversationId": "c0ffee"}, EndConversation("c0ffee")),
        (
            "END_CONVERSATION",
            {"conversationId": "c0ffee", "fromTheFuture": [1]},
            EndConversation("c0ffee"),
        ),
    ],
)
def test_events_are_read(name: str, payload: dict[str, Any], message: Any) -> None:
    assert decode(name, payload) == message


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        *((name, None) for name in EVENTS if name != "PING"),
        *((name, {}) for name in EVENTS if name != "PING"),
        ("START_CONVERSATION", {"agentId": 7}),
        ("START_CONVERSATION", {"agentId": ""}),
        ("START_CONVERSATION", {"agentId": "a", "metadata": "hybrid"}),
        ("START_CONVERSATION", {"agentId": "a", "conversationId": "x" * 201}),
        ("TRANSCRIPT", {"conversationId": "c", "text": "No speaker."}),
        ("TRANSCRIPT", {"conversationId": "c", "speaker": "system", "text": "Hello."}),
        ("TRANSCRIPT", {"conversationId": "c", "speaker": "agent", "text": None}),
        ("OPTION_SELECTED", {"recommendationId": "c.1", "selectedOption": 0}),
        ("OPTION_SELECTED", {"recommendationId": "c.1", "selectedOption": 4}),
        ("OPTION_SELECTED", {"recommendationId": "c.1", "selectedOption": "1"}),
        ("REQUEST_NEXT_TIP", {"conversationId": "c", "transcriptHistory": [{"text": "Hi."}]}),
    ],
)
def test_payloads_of_another_form_are_refused(name: str, payload: Any) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode(name, payload)


@pytest.mark.parametrize("payload", [None, {}, [1], "ping"])
def test_a_ping_may_hold_anything(payload: Any) -> None:
    assert decode("PING", payload) == payload


# From the server


def test_a_tip() -> None:
    tip = Tip(
        recommendation_id="c0ffee.1",
        conversation_id="c0ffee",
        stage=Stage.NEXT_STEPS,
        heading="Suggest a meeting",
        context="They sound curious.",
        options=[Option(label="Suggest a meeting", script="Shall we meet?", id="meet")],
        timestamp=1700000000000,
        source="llm",
        trigger="requested",
        based_on=3,
    )
    assert msgspec.to_builtins(tip) == {
        "recommendationId": "c0ffee.1",
        "conversationId": "c0ffee",
        "stage": "NEXT_STEPS",
        "heading": "Suggest a meeting",
        "context": "They sound curious.",
        "options": [{"label": "Suggest a meeting", "script": "Shall we meet?", "id": "meet"}],
        "timestamp": 1700000000000,
        "source": "llm",
        "trigger": "requested",
        "basedOn": 3,
    }


def test_the_start_of_a_call() -> None:
    started = ConversationStarted("c0ffee", 5, resumed=False, mode="event-driven", seq=0)
    assert msgspec.to_builtins(started) == {
        "conversationId": "c0ffee",
        "timestamp": 5,
        "resumed": False,
        "mode": "event-driven",
        "seq": 0,
    }


def test_the_end_of_a_call() -> None:
    ended = ConversationEnded("c0ffee", 5, Summary(61_500, 2, 0, 120, 0.5))
    assert msgspec.to_builtins(ended) == {
        "conversationId": "c0ffee",
        "timestamp": 5,
        "summary": {
            "durationMs": 61_500,
            "transcripts": 2,
            "tips": 0,
            "tokens": 120,
            "costUsd": 0.5,
        },
    }


def test_a_notice_names_its_call_only_if_it_is_about_one() -> None:
    assert msgspec.to_builtins(Notice("Too long", "TEXT_TRUNCATED", 5)) == {
        "message": "Too long",
        "code": "TEXT_TRUNCATED",
        "timestamp": 5,
    }
    about = Notice("Too long", "TEXT_TRUNCATED", 5, "c0ffee")
    assert msgspec.to_builtins(about)["conversationId"] == "c0ffee"


def test_a_pong() -> None:
    assert msgspec.to_builtins(Pong(5)) == {"timestamp": 5}


def test_the_vocabulary() -> None:
    assert [stage.value for stage in Stage] == [
        "GREETING",
        "DISCOVERY",
        "VALUE_PROP",
        "OBJECTION_HANDLING",
        "NEXT_STEPS",
        "CLOSING",
        "CONVERSION",
    ]
    assert set(get_args(Source)) == {"llm", "playbook"}
    assert set(get_args(Trigger)) == {
        "warmup",
        "interval",
        "reaction",
        "requested",
        "alternative",
    }
