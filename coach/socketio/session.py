"""One Engine.IO session on Trio: a nursery with a reader, a writer, and what serves its client."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from coach.socketio.faults import places
from coach.wire import engine
from coach.wire.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from coach.socketio.websocket import WebSocket

UPGRADE_TIMEOUT: Final = 10.0
"""Seconds in which a client has to complete its change to WebSocket (engine.io, upgradeTimeout)."""

LAST_POLL_TIMEOUT: Final = 30.0
"""Seconds for which a closed session waits for a request to tell that (engine.io, closeTimeout)."""

_TOLD: Final = frozenset({"forced close", "server shutting down"})
"""Reasons that a client which polls learns from its next request."""

log = structlog.get_logger(__name__)


def new_sid() -> str:
    """Return an id nobody can guess, in the reference server's length and alphabet."""
    return secrets.token_urlsafe(15)


class Peer(Protocol):
    """What runs over a session: it takes the client's messages, and never waits.

    `deadline` is when the session closes if the peer does not move it, in Trio's seconds.
    """

    @property
    def deadline(self) -> float:
        """When the client has to have done its next step."""

    def receive(self, message: str | bytes) -> None:
        """Take in a message.

        Raises:
            ProtocolError: it breaks a rule; the session closes.
        """

    def closed(self, reason: str) -> None:
        """The session is over. Nothing can be sent any more."""


