"""WebSocket cases by section of RFC 6455, over a raw socket."""

from __future__ import annotations

import struct

import pytest

from tests.socketio.harness import (
    BINARY,
    CLOSE,
    CONT,
    PATH,
    PING,
    PONG,
    TEXT,
    Frame,
    event,
    frame,
    serving,
    text,
    upgrade,
)

ECHO = '42["echo","gr\u00fc\u00df \U0001f600"]'.encode()
ECHOED = ["echo", "gr\u00fc\u00df \U0001f600"]


# 4: the opening handshake


async def test_4_2_2_the_handshake_is_answered_with_the_hash_of_its_key() -> None:
    async with serving() as house:
        client = await house.dial()
        async with client.stream:
            await client.send(upgrade())
            answer = await client.head()
        assert answer.status == 101
        assert answer.headers["upgrade"] == "websocket"
        assert answer.headers["connection"] == "upgrade"
        assert answer.headers["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".lower()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec_WebSocket_Key": None}, 400),
        ({"Sec_WebSocket_Key": "too short"}, 400),
        ({"Sec_WebSocket_Version": None}, 400),
        ({"Sec_WebSocket_Version": "8"}, 400),
        ({"Connection": "close"}, 426),
        ({"Transfer_Encoding": "chunked"}, 400),
        ({"Content_Length": "7"}, 400),
        ({"Cookie": "x" * 9_000}, 431),
        ({f"X_{number}": "x" for number in range(150)}, 431),
    ],
    ids=["no key", "bad key", "no version", "old", "close", "chunked", "body", "cookie", "many"],
)
async def test_4_2_1_every_handshake_is_answered(
    headers: dict[str, str | None], status: int
) -> None:
    async with serving() as house:
        client = await house.dial()
        async with client.stream:
            await client.send(upgrade(**headers))
            assert (await client.head()).status == status


@pytest.mark.parametrize("head", [b"POST" + upgrade()[3:], upgrade().replace(b"/1.1", b"/1.0")])
async def test_4_2_1_only_http_1_1_gets_open_websockets(head: bytes) -> None:
    async with serving() as house:
        client = await house.dial()
        async with client.stream:
            await client.send(head)
            assert (await client.head()).status in (405, 505)
        assert not house.server.sessions


async def test_9_1_compression_is_offered_and_never_negotiated() -> None:
    async with serving() as house:
        client = await house.dial()
        async with client.stream:
            offer = "permessage-deflate; client_max_window_bits"
            await client.send(upgrade(Sec_WebSocket_Extensions=offer))
            answer = await client.head()
            assert answer.status == 101
            assert "sec-websocket-extensions" not in answer.headers
            await client.text()
            # 5.2: without an extension that gives it a meaning, RSV1 is an error.
            await client.send(frame(TEXT, ECHO, rsv=4))
            assert await client.closed() == 1002


async def test_data_may_come_together_with_the_handshake() -> None:
    async with serving() as house:
        client = await house.dial()
        async with client.stream:
            await client.send(upgrade(), text("40"), frame(TEXT, ECHO))
            assert (await client.head()).status == 101
            assert (await client.text()).startswith("0{")
            assert (await client.text()).startswith("40{")
            assert await client.event() == ECHOED


async def test_the_network_may_deliver_single_bytes() -> None:
    async with serving() as house:
        client = await house.dial()
        async with client.stream:
            client.stream.setsockopt(6, 1, True)  # TCP_NODELAY
            sent = [upgrade(), text("40"), frame(TEXT, ECHO, fin=False), frame(PING, b"!")]
            for byte in b"".join([*sent, frame(CONT)]):
                await client.send(bytes([byte]))
            assert (await client.head()).status == 101
            assert (await client.text()).startswith("0{")
            assert (await client.text()).startswith("40{")
            assert await client.frame() == Frame(PONG, b"!")
            assert await client.event() == ECHOED


# 5: framing


