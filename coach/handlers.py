"""What coach does with the events of agents' browsers.

A request that is wrong is answered, on the ack if it came with one and else with an ERROR; what
the agent need not act on is a WARNING, because the shipped client shows an ERROR as a lost
connection.
"""

from __future__ import annotations

import hmac
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from coach.call import now, send
from coach.coaching.conversation import Emit, Request
from coach.coaching.messages import (
    EVENTS,
    MAX_TEXT,
    ConversationStarted,
    EndConversation,
    HistoryLine,
    Notice,
    OptionSelected,
    Pong,
    RequestAlternativeTip,
    RequestNextTip,
    StartConversation,
    Transcript,
)
from coach.coaching.situation import Line
from coach.socketio import Refused

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coach.call import Call
    from coach.coaching.messages import ClientMessage
    from coach.registry import Record, Registry
    from coach.socketio import Ack, Connect, Socket

    Answer = dict[str, Any]
    """What goes on the ack of an event that was right, beside `ok`."""

MAX_CALLS: Final = 4
"""Calls at once on one socket."""

MAX_HISTORY: Final = 20
"""Lines of a client's own transcript that are looked at."""

log = structlog.get_logger(__name__)


class RejectedError(Exception):
    """An event that cannot be served, with what its sender is told, as `name`."""

    def __init__(
        self, code: str, message: str, conversation_id: str | None = None, *, name: str = "ERROR"
    ) -> None:
        super().__init__(code)
        self.code = code
        self.message = message
        self.conversation_id = conversation_id
        self.name = name


def admission(keys: Mapping[str, str], registry: Registry) -> Connect:
    """Return what lets browsers in that know a key.

    `keys` holds the API key of each principal; a conversation is visible to its principal alone.
    """
    ranks = count()

    def connect(socket: Socket, auth: dict[str, Any] | None) -> Agent:
        offered = (auth or {}).get("apiKey")
        if isinstance(offered, str):
            for principal, key in keys.items():
                # In a time that tells nothing of the key.
                if hmac.compare_digest(key.encode(), offered.encode()):
                    return Agent(registry, socket, principal, next(ranks))
        log.info("client refused", reason="unknown API key")
        raise Refused("Authentication failed")

    return connect


