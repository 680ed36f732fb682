"""Which requests may open an Engine.IO session (E, "Handshake"; engine.io `Server.verify`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coach.wire.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROTOCOL_VERSION = "4"

_MESSAGES = (
    "Transport unknown",
    "Session ID unknown",
    "Bad handshake method",
    "Bad request",
    "Forbidden",
    "Unsupported protocol version",
)


class HandshakeError(ProtocolError):
    """A request that opens no session. `status` and `body` are the HTTP answer to it."""

    def __init__(self, code: int) -> None:
        super().__init__(_MESSAGES[code])
        self.status = 403 if code == 4 else 400  # noqa: PLR2004 - the reference's own numbers
        self.body = f'{{"code":{code},"message":"{_MESSAGES[code]}"}}'.encode()


def check_handshake(query: Mapping[str, str], *, transport: str, origin_allowed: bool) -> None:
    """Check the query of a first request over `transport`, in the reference server's order.

    Raises:
        HandshakeError: with the answer to send.
    """
    if query.get("transport") not in ("polling", "websocket"):
        raise HandshakeError(0)
    if "sid" in query:
        raise HandshakeError(1)
    if query["transport"] != transport:
        raise HandshakeError(3)
    if not origin_allowed:
        raise HandshakeError(4)
    if query.get("EIO") != PROTOCOL_VERSION:
        raise HandshakeError(5)
