"""The real clients from npm (tests/js): as the extension uses them, and over every transport."""

from __future__ import annotations

import os
import shutil
import socket
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from subprocess import DEVNULL, CompletedProcess
from typing import TYPE_CHECKING

import pytest
import trio

from tests.conformance_app import serve_conformance_app
from tests.fake_openai import serve_fake_openai
from tests.harness import KEY, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

JS = Path(__file__).parent / "js"
WARMUP_MS, INTERVAL_MS, SILENCE_MS = 1500, 1000, 200


needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (JS / "node_modules").is_dir(),
    reason="needs Node.js and `npm ci` in tests/js, which scripts/test runs",
)


async def node_test(file: str, **env: str) -> CompletedProcess[bytes]:
    with trio.fail_after(120):
        return await trio.run_process(
            ["node", "--test", file],
            cwd=JS,
            env={"PATH": os.environ["PATH"]} | env,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )


@needs_node
@pytest.mark.parametrize("engine", ["playbook", "openai"])
async def test_the_stock_client_is_coached_through_its_whole_contract(engine: str) -> None:
    timers = {
        "ai_warmup_duration_ms": WARMUP_MS,
        "ai_analysis_interval_ms": INTERVAL_MS,
        "ai_silence_ms": SILENCE_MS,
    }
    async with (
        serve_fake_openai() as fake,
        serving(
            **timers, tip_engine=engine, openai_api_key="k", openai_base_url=fake.url
        ) as server,
    ):
        done = await node_test(
            "client.test.mjs",
            COACH_URL=server.url,
            COACH_API_KEY=KEY,
            COACH_WARMUP_MS=str(WARMUP_MS),
            COACH_INTERVAL_MS=str(INTERVAL_MS),
            COACH_SILENCE_MS=str(SILENCE_MS),
        )
        assert done.returncode == 0, done.stdout.decode()
        assert (fake.stats.requests > 0) == (engine == "openai")


def find_nginx() -> str | None:
    return shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")


NGINX = """
{user} daemon off; error_log stderr; pid {folder}/nginx.pid; worker_processes 1;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    map $http_upgrade $connection_upgrade {{ default "upgrade"; }}
    upstream coach {{ server {upstream}; keepalive 256; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://coach;
            proxy_http_version 1.1;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
"""
"""As AWS Elastic Beanstalk configures it: connections to the server are kept for other requests."""


@asynccontextmanager
async def behind_nginx(url: str, folder: Path) -> AsyncIterator[str]:
    """A real nginx in front of a server; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    configuration = folder / "nginx.conf"
    upstream = url.removeprefix("http://")
    # Its workers keep large bodies in files of this folder, which is its owner's alone.
    user = "user root;" if os.geteuid() == 0 else ""
    configuration.write_text(NGINX.format(user=user, folder=folder, upstream=upstream, port=port))
    command = [find_nginx() or "nginx", "-p", str(folder), "-c", str(configuration)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.run_process, command, stderr=DEVNULL, check=False))
        with trio.fail_after(10):
            await listening(port)
        yield f"http://127.0.0.1:{port}"
        nursery.cancel_scope.cancel()


async def listening(port: int) -> None:
    """Poll, because nginx does not tell when it listens."""
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.sleep(0.05)
        else:
            await stream.aclose()
            return


async def run_transports(url: str) -> None:
    done = await node_test("transports.test.mjs", CONFORMANCE_URL=url)
    assert done.returncode == 0, done.stdout.decode()


@needs_node
async def test_the_reference_clients_use_every_transport() -> None:
    async with serve_conformance_app() as url:
        await run_transports(url)


@needs_node
@pytest.mark.skipif(find_nginx() is None, reason="needs nginx")
async def test_the_reference_clients_use_every_transport_behind_nginx(tmp_path: Path) -> None:
    async with serve_conformance_app() as url, behind_nginx(url, tmp_path) as proxy:
        await run_transports(proxy)