class Session:
    """Everything that lives as long as one client's Engine.IO session.

    The reader runs what the client sends; the writer sends what is queued and keeps the
    heartbeat, which is a deadline of the protocol machine. Neither waits for the other. A session
    without a WebSocket is served by HTTP requests (`poll`, `take_in`) until one takes it over.
    """

    __slots__ = (
        "_config",
        "_ended",
        "_forget",
        "_is_posting",
        "_peer",
        "_polls",
        "_told",
        "_websocket",
        "_writer_nap",
        "engine",
        "is_upgrading",
        "nursery",
    )

    nursery: trio.Nursery

    def __init__(
        self,
        open_peer: Callable[[Session], Peer],
        config: engine.Config,
        websocket: WebSocket | None,
        forget: Callable[[Session], None],
    ) -> None:
        self.engine = engine.Session(new_sid(), config, trio.current_time())
        self.is_upgrading = False
        self._peer = open_peer(self)
        self._config = config
        self._websocket = websocket
        self._forget = forget
        self._writer_nap = trio.CancelScope()
        self._polls: trio.lowlevel.ParkingLot | None = None
        self._ended: trio.Event | None = None
        self._told: trio.Event | None = None
        self._is_posting = False

    @property
    def transport(self) -> str:
        """What the session runs on now, as clients call it."""
        return "polling" if self._websocket is None else "websocket"

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the client until one side closes; then end all its tasks and say goodbye."""
        structlog.contextvars.bind_contextvars(sid=self.engine.sid)
        try:
            async with trio.open_nursery() as self.nursery:
                self.nursery.start_soon(self._write)
                task_status.started()
                if self._websocket is not None:
                    self._websocket.send([self.engine.open_packet([])])
                    await self._read(self._websocket)
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this client alone
            _tell(error)
            self.engine.close("server error")
        finally:
            self._leave(self.engine.close_reason or "server shutting down")
        try:
            await self._say_goodbye()
        finally:
            self._forget(self)
            if self._ended is not None:
                self._ended.set()

    def send(self, messages: Sequence[str | bytes]) -> None:
        """Queue messages for the client."""
        for message in messages:
            self.engine.send(message)
        if self.engine.close_reason is not None:
            self._end()
        elif messages:
            self._wake()

    def close(self, reason: str) -> None:
        """End the session from this side."""
        self.engine.close(reason)
        self._end()

    def take_in(self, packets: Sequence[str | bytes]) -> None:
        """Serve what the client sent. What breaks a rule closes the session."""
        now = trio.current_time()
        try:
            for packet in packets:
                message = self.engine.receive(packet, now)
                if message is not None:
                    self._peer.receive(message)
        except ProtocolError as error:
            log.info("client closed for a protocol error", rule=str(error))
            self.engine.close("parse error")
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this client alone
            _tell(error)
            self.engine.close("server error")
        if self.engine.close_reason is not None:
            self._end()
        elif self._writer_nap.deadline > (deadline := self.engine.next_deadline):
            self._writer_nap.deadline = deadline  # A pong brings the next ping forward.

    # Polling

    async def poll(self) -> list[str | bytes]:
        """Wait for something to send to a client that polls, and return it: at least one packet.

        Raises:
            ProtocolError: another request waits already; the session closes.
        """
        if self._polls is not None:
            self.close("transport error")
            raise ProtocolError("two requests wait at once")
        self._polls = trio.lowlevel.ParkingLot()
        answered = False
        try:
            while not (packets := self._packets_for_poll()):
                await self._polls.park()
            answered = True
        finally:
            self._polls = None
            if self._told is not None:
                self._told.set()
            if not answered:  # The client has given the request up, and with it the session.
                self.close("transport close")
        return packets

    @contextmanager
    def posting(self) -> Iterator[None]:
        """Hold the place of the one request that may bring packets.

        Raises:
            ProtocolError: another request holds it; the session closes, as with any such error.
        """
        if self._is_posting:
            self.close("transport error")
            raise ProtocolError("two requests bring packets at once")
        self._is_posting = True
        try:
            yield
        except ProtocolError:
            self.close("parse error")
            raise
        finally:
            self._is_posting = False

    def _packets_for_poll(self) -> list[str | bytes]:
        packets: list[str | bytes] = [] if self._websocket else self.engine.take()
        reason = self.engine.close_reason
        if reason == "transport close":
            packets.append(engine.NOOP)
        elif reason is not None:
            packets.append(engine.CLOSE)
        elif not packets and self.transport_changes:
            packets.append(engine.NOOP)
        return packets

    @property
    def transport_changes(self) -> bool:
        """Whether a request that waits has to end, because a WebSocket takes over."""
        return self.is_upgrading or self._websocket is not None

    # WebSocket

    async def upgrade(self, websocket: WebSocket) -> None:
        """Let a WebSocket take over (E, "Upgrade"); return when it has ended.

        One that does not complete the change, or comes second, is closed and the session goes on.
        """
        rest = None
        if not self.transport_changes:
            with trio.move_on_after(UPGRADE_TIMEOUT):
                rest = await self._probe(websocket)
            self.is_upgrading = False
        if rest is None or self.engine.close_reason is not None:
            await websocket.hang_up()
            return
        self._ended = trio.Event()
        self._websocket = websocket
        self._wake()
        self.take_in(rest)
        self.nursery.start_soon(self._read, websocket)
        await self._ended.wait()

    async def _probe(self, websocket: WebSocket) -> list[str | bytes] | None:
        """Return what came after the upgrade packet, None if that did not come."""
        while (packets := await websocket.receive()) is not None:
            for number, packet in enumerate(packets):
                if packet == engine.UPGRADE:
                    return packets[number + 1 :]
                if packet != engine.PING + "probe":
                    return None
                websocket.send([engine.PONG + "probe"])
                self.is_upgrading = True
                self._wake()
            await websocket.flush()
        return None

    async def _read(self, websocket: WebSocket) -> None:
        while self.engine.close_reason is None:
            packets = await websocket.receive()
            if packets is None:
                break
            self.take_in(packets)
            if unsent := websocket.unsent:
                self._writer_nap.cancel()
                # Pongs, that is, beside what was taken from the queue: a message perhaps.
                if unsent > self._config.max_buffered + self._config.max_payload:
                    self.engine.close("client does not read")
        self.close("transport close")

    async def _write(self) -> None:
        while True:
            self._tick()
            if self._websocket is not None:
                self._websocket.send(self.engine.take())
                if self._websocket.unsent:
                    await self._flush(self._websocket)
                    continue
            elif self._polls is not None:
                self._polls.unpark()
            self._writer_nap = trio.CancelScope(deadline=self._deadline)
            with self._writer_nap:
                await trio.sleep_forever()

    async def _flush(self, websocket: WebSocket) -> None:
        with trio.move_on_after(self._config.ping_timeout) as scope:
            try:
                await websocket.flush()
            except trio.BrokenResourceError:
                self.close("transport error")
        if scope.cancelled_caught:
            self.close("client does not read")

    # Time and the end

    @property
    def _deadline(self) -> float:
        return min(self.engine.next_deadline, self._peer.deadline)

    def _tick(self) -> None:
        now = trio.current_time()
        self.engine.tick(now)
        if now >= self._peer.deadline:
            self.engine.close("no namespace joined in time")
        if self.engine.close_reason is not None:
            self._end()

    def _wake(self) -> None:
        self._writer_nap.cancel()

    def _end(self) -> None:
        self.nursery.cancel_scope.cancel()
        if self._polls is not None:
            self._polls.unpark()

    def _leave(self, reason: str) -> None:
        try:
            self._peer.closed(reason)
        except Exception as error:  # noqa: BLE001 - as in run
            _tell(error)

    async def _say_goodbye(self) -> None:
        if self._websocket is not None:
            self._websocket.send(self.engine.take())
            await self._websocket.hang_up()
        elif self.engine.close_reason in _TOLD and self._polls is None:
            self._told = trio.Event()
            with trio.move_on_after(LAST_POLL_TIMEOUT):
                await self._told.wait()


def _tell(error: Exception) -> None:
    log.error("fault in a session", faults=list(places(error)))
