"""Recorded calls: this project's JSONL form (coach/recordings/README.md) and Harper Valley's."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from coach.coaching.messages import Mode, Speaker

if TYPE_CHECKING:
    from collections.abc import Callable

RecordingFormat = Literal["jsonl", "harper-valley"]

_Offset = Annotated[int, msgspec.Meta(ge=0)]
_UNSPOKEN: Final = re.compile(r"\[[^\]]*\]|<[^>]*>")
"""What transcribers note and a recogniser would not write: [noise], <unk>."""


class RecordingError(Exception):
    """A recording that cannot be played; the message says where and why."""


class Segment(msgspec.Struct, frozen=True, rename="camel", tag="segment"):
    """A finished sentence, at the moment it ends."""

    offset_ms: _Offset
    speaker: Speaker
    text: str


class Select(msgspec.Struct, frozen=True, rename="camel", tag="select"):
    """The agent picks an option of the newest tip, counted from 1."""

    offset_ms: _Offset
    option: Annotated[int, msgspec.Meta(ge=1, le=3)]


class AskNext(msgspec.Struct, frozen=True, rename="camel", tag="request"):
    """The agent asks for the next tip."""

    offset_ms: _Offset


class AskAlternative(msgspec.Struct, frozen=True, rename="camel", tag="alternative"):
    """The agent asks for another tip than the one on display."""

    offset_ms: _Offset


Action = Segment | Select | AskNext | AskAlternative


class Recording(msgspec.Struct, frozen=True):
    """A call: who it was about, and what happened when."""

    title: str
    metadata: dict[str, Any]
    actions: tuple[Action, ...]
    mode: Mode | None = None

    @property
    def duration_ms(self) -> int:
        """From its start to the last thing that happened."""
        return self.actions[-1].offset_ms


def read_recording(text: str, format_: RecordingFormat) -> Recording:
    """Read a recording.

    Raises:
        RecordingError: it is not of that format, or nothing happens in it.
    """
    recording = _PARSERS[format_](text)
    if not recording.actions:
        raise RecordingError("nothing is said in it")
    return recording


class _Head(msgspec.Struct, frozen=True, tag="call"):
    title: str
    mode: Mode | None = None
    metadata: dict[str, Any] = {}


def _read_jsonl(text: str) -> Recording:
    head: _Head | None = None
    actions: list[Action] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            if head is None:
                head = msgspec.json.decode(line, type=_Head)
            else:
                actions.append(msgspec.json.decode(line, type=Action))
        except (ValueError, RecursionError) as error:
            raise RecordingError(f"line {number}: {error}") from None
        if len(actions) > 1 and actions[-1].offset_ms < actions[-2].offset_ms:
            raise RecordingError(f"line {number}: goes back in time")
    if head is None:
        raise RecordingError("it is empty")
    return Recording(head.title, head.metadata, tuple(actions), head.mode)


class _HarperSegment(msgspec.Struct, frozen=True):
    speaker: Speaker
    offset_ms: _Offset
    duration_ms: _Offset
    text: str


class _HarperCall(msgspec.Struct, frozen=True):
    source: str
    segments: list[_HarperSegment]


def _read_harper_valley(text: str) -> Recording:
    """Read a call of https://github.com/cricketclub/gridspace-stanford-harper-valley as JSON.

    Its segments begin at their offset and overlap; a recogniser would send each where it ends.
    """
    try:
        call = msgspec.json.decode(text, type=_HarperCall)
    except (ValueError, RecursionError) as error:
        raise RecordingError(str(error)) from None
    segments = [
        Segment(part.offset_ms + part.duration_ms, part.speaker, words)
        for part in call.segments
        if (words := " ".join(_UNSPOKEN.sub(" ", part.text).split()))
    ]
    segments.sort(key=lambda segment: segment.offset_ms)
    return Recording(call.source.rpartition("/")[2], {}, tuple(segments))


_PARSERS: Final[dict[RecordingFormat, Callable[[str], Recording]]] = {
    "jsonl": _read_jsonl,
    "harper-valley": _read_harper_valley,
}
