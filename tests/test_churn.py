"""Clients that come and go at every stage, in the short form of scripts/churn."""

from __future__ import annotations

import pytest

from tests.churn import churn


@pytest.mark.parametrize("seed", [1, 2])
async def test_clients_that_come_and_go_leave_nothing_behind(
    seed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    before, after = await churn(cycles=500, seed=seed)
    assert before == after
    written = capfd.readouterr()
    assert "fault" not in written.out + written.err
    assert "Traceback" not in written.out + written.err
