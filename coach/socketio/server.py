"""The server: which connections become sessions, and how all of them end."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio

from coach.socketio import frontdoor
from coach.socketio.faults import places
from coach.socketio.peer import SocketIO
from coach.socketio.session import Session
from coach.socketio.stream import SocketStream
from coach.socketio.websocket import WebSocket, answer_handshake
from coach.wire.engine import Config
from coach.wire.handshake import HandshakeError, check_handshake, check_request

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from coach.socketio.frontdoor import Request
    from coach.socketio.session import Peer
    from coach.socketio.socket import Connect

    Http = Callable[[SocketStream, Request], Awaitable[None]]
    """Serves one HTTP connection whose first request's head was already read."""

OPENING_TIMEOUT: Final = frontdoor.HEAD_TIMEOUT + 5.0
"""Seconds until a connection has to be a session or somebody else's."""

log = structlog.get_logger(__name__)


class EngineServer:
    """An Engine.IO server at `path`.

    Args:
        open_peer: makes what runs over each session.
        config: what clients are held to.
        origin_allowed: decides on a request's Origin header, None where there is none. Refused
            requests get 403 before any handshake.
    """

    def __init__(
        self,
        open_peer: Callable[[Session], Peer],
        *,
        path: str = "/engine.io/",
        config: Config | None = None,
        origin_allowed: Callable[[str | None], bool] = lambda _origin: True,
    ) -> None:
        self.path = path
        self.config = config or Config()
        self.origin_allowed = origin_allowed
        self.sessions: dict[str, Session] = {}
        self.draining = False
        self._open_peer = open_peer
        self._gone = trio.Event()

    async def serve(
        self,
        listeners: Sequence[trio.SocketListener],
        http: Http,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept connections until cancelled; `http` gets all that are no session's."""

        def admit(stream: trio.SocketStream) -> Awaitable[None]:
            return self._admit(SocketStream(stream), http)

        async with trio.open_nursery() as nursery:
            await nursery.start(self.run)
            task_status.started()
            await trio.serve_listeners(admit, list(listeners), handler_nursery=nursery)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Own the sessions that HTTP requests serve, until cancelled; a part of `serve`."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def handle(self, stream: SocketStream, request: Request, http: Http) -> None:
        """Serve a connection whose first request somebody else has read."""
        serve = await self._choose(stream, request, http)
        if serve is not None:
            await serve()

    async def open_polling(self) -> Session:
        """Begin a session that HTTP requests serve; it lives on between them."""
        session = self._begin(None)
        await self._nursery.start(session.run)
        return session

    async def drain(self, seconds: float) -> None:
        """Refuse new sessions, close the open ones, wait at most so long until they are gone."""
        self.draining = True
        for session in list(self.sessions.values()):
            session.close("server shutting down")
        with trio.move_on_after(seconds):
            while self.sessions:
                self._gone = trio.Event()
                await self._gone.wait()

    async def _admit(self, stream: SocketStream, http: Http) -> None:
        serve: Callable[[], Awaitable[None]] | None = None
        try:
            with trio.move_on_after(OPENING_TIMEOUT):
                serve = await self._open(stream, http)
            if serve is not None:
                await serve()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client is gone, and whoever served it has cleaned up.
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this client alone
            log.error("fault in a connection", faults=list(places(error)))
        finally:
            await trio.aclose_forcefully(stream)

    async def _open(self, stream: SocketStream, http: Http) -> Callable[[], Awaitable[None]] | None:
        """Read the first request; return what serves its client, None if it was answered here."""
        try:
            request = await frontdoor.read_request(stream)
        except frontdoor.BadRequest as error:
            await frontdoor.respond(stream, error.status, error.body)
            return None
        return None if request is None else await self._choose(stream, request, http)

    async def _choose(
        self, stream: SocketStream, request: Request, http: Http
    ) -> Callable[[], Awaitable[None]] | None:
        if not (request.is_websocket and request.path == self.path):
            return partial(http, stream, request)
        try:
            session = self._check_websocket(request)
            answer, is_open = answer_handshake(request.head)
        except (frontdoor.BadRequest, HandshakeError) as error:
            log.info("request refused", rule=str(error))
            await frontdoor.respond(stream, error.status, error.body)
            return None
        await stream.send_all(answer)
        if not is_open:
            return None
        websocket = WebSocket(stream, self.config.max_payload, request.rest)
        if session is None:
            return self._begin(websocket).run
        return partial(session.upgrade, websocket)

    def _check_websocket(self, request: Request) -> Session | None:
        """Return the session that a WebSocket wants to take over, None if it opens its own.

        Raises:
            HandshakeError: it may do neither.
            BadRequest: the server is on its way down.
        """
        session = self.sessions.get(request.query.get("sid", ""))
        if "sid" in request.query:
            transport = None if session is None else session.transport
            check_request(request.query, transport, is_upgrade=True)
            return session
        if self.draining:
            raise frontdoor.BadRequest(503)
        allowed = self.origin_allowed(request.headers.get("origin"))
        check_handshake(request.query, transport="websocket", origin_allowed=allowed)
        return None

    def _begin(self, websocket: WebSocket | None) -> Session:
        session = Session(self._open_peer, self.config, websocket, self._forget)
        self.sessions[session.engine.sid] = session
        if self.draining:  # since the handshake was answered
            session.engine.close("server shutting down")
        return session

    def _forget(self, session: Session) -> None:
        del self.sessions[session.engine.sid]
        self._gone.set()


class Server(EngineServer):
    """A Socket.IO server at `path`.

    Args:
        namespaces: who lets clients into each namespace. Others are refused, "Invalid namespace".
        path, config, origin_allowed: as for an `EngineServer`.
    """

    def __init__(
        self,
        namespaces: Mapping[str, Connect],
        *,
        path: str = "/socket.io/",
        config: Config | None = None,
        origin_allowed: Callable[[str | None], bool] = lambda _origin: True,
    ) -> None:
        def open_peer(session: Session) -> SocketIO:
            now = trio.current_time()
            return SocketIO(session, namespaces, self.config.connect_timeout, now)

        super().__init__(open_peer, path=path, config=config, origin_allowed=origin_allowed)
