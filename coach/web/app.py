"""The HTTP application: health, and for now the refusal of Socket.IO's polling transport."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BODY_BYTES: Final = 64 * 1024
BODY_TIMEOUT: Final = 10
"""Seconds that a client has for sending a request's body."""

_JSON: Final = {"Content-Type": "application/json"}


def make_app(active_conversations: Callable[[], int], is_draining: Callable[[], bool]) -> QuartTrio:
    """Return the application.

    `GET /health` answers 200 ``{"status": "healthy", "timestamp", "activeConversations"}``, and
    503 with the status "draining" once the server is on its way down.
    """
    app = QuartTrio(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.config["BODY_TIMEOUT"] = BODY_TIMEOUT

    @app.get("/health")
    async def health() -> tuple[dict[str, str | int], int]:
        draining = is_draining()
        body: dict[str, str | int] = {
            "status": "draining" if draining else "healthy",
            "timestamp": round(time.time() * 1000),
            "activeConversations": active_conversations(),
        }
        return body, 503 if draining else 200

    @app.route("/socket.io/", methods=["GET", "POST", "OPTIONS"])
    async def polling() -> tuple[str, int, dict[str, str]]:
        # The reference server's answer to a transport that it does not serve: the client then
        # goes on to the next transport of its list.
        return '{"code":0,"message":"Transport unknown"}', 400, _JSON

    @app.errorhandler(HTTPException)
    async def explain(error: HTTPException) -> tuple[dict[str, str], int]:
        return {"error": error.name}, error.code or 500

    return app
