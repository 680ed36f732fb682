"""What is wrong with a client's events is told to that client; nobody else notices."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio

from coach.client import ClientError, connect
from coach.coaching.situation import Draft
from tests.harness import OTHER_KEY, Browser, browsing, house, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from coach.coaching.situation import Situation

GOOD: dict[str, dict[str, Any]] = {
    "START_CONVERSATION": {"agentId": "agent-1"},
    "TRANSCRIPT": {"conversationId": "?", "speaker": "caller", "text": "Hello."},
    "OPTION_SELECTED": {"recommendationId": "?.1", "selectedOption": 1},
    "REQUEST_NEXT_TIP": {"conversationId": "?"},
    "REQUEST_ALTERNATIVE_TIP": {"conversationId": "?"},
    "END_CONVERSATION": {"conversationId": "?"},
}
WRONG: list[list[Any]] = [
    [],
    [None],
    ["canary-words"],
    [["canary-words"]],
    [7],
    [1.5],
    [True],
    [{}],
]
WRONG_FIELDS: list[tuple[str, str, Any]] = [
    ("START_CONVERSATION", "agentId", ""),
    ("START_CONVERSATION", "agentId", None),
    ("START_CONVERSATION", "metadata", "canary-words"),
    ("START_CONVERSATION", "conversationId", 5),
    ("START_CONVERSATION", "metadata", {"mode": "canary-words"}),
    ("START_CONVERSATION", "metadata", {"mode": 1}),
    ("START_CONVERSATION", "metadata", {"timeScale": 0}),
    ("START_CONVERSATION", "metadata", {"timeScale": 101}),
    ("START_CONVERSATION", "metadata", {"timeScale": "fast"}),
    ("TRANSCRIPT", "speaker", "canary-words"),
    ("TRANSCRIPT", "speaker", None),
    ("TRANSCRIPT", "text", None),
    ("TRANSCRIPT", "text", {"canary": "canary-words"}),
    ("TRANSCRIPT", "isFinal", "yes"),
    ("TRANSCRIPT", "timestamp", "now"),
    ("OPTION_SELECTED", "recommendationId", 3),
    ("OPTION_SELECTED", "selectedOption", 0),
    ("OPTION_SELECTED", "selectedOption", 4),
    ("OPTION_SELECTED", "selectedOption", 1.5),
    ("OPTION_SELECTED", "selectedOption", "1"),
    ("REQUEST_NEXT_TIP", "conversationId", ["canary-words"]),
    ("REQUEST_NEXT_TIP", "transcriptHistory", "canary-words"),
    ("REQUEST_NEXT_TIP", "transcriptHistory", [{"speaker": "canary-words", "text": ""}]),
    ("REQUEST_NEXT_TIP", "agentResponse", "canary-words"),
    ("REQUEST_ALTERNATIVE_TIP", "conversationId", "x" * 10_000),
    ("END_CONVERSATION", "conversationId", {"a": {"b": 1}}),
]


@asynccontextmanager
async def two_calls() -> AsyncIterator[tuple[Browser, Browser]]:
    """A browser that misbehaves, and one in a call that must not notice."""
    async with (
        serving() as server,
        browsing(server.url) as browser,
        browsing(server.url) as bystander,
    ):
        await bystander.start()
        yield browser, bystander
        assert await browser.is_alive()
        await bystander.caller()
        await bystander.request()
        assert await bystander.expect("AI_TIP")
        assert server.registry.active >= 1


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("args", WRONG, ids=repr)
async def test_a_payload_of_the_wrong_form_is_answered(name: str, args: list[Any]) -> None:
    async with two_calls() as (browser, _):
        with structlog.testing.capture_logs() as logs:
            await browser.client.emit(name, *args)
            error = await browser.expect("ERROR")
            answer = await browser.ask(name, *args)
        assert error["code"] == answer["code"] == "INVALID_PAYLOAD"
        assert answer["ok"] is False
        assert answer["message"] == error["message"]
        assert [entry["event"] for entry in logs] == ["event rejected"] * 2
        assert "canary" not in str(logs)


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name, fields in GOOD.items() for field in fields],
)
async def test_a_missing_field_is_answered(name: str, field: str) -> None:
    async with two_calls() as (browser, _):
        payload = {key: value for key, value in GOOD[name].items() if key != field}
        await browser.client.emit(name, payload)
        error = await browser.expect("ERROR")
        assert error["code"] == "INVALID_PAYLOAD"
        assert field in error["message"]


@pytest.mark.parametrize(("name", "field", "value"), WRONG_FIELDS)
async def test_a_field_of_the_wrong_type_is_answered(name: str, field: str, value: Any) -> None:
    async with two_calls() as (browser, _):
        with structlog.testing.capture_logs() as logs:
            await browser.client.emit(name, GOOD[name] | {field: value})
            assert (await browser.expect("ERROR"))["code"] == "INVALID_PAYLOAD"
        assert len(logs) == 1
        assert "canary" not in str(logs)


@pytest.mark.parametrize("name", [name for name in GOOD if name != "START_CONVERSATION"])
@pytest.mark.parametrize("whose", ["nobody", "another principal"])
async def test_an_unknown_conversation_and_a_foreign_one_look_the_same(
    name: str, whose: str
) -> None:
    async with (
        serving() as server,
        browsing(server.url) as owner,
        browsing(server.url, OTHER_KEY) as stranger,
    ):
        await owner.start()
        await owner.caller()
        await owner.request()
        tip = await owner.expect("AI_TIP")
        conversation_id = owner.conversation_id if whose == "another principal" else "x" * 22
        payload = GOOD[name] | (
            {
                "recommendationId": tip["recommendationId"].replace(
                    owner.conversation_id, conversation_id
                )
            }
            if name == "OPTION_SELECTED"
            else {"conversationId": conversation_id}
        )
        answer = await stranger.ask(name, payload)
        thing = "RECOMMENDATION" if name == "OPTION_SELECTED" else "CONVERSATION"
        assert answer == {
            "ok": False,
            "code": f"UNKNOWN_{thing}",
            "message": f"There is no such {thing.lower()}",
        }
        await stranger.client.emit(name, payload)
        assert (await stranger.expect("ERROR"))["code"] == f"UNKNOWN_{thing}"
        assert await owner.is_alive()
        await owner.end()
        summary = (await owner.expect("CONVERSATION_ENDED"))["summary"]
        assert (summary["transcripts"], summary["tips"]) == (1, 1)
        assert "ERROR" not in [event for _, event, _ in owner.events]


async def test_a_call_of_another_principal_cannot_be_continued() -> None:
    async with (
        serving() as server,
        browsing(server.url) as owner,
        browsing(server.url, OTHER_KEY) as stranger,
    ):
        theirs = await owner.start()
        start = {"agentId": "agent-2", "conversationId": theirs}
        answer = await stranger.ask("START_CONVERSATION", start)
        assert answer["code"] == "UNKNOWN_CONVERSATION"


async def test_a_tip_that_was_never_shown_cannot_be_selected() -> None:
    async with serving() as server, browsing(server.url) as browser:
        await browser.start()
        await browser.caller()
        await browser.request()
        tip = await browser.expect("AI_TIP")
        selected = {"recommendationId": tip["recommendationId"] + "9", "selectedOption": 1}
        assert (await browser.ask("OPTION_SELECTED", selected))["code"] == "UNKNOWN_RECOMMENDATION"


class OneScript:
    """An engine whose tips have one option."""

    async def draft(self, situation: Situation) -> Draft:
        await trio.lowlevel.checkpoint()
        return Draft(situation.playbook.scripts[:1], "playbook")


async def test_an_option_that_the_tip_does_not_have_is_answered() -> None:
    async with house(OneScript()) as server:
        browser = await server.browser()
        await browser.start()
        await browser.request()
        tip = await browser.expect("AI_TIP")
        selected = {"recommendationId": tip["recommendationId"], "selectedOption": 2}
        assert (await browser.ask("OPTION_SELECTED", selected))["code"] == "UNKNOWN_OPTION"


async def test_long_text_is_cut_with_a_warning_and_the_call_goes_on() -> None:
    async with two_calls() as (browser, _):
        await browser.start()
        await browser.caller("a" * 4000)
        assert await browser.is_alive()
        assert not browser.received("WARNING")
        await browser.caller("b" * 4001)
        warning = await browser.expect("WARNING")
        assert warning["code"] == "TEXT_TRUNCATED"
        assert warning["conversationId"] == browser.conversation_id
        await browser.request()
        await browser.expect("AI_TIP")


@pytest.mark.parametrize(
    "text", ["half an emoji \ud83d", "nul \0 nul", "\u202e backwards", "🙂" * 4000]
)
async def test_poison_text_does_no_harm(text: str) -> None:
    async with two_calls() as (browser, _):
        await browser.start()
        # As JSON writes it, the lone surrogate included.
        line = {"conversationId": browser.conversation_id, "speaker": "caller", "text": text}
        await browser.client._websocket.send_message("42" + json.dumps(["TRANSCRIPT", line]))
        await browser.request()
        assert (await browser.expect("AI_TIP"))["basedOn"] == 1


async def test_what_is_not_final_or_blank_counts_for_nothing() -> None:
    async with serving() as server, browsing(server.url) as browser:
        await browser.start()
        line = {"conversationId": browser.conversation_id, "speaker": "caller", "text": "Hel"}
        assert (await browser.ask("TRANSCRIPT", line | {"isFinal": False}))["seq"] == 0
        assert (await browser.ask("TRANSCRIPT", line | {"text": " \t"}))["seq"] == 0
        assert (await browser.ask("TRANSCRIPT", line))["seq"] == 1


@pytest.mark.parametrize(
    "name", ["NOBODY_KNOWS", "constructor", "__proto__", "__class__", "_start", 7]
)
async def test_unknown_events_are_ignored(name: Any) -> None:
    async with two_calls() as (browser, _):
        with structlog.testing.capture_logs() as logs:
            await browser.client.emit(name, {"conversationId": "?"})
            assert await browser.is_alive()
        assert (browser.received("ERROR"), logs) == ([], [])
        assert (await browser.ask(name))["code"] == "UNKNOWN_EVENT"


async def test_after_the_end_events_get_a_warning_and_no_error() -> None:
    async with two_calls() as (browser, _):
        await browser.start()
        await browser.caller()
        await browser.request()
        tip = await browser.expect("AI_TIP")
        await browser.end()
        await browser.expect("CONVERSATION_ENDED")
        await browser.caller()
        await browser.request()
        await browser.alternative()
        await browser.select(tip)
        for _ in range(4):
            assert (await browser.expect("WARNING"))["code"] == "CONVERSATION_ENDED"
        assert not browser.received("ERROR")
        assert len(browser.tips) == 1


async def test_at_most_four_calls_run_on_one_socket() -> None:
    async with serving() as server, browsing(server.url) as browser:
        for number in range(4):
            await browser.start(f"agent-{number}")
        await browser.client.emit("START_CONVERSATION", {"agentId": "agent-4"})
        assert (await browser.expect("ERROR"))["code"] == "TOO_MANY_CALLS"
        await browser.end()
        await browser.expect("CONVERSATION_ENDED")
        await browser.start("agent-5")
        assert server.registry.active == 4


@pytest.mark.parametrize(
    "auth",
    [
        None,
        {},
        {"apiKey": ""},
        {"apiKey": "wrong"},
        {"apiKey": None},
        {"apiKey": ["k"]},
        {"apiKey": "x" * 500_000},
        {"apikey": "test-key"},
    ],
    ids=lambda auth: str(auth)[:30],
)
async def test_without_the_key_nobody_gets_in(auth: dict[str, Any] | None) -> None:
    async with serving() as server:
        refused = pytest.raises(ClientError, match="refused: Authentication failed")
        with structlog.testing.capture_logs() as logs, refused:
            async with connect(server.url, auth):
                pass
        assert [entry["event"] for entry in logs] == ["client refused"]
        assert "wrong" not in str(logs)


async def test_an_agent_may_begin_again_after_the_end_under_the_same_name() -> None:
    async with serving() as server, browsing(server.url) as browser:
        first = await browser.start("agent-1")
        await browser.end()
        await browser.expect("CONVERSATION_ENDED")
        assert await browser.start("agent-1") != first


async def test_a_request_may_tell_what_was_chosen_and_heard() -> None:
    async with serving() as server, browsing(server.url) as browser:
        await browser.start()
        heard = {"speaker": "caller", "text": "We already have a website.", "confidence": 0.9}
        await browser.send("REQUEST_NEXT_TIP", customerReaction=heard, transcriptHistory=[])
        tip = await browser.expect("AI_TIP")
        assert tip["basedOn"] == 0
        await browser.request(
            selectedRecommendationId=tip["recommendationId"],
            selectedOption=1,
            selectedScript=tip["options"][0]["script"],
        )
        assert (await browser.expect("AI_TIP"))["trigger"] == "requested"
