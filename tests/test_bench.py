"""The benchmark in its short form: it runs, and finds something for each figure."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.skipif(
    shutil.which("node") is None or not (ROOT / "tests/js/node_modules").is_dir(),
    reason="needs Node.js and `npm ci` in tests/js, which scripts/test runs",
)
async def test_the_benchmark_measures_both_servers(tmp_path: Path) -> None:
    report = tmp_path / "figures.json"
    with trio.fail_after(60):
        await trio.run_process(
            [sys.executable, ROOT / "scripts/bench.py", "--quick", "--json", report],
            capture_stdout=True,
        )
    figures = json.loads(report.read_text("utf-8"))
    assert figures.keys() == {"coach", "node"}
    for taken in figures.values():
        assert taken.keys() == {"cpu", "flood", "memory", "ping_p50", "ping_p95"}
        assert all(value > 0 for values in taken.values() for value in values)
