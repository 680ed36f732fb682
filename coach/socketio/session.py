"""One session on Trio: a nursery with a reader, a writer, and whatever serves this client."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from coach.socketio.faults import places
from coach.socketio.socket import Refused, Socket
from coach.wire import engine
from coach.wire.connection import (
    AckReceived,
    Connection,
    ConnectRequested,
    Event,
    EventReceived,
    Left,
)
from coach.wire.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coach.socketio.socket import Connect, Handler
    from coach.socketio.websocket import WebSocket

CLOSE_TIMEOUT: Final = 1.0
"""Seconds for the closing handshake (RFC 6455, 7.1.1) once a session is over."""

log = structlog.get_logger(__name__)


def new_sid() -> str:
    """Return an id nobody can guess, in the reference server's length and alphabet."""
    return secrets.token_urlsafe(15)


class Session:
    """Everything that lives as long as one client's Engine.IO session.

    The reader runs what the client sends; the writer sends what is queued and keeps the
    heartbeat, which is a deadline of the protocol machine. Neither waits for the other.
    """

    __slots__ = (
        "_config",
        "_handlers",
        "_namespaces",
        "_transport",
        "_writer_nap",
        "connection",
        "engine",
        "nursery",
    )

    nursery: trio.Nursery

    def __init__(
        self, transport: WebSocket, namespaces: Mapping[str, Connect], config: engine.Config
    ) -> None:
        now = trio.current_time()
        self.engine = engine.Session(new_sid(), config, now)
        self.connection = Connection(config.connect_timeout, now)
        self._transport = transport
        self._config = config
        self._namespaces = namespaces
        self._handlers: dict[str, Handler] = {}
        self._writer_nap = trio.CancelScope()

    async def run(self) -> None:
        """Serve the client until one side closes; then end all its tasks and say goodbye."""
        structlog.contextvars.bind_contextvars(sid=self.engine.sid)
        try:
            async with trio.open_nursery() as self.nursery:
                self._transport.send([self.engine.open_packet([])])
                self.nursery.start_soon(self._write)
                await self._read()
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this client alone
            _tell(error)
            self.engine.close("server error")
        finally:
            self._leave_all(self.engine.close_reason or "server shutting down")
        await self._say_goodbye()

    def send(self, messages: list[str | bytes]) -> None:
        """Queue messages for the client."""
        for message in messages:
            self.engine.send(message)
        if self.engine.close_reason is not None:
            self._end()
        elif messages:
            self._writer_nap.cancel()

    def close(self, reason: str) -> None:
        """End the session from this side."""
        self.engine.close(reason)
        self._end()

    def leave(self, namespace: str, reason: str) -> None:
        """Put the client out of one namespace; the connection stays."""
        self.send(self.connection.disconnect(namespace))
        if handler := self._handlers.pop(namespace, None):
            handler.disconnected(reason)

    def _end(self) -> None:
        self.nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        while self.engine.close_reason is None:
            packets = await self._transport.receive()
            if packets is None:
                break
            now = trio.current_time()
            try:
                for packet in packets:
                    message = self.engine.receive(packet, now)
                    if message is not None and (event := self.connection.receive(message)):
                        self._handle(event)
            except ProtocolError as error:
                log.info("client closed for a protocol error", rule=str(error))
                self.engine.close("parse error")
            if unsent := self._transport.unsent:
                self._writer_nap.cancel()
                if unsent > self._config.max_buffered:
                    self.engine.close("client does not read")
            if self._writer_nap.deadline != (deadline := self._deadline):
                self._writer_nap.deadline = deadline
        self.close("transport close")

    def _handle(self, event: Event) -> None:
        match event:
            case EventReceived(namespace, name, args, ack_id):
                ack = None if ack_id is None else partial(self._ack, namespace, [ack_id])
                self._handlers[namespace].event(name, args, ack)
            case ConnectRequested(namespace, auth):
                self._connect(namespace, auth)
            case Left(namespace):
                self._handlers.pop(namespace).disconnected("client namespace disconnect")
            case AckReceived():
                pass  # No event is sent with an ack yet, and unknown acks are ignored (S, "ACK").

    def _connect(self, namespace: str, auth: dict[str, Any] | None) -> None:
        connect = self._namespaces.get(namespace)
        if connect is None:
            self.send(self.connection.refuse(namespace, "Invalid namespace"))
            return
        socket = Socket(self, namespace, new_sid())
        try:
            handler = connect(socket, auth)
        except Refused as refusal:
            self.send(self.connection.refuse(namespace, str(refusal)))
            return
        self._handlers[namespace] = handler
        self.send(self.connection.accept(namespace, socket.id))

    def _ack(self, namespace: str, unanswered: list[int], *args: Any) -> None:
        if unanswered:
            self.send(self.connection.ack(namespace, unanswered.pop(), *args))

    async def _write(self) -> None:
        while True:
            self._tick()
            self._transport.send(self.engine.take())
            if self._transport.unsent:
                await self._flush()
                continue
            self._writer_nap = trio.CancelScope(deadline=self._deadline)
            with self._writer_nap:
                await trio.sleep_forever()

    async def _flush(self) -> None:
        with trio.move_on_after(self._config.ping_timeout) as scope:
            try:
                await self._transport.flush()
            except trio.BrokenResourceError:
                self.close("transport error")
        if scope.cancelled_caught:
            self.close("client does not read")

    @property
    def _deadline(self) -> float:
        return min(self.engine.next_deadline, self.connection.deadline)

    def _tick(self) -> None:
        now = trio.current_time()
        self.engine.tick(now)
        if now >= self.connection.deadline:
            self.engine.close("no namespace joined in time")
        if self.engine.close_reason is not None:
            self._end()

    def _leave_all(self, reason: str) -> None:
        while self._handlers:
            try:
                self._handlers.popitem()[1].disconnected(reason)
            except Exception as error:  # noqa: BLE001 - nor does it cost another handler its turn
                _tell(error)

    async def _say_goodbye(self) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT):
            self._transport.send(self.engine.take())
            self._transport.close()
            await self._transport.flush()
            while await self._transport.receive() is not None:
                await self._transport.flush()


def _tell(error: Exception) -> None:
    log.error("fault in a session", faults=list(places(error)))
