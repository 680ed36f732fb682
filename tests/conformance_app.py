"""The application that Engine.IO and Socket.IO servers are judged by, on this project's server.

As a program: `python -m tests.conformance_app --port P`. An Engine.IO echo at `/engine.io/`; at
`/socket.io/` the namespaces `/` and `/custom`, which emit `auth` with the handshake's auth, echo
`message` as `message-back` and ack `message-with-ack`.
"""

from __future__ import annotations

import argparse
import signal
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import trio
from quart_trio import QuartTrio

from coach.socketio import EngineServer, Server
from coach.web.polling import mount
from coach.web.serving import serving
from coach.wire.engine import Config

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from coach.socketio import Ack, Session, Socket

CONFIG = Config(ping_interval=0.3, ping_timeout=0.2, max_payload=1_000_000, connect_timeout=1.0)


class EngineEcho:
    """Sends every message back."""

    deadline = inf

    def __init__(self, session: Session) -> None:
        self._session = session

    def receive(self, message: str | bytes) -> None:
        self._session.send([message])

    def closed(self, reason: str) -> None:
        """There is nothing to end."""


class SocketEcho:
    def __init__(self, socket: Socket, auth: dict[str, Any] | None) -> None:
        self._socket = socket
        socket.nursery.start_soon(self._greet, auth or {})

    async def _greet(self, auth: dict[str, Any]) -> None:
        self._socket.emit("auth", auth)

    def event(self, name: str | float, args: list[Any], ack: Ack | None) -> None:
        if name == "message":
            self._socket.emit("message-back", *args)
        elif name == "message-with-ack" and ack is not None:
            ack(*args)

    def disconnected(self, reason: str) -> None:
        """There is nothing to end."""


@asynccontextmanager
async def serve_conformance_app(port: int = 0) -> AsyncIterator[str]:
    """Serve on loopback; yield the server's URL."""
    engine = EngineServer(EngineEcho, config=CONFIG)
    socketio = Server({"/": SocketEcho, "/custom": SocketEcho}, config=CONFIG)
    app = QuartTrio(__name__)
    for server in (engine, socketio):
        mount(app, server)
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    async with serving(app) as http, trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(socketio.serve, listeners, partial(engine.handle, http=http))
        yield f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def main(port: int) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with serve_conformance_app(port) as url:
            print(f"listening on {url}", flush=True)  # noqa: T201 - a program's output
            await anext(signals)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    trio.run(main, parser.parse_args().port)
