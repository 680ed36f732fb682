"""Hypercorn, connection by connection: the one place that touches its insides.

Its `TCPServer`, `WorkerContext` and `Lifespan` are not public API, so the version is pinned to a
minor. Serving a connection at a time lets the front door read each request's head first.
"""

from __future__ import annotations

import logging
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from quart_trio import QuartTrio

    from coach.socketio import Request, SocketStream

SEND_TIMEOUT: Final = 10.0
"""Seconds in which a client has to take what is written to it."""

LIFESPAN_TIMEOUT: Final = 2.0
"""Seconds for the application to start or to stop."""

_UPGRADE: Final = re.compile(rb"(?im)^upgrade[ \t]*:[^\r\n]*\r?\n")


@asynccontextmanager
async def serving(
    app: QuartTrio,
) -> AsyncIterator[Callable[[SocketStream, Request], Awaitable[None]]]:
    """Start an application; yield what serves it one connection, whose first head was read."""
    config = Config()
    # Each request passes the front door: on a connection that a proxy keeps open for several,
    # an upgrade to WebSocket would go past it.
    config.keep_alive_max_requests = 1
    config.include_server_header = False
    config.errorlog = logging.getLogger("hypercorn.error")
    config.startup_timeout = config.shutdown_timeout = LIFESPAN_TIMEOUT
    wrapped = ASGIWrapper(app)
    lifespan = Lifespan(wrapped, config, {})

    async def serve(stream: SocketStream, request: Request) -> None:
        replayed = _Replayed(stream, _UPGRADE.sub(b"", request.head) + request.rest)
        await TCPServer(wrapped, config, WorkerContext(None), {}, replayed)  # type: ignore[arg-type] # it asks for an SSL stream and takes both

    # The application is told of the end before it is cancelled, so it outlives who cancels us.
    living = trio.CancelScope(shield=True)

    async def live(*, task_status: trio.TaskStatus[None]) -> None:
        with living:
            await lifespan.handle_lifespan(task_status=task_status)

    async with trio.open_nursery() as nursery:
        await nursery.start(live)
        try:
            await lifespan.wait_for_startup()
            yield serve
        finally:
            with trio.CancelScope(shield=True):  # Bounded by the configured time-out.
                await lifespan.wait_for_shutdown()
            living.cancel()


class _Replayed:
    """A stream that first gives what was read ahead, and does not wait for ever to write.

    Hypercorn's own sends are shielded without a bound: a client that stops reading would hold up
    the shutdown of the server.
    """

    def __init__(self, stream: SocketStream, ahead: bytes) -> None:
        self.socket = stream.socket
        self._stream = stream
        self._ahead = ahead

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        if not self._ahead:
            return await self._stream.receive_some(max_bytes)
        await trio.lowlevel.checkpoint()
        ahead, self._ahead = self._ahead[:max_bytes], self._ahead[max_bytes:]
        return ahead

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(SEND_TIMEOUT) as scope:
            await self._stream.send_all(data)
        if scope.cancelled_caught:
            await trio.aclose_forcefully(self._stream)
            raise trio.BrokenResourceError("the client does not read")

    async def send_eof(self) -> None:
        # Hypercorn closes in a task that Quart-Trio has cancelled: a checkpoint here would end it
        # before the connection is closed. Nothing is waited for, so the shield needs no deadline.
        with trio.CancelScope(shield=True):
            await self._stream.send_eof()

    async def aclose(self) -> None:
        await self._stream.aclose()
