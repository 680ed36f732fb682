"""The server: which connections become sessions, and how all of them end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from coach.socketio import frontdoor
from coach.socketio.faults import places
from coach.socketio.session import Session
from coach.socketio.stream import SocketStream
from coach.socketio.websocket import WebSocket, answer_handshake
from coach.wire.engine import Config
from coach.wire.handshake import HandshakeError, check_handshake

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from coach.socketio.frontdoor import Request
    from coach.socketio.socket import Connect

    Http = Callable[[SocketStream, Request], Awaitable[None]]
    """Serves one HTTP connection whose first request's head was already read."""

OPENING_TIMEOUT: Final = frontdoor.HEAD_TIMEOUT + 5.0
"""Seconds until a connection has to be a session or somebody else's."""

log = structlog.get_logger(__name__)


class Server:
    """A Socket.IO server at `path`.

    Args:
        namespaces: who lets clients into each namespace. Others are refused, "Invalid namespace".
        config: what clients are held to.
        origin_allowed: decides on a request's Origin header, None where there is none. Refused
            requests get 403 before any handshake.
    """

    def __init__(
        self,
        namespaces: Mapping[str, Connect],
        *,
        config: Config | None = None,
        path: str = "/socket.io/",
        origin_allowed: Callable[[str | None], bool] = lambda _origin: True,
    ) -> None:
        self.sessions: dict[str, Session] = {}
        self.draining = False
        self._namespaces = namespaces
        self._config = config or Config()
        self._path = path
        self._origin_allowed = origin_allowed
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

        task_status.started()
        await trio.serve_listeners(admit, list(listeners))

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
        opened: Session | Request | None = None
        try:
            with trio.move_on_after(OPENING_TIMEOUT):
                opened = await self._open(stream)
            if isinstance(opened, Session):
                await opened.run()
            elif opened is not None:
                await http(stream, opened)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # The client is gone, and whoever served it has cleaned up.
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this client alone
            log.error("fault in a connection", faults=list(places(error)))
        finally:
            if isinstance(opened, Session):
                del self.sessions[opened.engine.sid]
                self._gone.set()
            await trio.aclose_forcefully(stream)

    async def _open(self, stream: SocketStream) -> Session | Request | None:
        """Read the first request; return who serves it, or None if it was answered here."""
        try:
            request = await frontdoor.read_request(stream)
            if request is None or not (request.is_websocket and request.path == self._path):
                return request
            if self.draining:
                await frontdoor.respond(stream, 503)
                return None
            allowed = self._origin_allowed(request.headers.get("origin"))
            check_handshake(request.query, transport="websocket", origin_allowed=allowed)
            answer, is_open = answer_handshake(request.head)
        except frontdoor.BadRequest as error:
            await frontdoor.respond(stream, error.status)
            return None
        except HandshakeError as error:
            log.info("handshake refused", rule=str(error))
            await frontdoor.respond(stream, error.status, error.body)
            return None
        await stream.send_all(answer)
        return self._begin(stream, request.rest) if is_open else None

    def _begin(self, stream: SocketStream, received: bytes) -> Session:
        transport = WebSocket(stream, self._config.max_payload, received)
        session = Session(transport, self._namespaces, self._config)
        self.sessions[session.engine.sid] = session
        if self.draining:  # since the handshake was answered
            session.engine.close("server shutting down")
        return session
