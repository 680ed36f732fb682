"""Shows a call in the terminal as it is played, and what came of it."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, Final, Self

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from coach.recording import AskAlternative, AskNext, Segment, Select

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from coach.recording import Action, Recording
    from coach.replay import Report

_STYLES: Final = {"agent": "cyan", "caller": "yellow"}
_WHY: Final = {
    "warmup": "first tip",
    "interval": "from time to time",
    "reaction": "the customer reacted",
    "requested": "asked for",
    "alternative": "another one, asked for",
}


class Screen:
    """A `replay.Observer` that prints; used as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[clock]}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, clock="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def began(self, recording: Recording) -> None:
        """Say which call is played."""
        self._console.rule(Text(recording.title))
        self._progress.update(
            self._task, description="call", total=recording.duration_ms, completed=0
        )

    def happened(self, action: Action, at_ms: float) -> None:
        """Print what was said, or what the agent did."""
        match action:
            case Segment(speaker=speaker, text=text):
                who = Text(f"{speaker:>6} ", style=f"bold {_STYLES[speaker]}")
                self._print(at_ms, who + Text(text))
            case Select(option=option):
                self._print(at_ms, Text(f"       picks option {option}", style="dim"))
            case AskNext():
                self._print(at_ms, Text("       asks for a tip", style="dim"))
            case AskAlternative():
                self._print(at_ms, Text("       asks for another tip", style="dim"))
        self._progress.update(self._task, completed=action.offset_ms, clock=_clock(at_ms))

    def tip(self, tip: dict[str, Any], at_ms: float) -> None:
        """Print a tip with its options."""
        options = [
            Text.assemble((f"{number}. {option['label']}: ", "bold"), option["script"])
            for number, option in enumerate(tip["options"], start=1)
        ]
        why = _WHY.get(tip["trigger"], tip["trigger"])
        self._console.print(
            Panel(
                Group(*options),
                title=Text(f"{_clock(at_ms)}  {tip['stage']}: {tip['heading']}"),
                subtitle=Text(f"{why} · {tip['source']}", style="dim"),
                title_align="left",
                subtitle_align="right",
                border_style="green",
            )
        )

    def noticed(self, name: str, notice: dict[str, Any], at_ms: float) -> None:
        """Print what the server complained of."""
        style = "bold red" if name == "ERROR" else "magenta"
        self._print(at_ms, Text(f"{name} {notice['code']}: {notice['message']}", style=style))

    def _print(self, at_ms: float, text: Text) -> None:
        self._console.print(Text(_clock(at_ms) + " ", style="dim") + text)


def print_summary(console: Console, reports: Sequence[Report]) -> None:
    """Print what came of the calls."""
    table = Table(show_header=False, title="Summary", title_justify="left")
    table.add_row("calls", str(len(reports)))
    table.add_row("transcripts", str(sum(report.transcripts for report in reports)))
    for place, heading in enumerate(("tips by trigger", "tips by source")):
        table.add_row(heading, _counts(reports, place))
    latencies = sorted(latency for report in reports for latency in report.latencies)
    if latencies:
        p50, p95 = _percentile(latencies, 50), _percentile(latencies, 95)
        table.add_row("request to tip", f"p50 {p50:.1f} ms, p95 {p95:.1f} ms ({len(latencies)})")
    summaries = [report.summary for report in reports if report.summary]
    table.add_row("tokens", f"{sum(summary['tokens'] for summary in summaries)}")
    table.add_row("cost", f"${sum(summary['costUsd'] for summary in summaries):.6f}")
    console.print(table)
    for report in reports:
        for fault in report.faults:
            console.print(Text(f"{report.title}: {fault}", style="bold red"))


def _counts(reports: Sequence[Report], place: int) -> str:
    counts: dict[str, int] = {}
    for report in reports:
        for key, number in report.tips.items():
            counts[key[place]] = counts.get(key[place], 0) + number
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"


def _percentile(ordered: Sequence[float], percent: int) -> float:
    if len(ordered) == 1:
        return ordered[0]
    return statistics.quantiles(ordered, n=100, method="inclusive")[percent - 1]


def _clock(at_ms: float) -> str:
    minutes, seconds = divmod(int(at_ms / 1000), 60)
    return f"{minutes:02}:{seconds:02}"
