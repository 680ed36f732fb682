"""Which requests may open an Engine.IO session, and which belong to one (engine.io `verify`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coach.wire.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL_VERSION = "4"
TRANSPORTS = ("polling", "websocket")

_MESSAGES = (
    "Transport unknown",
    "Session ID unknown",
    "Bad handshake method",
    "Bad request",
    "Forbidden",
    "Unsupported protocol version",
)


class HandshakeError(ProtocolError):
    """A request that is not served. `status` and `body` are the HTTP answer to it."""

    def __init__(self, code: int) -> None:
        super().__init__(_MESSAGES[code])
        self.status = 403 if code == 4 else 400  # noqa: PLR2004 - the reference's own numbers
        self.body = f'{{"code":{code},"message":"{_MESSAGES[code]}"}}'.encode()


def check_request(query: Mapping[str, str], transport: str | None, *, is_upgrade: bool) -> None:
    """Check the query of a request that names a session.

    `transport` is what the session runs on now, None if there is no such session.

    Raises:
        HandshakeError: with the answer to send.
    """
    if query.get("transport") not in TRANSPORTS:
        raise HandshakeError(0)
    if transport is None:
        raise HandshakeError(1)
    if not is_upgrade and query["transport"] != transport:
        raise HandshakeError(3)


def check_handshake(
    query: Mapping[str, str], *, transport: str, origin_allowed: bool, method: str = "GET"
) -> None:
    """Check the query of a first request over `transport`, in the reference server's order.

    Raises:
        HandshakeError: with the answer to send.
    """
    if query.get("transport") not in TRANSPORTS:
        raise HandshakeError(0)
    if "sid" in query:
        raise HandshakeError(1)
    if method != "GET":
        raise HandshakeError(2)
    if query["transport"] != transport:
        raise HandshakeError(3)
    if not origin_allowed:
        raise HandshakeError(4)
    if query.get("EIO") != PROTOCOL_VERSION:
        raise HandshakeError(5)
