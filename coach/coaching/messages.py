"""What travels between an agent's browser and the server, as types.

Field names are camelCase on the wire; times are Unix milliseconds. Unknown fields are ignored.
Every server message is sent as an event whose name is its type, in the envelope
``{"type": <name>, "payload": {...}}``.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

import msgspec

MAX_TEXT: Final = 4000
"""Characters of a spoken line; what is longer is cut, with a WARNING."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Speaker = Literal["agent", "caller"]
Mode = Literal["auto", "event-driven", "hybrid"]
Trigger = Literal["warmup", "interval", "reaction", "requested", "alternative"]
Source = Literal["llm", "playbook"]


class Stage(StrEnum):
    """Where a sales call stands, in the order in which calls go."""

    GREETING = "GREETING"
    DISCOVERY = "DISCOVERY"
    VALUE_PROP = "VALUE_PROP"
    OBJECTION_HANDLING = "OBJECTION_HANDLING"
    NEXT_STEPS = "NEXT_STEPS"
    CLOSING = "CLOSING"
    CONVERSION = "CONVERSION"


class ClientMessage(msgspec.Struct, frozen=True, rename="camel"):
    """Base of what clients send."""


class StartConversation(ClientMessage, frozen=True):
    """START_CONVERSATION: begin a call, or with `conversation_id` go on with one.

    `metadata` holds `mode`, `timeScale` and values for the playbook's placeholders.
    """

    agent_id: Id
    metadata: dict[str, Any] = {}
    conversation_id: Id | None = None


class Transcript(ClientMessage, frozen=True):
    """TRANSCRIPT: one finished sentence. Only finals count."""

    conversation_id: Id
    speaker: Speaker
    text: str
    is_final: bool = True
    timestamp: float | None = None


class OptionSelected(ClientMessage, frozen=True):
    """OPTION_SELECTED: the agent chose option 1, 2 or 3 of a tip."""

    recommendation_id: Id
    selected_option: Annotated[int, msgspec.Meta(ge=1, le=3)]


class HistoryLine(ClientMessage, frozen=True):
    """A line as the client heard it."""

    speaker: Speaker
    text: str


class RequestNextTip(ClientMessage, frozen=True):
    """REQUEST_NEXT_TIP: the agent wants a tip now.

    The server's own transcript is the truth: what the client says was spoken only serves where
    the server has heard nothing.
    """

    conversation_id: Id
    selected_recommendation_id: str | None = None
    selected_option: int | None = None
    selected_script: str | None = None
    agent_response: HistoryLine | None = None
    customer_reaction: HistoryLine | None = None
    transcript_history: list[HistoryLine] = []


class RequestAlternativeTip(ClientMessage, frozen=True):
    """REQUEST_ALTERNATIVE_TIP: the agent wants another tip than the one on display."""

    conversation_id: Id
    current_stage: str | None = None
    current_script_id: str | None = None


class EndConversation(ClientMessage, frozen=True):
    """END_CONVERSATION: the call is over."""

    conversation_id: Id


EVENTS: Final[dict[str | float, Any]] = {
    "START_CONVERSATION": StartConversation,
    "TRANSCRIPT": Transcript,
    "OPTION_SELECTED": OptionSelected,
    "REQUEST_NEXT_TIP": RequestNextTip,
    "REQUEST_ALTERNATIVE_TIP": RequestAlternativeTip,
    "END_CONVERSATION": EndConversation,
    "PING": Any,  # Without payload; what comes as one does not matter.
}
"""What clients may send, and the type of its payload."""


class ServerMessage(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Base of what the server sends; fields left at None do not travel."""


class ConversationStarted(ServerMessage, frozen=True):
    """The call is known under this id. `seq` is the newest line that the server holds."""

    conversation_id: str
    timestamp: int
    resumed: bool
    mode: Mode
    seq: int


class Option(ServerMessage, frozen=True):
    """One way to go on: a caption and what to say. `id` names the script."""

    label: str
    script: str
    id: str


class Tip(ServerMessage, frozen=True):
    """AI_TIP: 1 to 3 options. `based_on` is the seq of the newest line used."""

    recommendation_id: str
    conversation_id: str
    stage: Stage
    heading: str
    context: str
    options: list[Option]
    timestamp: int
    source: Source
    trigger: Trigger
    based_on: int


class Summary(ServerMessage, frozen=True):
    """What a call came to."""

    duration_ms: int
    transcripts: int
    tips: int
    tokens: int
    cost_usd: float


class ConversationEnded(ServerMessage, frozen=True):
    """The call is over; said again to whoever ends it again."""

    conversation_id: str
    timestamp: int
    summary: Summary


class Notice(ServerMessage, frozen=True):
    """ERROR (the request was wrong) or WARNING (nothing the agent must act on)."""

    message: str
    code: str
    timestamp: int
    conversation_id: str | None = None


class Pong(ServerMessage, frozen=True):
    """The answer to PING."""

    timestamp: int
