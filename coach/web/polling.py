"""Socket.IO's HTTP long-polling as a part of a Quart-Trio application, with CORS."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio
from quart import Response, request
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from coach.socketio import EngineServer, PollingRequest, serve_polling

if TYPE_CHECKING:
    from quart_trio import QuartTrio

BODY_TIMEOUT: Final = 10
"""Seconds that a client has for sending a request's body."""

_METHODS: Final = ["GET", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"]
"""All that HTTP clients send: the server itself answers for those that it does not serve."""


def mount(app: QuartTrio, server: EngineServer, *, credentials: bool = False) -> None:
    """Serve `server`'s polling transport, and let its allowed origins' pages read the answers.

    With `credentials` they may send cookies along, which a load balancer's stickiness needs.
    """
    prefix = server.path

    @app.route(prefix, endpoint=prefix, methods=_METHODS, provide_automatic_options=False)
    async def polling() -> Response:
        if request.method == "OPTIONS":
            return Response(status=204)
        answer = await serve_polling(
            server,
            PollingRequest(
                method=request.method,
                query=request.args,
                headers={name.lower(): value for name, value in request.headers.items()},
                body=partial(_read_body, server.config.max_payload),
            ),
        )
        headers = {"Content-Type": answer.content_type, "Cache-Control": "no-store"}
        return Response(answer.body, answer.status, headers)

    @app.after_request
    async def allow_origin(response: Response) -> Response:
        origin = request.headers.get("Origin")
        if request.path == prefix and origin is not None:
            response.headers["Vary"] = "Origin"
            if server.origin_allowed(origin):
                _allow(response, origin, credentials=credentials)
        return response


def _allow(response: Response, origin: str, *, credentials: bool) -> None:
    response.headers["Access-Control-Allow-Origin"] = origin
    if credentials:
        response.headers["Access-Control-Allow-Credentials"] = "true"
    if request.method == "OPTIONS":
        asked = request.headers.get("Access-Control-Request-Headers", "content-type")
        response.headers["Access-Control-Allow-Methods"] = "GET,POST"
        response.headers["Access-Control-Allow-Headers"] = asked


async def _read_body(limit: int) -> bytes:
    """Read the request's body, of at most `limit` bytes whatever its head promised.

    Raises:
        RequestEntityTooLarge: it is longer.
        RequestTimeout: it does not come within `BODY_TIMEOUT`.
    """
    body = bytearray()
    with trio.move_on_after(BODY_TIMEOUT):
        async for part in request.body:
            body += part
            if len(body) > limit:
                raise RequestEntityTooLarge
        return bytes(body)
    raise RequestTimeout
