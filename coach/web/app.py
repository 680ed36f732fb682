"""The HTTP application: health, and Socket.IO's polling transport."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from coach.web.polling import mount

if TYPE_CHECKING:
    from collections.abc import Callable

    from coach.socketio import EngineServer


def make_app(server: EngineServer, active_conversations: Callable[[], int]) -> QuartTrio:
    """Return the application of a server.

    `GET /health` answers 200 ``{"status": "healthy", "timestamp", "activeConversations"}``, and
    503 with the status "draining" once the server is on its way down.
    """
    app = QuartTrio(__name__)
    mount(app, server)

    @app.get("/health")
    async def health() -> tuple[dict[str, str | int], int]:
        body: dict[str, str | int] = {
            "status": "draining" if server.draining else "healthy",
            "timestamp": round(time.time() * 1000),
            "activeConversations": active_conversations(),
        }
        return body, 503 if server.draining else 200

    @app.errorhandler(HTTPException)
    async def explain(error: HTTPException) -> tuple[dict[str, str], int]:
        return {"error": error.name}, error.code or 500

    return app
