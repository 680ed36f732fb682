"""Sessions over real sockets: joining, events, heartbeat, and every way to end."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
import structlog
import trio
import trio.testing

from coach.socketio import Server
from coach.socketio import websocket as websocket_module
from tests.socketio.harness import (
    BINARY,
    CANARY,
    CLOSE,
    PING,
    Application,
    event,
    frame,
    serving,
    text,
    upgrade,
)

MALFORMED = [
    "",
    "4",
    "4abc",
    "9",
    "2",
    "2probe",
    "\x00",
    "40[1]",
    '40"x"',
    "40",  # joined before
    "41{}",
    "42{}",
    "42[]",
    "42abc",
    "42[null]",
    "42[true]",
    '42["connect"]',
    '42["disconnect"]',
    '42["newListener"]',
    '42/elsewhere,["x"]',
    '421e2["x"]',
    '42\u00b2["x"]',
    '42\u0663["x"]',
    "42" + "9" * 10_000 + '["x"]',
    '42["x",NaN]',
    '42["x",1e999]',
    '42["x",' + "1" * 5_000 + "]",
    "42" + "[" * 200_000,
    '42["x"',
    "43{}",
    '44{"message":"x"}',
    "45",
    '45["x"]',
    '45-["x"]',
    '450-["x"]',
    '4511-["x"]',
    '45999999-["x"]',
    '4551.23-["x"]',
    '451-["x",{"_placeholder":true,"num":-1}]',
    '42["x","' + "\\" + '"]',
    "47",
]


# Joining


async def test_a_session_begins_with_what_the_client_is_held_to() -> None:
    async with serving(ping_interval=20, ping_timeout=15, max_payload=12_345) as house:
        client = await house.dial()
        async with client.stream:
            await client.send(upgrade())
            await client.head()
            opened = json.loads((await client.text())[1:])
        assert len(opened.pop("sid")) == 20
        assert opened == {
            "upgrades": [],
            "pingInterval": 20_000,
            "pingTimeout": 15_000,
            "maxPayload": 12_345,
        }


async def test_a_client_joins_namespaces_each_with_its_own_id() -> None:
    async with serving() as house, house.client() as client:
        sids = set(house.server.sessions)
        for prefix in ("40", "40/side,"):
            await client.send(text(prefix + '{"password":"right"}'))
            answer = await client.text()
            assert answer.startswith(prefix)
            sids.add(json.loads(answer.removeprefix(prefix))["sid"])
        assert len(sids) == 3
        await client.send(text('42/side,["echo",1]'))
        assert await client.text() == '42/side,["echo",1]'


@pytest.mark.parametrize(
    ("joining", "refusal"),
    [
        ('40{"password":"wrong"}', '44{"message":"Wrong password"}'),
        ("40/elsewhere,", '44/elsewhere,{"message":"Invalid namespace"}'),
        ("40/", None),
    ],
)
async def test_who_is_refused_may_try_again(joining: str, refusal: str | None) -> None:
    async with serving() as house, house.client() as client:
        await client.send(text(joining))
        answer = await client.text()
        if refusal is None:
            assert answer.startswith('40{"sid"')
        else:
            assert answer == refusal
            await client.join()
        assert await client.is_alive()


async def test_who_joins_no_namespace_in_time_is_closed() -> None:
    async with serving(connect_timeout=0.05) as house, house.client() as client:
        await client.send(text('40{"password":"wrong"}'))
        assert await client.text() == '44{"message":"Wrong password"}'
        with trio.fail_after(2):
            assert await client.closed() == 1005


async def test_who_joined_may_stay() -> None:
    async with serving(connect_timeout=0.05, ping_interval=0.2) as house, house.member() as client:
        assert await client.text() == "2"
        assert not house.app.left


@pytest.mark.parametrize("packet", ['42["echo"]', '430["x"]', "41", '42/side,["x"]'])
async def test_a_packet_before_joining_closes_the_session(packet: str) -> None:
    async with (
        serving() as house,
        house.member() as bystander,
        house.client() as client,
    ):
        await client.send(text(packet), text("40"))
        assert await client.closed() == 1005
        assert await bystander.is_alive()
        assert [args for _, args in house.app.events] == [["alive"]]


# Events


async def test_events_are_served_in_order() -> None:
    async with serving() as house, house.member() as client:
        await client.send(*(event("echo", number) for number in range(500)))
        assert [await client.event() for _ in range(500)] == [["echo", n] for n in range(500)]


async def test_an_ack_answers_once_and_only_who_asks() -> None:
    async with serving() as house, house.member() as client:
        await client.send(event("echo", {"a": [1]}, ack_id=0), event("echo", ack_id=9_007_199))
        assert await client.text() == '430[{"a":[1]}]'
        assert await client.text() == "439007199[]"
        await client.send(event("silent"), event("echo", 2))
        assert await client.text() == '42["echo",2]'


@pytest.mark.parametrize("packet", ['435["unasked for"]', "42", "4213", "6", "3", "0{}"])
async def test_what_means_nothing_is_ignored(packet: str) -> None:
    async with serving() as house, house.member() as client:
        await client.send(text(packet))
        assert await client.is_alive()


async def test_binary_comes_back_as_it_came() -> None:
    blobs = [bytes(range(256)), b"", b"\xff" * 70_000]
    places = ",".join(f'{{"_placeholder":true,"num":{number}}}' for number in range(3))
    async with serving() as house, house.member() as client:
        await client.send(text(f'453-["echo",[{places}]]'), *(frame(BINARY, b) for b in blobs))
        assert await client.text() == f'453-["echo",[{places}]]'
        for blob in blobs:
            got = await client.frame()
            assert got is not None
            assert (got.opcode, got.payload) == (BINARY, blob)
        await client.send(text('451-7["echo",{"_placeholder":true,"num":0}]'), frame(BINARY, b"!"))
        assert await client.text() == '461-7[{"_placeholder":true,"num":0}]'


@pytest.mark.parametrize("packet", MALFORMED, ids=lambda packet: repr(packet[:20]))
async def test_a_malformed_packet_closes_one_session(packet: str) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving() as house, house.member() as bystander, house.member() as client:
            await client.send(event("before"), text(packet), text('42/nowhere,["after"]'))
            assert await client.closed() == 1005
            await house.app.until(lambda: house.app.left == ["parse error"])
            assert [name for name, _ in house.app.events] == ["before"]
            assert await bystander.is_alive()
    assert [entry["event"] for entry in logs] == ["client closed for a protocol error"]


@pytest.mark.parametrize(
    "frames",
    [
        frame(BINARY, b"of no packet"),
        text('451-["x",{"_placeholder":true,"num":0}]') + event("x"),
        text('451-["x",{"_placeholder":true,"num":1}]') + frame(BINARY, b""),
        text('451-["x",{"_placeholder":true,"num":"a"}]') + frame(BINARY, b""),
        text('452-["x",{"_placeholder":true,"num":0}]')
        + frame(BINARY, b"")
        + text("3")
        + event(""),
    ],
)
async def test_an_attachment_out_of_place_closes_one_session(frames: bytes) -> None:
    async with serving() as house, house.member() as bystander, house.member() as client:
        await client.send(frames)
        assert await client.closed() == 1005
        assert await bystander.is_alive()
        assert [args for _, args in house.app.events] == [["alive"]]


# Heartbeat


async def test_who_answers_pings_stays() -> None:
    async with (
        serving(ping_interval=0.05, ping_timeout=1.0) as house,
        house.member() as client,
    ):
        started = trio.current_time()
        for _ in range(4):
            assert await client.text() == "2"
            await client.send(text("3"))
        assert 0.2 <= trio.current_time() - started < 1.0
        assert await client.is_alive()


async def test_who_answers_no_ping_is_closed() -> None:
    async with (
        serving(ping_interval=0.1, ping_timeout=0.1) as house,
        house.member() as client,
    ):
        started = trio.current_time()
        assert await client.text() == "2"
        assert await client.closed() == 1005
        assert 0.1 <= trio.current_time() - started < 1.0
        assert house.app.left == ["ping timeout"]


async def test_pongs_nobody_asked_for_put_no_ping_off() -> None:
    async with (
        serving(ping_interval=0.1, ping_timeout=0.1) as house,
        house.member() as client,
        trio.open_nursery() as nursery,
    ):

        async def chatter() -> None:
            while True:
                await client.send(text("3"))
                await trio.sleep(0.01)

        nursery.start_soon(chatter)
        with trio.fail_after(1):
            assert await client.text() == "2"
        nursery.cancel_scope.cancel()


# Ends


@pytest.mark.parametrize("end", [frame(CLOSE), text("1"), None], ids=["frame", "packet", "EOF"])
async def test_what_was_sent_before_the_end_is_served(end: bytes | None) -> None:
    async with serving() as house, house.member() as client:
        await client.send(*(event("count", number) for number in range(1000)), end or b"")
        if end is None:
            await client.stream.send_eof()
        assert await client.closed() == (None if end is None else 1005)
        await house.app.until(lambda: house.app.left == ["transport close"])
        assert house.app.events == [("count", [number]) for number in range(1000)]


async def test_a_reset_is_noticed_and_is_no_fault() -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving(max_buffered=1_000_000) as house:
            async with house.member(4096) as client:
                # Much more than the system buffers, so that the server is in the midst of writing.
                await client.send(event("flood", 9, 100_000), event("flood", 9, 1))
                await house.app.until(lambda: len(house.app.events) == 2)
                await client.abort()
            await house.app.until(lambda: bool(house.app.left))
            assert house.app.left[0] in ("transport error", "transport close")
    assert not logs


async def test_who_leaves_a_namespace_may_join_again() -> None:
    async with serving() as house, house.member() as client:
        await client.send(text("41"))
        await house.app.until(lambda: house.app.left == ["client namespace disconnect"])
        await client.join()
        assert await client.is_alive()


async def test_the_server_puts_a_client_out_of_a_namespace() -> None:
    async with serving() as house, house.member() as client:
        await client.send(event("leave"))
        assert await client.text() == "41"
        assert house.app.left == ["server namespace disconnect"]
        await client.join()
        assert await client.is_alive()


async def test_the_server_closes_a_connection_after_all_it_had_to_say() -> None:
    async with serving() as house, house.member() as client:
        await client.send(event("close", "so long"), event("echo", "too late"))
        assert await client.event() == ["goodbye", "so long"]
        assert await client.closed() == 1005
        assert house.app.left == ["forced close"]
        assert [name for name, _ in house.app.events] == ["close"]


async def test_what_is_being_written_when_the_server_closes_is_not_torn() -> None:
    async with serving(max_buffered=20_000_000) as house, house.member(4096) as client:
        # More than the system buffers, so that the server is in the midst of a frame.
        await client.send(event("flood", 9000, 1000))
        await house.app.until(lambda: len(house.app.events) == 1)
        await trio.testing.wait_all_tasks_blocked(0.01)
        await client.send(event("close", CANARY * 1000))
        await house.app.until(lambda: house.app.left == ["forced close"])
        # What comes last may be cut off, but nothing may stand in the place of something else.
        with suppress(EOFError):
            for number in range(9000):
                assert await client.event() == ["flood", number, "x" * 1000]
            assert await client.event() == ["goodbye", CANARY * 1000]
            assert await client.closed() == 1005


async def test_who_does_not_read_is_dropped_alone() -> None:
    with structlog.testing.capture_logs() as logs:
        async with (
            serving(max_buffered=100_000) as house,
            house.member() as bystander,
            house.member(4096) as client,
        ):
            while not house.app.left:
                await client.send(event("flood", 10, 1000))
            assert house.app.left == ["client does not read"]
            assert await bystander.is_alive()
    assert not [entry for entry in logs if entry["log_level"] == "error"]


async def test_who_takes_nothing_for_a_ping_timeout_is_dropped() -> None:
    with structlog.testing.capture_logs() as logs:
        async with (
            serving(max_buffered=10_000_000, ping_timeout=0.2) as house,
            house.member(4096) as client,
        ):
            await client.send(event("flood", 9, 1_000_000))
            await house.app.until(lambda: house.app.left == ["client does not read"])
    assert not logs


async def test_pongs_that_nobody_reads_are_not_hoarded() -> None:
    """RFC 6455, 5.5.3: pongs answer pings, and a client may send those without reading."""
    pings = frame(PING, b"x" * 125) * 100
    async with serving(max_buffered=100_000) as house, house.member(4096) as client:
        for _ in range(1000):
            with suppress(trio.BrokenResourceError):
                await client.send(pings)
        assert house.app.left


# Faults


@pytest.mark.parametrize(
    ("name", "faults"),
    [("raise", ["RuntimeError"]), ("raise in task", ["KeyError", "ValueError"])],
)
async def test_a_fault_costs_one_session_and_quotes_nothing(name: str, faults: list[str]) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving() as house, house.member() as bystander, house.member() as client:
            await client.send(event("start"), event(name, CANARY))
            assert await client.closed() == 1005
            await house.app.until(lambda: house.app.left == ["server error"])
            assert await bystander.is_alive()
    [entry] = logs
    assert entry["event"] == "fault in a session"
    assert [fault.split(" at ")[0] for fault in entry["faults"]] == faults
    assert CANARY not in str(logs)


async def test_a_fault_in_joining_costs_one_session() -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving() as house, house.member() as bystander, house.client() as client:
            await client.send(text('40{"password":"faulty"}'))
            assert await client.closed() == 1005
            assert await bystander.is_alive()
    assert [entry["event"] for entry in logs] == ["fault in a session"]
    assert CANARY not in str(logs)


async def test_a_fault_in_taking_leave_costs_one_session() -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving() as house, house.member() as bystander, house.member() as client:
            await client.send(text("40/side,"), event("fail on leaving"))
            await client.send(text('42/side,["fail on leaving"]'), text("1"))
            await house.app.until(lambda: len(house.app.left) == 2)
            await client.closed()
            assert await bystander.is_alive()
            assert len(house.server.sessions) == 1
    assert {entry["event"] for entry in logs} <= {"fault in a session", "fault in a connection"}
    assert CANARY not in str(logs)


# Nothing is left behind


BEGINNINGS = [
    b"",
    upgrade()[:40],
    upgrade(),
    upgrade() + text("40")[:3],
    upgrade() + text("40") + event("start") + event("flood", 10, 100),
]
"""What a client sends before it is gone."""


async def test_200_aborted_connections_leave_nothing_behind() -> None:
    with structlog.testing.capture_logs() as logs:
        async with serving() as house:
            await trio.testing.wait_all_tasks_blocked()
            tasks = trio.lowlevel.current_statistics().tasks_living
            for number in range(200):
                beginning = BEGINNINGS[number % len(BEGINNINGS)]
                client = await house.dial()
                await client.send(beginning)
                if number % 2 and len(beginning) > 40:
                    await client.head()
                await (client.abort() if number % 4 < 2 else client.stream.aclose())
            await house.is_empty(tasks)
            async with house.member() as client:
                assert await client.is_alive()
            await house.is_empty(tasks)
    assert not logs


async def test_tasks_end_with_the_session_that_started_them() -> None:
    async with serving() as house:
        await trio.testing.wait_all_tasks_blocked()
        tasks = trio.lowlevel.current_statistics().tasks_living
        async with house.member() as client:
            await client.send(*(event("start") for _ in range(20)))
            assert await client.is_alive()
            assert trio.lowlevel.current_statistics().tasks_living > tasks + 20
            await client.abort()
        await house.is_empty(tasks)


# The end of the server


async def test_a_server_that_drains_closes_what_is_open_and_opens_nothing() -> None:
    async with serving() as house, house.member() as client, house.client() as guest:
        assert not house.server.draining
        with trio.fail_after(2):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(house.server.drain, 5)
                for open_client in (client, guest):
                    assert await open_client.closed() == 1005
                    await open_client.stream.aclose()
        assert house.app.left == ["server shutting down"]
        assert not house.server.sessions
        late = await house.dial()
        async with late.stream:
            await late.send(upgrade())
            assert (await late.head()).status == 503
            assert await late.rest() == b""


async def test_draining_does_not_wait_for_who_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT", 0.1)
    async with serving() as house, house.member() as client:
        with trio.fail_after(2):
            await house.server.drain(5)
        assert not house.server.sessions
        assert await client.closed() == 1005


async def test_draining_is_bounded() -> None:
    async with serving() as house, house.member():
        with trio.fail_after(0.5):
            await house.server.drain(0.01)
        assert house.server.sessions


async def test_a_session_that_opens_while_the_server_begins_to_drain_is_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    server = Server({"/": Application().connect})
    # A stream on which the server's answer waits until the client reads it.
    theirs: Any
    ours, theirs = trio.testing.lockstep_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server._admit, theirs, Application().http)
        await ours.send_all(upgrade())
        await trio.testing.wait_all_tasks_blocked()
        await server.drain(5)
        with trio.fail_after(5):
            while await ours.receive_some(4096):
                pass


# Acks that the server asks for


async def test_a_client_acks_what_it_was_asked_each_once() -> None:
    async with serving() as house, house.member() as client:
        await client.send(event("question", "first"), event("question", "second"))
        assert await client.text() == '420["question","first"]'
        assert await client.text() == '421["question","second"]'
        await client.send(text('431["two"]'), text('430[1,{"a":null}]'))
        await client.send(text('430["again"]'), text('437["nobody asked"]'))
        assert await client.is_alive()
        acks = [args for name, args in house.app.events if name == "acked"]
        assert acks == [["two"], [1, {"a": None}]]


async def test_an_ack_may_hold_bytes() -> None:
    async with serving() as house, house.member() as client:
        await client.send(event("question"))
        assert await client.text() == '420["question"]'
        await client.send(text('461-0[{"_placeholder":true,"num":0}]'), frame(BINARY, b"\x01"))
        await house.app.until(lambda: ("acked", [b"\x01"]) in house.app.events)
