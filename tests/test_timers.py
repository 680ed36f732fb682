"""When tips come, to the millisecond: the real server over memory streams, on a mock clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio

from tests.harness import TimedEngine, hang_up, house

if TYPE_CHECKING:
    from trio.testing import MockClock

WARMUP, INTERVAL, SILENCE, REACTION_LIMIT, SELECTION = 180.0, 30.0, 3.0, 10.0, 30.0


@pytest.mark.parametrize("mode", ["auto", "event-driven", "hybrid"])
async def test_the_first_tip_comes_when_the_warm_up_ends(
    autojump_clock: MockClock, mode: str
) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start(mode=mode)
        await browser.caller()
        await trio.sleep(200)
        assert browser.tips == [(WARMUP, "warmup")]


async def test_on_a_silent_call_the_first_tip_waits_for_the_first_words(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start()
        await trio.sleep(200)
        await browser.caller()
        await trio.sleep(5)
        assert browser.tips == [(200.0, "warmup")]


@pytest.mark.parametrize("mode", ["auto", "hybrid"])
async def test_a_tip_follows_the_interval_after_the_one_delivered(
    autojump_clock: MockClock, mode: str
) -> None:
    async with house(TimedEngine(seconds=4)) as server:
        browser = await server.browser()
        await browser.start(mode=mode)
        await browser.caller()
        await trio.sleep_until(190)
        await browser.caller("What does it cost?")
        await trio.sleep_until(300)
        assert browser.tips == [(184.0, "warmup"), (218.0, "interval")]


async def test_an_interval_without_new_words_waits_for_them(autojump_clock: MockClock) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start(mode="auto")
        await browser.caller()
        await trio.sleep_until(250)
        await browser.caller("Still there?")
        await trio.sleep_until(279)
        await browser.agent()
        await trio.sleep_until(300)
        assert browser.tips == [(WARMUP, "warmup"), (250.0, "interval"), (280.0, "interval")]


async def test_in_event_driven_mode_nothing_comes_by_time(autojump_clock: MockClock) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start(mode="event-driven")
        for _ in range(60):
            await browser.caller()
            await trio.sleep(10)
        assert browser.tips == [(WARMUP, "warmup")]


async def test_a_selection_spoken_and_answered_brings_a_tip_after_a_silence(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start(mode="event-driven")
        await browser.caller()
        await browser.select(await browser.expect("AI_TIP", 200))
        await trio.sleep_until(182)
        await browser.agent()
        await trio.sleep_until(183)  # a quick reply counts
        await browser.caller("Not really, no.")
        await trio.sleep_until(185)
        await browser.caller("We are fine as we are.")
        await trio.sleep_until(300)
        assert browser.tips[1:] == [(185.0 + SILENCE, "reaction")]


async def test_a_long_reaction_gets_its_tip_while_it_goes_on(autojump_clock: MockClock) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start(mode="event-driven")
        await browser.caller()
        await browser.select(await browser.expect("AI_TIP", 200))
        await browser.agent()
        for second in range(190, 215, 2):
            await trio.sleep_until(second)
            await browser.caller(f"And another thing, number {second}.")
        await trio.sleep_until(300)
        assert browser.tips[1:] == [(190.0 + REACTION_LIMIT, "reaction")]


async def test_an_agent_who_goes_on_speaking_extends_what_is_answered(
    autojump_clock: MockClock,
) -> None:
    engine = TimedEngine()
    async with house(engine) as server:
        browser = await server.browser()
        await browser.start(mode="event-driven")
        await browser.caller()
        await browser.select(await browser.expect("AI_TIP", 200))
        await browser.agent("First part of what I say.")
        await trio.sleep_until(184)
        await browser.agent("Second part of what I say.")
        await trio.sleep_until(200)
        await browser.caller("Tell me more.")
        await trio.sleep_until(300)
        assert browser.tips[1:] == [(200.0 + SILENCE, "reaction")]
        heard = [line.text for line in engine.asked[-1].lines]
        assert heard[-3:] == [
            "First part of what I say.",
            "Second part of what I say.",
            "Tell me more.",
        ]


async def test_a_selection_that_nobody_answers_expires_with_a_tip_if_it_was_spoken(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start(mode="event-driven")
        await browser.caller()
        await browser.select(await browser.expect("AI_TIP", 200))
        await trio.sleep_until(190)
        await browser.agent()
        await trio.sleep_until(300)
        assert browser.tips[1:] == [(190.0 + SELECTION, "reaction")]


async def test_a_selection_that_was_never_spoken_expires_without_a_tip(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start(mode="event-driven")
        await browser.caller()
        await browser.select(await browser.expect("AI_TIP", 200))
        await trio.sleep_until(180 + SELECTION + 1)
        await browser.agent("Let me think of something else.")
        await browser.caller("Go ahead.")
        await trio.sleep_until(400)
        assert browser.tips == [(WARMUP, "warmup")]


async def test_in_hybrid_mode_the_interval_is_held_while_a_selection_is_followed(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start(mode="hybrid")
        await browser.caller()
        await browser.select(await browser.expect("AI_TIP", 200))
        await trio.sleep_until(205)
        await browser.agent()
        await trio.sleep_until(220)
        await browser.caller("Go on.")
        await trio.sleep_until(230)
        await browser.caller("Hello?")
        await trio.sleep_until(300)
        # 210 was held; 223 is the reaction's; the next interval counts from there.
        assert browser.tips[1:] == [(223.0, "reaction"), (253.0, "interval")]


async def test_the_held_interval_is_due_at_once_when_a_selection_expires(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start(mode="hybrid")
        await browser.caller()
        tip = await browser.expect("AI_TIP", 200)
        await trio.sleep_until(195)
        await browser.select(tip)
        await browser.caller("Are you there?")
        await trio.sleep_until(300)
        assert browser.tips[1:] == [(195.0 + SELECTION, "interval")]


async def test_time_scale_divides_every_timer(autojump_clock: MockClock) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start(mode="hybrid", timeScale=10)
        await browser.caller()
        await trio.sleep_until(19)
        await browser.caller("And?")
        await trio.sleep_until(30)
        assert browser.tips == [(18.0, "warmup"), (21.0, "interval")]


async def test_a_request_is_answered_before_the_warm_up_and_does_not_end_it(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start()
        await browser.caller()
        await trio.sleep_until(10)
        await browser.request()
        await trio.sleep_until(20)
        await browser.caller("Sure.")
        await trio.sleep_until(200)
        assert browser.tips == [(10.0, "requested"), (WARMUP, "warmup")]


async def test_requests_for_the_same_moment_share_one_tip(autojump_clock: MockClock) -> None:
    engine = TimedEngine(seconds=2)
    async with house(engine) as server:
        browser = await server.browser()
        await browser.start()
        await browser.caller()
        for _ in range(100):
            await browser.request()
        await trio.sleep_until(50)
        assert browser.tips == [(2.0, "requested")]
        assert len(engine.asked) == 1


async def test_a_request_joins_the_automatic_tip_in_the_making(autojump_clock: MockClock) -> None:
    engine = TimedEngine(seconds=2)
    async with house(engine) as server:
        browser = await server.browser()
        await browser.start()
        await browser.caller()
        await trio.sleep_until(181)
        await browser.request()
        await trio.sleep_until(200)
        assert browser.tips == [(182.0, "requested")]
        assert len(engine.asked) == 1


async def test_a_request_on_newer_words_supersedes_the_tip_in_the_making(
    autojump_clock: MockClock,
) -> None:
    engine = TimedEngine(seconds=2)
    async with house(engine) as server:
        browser = await server.browser()
        await browser.start()
        await browser.caller()
        await trio.sleep_until(181)
        await browser.caller("Wait, who is this?")
        await browser.request()
        await trio.sleep_until(200)
        assert browser.tips == [(183.0, "requested")]
        assert (len(engine.asked), engine.finished) == (2, 1)


async def test_automatic_tips_never_supersede(autojump_clock: MockClock) -> None:
    engine = TimedEngine(seconds=100)
    async with house(engine) as server:
        browser = await server.browser()
        await browser.start()
        await browser.caller()
        await browser.request()
        for _ in range(25):
            await trio.sleep(10)
            await browser.caller()
        assert browser.tips[0] == (100.0, "requested")
        assert len(engine.asked) == len(browser.tips) + 1


@pytest.mark.parametrize("leave", ["end", "drop"])
@pytest.mark.parametrize("at", [100.0, 181.0, 195.0, 206.0])
async def test_nothing_comes_after_the_end_wherever_the_call_stands(
    autojump_clock: MockClock, leave: str, at: float
) -> None:
    engine = TimedEngine(seconds=2)
    async with house(engine) as server:
        tasks = trio.lowlevel.current_statistics().tasks_living
        browser = await server.browser()
        await browser.start(mode="hybrid")
        await browser.caller()
        if at > 200:  # in the middle of a reaction
            await browser.select(await browser.expect("AI_TIP", 200))
            await trio.sleep_until(200)
            await browser.agent()
            await trio.sleep_until(204)
            await browser.caller("No thanks.")
        await trio.sleep_until(at)
        asked = len(engine.asked)
        if leave == "end":
            await browser.end()
            await browser.expect("CONVERSATION_ENDED")
        await hang_up(browser)
        shown = list(browser.tips)
        await trio.testing.wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == tasks
        await trio.sleep(1000)
        assert (browser.tips, len(engine.asked)) == (shown, asked)


async def test_a_client_that_comes_back_finds_its_timers_where_they_were(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        before = await server.browser()
        conversation_id = await before.start()
        await before.caller()
        await trio.sleep_until(100)
        await hang_up(before)
        await trio.sleep_until(150)
        after = await server.browser()
        after.conversation_id = conversation_id
        await after.caller("Are you still there?")
        await trio.sleep_until(200)
        assert (before.tips, after.tips) == ([], [(WARMUP, "warmup")])


async def test_a_tip_that_came_due_while_the_client_was_away_comes_with_its_next_words(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        before = await server.browser()
        conversation_id = await before.start()
        await before.caller()
        await hang_up(before)
        await trio.sleep_until(200)
        after = await server.browser()
        after.conversation_id = conversation_id
        await after.caller("Sorry, I lost you.")
        await trio.sleep_until(210)
        assert after.tips == [(200.0, "warmup")]


async def test_a_request_cut_off_by_a_disconnect_is_asked_again(autojump_clock: MockClock) -> None:
    engine = TimedEngine(seconds=2)
    async with house(engine) as server:
        before = await server.browser()
        conversation_id = await before.start()
        await before.caller()
        await before.request()
        await trio.sleep_until(1)
        await hang_up(before)
        await trio.sleep_until(10)
        after = await server.browser()
        after.conversation_id = conversation_id
        await after.client.emit(
            "START_CONVERSATION", {"agentId": "agent-2", "conversationId": conversation_id}
        )
        await trio.sleep_until(20)
        assert after.tips == [(12.0, "requested")]
        assert after.received("CONVERSATION_STARTED")[0]["resumed"] is True


async def test_a_conversation_nobody_comes_back_for_is_dropped_after_five_minutes(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        before = await server.browser()
        conversation_id = await before.start()
        await hang_up(before)
        for moment, code in ((299.0, None), (599.0, "UNKNOWN_CONVERSATION")):
            await trio.sleep_until(moment)
            after = await server.browser()
            answer = await after.ask(
                "TRANSCRIPT",
                {"conversationId": conversation_id, "speaker": "agent", "text": "Hello?"},
            )
            assert answer.get("code") == code
            await hang_up(after)


async def test_an_ended_conversation_is_remembered_for_five_minutes(
    autojump_clock: MockClock,
) -> None:
    async with house() as server:
        browser = await server.browser()
        await browser.start()
        await browser.end()
        first = await browser.expect("CONVERSATION_ENDED")
        await trio.sleep_until(299)
        await browser.end()
        assert await browser.expect("CONVERSATION_ENDED") == first
        await trio.sleep_until(301)
        await browser.end()
        assert (await browser.expect("ERROR"))["code"] == "UNKNOWN_CONVERSATION"
