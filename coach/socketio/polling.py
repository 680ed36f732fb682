"""The HTTP long-polling transport: which answer each request gets (E, "HTTP long-polling")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from coach.wire.errors import ProtocolError
from coach.wire.handshake import HandshakeError, check_handshake, check_request
from coach.wire.payload import decode_payload, encode_payload

if TYPE_CHECKING:
    from coach.socketio.server import EngineServer
    from coach.socketio.session import Session

log = structlog.get_logger(__name__)


class PollingRequest(msgspec.Struct, frozen=True):
    """An HTTP request for a server's path.

    `body` reads its body, bounded by whoever serves HTTP; `headers` have lower-case names.
    """

    method: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Callable[[], Awaitable[bytes]]


class PollingResponse(msgspec.Struct, frozen=True):
    """The answer to it."""

    status: int
    body: bytes
    content_type: str


_BAD_REQUEST: Final = PollingResponse(400, b"", "text/plain")
_OK: Final = PollingResponse(200, b"ok", "text/html")
_DRAINING: Final = PollingResponse(503, b"", "text/plain")


async def serve_polling(server: EngineServer, request: PollingRequest) -> PollingResponse:
    """Answer a request; a GET with a session is answered when there is something to tell."""
    try:
        session = _find(server, request)
        if session is None:
            return await _open(server, request)
        if request.method == "GET":
            return _payload(await session.poll())
        if request.method == "POST":
            return await _receive(session, request)
    except HandshakeError as error:
        log.info("request refused", rule=str(error))
        return PollingResponse(error.status, error.body, "application/json")
    except ProtocolError as error:
        log.info("client closed for a protocol error", rule=str(error))
    return _BAD_REQUEST


def _find(server: EngineServer, request: PollingRequest) -> Session | None:
    """Return the session that a request names, None if it names none."""
    sid = request.query.get("sid")
    if sid is None:
        return None
    session = server.sessions.get(sid)
    transport = None if session is None else session.transport
    check_request(request.query, transport, is_upgrade=False)
    return session


async def _open(server: EngineServer, request: PollingRequest) -> PollingResponse:
    check_handshake(
        request.query,
        method=request.method,
        transport="polling",
        origin_allowed=server.origin_allowed(request.headers.get("origin")),
    )
    if server.draining:
        return _DRAINING
    session = await server.open_polling()
    return _payload([session.engine.open_packet(["websocket"])])


async def _receive(session: Session, request: PollingRequest) -> PollingResponse:
    with session.posting(), structlog.contextvars.bound_contextvars(sid=session.engine.sid):
        if request.headers.get("content-type") == "application/octet-stream":
            raise ProtocolError("payload of the wrong content type")
        session.take_in(decode_payload(await request.body()))
    return _BAD_REQUEST if session.engine.close_reason == "parse error" else _OK


def _payload(packets: list[str | bytes]) -> PollingResponse:
    return PollingResponse(200, encode_payload(packets), "text/plain; charset=UTF-8")
