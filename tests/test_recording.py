from __future__ import annotations

import pytest

from coach.demo import bundled_recording, recordings
from coach.recording import (
    AskAlternative,
    AskNext,
    RecordingError,
    RecordingFormat,
    Segment,
    Select,
    read_recording,
)

HEAD = '{"type":"call","title":"A call","mode":"auto","metadata":{"agentName":"Dana"}}\n'


@pytest.mark.parametrize("name", recordings())
def test_each_bundled_recording_is_a_whole_call(name: str) -> None:
    recording = bundled_recording(name)
    segments = [action for action in recording.actions if isinstance(action, Segment)]
    assert {segment.speaker for segment in segments} == {"agent", "caller"}
    assert len(segments) >= 20
    assert recording.duration_ms > 180_000  # longer than the warm-up
    assert recording.mode is not None


def test_the_bundled_recordings_use_every_action_and_mode() -> None:
    calls = [bundled_recording(name) for name in recordings()]
    assert len(calls) >= 4
    assert {type(action) for call in calls for action in call.actions} == {
        Segment,
        Select,
        AskNext,
        AskAlternative,
    }
    assert {call.mode for call in calls} == {"auto", "event-driven", "hybrid"}


def test_blank_lines_and_unknown_fields_do_not_matter() -> None:
    line = '{"type":"segment","offsetMs":5,"speaker":"agent","text":"Hi.","note":"x"}'
    recording = read_recording(f"\n{HEAD}\n{line}\n", "jsonl")
    assert recording.actions == (Segment(5, "agent", "Hi."),)
    assert recording.metadata == {"agentName": "Dana"}


@pytest.mark.parametrize(
    ("text", "format_", "message"),
    [
        ("", "jsonl", "it is empty"),
        (HEAD, "jsonl", "nothing is said in it"),
        ("hello", "jsonl", "line 1: "),
        (HEAD + '{"type":"segment","offsetMs":-1,"speaker":"agent","text":""}', "jsonl", "line 2"),
        (HEAD + '{"type":"segment","offsetMs":1,"speaker":"bob","text":""}', "jsonl", "line 2"),
        (HEAD + '{"type":"dance","offsetMs":1}', "jsonl", "line 2: Invalid value 'dance'"),
        (HEAD + '{"type":"select","offsetMs":1,"option":4}', "jsonl", "line 2"),
        (
            HEAD + '{"type":"request","offsetMs":9}\n{"type":"request","offsetMs":8}',
            "jsonl",
            "line 3: goes back in time",
        ),
        (HEAD + "[" * 100_000, "jsonl", "line 2"),
        ("{}", "harper-valley", "missing required field `source`"),
        ('{"source":"x","segments":[]}', "harper-valley", "nothing is said in it"),
    ],
)
def test_what_cannot_be_played_is_told_with_its_line(
    text: str, format_: RecordingFormat, message: str
) -> None:
    with pytest.raises(RecordingError, match=message.replace("`", ".")):
        read_recording(text, format_)


def test_harper_valley_segments_are_sent_where_they_end_without_transcribers_notes() -> None:
    text = """{"source": "corpus/transcript/0123.json", "segments": [
        {"speaker": "agent", "offset_ms": 1000, "duration_ms": 5000, "text": "[noise] hello <unk>"},
        {"speaker": "caller", "offset_ms": 2000, "duration_ms": 500, "text": "yes"},
        {"speaker": "caller", "offset_ms": 2600, "duration_ms": 500, "text": "[noise]"}]}"""
    recording = read_recording(text, "harper-valley")
    assert recording.title == "0123.json"
    assert recording.actions == (
        Segment(2500, "caller", "yes"),
        Segment(6000, "agent", "hello"),
    )
