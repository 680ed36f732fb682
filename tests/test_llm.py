"""The model's side: what a tip costs, and that failing requests cost nobody a tip."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from coach.coaching.messages import Stage
from coach.coaching.situation import Line, Situation
from coach.llm import OpenAIEngine, connect_openai
from tests.fake_openai import FakeOpenAI, serve_fake_openai
from tests.harness import PLAYBOOK, browsing, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SITUATION = Situation(
    PLAYBOOK, {}, (Line(1, "caller", "How much is it?", 0),), Stage.DISCOVERY, None, (), frozenset()
)


@asynccontextmanager
async def engine(model: str = "gpt-4o-mini") -> AsyncIterator[tuple[FakeOpenAI, OpenAIEngine]]:
    async with serve_fake_openai() as fake:
        client = connect_openai("k", fake.url, timeout=2)
        async with client:
            yield fake, OpenAIEngine(client, PLAYBOOK, model=model, hedge=2)


async def test_a_tip_is_one_request_with_the_playbook_first_and_the_call_as_data() -> None:
    async with engine() as (fake, openai):
        draft = await openai.draft(SITUATION)
        await openai.draft(SITUATION)
    assert draft.source == "llm"
    first, second = fake.requests
    assert [message["role"] for message in first["messages"]] == ["system", "user"]
    assert first == second
    assert first["model"] == "gpt-4o-mini"
    assert first["response_format"]["json_schema"]["strict"] is True
    assert "How much is it?" not in first["messages"][0]["content"]
    assert fake.stats.connections <= 1  # kept open between requests


@pytest.mark.parametrize(
    ("model", "is_priced"), [("gpt-4o-mini", True), ("some-model-of-ours", False)]
)
async def test_a_tip_knows_its_price(model: str, is_priced: bool) -> None:
    async with engine(model) as (_, openai):
        usage = (await openai.draft(SITUATION)).usage
    assert usage.tokens > 1000
    assert (usage.cost_usd > 0) == is_priced


async def test_a_server_that_is_not_there_costs_no_tip() -> None:
    # The discard port: nobody listens.
    client = connect_openai("k", "http://127.0.0.1:9/v1", timeout=1)
    async with client:
        draft = await OpenAIEngine(client, PLAYBOOK, model="m", hedge=1).draft(SITUATION)
    assert (draft.source, draft.usage.tokens) == ("playbook", 0)


@pytest.mark.parametrize(
    "answer",
    [b"", b"null", b"[]", b'{"choices": []}', b'{"choices": [{"message": {}}]}', b"[" * 100_000],
)
async def test_an_answer_of_any_other_form_costs_no_tip(answer: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(head + str(len(answer)).encode() + b"\r\n\r\n" + answer)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        async with connect_openai("k", url, timeout=2) as client:
            draft = await OpenAIEngine(client, PLAYBOOK, model="m", hedge=2).draft(SITUATION)
        assert draft.source == "playbook"
        nursery.cancel_scope.cancel()


async def test_what_calls_cost_stands_in_their_summaries() -> None:
    async with serve_fake_openai() as fake:
        model: dict[str, Any] = {"tip_engine": "openai", "openai_api_key": "k"}
        async with (
            serving(**model, openai_base_url=fake.url) as server,
            browsing(server.url) as browser,
        ):
            await browser.start()
            for _ in range(2):
                await browser.caller()
                await browser.request()
                await browser.expect("AI_TIP")
            await browser.end()
            summary = (await browser.expect("CONVERSATION_ENDED"))["summary"]
    assert summary["tips"] == summary["transcripts"] == 2
    assert summary["tokens"] > 2000
    assert 0 < summary["costUsd"] < 0.01
