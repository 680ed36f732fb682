"""Defects that servers of this kind had, each shown from outside not to be here.

The first server for this client crashed on an empty message, called its model for hours after
calls had ended, and lost tips; these tests keep its list (D1 to D31) from coming true again.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio

from coach.coaching.messages import Stage
from tests.fake_openai import FakeOpenAI, serve_fake_openai
from tests.harness import PLAYBOOK, TimedEngine, browsing, hang_up, house, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trio.testing import MockClock

    from coach.server import Running

SCRIPTS = {script.id for script in PLAYBOOK.scripts}
FIRST, SECOND = PLAYBOOK.scripts[0].id, PLAYBOOK.scripts[1].id


@asynccontextmanager
async def modelled(**settings: Any) -> AsyncIterator[tuple[FakeOpenAI, Running]]:
    """A server whose model is a real HTTP server of ours."""
    async with serve_fake_openai() as fake:
        defaults = {"tip_engine": "openai", "openai_api_key": "k", "openai_base_url": fake.url}
        async with serving(**(defaults | settings)) as server:
            yield fake, server


def check_tip(tip: dict[str, Any]) -> None:
    """Whether an agent can use it: scripts of the playbook, filled in."""
    assert 1 <= len(tip["options"]) <= 3
    assert tip["stage"] in set(Stage)
    for option in tip["options"]:
        assert option["id"] in SCRIPTS
        assert option["script"]
        assert "[" not in option["script"]


# Crash, leak, money


async def test_d1_an_empty_event_does_not_kill_the_process() -> None:
    payloads: tuple[Any, ...] = (None, "text", [])
    async with serving() as server, browsing(server.url) as browser:
        for name in ("TRANSCRIPT", "END_CONVERSATION", "OPTION_SELECTED", "START_CONVERSATION"):
            await browser.client.emit(name)
            for payload in payloads:
                await browser.client.emit(name, payload)
        assert await browser.is_alive()
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{server.url}/health")).status_code == 200


@pytest.mark.parametrize("leave", ["end", "drop"])
async def test_d2_d3_a_call_left_before_its_warm_up_never_asks_the_model(
    autojump_clock: MockClock, leave: str
) -> None:
    engine = TimedEngine()
    async with house(engine) as server:
        browser = await server.browser()
        await browser.start()
        await browser.caller()
        if leave == "end":
            await browser.end()
        else:
            await hang_up(browser)
        await trio.sleep(24 * 3600)
        assert engine.asked == []


async def test_d4_no_tip_follows_a_selection_after_the_end(autojump_clock: MockClock) -> None:
    engine = TimedEngine()
    async with house(engine) as server:
        browser = await server.browser()
        await browser.start()
        await browser.caller()
        await browser.request()
        await browser.select(await browser.expect("AI_TIP"))
        await browser.agent()
        await browser.caller()
        await browser.end()
        await trio.sleep(3600)
        assert len(browser.tips) == len(engine.asked) == 1


@pytest.mark.parametrize("leave", ["end", "drop"])
async def test_d5_leaving_closes_the_request_to_the_model_within_100_ms(leave: str) -> None:
    async with modelled(tip_hedge_ms=60_000) as (fake, server):
        fake.mode = "slow"
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with browsing(server.url) as browser:
            await browser.start()
            await browser.caller()
            await browser.request()
            with trio.fail_after(5):
                await fake.wait_for(lambda stats: stats.open == 1)
            if leave == "end":
                await browser.end()
            else:
                await trio.aclose_forcefully(browser.client._websocket._stream)
            with trio.fail_after(0.1):
                await fake.wait_for(lambda stats: stats.open == 0)
            assert fake.stats.aborted == 1
            if leave == "end":
                await browser.expect("CONVERSATION_ENDED")
                assert await browser.is_alive()
            assert browser.tips == []
        with trio.fail_after(5):
            await fake.wait_for(lambda stats: stats.connections == 0)
            while trio.lowlevel.current_statistics().tasks_living > tasks:
                await trio.testing.wait_all_tasks_blocked()


async def test_d6_a_thousand_dropped_clients_leave_nothing_active(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        tasks = trio.lowlevel.current_statistics().tasks_living
        for _ in range(1000):
            browser = await server.browser()
            await browser.start()
            await hang_up(browser)
        assert server.registry.active == 0
        await trio.sleep(301)
        assert server.registry._records == {}
        assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_d7_starting_fifty_times_starts_one_call() -> None:
    async with serving() as server, browsing(server.url) as browser:
        started = {await browser.start() for _ in range(50)}
        assert len(started) == server.registry.active == 1


async def test_d8_a_model_that_hangs_is_given_up_at_the_deadline() -> None:
    async with modelled(tip_hedge_ms=200) as (fake, server), browsing(server.url) as browser:
        fake.mode = "hang"
        await browser.start()
        await browser.caller()
        await browser.request()
        tip = await browser.expect("AI_TIP")
        check_tip(tip)
        assert tip["source"] == "playbook"
        with trio.fail_after(1):
            await fake.wait_for(lambda stats: stats.open == 0)


async def test_d9_a_model_slower_than_the_interval_gets_one_request_at_a_time() -> None:
    timers = {"ai_warmup_duration_ms": 10, "ai_analysis_interval_ms": 20}
    async with modelled(**timers) as (fake, server), browsing(server.url) as browser:
        fake.latency_ms = 100
        await browser.start(mode="auto")
        for number in range(5):
            await browser.caller(f"Line {number} of what I have to say.")
            tip = await browser.expect("AI_TIP")
            assert tip["recommendationId"].endswith(f".{number + 1}")
        assert fake.stats.max_open == 1


async def test_d10_a_flood_of_requests_is_one_request_to_the_model() -> None:
    async with modelled() as (fake, server), browsing(server.url) as browser:
        fake.latency_ms = 1000
        await browser.start()
        await browser.caller()
        for _ in range(500):
            await browser.request()
        await browser.expect("AI_TIP")
        assert fake.stats.requests == 1


async def test_d11_long_texts_are_cut_before_they_are_kept_or_sent_on() -> None:
    async with modelled() as (fake, server), browsing(server.url) as browser:
        await browser.start()
        await browser.caller("word " * 180_000)
        for _ in range(60):
            await browser.caller("word " * 1_000)
        history = [{"speaker": "caller", "text": "x" * 9_000} for _ in range(50)]
        await browser.send("REQUEST_NEXT_TIP", transcriptHistory=history)
        await browser.expect("AI_TIP", within=10)
        said = fake.requests[0]["messages"][1]["content"]
        assert len(said) < 51 * 4_100


# Wrong behaviour


async def test_d13_after_a_reconnect_tips_come_once_on_the_new_socket() -> None:
    async with serving() as server, AsyncExitStack() as stack:
        old = await stack.enter_async_context(browsing(server.url))
        conversation_id = await old.start()
        new = await stack.enter_async_context(browsing(server.url))
        new.conversation_id = conversation_id
        await new.caller()
        await new.request()
        await new.expect("AI_TIP")
        # The old socket still lives: what it says counts, but it does not get the call back.
        await old.caller("And one more thing.")
        await old.request()
        await new.expect("AI_TIP")
        assert await old.is_alive()
        assert (len(old.tips), len(new.tips)) == (0, 2)
        assert server.registry.active == 1


async def test_d14_the_timers_are_settings() -> None:
    timers = {"ai_warmup_duration_ms": 50, "ai_analysis_interval_ms": 50}
    async with serving(**timers) as server, browsing(server.url) as browser:
        await browser.start()
        await browser.caller()
        assert (await browser.expect("AI_TIP"))["trigger"] == "warmup"
        await browser.caller()
        assert (await browser.expect("AI_TIP"))["trigger"] == "interval"


async def test_d15_d16_quick_replies_and_further_lines_reach_the_prompt() -> None:
    timers = {"ai_silence_ms": 100}
    async with modelled(**timers) as (fake, server), browsing(server.url) as browser:
        await browser.start(mode="event-driven")
        await browser.caller()
        await browser.request()
        await browser.select(await browser.expect("AI_TIP"))
        await browser.agent("First half of it.")
        await browser.agent("Second half of it.")
        await browser.caller("A quick reply.")
        assert (await browser.expect("AI_TIP"))["trigger"] == "reaction"
        said = fake.requests[-1]["messages"][1]["content"]
        for line in ("First half of it.", "Second half of it.", "A quick reply."):
            assert line in said


async def test_d17_a_periodic_tip_does_not_end_a_selection(autojump_clock: MockClock) -> None:
    async with house(TimedEngine(seconds=5)) as server:
        browser = await server.browser()
        await browser.start(mode="hybrid")
        await browser.caller()
        first = await browser.expect("AI_TIP", 200)
        await browser.caller("Hm.")
        await trio.sleep_until(216)  # The periodic tip of 215 is in the making.
        await browser.select(first)
        await trio.sleep_until(221)
        await browser.agent()
        await browser.caller("Not now.")
        await trio.sleep_until(240)
        assert [trigger for _, trigger in browser.tips] == ["warmup", "interval", "reaction"]


async def test_d18_a_second_selection_takes_the_firsts_place(autojump_clock: MockClock) -> None:
    engine = TimedEngine()
    async with house(engine) as server:
        browser = await server.browser()
        await browser.start(mode="event-driven")
        await browser.caller()
        await browser.request()
        tip = await browser.expect("AI_TIP")
        await browser.select(tip, 1)
        await browser.agent()
        await trio.sleep(1)
        await browser.select(tip, 2)
        await browser.agent()
        await browser.caller("Go on.")
        await trio.sleep(60)
        assert [trigger for _, trigger in browser.tips] == ["requested", "reaction"]
        assert engine.asked[-1].said == tip["options"][1]["script"]


async def test_d19_a_selection_while_a_tip_is_made_survives(autojump_clock: MockClock) -> None:
    async with house(TimedEngine(seconds=2)) as server:
        browser = await server.browser()
        await browser.start(mode="event-driven")
        await browser.caller()
        await browser.request()
        tip = await browser.expect("AI_TIP")
        await browser.caller("Hm.")
        await browser.alternative()
        await browser.select(tip)
        await browser.expect("AI_TIP")
        await browser.agent()
        await browser.caller("Go on.")
        assert (await browser.expect("AI_TIP", 30))["trigger"] == "reaction"


@pytest.mark.parametrize("ask", ["request", "alternative"])
async def test_d20_every_tip_can_be_selected_whatever_brought_it(ask: str) -> None:
    async with serving(ai_silence_ms=20) as server, browsing(server.url) as browser:
        await browser.start(mode="event-driven")
        await browser.caller()
        await (browser.request() if ask == "request" else browser.alternative())
        tip = await browser.expect("AI_TIP")
        await browser.select(tip)
        await browser.agent()
        await browser.caller("Go on.")
        assert (await browser.expect("AI_TIP"))["trigger"] == "reaction"
        assert not browser.received("ERROR")


async def test_d21_tips_of_other_calls_do_not_push_out_the_one_on_screen() -> None:
    async with (
        serving() as server,
        browsing(server.url) as browser,
        browsing(server.url) as other,
    ):
        await browser.start()
        await browser.caller()
        await browser.request()
        tip = await browser.expect("AI_TIP")
        await other.start()
        for _ in range(101):
            await other.caller()
            await other.request()
            await other.expect("AI_TIP")
        selected = {"recommendationId": tip["recommendationId"], "selectedOption": 1}
        assert (await browser.ask("OPTION_SELECTED", selected))["ok"] is True


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param({"id": "buy-now", "slots": []}, id="d22-invented-script"),
        pytest.param({"id": FIRST, "slots": [], "script": "Send cash."}, id="d22-own-words"),
        pytest.param({"id": FIRST, "slots": [], "stage": "Foo"}, id="d23-stage"),
        pytest.param({}, id="d24-empty"),
        pytest.param({"options": []}, id="d24-no-options"),
        pytest.param('{"id": "' + FIRST, id="d25-cut-off"),
        pytest.param("Certainly! Here is a tip:", id="d25-prose"),
        pytest.param(
            {"id": FIRST, "slots": [{"name": "agentName", "value": "Zoe"}]}, id="d27-slot"
        ),
        pytest.param("[" * 50_000, id="d25-nested"),
    ],
)
async def test_what_a_model_makes_up_never_reaches_an_agent(reply: Any) -> None:
    async with modelled() as (fake, server), browsing(server.url) as browser:
        fake.reply = reply
        await browser.start()
        await browser.caller()
        for ask in (browser.request, browser.alternative):
            await ask()
            tip = await browser.expect("AI_TIP")
            check_tip(tip)
            assert "cash" not in str(tip)
            assert "Zoe" not in str(tip)  # nobody on the call said that name
        assert not browser.received("ERROR")


@pytest.mark.parametrize("mode", ["429", "500", "hang", "garbage", "truncated"])
async def test_d25_d26_whatever_the_model_does_a_tip_comes_and_no_error(mode: Any) -> None:
    async with modelled(tip_hedge_ms=300) as (fake, server), browsing(server.url) as browser:
        fake.mode = mode
        await browser.start()
        await browser.caller()
        await browser.request()
        tip = await browser.expect("AI_TIP")
        check_tip(tip)
        assert tip["source"] == "playbook"
        assert not browser.received("ERROR")
        fake.mode = "ok"
        await browser.caller("What would that cost?")
        await browser.request()
        assert (await browser.expect("AI_TIP"))["source"] == "llm"


async def test_d27_what_the_client_says_of_the_call_fills_the_scripts() -> None:
    named = next(s.id for s in PLAYBOOK.scripts if "agentName" in s.placeholders)
    async with modelled() as (fake, server), browsing(server.url) as browser:
        fake.reply = {"id": named, "slots": []}
        await browser.start(agentName="Dana [x] <b>", tabId=7, location=None)
        await browser.caller()
        await browser.request()
        tip = await browser.expect("AI_TIP")
        check_tip(tip)
        assert "Dana x b" in tip["options"][0]["script"]


async def test_d28_a_model_that_repeats_itself_is_not_repeated() -> None:
    async with modelled() as (fake, server), browsing(server.url) as browser:
        fake.reply = {"id": SECOND, "slots": []}
        await browser.start()
        shown = []
        for _ in range(3):
            await browser.caller("I have to think about it.")
            await browser.request()
            shown.append((await browser.expect("AI_TIP"))["options"][0]["id"])
        assert all(one != next_ for one, next_ in pairwise(shown))


async def test_d29_a_line_without_speaker_spoils_nothing() -> None:
    async with serving() as server, browsing(server.url) as browser:
        await browser.start()
        await browser.send("TRANSCRIPT", text="Who says this?")
        await browser.expect("ERROR")
        await browser.caller()
        await browser.request()
        assert (await browser.expect("AI_TIP"))["basedOn"] == 1


async def test_d30_the_end_is_the_end_and_only_of_calls_there_were() -> None:
    async with serving() as server, browsing(server.url) as browser:
        await browser.client.emit("END_CONVERSATION", {"conversationId": "nobody-knows"})
        assert (await browser.expect("ERROR"))["code"] == "UNKNOWN_CONVERSATION"
        await browser.start()
        await browser.end()
        await browser.end()
        first = await browser.expect("CONVERSATION_ENDED")
        assert await browser.expect("CONVERSATION_ENDED") == first
        await browser.caller()
        assert (await browser.expect("WARNING"))["code"] == "CONVERSATION_ENDED"


async def test_d31_a_segment_sent_again_is_kept_once() -> None:
    async with serving() as server, browsing(server.url) as browser:
        await browser.start()
        line = {"conversationId": browser.conversation_id, "speaker": "caller", "text": "Hello."}
        for timestamp, seq in ((1, 1), (1, 1), (2, 2)):
            answer = await browser.ask("TRANSCRIPT", line | {"timestamp": timestamp})
            assert answer == {"ok": True, "seq": seq}


# Privacy


async def test_d38_neither_words_nor_keys_nor_replies_are_logged(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with (
        modelled(tip_hedge_ms=300, openai_api_key="canary-key") as (fake, server),
        browsing(server.url) as browser,
    ):
        for mode in ("ok", "429", "500", "hang", "garbage", "truncated"):
            fake.mode = mode
            fake.reply = "canary reply"
            await browser.start(f"agent-{mode}", agentName="canary")
            await browser.caller("canary words")
            await browser.request()
            await browser.expect("AI_TIP")
            await browser.end()
    written = capfd.readouterr()
    assert "canary" not in written.out + written.err


async def test_v3_words_of_one_call_never_show_in_another() -> None:
    async with modelled() as (fake, server), AsyncExitStack() as stack:
        browsers = [await stack.enter_async_context(browsing(server.url)) for _ in range(30)]
        for number, browser in enumerate(browsers):
            await browser.start()
            await browser.caller(f"canary{number}x")
            await browser.request()
        for browser in browsers:
            await browser.expect("AI_TIP")
        assert len(fake.requests) == len(browsers)
        for request in fake.requests:
            assert request["messages"][1]["content"].count("canary") == 1
