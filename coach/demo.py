"""The demonstration: a server and a recorded call in one process, without keys or network."""

from __future__ import annotations

import secrets
from importlib import resources
from typing import TYPE_CHECKING, Final

import trio

from coach.recording import Recording, read_recording
from coach.replay import Report, replay
from coach.server import Running, serve
from coach.settings import Settings, load_settings

if TYPE_CHECKING:
    from coach.replay import Observer

DEFAULT_RECORDING: Final = "plumber-has-website"


def recordings() -> list[str]:
    """Return the names of the recordings that come with the package."""
    return sorted(
        entry.name.removesuffix(".jsonl")
        for entry in (resources.files("coach") / "recordings").iterdir()
        if entry.name.endswith(".jsonl")
    )


def bundled_recording(name: str) -> Recording:
    """Return one of `recordings`."""
    path = resources.files("coach") / "recordings" / f"{name}.jsonl"
    return read_recording(path.read_text("utf-8"), "jsonl")


def demo_settings() -> Settings:
    """Return settings that need nothing: the local matcher, any free port, a key of the moment."""
    return load_settings(
        env_file=None,
        backend_api_key=secrets.token_urlsafe(16),
        host="127.0.0.1",
        port=0,
        tip_engine="playbook",
        node_env="development",
    )


async def play_demo(name: str, speed: float, observer: Observer) -> Report:
    """Serve, play a recording against the server, and stop."""
    recording = bundled_recording(name)
    settings = demo_settings()
    async with trio.open_nursery() as nursery:
        running: Running = await nursery.start(serve, settings)
        key = settings.backend_api_key.get_secret_value()
        report = await replay(recording, running.url, key, speed=speed, observer=observer)
        nursery.cancel_scope.cancel()
    return report