@pytest.mark.parametrize("size", [0, 1, 5, len(ECHO) // 2])
async def test_5_4_messages_may_come_in_fragments(size: int) -> None:
    """8.1: fragments may end within a character."""
    pieces = [ECHO[at : at + size] for at in range(0, len(ECHO), size)] if size else [b"", ECHO]
    async with serving() as house, house.member() as client:
        await client.send(frame(TEXT, pieces[0], fin=False))
        for piece in pieces[1:]:
            await client.send(frame(CONT, piece, fin=False))
            await client.send(frame(CONT, b"", fin=False))
        await client.send(frame(CONT, b""))
        assert await client.event() == ECHOED


async def test_5_4_control_frames_may_come_between_fragments() -> None:
    async with serving() as house, house.member() as client:
        await client.send(
            frame(TEXT, ECHO[:20], fin=False),
            frame(PING, b"between"),
            frame(PONG, b"unasked for"),
            frame(CONT, ECHO[20:]),
        )
        assert await client.frame() == Frame(PONG, b"between")
        assert await client.event() == ECHOED


async def test_5_5_2_a_ping_is_answered_with_its_own_data() -> None:
    async with serving() as house, house.client() as client:
        for data in (b"", b"x" * 125):
            await client.send(frame(PING, data))
            assert await client.frame() == Frame(PONG, data)


@pytest.mark.parametrize(
    "wrong",
    [
        *(frame(TEXT, ECHO, rsv=rsv) for rsv in range(1, 8)),
        *(frame(opcode, b"") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        frame(TEXT, ECHO, masked=False),
        frame(PING, masked=False),
        frame(PING, b"x" * 126),
        frame(CLOSE, b"\x03\xe8" + b"x" * 124),
        frame(PING, fin=False),
        frame(CLOSE, fin=False),
        frame(CONT, ECHO),
        frame(TEXT, ECHO[:9], fin=False) + frame(TEXT, ECHO[9:]),
        frame(TEXT, ECHO[:9], fin=False) + frame(BINARY, ECHO[9:]),
        b"\x81\xff\x80" + bytes(7),
    ],
    ids=[
        *(f"rsv {rsv}" for rsv in range(1, 8)),
        *(f"opcode {opcode}" for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        "unmasked text",
        "unmasked ping",
        "long ping",
        "long close",
        "fragmented ping",
        "fragmented close",
        "continuation of nothing",
        "text in a fragmented text",
        "binary in a fragmented text",
        "length with its highest bit set",
    ],
)
async def test_5_wrong_frames_close_the_connection_that_sent_them(wrong: bytes) -> None:
    async with serving() as house, house.member() as bystander, house.member() as client:
        await client.send(wrong, frame(TEXT, ECHO))
        assert await client.closed() in ((1002, 1009) if wrong.startswith(b"\x81\xff") else (1002,))
        assert await bystander.is_alive()
        assert [args for _, args in house.app.events] == [["alive"]]


# 7: closing


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1011, 3000, 4999])
async def test_7_1_5_a_close_is_echoed(code: int) -> None:
    async with serving() as house, house.member() as client:
        await client.send(frame(CLOSE, struct.pack("!H", code) + b"so long"))
        assert await client.closed() == code
        await house.app.until(lambda: house.app.left == ["transport close"])


async def test_7_1_5_a_close_needs_no_status() -> None:
    async with serving() as house, house.member() as client:
        await client.send(frame(CLOSE))
        assert await client.closed() == 1005


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"\x03", 1002),
        *((struct.pack("!H", code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)),
        (b"\x03\xe8\xff\xfe", 1007),
    ],
)
async def test_7_4_wrong_statuses_are_errors(payload: bytes, expected: int) -> None:
    async with serving() as house, house.member() as client:
        await client.send(frame(CLOSE, payload))
        assert await client.closed() == expected


async def test_5_5_1_nothing_after_a_close_is_looked_at() -> None:
    async with serving() as house, house.member() as client:
        await client.send(event("first"), frame(CLOSE), event("second"), b"\xff\xff")
        assert await client.closed() == 1005
        await house.app.until(lambda: bool(house.app.left))
        assert [name for name, _ in house.app.events] == ["first"]


@pytest.mark.parametrize("size", range(1, 12, 2))
async def test_7_1_1_a_frame_that_stays_incomplete_is_none(size: int) -> None:
    async with serving() as house, house.member() as client:
        await client.send(frame(TEXT, ECHO)[:size])
        await client.stream.send_eof()
        await client.closed()
        await house.app.until(lambda: house.app.left == ["transport close"])
        assert not house.app.events


# 8: text


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"],
    ids=["no UTF-8", "overlong", "surrogate", "beyond Unicode", "cut"],
)
@pytest.mark.parametrize("at", [None, 7])
async def test_8_1_text_that_is_not_utf_8_closes_with_1007(data: bytes, at: int | None) -> None:
    async with serving() as house, house.member() as client:
        payload = b'42["echo","' + data + b'"]'
        if at is None:
            await client.send(frame(TEXT, payload))
        else:
            await client.send(frame(TEXT, payload[:at], fin=False), frame(CONT, payload[at:]))
        assert await client.closed() == 1007
        assert not house.app.events


async def test_7_1_7_nothing_after_a_wrong_text_is_looked_at() -> None:
    async with serving() as house, house.member() as client:
        await client.send(event("first"), frame(TEXT, b"4\xff"), event("second"))
        assert await client.closed() == 1007
        await house.app.until(lambda: bool(house.app.left))
        assert [name for name, _ in house.app.events] == ["first"]


# 10.4: limits


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("count", [1, 2, 5])
async def test_10_4_a_message_that_is_too_long_closes_with_1009(opcode: int, count: int) -> None:
    async with serving(max_payload=1000) as house, house.member() as client:
        payload = b'42["echo","' + b"x" * 988 + b'"]'
        assert len(payload) == 1001
        size = 1001 // count + 1
        pieces = [payload[at : at + size] for at in range(0, 1001, size)]
        for number, piece in enumerate(pieces):
            fin = number == count - 1
            await client.send(frame(CONT if number else opcode, piece, fin=fin))
        assert await client.closed() == 1009
        assert not house.app.events


async def test_10_4_a_message_of_the_greatest_length_is_served() -> None:
    async with serving(max_payload=1000) as house, house.member() as client:
        words = "x" * 987
        await client.send(frame(TEXT, f'42["echo","{words}"]'.encode()))
        assert await client.event() == ["echo", words]


async def test_10_4_a_frame_need_not_come_whole_to_be_too_long() -> None:
    async with serving() as house, house.member() as client:
        await client.send(frame(TEXT, b"4" + b"x" * 1_000_000)[:14])
        assert await client.closed() == 1009


async def test_the_path_has_to_be_exact() -> None:
    async with serving() as house:
        client = await house.dial()
        async with client.stream:
            await client.send(upgrade(PATH.replace("/?", "?")))
            assert (await client.head()).status == 404
            assert [request.path for request in house.app.requests] == ["/socket.io"]