class Agent:
    """One agent's browser. `rank` orders them by when they came."""

    __slots__ = ("_calls", "_principal", "_rank", "_registry", "_socket")

    def __init__(self, registry: Registry, socket: Socket, principal: str, rank: int) -> None:
        self._registry = registry
        self._socket = socket
        self._principal = principal
        self._rank = rank
        self._calls: dict[str, Record] = {}

    def event(self, name: str | float, args: list[Any], ack: Ack | None) -> None:
        """Serve one event."""
        if name not in EVENTS:
            if ack is not None:  # Without one, unknown events are ignored.
                ack({"ok": False, "code": "UNKNOWN_EVENT", "message": "There is no such event"})
            return
        try:
            message = msgspec.convert(args[0] if args else None, EVENTS[name])
            answer = self._serve(message)
        except msgspec.ValidationError as error:
            self._reject(name, RejectedError("INVALID_PAYLOAD", f"{name}: {error}"), ack)
        except RejectedError as rejected:
            self._reject(name, rejected, ack)
        else:
            if ack is not None:
                ack({"ok": True, **answer})

    def disconnected(self, reason: str) -> None:
        """End the tasks of the calls that are bound here; their data stay."""
        log.info("client gone", reason=reason)
        for record in self._calls.values():
            if self._owns(record):
                self._registry.detach(record)

    # Events

    def _serve(self, message: ClientMessage) -> Answer:
        match message:
            case Transcript():
                answer = self._transcript(message)
            case StartConversation():
                answer = self._start(message)
            case OptionSelected():
                answer = self._select(message)
            case RequestNextTip():
                answer = self._request_next(message)
            case RequestAlternativeTip():
                answer = self._request_alternative(message)
            case EndConversation():
                answer = self._end(message)
            case _:
                answer = self._ping()
        return answer

    def _start(self, message: StartConversation) -> Answer:
        if message.conversation_id is not None:
            known: Record | None = self._find(message.conversation_id)
        else:
            known = self._started_by(message.agent_id)
        if known is None:
            self._check_room()
        record = known or self._registry.begin(self._principal, message.agent_id, message.metadata)
        call = self._bind(record)
        conversation, moment = record.conversation, now()
        started = ConversationStarted(
            conversation_id=conversation.id,
            timestamp=moment.unix_ms,
            resumed=known is not None,
            mode=conversation.mode,
            seq=conversation.seq,
        )
        send(self._socket, "CONVERSATION_STARTED", started)
        call.perform(conversation.tick(moment))
        return {"conversationId": conversation.id, "seq": conversation.seq}

    def _transcript(self, message: Transcript) -> Answer:
        record = self._find(message.conversation_id)
        call = self._bind(record)
        text = message.text.replace("\0", "\ufffd")
        if message.is_final and text.strip():
            said = record.conversation.say(
                message.speaker, text[:MAX_TEXT], now(), message.timestamp
            )
            call.perform(said)
        if len(text) > MAX_TEXT:
            what = f"The text was cut to {MAX_TEXT} characters"
            self._notify("WARNING", "TEXT_TRUNCATED", what, message.conversation_id)
        return {"seq": record.conversation.seq}

    def _select(self, message: OptionSelected) -> Answer:
        # The id begins with its conversation's, so no table of tips is needed to find the call.
        conversation_id = message.recommendation_id.rpartition(".")[0]
        known = self._registry.find(conversation_id, self._principal)
        unknown = RejectedError("UNKNOWN_RECOMMENDATION", "There is no such recommendation")
        if known is None:
            raise unknown
        record = self._find(conversation_id)
        call = self._bind(record)
        try:
            effects = record.conversation.select(
                message.recommendation_id, message.selected_option, now()
            )
        except KeyError:
            raise unknown from None
        except IndexError:
            message_ = "The recommendation has no such option"
            raise RejectedError("UNKNOWN_OPTION", message_, conversation_id) from None
        call.perform(effects)
        return {"conversationId": conversation_id}

    def _request_next(self, message: RequestNextTip) -> Answer:
        key = None
        if message.selected_recommendation_id and message.selected_option:
            key = (message.selected_recommendation_id, message.selected_option)
        request = Request(
            "requested",
            key,
            message.selected_script and message.selected_script[:MAX_TEXT],
            history=_history(message),
        )
        return self._request(message.conversation_id, request)

    def _request_alternative(self, message: RequestAlternativeTip) -> Answer:
        record = self._find(message.conversation_id)
        shown = record.conversation.tip_on_display
        excluded = {option.id for option in shown.options} if shown else set()
        if message.current_script_id:
            excluded.add(message.current_script_id)
        request = Request("alternative", excluded=frozenset(excluded))
        return self._request(message.conversation_id, request)

    def _request(self, conversation_id: str, request: Request) -> Answer:
        record = self._find(conversation_id)
        self._bind(record).perform(record.conversation.request(request, now()))
        return {"conversationId": conversation_id}

    def _end(self, message: EndConversation) -> Answer:
        record = self._registry.find(message.conversation_id, self._principal)
        if record is None:
            raise _unknown_conversation(message.conversation_id)
        for effect in record.conversation.end(now()):
            if isinstance(effect, Emit):
                send(self._socket, effect.name, effect.payload)
        self._registry.detach(record)
        self._calls.pop(message.conversation_id, None)
        return {"conversationId": message.conversation_id}

    def _ping(self) -> Answer:
        pong = Pong(timestamp=now().unix_ms)
        send(self._socket, "PONG", pong)
        return {"timestamp": pong.timestamp}

    # Calls

    def _find(self, conversation_id: str) -> Record:
        """Return a conversation that goes on."""
        record = self._registry.find(conversation_id, self._principal)
        if record is None:
            raise _unknown_conversation(conversation_id)
        if record.conversation.ended is not None:
            raise RejectedError(
                "CONVERSATION_ENDED", "The conversation has ended", conversation_id, name="WARNING"
            )
        return record

    def _started_by(self, agent_id: str) -> Record | None:
        """Return the call that goes on here under this name."""
        records = self._calls.values()
        return next((record for record in records if record.agent_id == agent_id), None)

    def _bind(self, record: Record) -> Call:
        """Return the conversation's call, moved here unless a newer socket has it."""
        call = record.call
        if call is None or call.rank < self._rank:
            self._check_room()
            call = self._registry.attach(record, self._socket, self._rank)
            self._calls[record.conversation.id] = record
        return call

    def _owns(self, record: Record) -> bool:
        return record.call is not None and record.call.rank == self._rank

    def _check_room(self) -> None:
        self._calls = {id_: record for id_, record in self._calls.items() if self._owns(record)}
        if len(self._calls) >= MAX_CALLS:
            raise RejectedError("TOO_MANY_CALLS", f"At most {MAX_CALLS} calls at once")

    # Answers

    def _reject(self, name: str | float, rejected: RejectedError, ack: Ack | None) -> None:
        log.info("event rejected", name=name, code=rejected.code)
        if ack is not None:
            ack({"ok": False, "code": rejected.code, "message": rejected.message})
        else:
            self._notify(rejected.name, rejected.code, rejected.message, rejected.conversation_id)

    def _notify(self, name: str, code: str, message: str, conversation_id: str | None) -> None:
        send(self._socket, name, Notice(message, code, now().unix_ms, conversation_id))


def _unknown_conversation(conversation_id: str) -> RejectedError:
    return RejectedError("UNKNOWN_CONVERSATION", "There is no such conversation", conversation_id)


def _history(message: RequestNextTip) -> tuple[Line, ...]:
    """What the client heard, for a call of which the server has heard nothing."""
    lines: list[HistoryLine] = message.transcript_history[-MAX_HISTORY:] or [
        line for line in (message.agent_response, message.customer_reaction) if line
    ]
    return tuple(Line(0, line.speaker, line.text[:MAX_TEXT], 0) for line in lines)
