"""`coach serve` as an operator meets it."""

from __future__ import annotations

import json
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from tests.harness import browsing
from tests.processes import run, serving_process

if TYPE_CHECKING:
    from pathlib import Path


async def test_missing_settings_are_named_a_line_each_with_an_example(tmp_path: Path) -> None:
    done = await run("serve", cwd=tmp_path)
    assert done.returncode == 2
    openai, backend = done.stderr.decode().splitlines()
    without = "or TIP_ENGINE=playbook to do without"
    assert (
        openai == f"coach: OPENAI_API_KEY: is missing (example: OPENAI_API_KEY=sk-..., {without})"
    )
    example = "BACKEND_API_KEY=a-long-random-string"
    assert backend == f"coach: BACKEND_API_KEY: is missing (example: {example})"


async def test_wrong_settings_are_named_all_at_once_without_their_values(tmp_path: Path) -> None:
    wrong = {
        "BACKEND_API_KEY": "canary\x01secret",
        "PORT": "99999",
        "LOG_LEVEL": "canary",
        "NODE_ENV": "canary",
        "TIP_ENGINE": "canary",
        "CORS_ORIGIN": "*",
        "OPENAI_BASE_URL": "canary",
        "AI_WARMUP_DURATION_MS": "0",
        "AI_ANALYSIS_INTERVAL_MS": "canary",
        "AI_SILENCE_MS": "-1",
        "AI_SELECTION_TIMEOUT_MS": "1e3x",
        "TIP_HEDGE_MS": "no",
    }
    done = await run("serve", cwd=tmp_path, env=wrong)
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 2
    assert sorted(line.split(": ")[1] for line in lines) == sorted(wrong)
    assert all("(example: " in line for line in lines)
    assert "canary" not in done.stderr.decode()


async def test_settings_come_from_the_env_file_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        "BACKEND_API_KEY=from-the-file\nTIP_ENGINE=playbook\nPORT=not-a-number\nUNKNOWN=1\n"
    )
    async with (
        serving_process(tmp_path, BACKEND_API_KEY="") as server,  # empty is not set
        browsing(server.url, "from-the-file") as browser,
    ):
        await browser.start()


async def test_a_taken_port_is_told_with_what_to_do(tmp_path: Path) -> None:
    async with serving_process(tmp_path) as server:
        port = server.url.rpartition(":")[2]
        settings = {"BACKEND_API_KEY": "k", "TIP_ENGINE": "playbook", "HOST": "127.0.0.1"}
        done = await run("serve", cwd=tmp_path, env=settings | {"PORT": port})
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in done.stderr.decode()
        assert "set HOST or PORT" in done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()


async def test_d12_sigterm_with_fifty_live_calls_ends_clean_in_under_ten_seconds(
    tmp_path: Path,
) -> None:
    async with serving_process(tmp_path) as server, AsyncExitStack() as stack:
        browsers = [await stack.enter_async_context(browsing(server.url)) for _ in range(50)]
        for number, browser in enumerate(browsers):
            await browser.start(f"agent-{number}")
            await browser.caller()
        async with httpx.AsyncClient() as http:
            health = (await http.get(f"{server.url}/health")).json()
        assert health["activeConversations"] == 50
        assert await server.stop(within=10) == 0
        for browser in browsers:
            await browser.closed()
            assert "ERROR" not in [name for _, name, _ in browser.events]
        assert b"Traceback" not in server.log


async def test_sigterm_with_clients_that_do_not_read_ends_too(tmp_path: Path) -> None:
    async with serving_process(tmp_path) as server:
        host, port = server.url.removeprefix("http://").split(":")
        streams = [await trio.open_tcp_stream(host, int(port)) for _ in range(3)]
        await streams[0].send_all(b"GET /health HTTP/1.1\r\nHost: x\r\n")  # never ends its head
        await streams[1].send_all(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\n"
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await streams[1].receive_some(1)
        async with httpx.AsyncClient() as http:  # opens a session by polling, and polls no more
            query = {"EIO": "4", "transport": "polling"}
            assert (await http.get(f"{server.url}/socket.io/", params=query)).is_success
        assert await server.stop(within=10) == 0
        for stream in streams:
            await stream.aclose()


@pytest.mark.parametrize("environment", ["production", "development"])
async def test_production_logs_json_and_neither_logs_words_or_keys(
    tmp_path: Path, environment: str
) -> None:
    async with serving_process(
        tmp_path, NODE_ENV=environment, LOG_LEVEL="debug", BACKEND_API_KEY="canary-key"
    ) as server:
        async with browsing(server.url, "canary-key") as browser:
            await browser.start(agentName="canary-name", mode="hybrid")
            await browser.caller("canary-words")
            await browser.request(selectedScript="canary-script")
            await browser.expect("AI_TIP")
            await browser.client.emit("TRANSCRIPT", "canary-payload")
            await browser.client.emit("canary-event", "canary-payload")
            await browser.end()
            await browser.expect("CONVERSATION_ENDED")
        assert await server.stop(within=10) == 0
        lines = server.log.decode().splitlines()
        assert "canary" not in server.log.decode()
        assert any("event rejected" in line for line in lines)
        if environment == "production":
            assert {"listening", "stopped"} <= {json.loads(line)["event"] for line in lines}


async def test_in_production_calls_run_at_their_own_pace(tmp_path: Path) -> None:
    async with (
        serving_process(tmp_path, NODE_ENV="production", AI_WARMUP_DURATION_MS="60000") as server,
        browsing(server.url) as browser,
    ):
        await browser.start(timeScale=100)
        await browser.caller()
        with trio.move_on_after(1.0) as scope:  # at 100 times the pace it would take 0.6 s
            await browser.expect("AI_TIP", within=2)
        assert scope.cancelled_caught


async def test_ctrl_c_ends_the_server_clean(tmp_path: Path) -> None:
    async with serving_process(tmp_path) as server:
        server.process.send_signal(signal.SIGINT)
        with trio.fail_after(10):
            assert await server.process.wait() == 0
        assert b"Traceback" not in server.log
