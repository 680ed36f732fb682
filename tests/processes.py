"""Programs of this project as processes of their own."""

from __future__ import annotations

import os
import re
import signal
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import PIPE, CompletedProcess
from typing import TYPE_CHECKING

import trio

from tests.harness import KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parent.parent
_URL = re.compile(rb"url\W+(http://[\d.:]+)")

# What this machine has set must not leak into what is tested.
_OURS = re.compile(r"AI_|OPENAI_|TIP_|BACKEND_|(CORS_ORIGIN|HOST|LOG_LEVEL|NODE_ENV|PORT)$")
CLEAN = {name: value for name, value in os.environ.items() if not _OURS.match(name)}


async def run(
    *args: str, env: dict[str, str] | None = None, within: float = 30.0, cwd: Path = ROOT
) -> CompletedProcess[bytes]:
    """Run `coach` with these arguments to its end."""
    with trio.fail_after(within):
        return await trio.run_process(
            [sys.executable, "-m", "coach", *args],
            env=CLEAN | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"} | (env or {}),
            cwd=cwd,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


class ServerProcess:
    """A running `coach serve`. `log` is what it wrote so far."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.url = ""
        self.log = b""
        self._listening = trio.Event()

    async def read_log(self) -> None:
        assert self.process.stderr is not None
        async for chunk in self.process.stderr:
            self.log += chunk
            if not self.url and (found := _URL.search(self.log)):
                self.url = found[1].decode()
                self._listening.set()
        self._listening.set()

    async def listening(self) -> None:
        with trio.fail_after(15):
            await self._listening.wait()
        assert self.url, self.log.decode()

    async def stop(self, within: float) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        with trio.fail_after(within):
            return await self.process.wait()


@asynccontextmanager
async def serving_process(cwd: Path, **env: str) -> AsyncIterator[ServerProcess]:
    """A server in a process of its own, on a free port, killed with the block if it still runs."""
    defaults = {"BACKEND_API_KEY": KEY, "TIP_ENGINE": "playbook", "HOST": "127.0.0.1", "PORT": "0"}
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            partial(
                trio.run_process,
                [sys.executable, "-m", "coach", "serve"],
                env=CLEAN | {"PYTHONPATH": str(ROOT)} | defaults | env,
                cwd=cwd,
                stderr=PIPE,
                check=False,
            )
        )
        server = ServerProcess(process)
        nursery.start_soon(server.read_log)
        await server.listening()
        yield server
        nursery.cancel_scope.cancel()
