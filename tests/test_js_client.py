"""The real socket.io-client from npm, with the shipped extension's options (tests/js)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import trio

from tests.fake_openai import serve_fake_openai
from tests.harness import KEY, serving

JS = Path(__file__).parent / "js"
WARMUP_MS, INTERVAL_MS, SILENCE_MS = 1500, 1000, 200


@pytest.mark.skipif(
    shutil.which("node") is None or not (JS / "node_modules").is_dir(),
    reason="needs Node.js and `npm ci` in tests/js, which scripts/test runs",
)
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
        env = {
            "PATH": os.environ["PATH"],
            "COACH_URL": server.url,
            "COACH_API_KEY": KEY,
            "COACH_WARMUP_MS": str(WARMUP_MS),
            "COACH_INTERVAL_MS": str(INTERVAL_MS),
            "COACH_SILENCE_MS": str(SILENCE_MS),
        }
        with trio.fail_after(60):
            done = await trio.run_process(
                ["node", "--test", "client.test.mjs"],
                cwd=JS,
                env=env,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert done.returncode == 0, done.stdout.decode()
        assert (fake.stats.requests > 0) == (engine == "openai")
