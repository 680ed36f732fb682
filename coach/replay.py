"""Plays a recorded call against a server, as an agent's browser would, and measures the answers."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import trio

from coach.client import Client, ClientError, connect
from coach.recording import AskAlternative, AskNext, Segment, Select

if TYPE_CHECKING:
    from collections.abc import Callable

    from coach.coaching.messages import Mode
    from coach.recording import Action, Recording

ANSWER_TIMEOUT: Final = 10.0
"""Seconds in which the server has to answer a request, at whatever speed a call is played."""

_SCRIPT_SENDER: Final = "coach-replay"


class Observer(Protocol):
    """Watches a call as it is played. Times are milliseconds of the recording."""

    def began(self, recording: Recording) -> None:
        """The call starts."""

    def happened(self, action: Action, at_ms: float) -> None:
        """The recording's next action was sent."""

    def tip(self, tip: dict[str, Any], at_ms: float) -> None:
        """The server gave a tip, an AI_TIP's payload."""

    def noticed(self, name: str, notice: dict[str, Any], at_ms: float) -> None:
        """The server sent an ERROR or a WARNING."""


class Report(msgspec.Struct):
    """What came of a call. `latencies` are the milliseconds from requests to their tips."""

    title: str
    transcripts: int = 0
    tips: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)
    latencies: list[float] = msgspec.field(default_factory=list)
    faults: list[str] = msgspec.field(default_factory=list)
    summary: dict[str, Any] | None = None

    @property
    def is_coached(self) -> bool:
        """Whether tips came, each request got its own, and nothing went wrong."""
        return bool(self.tips) and not self.faults


async def replay(
    recording: Recording,
    url: str,
    api_key: str,
    *,
    speed: float = 1.0,
    mode: Mode | None = None,
    observer: Observer,
) -> Report:
    """Play a recording at `speed` times its pace, and the server's timers with it.

    `mode` stands in for the recording's own.

    Raises:
        ClientError: the server cannot be reached, lets nobody in, or goes away.
    """
    async with connect(url, {"apiKey": api_key}) as client:
        replaying = _Replay(recording, client, speed, observer)
        reason = None
        try:
            await replaying.run(mode or recording.mode or "hybrid")
        except* ClientError as errors:
            reason = str(errors.exceptions[0])
        if reason:
            raise ClientError(reason)
    return replaying.report


class _Replay:
    def __init__(
        self, recording: Recording, client: Client, speed: float, observer: Observer
    ) -> None:
        self._recording = recording
        self._client = client
        self._speed = speed
        self._observer = observer
        self.report = Report(recording.title)
        self._began_at = trio.current_time()
        self._conversation_id: str | None = None
        self._newest: dict[str, Any] | None = None
        self._asked_at: float | None = None
        self._progress = trio.Condition()

    async def run(self, mode: Mode) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen)
            start = {"source": _SCRIPT_SENDER, "mode": mode, "timeScale": self._speed}
            await self._client.emit(
                "START_CONVERSATION",
                {
                    "agentId": f"agent-{_unix_ms()}",
                    "metadata": {**self._recording.metadata, **start},
                },
            )
            await self._wait(lambda: self._conversation_id or self.report.faults, "begin the call")
            if self._conversation_id is not None:
                self._began_at = trio.current_time()
                self._observer.began(self._recording)
                for action in self._recording.actions:
                    await trio.sleep_until(self._began_at + action.offset_ms / 1000 / self._speed)
                    await self._send(action)
                    self._observer.happened(action, self._at_ms())
                await self._wait(lambda: self._asked_at is None, "answer a request for a tip")
                await self._emit("END_CONVERSATION")
                await self._wait(lambda: self.report.summary is not None, "end the call")
            nursery.cancel_scope.cancel()
        if not self.report.tips:
            self.report.faults.append("no tip came")

    # What is sent

    async def _send(self, action: Action) -> None:
        match action:
            case Segment(speaker=speaker, text=text):
                line = {"speaker": speaker, "text": text, "isFinal": True}
                await self._emit("TRANSCRIPT", **line, timestamp=_unix_ms())
                self.report.transcripts += 1
            case Select(option=option) if self._newest is not None:
                chosen = min(option, len(self._newest["options"]))
                await self._client.emit(
                    "OPTION_SELECTED",
                    {
                        "recommendationId": self._newest["recommendationId"],
                        "selectedOption": chosen,
                    },
                )
            case AskNext():
                await self._ask("REQUEST_NEXT_TIP", transcriptHistory=[], timestamp=_unix_ms())
            case AskAlternative():
                stage = self._newest["stage"] if self._newest else None
                await self._ask("REQUEST_ALTERNATIVE_TIP", currentStage=stage)

    async def _ask(self, name: str, **fields: Any) -> None:
        await self._wait(lambda: self._asked_at is None, "answer a request for a tip")
        self._asked_at = trio.current_time()
        await self._emit(name, **fields)

    async def _emit(self, name: str, **fields: Any) -> None:
        await self._client.emit(name, {"conversationId": self._conversation_id, **fields})

    # What comes

    async def _listen(self) -> None:
        async for event in self._client:
            async with self._progress:
                self._take(event.name, event.args[0]["payload"])
                self._progress.notify_all()
        raise ClientError("the server closed the connection")

    def _take(self, name: str, payload: dict[str, Any]) -> None:
        match name:
            case "CONVERSATION_STARTED":
                self._conversation_id = payload["conversationId"]
            case "AI_TIP":
                self._newest = payload
                self.report.tips[payload["trigger"], payload["source"]] += 1
                if self._asked_at is not None and payload["trigger"] in (
                    "requested",
                    "alternative",
                ):
                    self.report.latencies.append((trio.current_time() - self._asked_at) * 1000)
                    self._asked_at = None
                self._observer.tip(payload, self._at_ms())
            case "CONVERSATION_ENDED":
                self.report.summary = payload["summary"]
            case "ERROR" | "WARNING":
                if name == "ERROR":
                    self.report.faults.append(f"{payload['code']}: {payload['message']}")
                self._observer.noticed(name, payload, self._at_ms())

    async def _wait(self, is_done: Callable[[], object], what: str) -> None:
        with trio.move_on_after(ANSWER_TIMEOUT) as scope:
            async with self._progress:
                while not is_done():
                    await self._progress.wait()
        if scope.cancelled_caught:
            self.report.faults.append(f"the server did not {what} in {ANSWER_TIMEOUT:.0f} s")
            self._asked_at = None

    def _at_ms(self) -> float:
        return (trio.current_time() - self._began_at) * 1000 * self._speed


def _unix_ms() -> int:
    return round(time.time() * 1000)
