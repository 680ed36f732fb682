"""The whole server: its parts, the order they start and stop in, signals."""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
import structlog
import trio

from coach.coaching.playbook import Playbook, parse_playbook
from coach.coaching.selection import Timing
from coach.handlers import admission
from coach.llm import OpenAIEngine, PlaybookEngine, TipEngine, connect_openai
from coach.registry import Registry
from coach.socketio import Server
from coach.web.app import make_app
from coach.web.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from coach.settings import Settings

PRINCIPAL: Final = "default"
"""Who the one API key stands for."""

DRAIN_TIMEOUT: Final = 5.0
"""Seconds for clients to take leave of a server that is on its way down."""

CLOSE_TIMEOUT: Final = 1.0

log = structlog.get_logger(__name__)


class Running(msgspec.Struct, frozen=True):
    """A server that accepts connections at `url`."""

    url: str
    server: Server
    registry: Registry


def default_playbook() -> Playbook:
    """Return the playbook that comes with the package."""
    return parse_playbook((resources.files("coach") / "playbooks/default.toml").read_text("utf-8"))


def origin_allowed(settings: Settings) -> Callable[[str | None], bool]:
    """Return who may connect by its Origin: exact ones only, and programs, which send none.

    Developers' pages on this machine are welcome outside of production.
    """
    allowed = frozenset(settings.cors_origin)
    local = frozenset() if settings.is_production else frozenset({"localhost", "127.0.0.1"})

    def check(origin: str | None) -> bool:
        if origin is None or origin in allowed:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme == "http" and parts.hostname in local

    return check


async def serve(
    settings: Settings,
    keys: dict[str, str] | None = None,
    *,
    task_status: trio.TaskStatus[Running] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled.

    `keys` are the principals' API keys, by default the settings' one.

    Raises:
        OSError: the address cannot be listened on.
    """
    playbook = default_playbook()
    async with _tip_engine(settings, playbook) as engine:
        registry = Registry(
            playbook,
            engine,
            _timing(settings),
            window=settings.resume_window_ms / 1000,
            time_scale_allowed=not settings.is_production,
        )
        keys = keys or {PRINCIPAL: settings.backend_api_key.get_secret_value()}
        server = Server({"/": admission(keys, registry)}, origin_allowed=origin_allowed(settings))
        app = make_app(server, lambda: registry.active)
        listeners = await trio.open_tcp_listeners(settings.port, host=settings.host)
        # Each stops before what it stands on: connections, then HTTP, then the sweeper.
        async with (
            trio.open_nursery() as keeping,
            serving(app) as http,
            trio.open_nursery() as connections,
        ):
            keeping.start_soon(registry.sweep)
            await connections.start(server.serve, listeners, http)
            url = _url(listeners, settings.host)
            log.info("listening", url=url, tip_engine=settings.tip_engine)
            if settings.is_production and not settings.cors_origin:
                log.warning("no browser can connect: CORS_ORIGIN names no origin")
            task_status.started(Running(url, server, registry))


async def serve_until_signalled(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let the clients go and return."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            running: Running = await nursery.start(serve, settings)
            number = await anext(signals)
            log.info("draining", signal=signal.Signals(number).name)
            await running.server.drain(DRAIN_TIMEOUT)
            nursery.cancel_scope.cancel()
    log.info("stopped")


@asynccontextmanager
async def _tip_engine(settings: Settings, playbook: Playbook) -> AsyncIterator[TipEngine]:
    if settings.tip_engine == "playbook" or settings.openai_api_key is None:
        yield PlaybookEngine(playbook)
        return
    hedge = settings.tip_hedge_ms / 1000
    client = connect_openai(
        settings.openai_api_key.get_secret_value(), settings.openai_base_url, hedge
    )
    try:
        yield OpenAIEngine(client, playbook, model=settings.openai_model, hedge=hedge)
    finally:
        with trio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await client.close()


def _timing(settings: Settings) -> Timing:
    return Timing(
        warmup=settings.ai_warmup_duration_ms / 1000,
        interval=settings.ai_analysis_interval_ms / 1000,
        silence=settings.ai_silence_ms / 1000,
        reaction_limit=settings.ai_reaction_limit_ms / 1000,
        selection_timeout=settings.ai_selection_timeout_ms / 1000,
    )


def _url(listeners: Sequence[trio.SocketListener], host: str) -> str:
    port: int = listeners[0].socket.getsockname()[1]
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 - a comparison
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
