"""Recorded calls, played against the real server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from coach.demo import bundled_recording, recordings
from coach.recording import AskAlternative, AskNext, Recording, Segment, read_recording
from coach.replay import replay
from coach.screen import Screen
from tests.harness import KEY, serving
from tests.processes import ROOT, run, serving_process

if TYPE_CHECKING:
    from coach.coaching.messages import Mode

RECORDINGS = ROOT / "coach/recordings"
HARPER_VALLEY = Path(os.environ.get("HARPER_VALLEY", ROOT.parent / "shared/data/harper-valley"))
"""Real recorded calls of https://github.com/cricketclub/gridspace-stanford-harper-valley as JSON,
which are not part of this repository."""


def quiet_screen() -> Screen:
    return Screen(Console(quiet=True))


@pytest.mark.parametrize("name", recordings())
async def test_each_bundled_call_is_coached(name: str) -> None:
    recording = bundled_recording(name)
    async with serving() as server:
        report = await replay(recording, server.url, KEY, speed=100, observer=quiet_screen())
    assert report.is_coached, report.faults
    said = [action for action in recording.actions if isinstance(action, Segment)]
    asked = [a for a in recording.actions if isinstance(a, AskNext | AskAlternative)]
    assert report.transcripts == len(said)
    assert len(report.latencies) == len(asked)
    assert report.tips["warmup", "playbook"] == 1
    assert report.summary is not None
    assert report.summary["transcripts"] == len(said)
    assert report.summary["tips"] == report.tips.total()


@pytest.mark.parametrize(
    ("mode", "triggers"),
    [
        ("auto", {"warmup", "interval", "requested"}),
        ("event-driven", {"warmup", "reaction", "requested"}),
        ("hybrid", {"warmup", "interval", "reaction", "requested"}),
    ],
)
async def test_the_mode_decides_what_brings_tips(mode: Mode, triggers: set[str]) -> None:
    recording = bundled_recording("plumber-has-website")
    async with serving() as server:
        report = await replay(
            recording, server.url, KEY, speed=100, mode=mode, observer=quiet_screen()
        )
    assert {trigger for trigger, _ in report.tips} == triggers


def harper_valley() -> list[Recording]:
    files = sorted(HARPER_VALLEY.glob("*.json"))
    return [read_recording(file.read_text("utf-8"), "harper-valley") for file in files]


@pytest.mark.skipif(not HARPER_VALLEY.is_dir(), reason=f"the corpus is not at {HARPER_VALLEY}")
async def test_real_recorded_calls_with_overlapping_turns_are_coached() -> None:
    calls = harper_valley()
    assert calls
    # They are calls of a minute: the warm-up is shorter too.
    async with serving(ai_warmup_duration_ms=20_000, ai_analysis_interval_ms=10_000) as server:
        for call in calls:
            report = await replay(call, server.url, KEY, speed=100, observer=quiet_screen())
            assert report.is_coached, (call.title, report.faults)
            assert report.summary is not None
            assert report.summary["transcripts"] == report.transcripts == len(call.actions)


async def test_the_command_plays_files_and_prints_a_summary(tmp_path: Path) -> None:
    async with serving_process(tmp_path) as server:
        done = await run(
            "replay",
            str(RECORDINGS / "plumber-has-website.jsonl"),
            str(RECORDINGS / "dentist-gatekeeper.jsonl"),
            "--url",
            server.url,
            "--speed",
            "100",
            env={"BACKEND_API_KEY": KEY},
        )
    output = done.stdout.decode()
    assert done.returncode == 0, output + done.stderr.decode()
    assert "Plumber already has a website" in output
    for what in ("calls", "transcripts", "tips by trigger", "tips by source", "p50", "p95", "cost"):
        assert what in output


async def test_a_call_without_a_tip_fails_the_command(tmp_path: Path) -> None:
    call = tmp_path / "short.jsonl"
    call.write_text(
        '{"type":"call","title":"Wrong number"}\n'
        '{"type":"segment","offsetMs":1000,"speaker":"caller","text":"Wrong number, bye."}\n'
    )
    async with serving_process(tmp_path) as server:
        args = (str(call), "--url", server.url, "--speed", "100", "--api-key", KEY)
        done = await run("replay", *args)
    assert done.returncode == 1
    assert "Wrong number: no tip came" in done.stdout.decode()
    assert "not every call was coached" in done.stderr.decode()


@pytest.mark.parametrize(
    ("args", "env", "code", "message"),
    [
        (["{file}"], {}, 2, "give --api-key, or set BACKEND_API_KEY"),
        ([], {"BACKEND_API_KEY": "k"}, 2, "name at least one recording"),
        (["{file}"], {"BACKEND_API_KEY": "k"}, 1, "no server listens there"),
        (["{file}", "--url", "ftp://x"], {"BACKEND_API_KEY": "k"}, 1, "http://host:port"),
        (["{broken}"], {"BACKEND_API_KEY": "k"}, 2, "broken.jsonl: line 1: "),
        (["{file}", "--format", "harper-valley"], {"BACKEND_API_KEY": "k"}, 2, "one.jsonl: "),
    ],
)
async def test_what_is_wrong_is_told_with_what_to_do(
    tmp_path: Path, args: list[str], env: dict[str, str], code: int, message: str
) -> None:
    file, broken = tmp_path / "one.jsonl", tmp_path / "broken.jsonl"
    file.write_text((RECORDINGS / "plumber-has-website.jsonl").read_text("utf-8"))
    broken.write_text("oops")
    # A port that nobody listens on: the tests' own servers take others.
    args = [arg.format(file=file, broken=broken) for arg in args]
    if "--url" not in args:
        args += ["--url", "http://127.0.0.1:9"]
    done = await run("replay", *args, env=env)
    assert (done.returncode, message in done.stderr.decode()) == (code, True), done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


async def test_a_wrong_key_is_told() -> None:
    async with serving() as server:
        recording = RECORDINGS / "plumber-has-website.jsonl"
        done = await run("replay", str(recording), "--url", server.url, "--api-key", "wrong")
    assert done.returncode == 1
    assert "the server refused: Authentication failed" in done.stderr.decode()


@pytest.mark.parametrize(
    "args", [["--speed", "0.5"], ["--speed", "101"], ["--mode", "fast"], ["nofile"]]
)
async def test_wrong_options_are_refused(args: list[str]) -> None:
    done = await run("replay", *args)
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr.decode()


async def test_the_demo_shows_a_call_and_ends_well() -> None:
    # The environment must not matter: neither settings nor keys.
    env = {"NODE_ENV": "production", "TIP_ENGINE": "openai", "PORT": "1"}
    done = await run("demo", "--speed", "100", env=env)
    output = done.stdout.decode()
    assert done.returncode == 0, output + done.stderr.decode()
    for what in ("agent", "caller", "picks option", "Summary", "warmup", "playbook", "p95"):
        assert what in output


async def test_an_unknown_demo_recording_is_told_with_those_there_are() -> None:
    done = await run("demo", "--recording", "nope")
    assert done.returncode == 2
    assert "plumber-has-website" in done.stderr.decode()
