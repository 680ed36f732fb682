"""Which first requests open a session, and the reference server's answers to the others."""

from __future__ import annotations

import json

import pytest

from coach.wire.errors import ProtocolError
from coach.wire.handshake import HandshakeError, check_handshake, check_request

MESSAGES = {
    0: "Transport unknown",
    1: "Session ID unknown",
    2: "Bad handshake method",
    3: "Bad request",
    4: "Forbidden",
    5: "Unsupported protocol version",
}


@pytest.mark.parametrize("transport", ["polling", "websocket"])
@pytest.mark.parametrize("extra", [{}, {"t": "abc"}, {"b64": "1", "j": "0", "SID": "x"}])
def test_a_good_request_passes_whatever_else_its_query_says(
    transport: str, extra: dict[str, str]
) -> None:
    query = {"EIO": "4", "transport": transport, **extra}
    check_handshake(query, transport=transport, origin_allowed=True)


# Each row mends the fault of the one above it and keeps all others: so the order is the
# reference's (engine.io `Server.verify`, then the protocol version).
@pytest.mark.parametrize(
    ("query", "origin_allowed", "code"),
    [
        ({"EIO": "3", "sid": "x", "transport": "webtransport"}, False, 0),
        ({"EIO": "3", "sid": "x", "transport": "polling"}, False, 1),
        ({"EIO": "3", "transport": "polling"}, False, 3),
        ({"EIO": "3", "transport": "websocket"}, False, 4),
        ({"EIO": "3", "transport": "websocket"}, True, 5),
    ],
)
def test_of_several_faults_the_first_in_the_reference_servers_order_is_told(
    query: dict[str, str], origin_allowed: bool, code: int
) -> None:
    assert code_of(query, origin_allowed=origin_allowed) == code


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({}, 0),
        ({"EIO": "4"}, 0),
        ({"EIO": "4", "transport": ""}, 0),
        ({"EIO": "4", "transport": "WebSocket"}, 0),
        ({"EIO": "4", "transport": "constructor"}, 0),
        ({"EIO": "4", "transport": "websocket", "sid": ""}, 1),
        ({"EIO": "4", "transport": "websocket", "sid": "__proto__"}, 1),
        ({"EIO": "4", "transport": "polling"}, 3),
        ({"transport": "websocket"}, 5),
        ({"EIO": "", "transport": "websocket"}, 5),
        ({"EIO": "5", "transport": "websocket"}, 5),
        ({"EIO": "04", "transport": "websocket"}, 5),
        ({"EIO": "4.0", "transport": "websocket"}, 5),
        ({"EIO": "\u0664", "transport": "websocket"}, 5),
    ],
)
def test_a_single_fault_is_told(query: dict[str, str], code: int) -> None:
    assert code_of(query) == code


def test_a_websocket_request_over_http_is_refused() -> None:
    query = {"EIO": "4", "transport": "websocket"}
    assert code_of(query, transport="polling") == 3


@pytest.mark.parametrize("code", MESSAGES)
def test_the_answer_is_the_reference_servers(code: int) -> None:
    error = HandshakeError(code)
    assert isinstance(error, ProtocolError)
    assert error.status == (403 if code == 4 else 400)
    assert json.loads(error.body) == {"code": code, "message": MESSAGES[code]}
    assert str(error) == MESSAGES[code]


def code_of(
    query: dict[str, str], *, transport: str = "websocket", origin_allowed: bool = True
) -> int:
    with pytest.raises(HandshakeError) as info:
        check_handshake(query, transport=transport, origin_allowed=origin_allowed)
    code: int = json.loads(info.value.body)["code"]
    return code


@pytest.mark.parametrize(
    ("query", "transport", "is_upgrade", "code"),
    [
        ({}, "polling", False, 0),
        ({"transport": "carrier-pigeon"}, None, False, 0),
        ({"transport": "polling"}, None, False, 1),
        ({"transport": "websocket"}, None, True, 1),
        ({"transport": "polling"}, "websocket", False, 3),
        ({"transport": "websocket"}, "polling", False, 3),
        ({"transport": "polling"}, "polling", False, None),
        ({"transport": "websocket"}, "polling", True, None),
        ({"transport": "websocket"}, "websocket", True, None),
    ],
)
def test_a_request_of_a_session_goes_by_its_transport(
    query: dict[str, str], transport: str | None, is_upgrade: bool, code: int | None
) -> None:
    if code is None:
        check_request(query, transport, is_upgrade=is_upgrade)
        return
    with pytest.raises(HandshakeError) as caught:
        check_request(query, transport, is_upgrade=is_upgrade)
    assert caught.value.body.startswith(f'{{"code":{code},'.encode())


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_handshake_is_a_get(method: str) -> None:
    with pytest.raises(HandshakeError, match="Bad handshake method"):
        check_handshake(
            {"transport": "polling"}, transport="polling", origin_allowed=False, method=method
        )
