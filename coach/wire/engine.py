"""One Engine.IO session: packet types, heartbeat, the queue of what has to be sent (E).

A packet is a `str` whose first character is its type, or `bytes`, which stand for themselves. How
packets travel (a WebSocket frame each; several in the body of an HTTP request) is the transport's
business.
"""

from __future__ import annotations

from math import inf
from typing import Final

import msgspec

from coach.wire.errors import ProtocolError

OPEN, CLOSE, PING, PONG, MESSAGE, UPGRADE, NOOP = "0123456"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What a server tells its clients and holds them to. Times in seconds, sizes in bytes.

    `connect_timeout` bounds how long a client may stay without joining a namespace, `max_buffered`
    what may wait for a client that does not read. A client may send `rate` packets a second, and
    `burst` at once after a pause: some thousand times what a call needs.
    """

    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    max_payload: int = 1_000_000
    connect_timeout: float = 45.0
    max_buffered: int = 256 * 1024
    rate: float = 500.0
    burst: float = 5_000.0


class _Open(msgspec.Struct, rename="camel"):
    sid: str
    upgrades: list[str]
    ping_interval: int
    ping_timeout: int
    max_payload: int


class Session:
    """The server's side of one session.

    Feed it with `receive`, call `tick` at `next_deadline`, and send what `take` returns whenever
    something may have been queued. `close_reason` is None as long as the session is open.
    """

    __slots__ = (
        "_allowance",
        "_buffered",
        "_config",
        "_counted_at",
        "_outbox",
        "_ping_at",
        "_pong_by",
        "_pong_extended",
        "close_reason",
        "sid",
    )

    def __init__(self, sid: str, config: Config, now: float) -> None:
        self.sid: Final = sid
        self.close_reason: str | None = None
        self._config = config
        self._outbox: list[str | bytes] = []
        self._buffered = 0
        self._ping_at = now + config.ping_interval
        self._pong_by = inf
        self._pong_extended = False
        self._allowance = config.burst
        self._counted_at = now

    @property
    def next_deadline(self) -> float:
        """When `tick` is due next."""
        return min(self._ping_at, self._pong_by)

    def open_packet(self, upgrades: list[str]) -> str:
        """The first packet of a session (E, "Handshake")."""
        config = self._config
        fields = _Open(
            sid=self.sid,
            upgrades=upgrades,
            ping_interval=round(config.ping_interval * 1000),
            ping_timeout=round(config.ping_timeout * 1000),
            max_payload=config.max_payload,
        )
        return OPEN + msgspec.json.encode(fields).decode()

    def receive(self, packet: str | bytes, now: float) -> str | bytes | None:
        """Take in one packet; return the message it carried, if it was one.

        Raises:
            ProtocolError: the packet has no known type, or a type only servers may send; or the
                client sends more than it may.
        """
        if self.close_reason is not None:
            return None
        self._count(now)
        if isinstance(packet, bytes):
            self._show_life(now)
            return packet
        kind = packet[:1]
        if kind == MESSAGE:
            self._show_life(now)
            return packet[1:]
        if kind == PONG:
            self._receive_pong(now)
        elif kind == CLOSE:
            self.close("transport close")
        elif kind == PING:
            raise ProtocolError("heartbeat in the wrong direction")
        elif kind not in (OPEN, UPGRADE, NOOP):
            raise ProtocolError("unknown Engine.IO packet type")
        return None

    def _count(self, now: float) -> None:
        config = self._config
        refilled = self._allowance + (now - self._counted_at) * config.rate
        self._allowance = min(refilled, config.burst) - 1
        self._counted_at = now
        if self._allowance < 0:
            raise ProtocolError("too many packets")

    def _receive_pong(self, now: float) -> None:
        # Only the answer to a ping counts: otherwise a client could put off pings for ever.
        if self._pong_by < inf:
            self._pong_by = inf
            self._ping_at = now + self._config.ping_interval

    def _show_life(self, now: float) -> None:
        # A big message can hold back the pong that follows it. Like engine.io 6.6.12, other
        # packets extend the wait, but only once for each ping.
        if self._pong_by < inf and not self._pong_extended:
            self._pong_extended = True
            self._pong_by = now + self._config.ping_timeout

    def tick(self, now: float) -> None:
        """Send the ping that is due, or give the client up whose pong is overdue."""
        if now >= self._pong_by:
            self.close("ping timeout")
        elif now >= self._ping_at:
            self._ping_at = inf
            self._pong_by = now + self._config.ping_timeout
            self._pong_extended = False
            self._queue(PING)

    def send(self, message: str | bytes) -> None:
        """Queue a message. If more than `max_buffered` bytes wait already, the session closes."""
        self._queue(message if isinstance(message, bytes) else MESSAGE + message)

    def _queue(self, packet: str | bytes) -> None:
        if self.close_reason is not None:
            return
        if self._buffered > self._config.max_buffered:
            self.close("client does not read")
            return
        self._outbox.append(packet)
        self._buffered += _size(packet)

    def take(self) -> list[str | bytes]:
        """Return what has to be sent now, oldest first, and forget it."""
        packets, self._outbox = self._outbox, []
        self._buffered = 0
        return packets

    def close(self, reason: str) -> None:
        """Close the session; the first reason stays. What was queued before is still sent."""
        if self.close_reason is None:
            self.close_reason = reason
            self._ping_at = self._pong_by = inf


def _size(packet: str | bytes) -> int:
    """Return the bytes that a packet takes on the wire."""
    if isinstance(packet, bytes) or packet.isascii():
        return len(packet)
    return len(packet.encode())
