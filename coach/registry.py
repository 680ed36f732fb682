"""All conversations of this process: how they begin, which call they run in, when they go."""

from __future__ import annotations

import secrets
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from coach.call import Call, now
from coach.coaching.conversation import Conversation
from coach.coaching.messages import Mode
from coach.coaching.playbook import clean_value

if TYPE_CHECKING:
    from coach.coaching.playbook import Playbook
    from coach.coaching.selection import Timing
    from coach.llm import TipEngine
    from coach.socketio import Socket

MAX_TIME_SCALE: Final = 100


class Record(msgspec.Struct, eq=False):
    """A conversation, whose it is, and the call it runs in while a client is there.

    `agent_id` is what the client that began it calls itself. `forget_at` is in Trio's seconds.
    """

    conversation: Conversation
    principal: str
    agent_id: str
    call: Call | None = None
    forget_at: float = inf


class Registry:
    """Conversations by id.

    Args:
        playbook: what tips are made from, by `engine`, at the times of `timing`.
        window: seconds for which a conversation is kept that no client named, or that ended.
        time_scale_allowed: whether a client may speed its call's timers up, for replays.
    """

    def __init__(
        self,
        playbook: Playbook,
        engine: TipEngine,
        timing: Timing,
        *,
        window: float,
        time_scale_allowed: bool,
    ) -> None:
        self._playbook = playbook
        self._engine = engine
        self._timing = timing
        self._window = window
        self._time_scale_allowed = time_scale_allowed
        self._records: dict[str, Record] = {}
        self._leaving: deque[tuple[float, str]] = deque()
        self._sweeper_rests = trio.lowlevel.ParkingLot()

    @property
    def active(self) -> int:
        """How many conversations run in a call now."""
        return sum(record.call is not None for record in self._records.values())

    def begin(self, principal: str, agent_id: str, metadata: dict[str, Any]) -> Record:
        """Begin a conversation with what its client said of it.

        Raises:
            msgspec.ValidationError: the mode or the time scale is none.
        """
        values = {
            name: clean_value(metadata[name])
            for name in self._playbook.placeholders
            if isinstance(metadata.get(name), str)
        }
        conversation = Conversation(
            secrets.token_urlsafe(16),
            self._playbook,
            mode=msgspec.convert(metadata.get("mode", "hybrid"), Mode),
            values=values,
            timing=self._timing.scaled(self._time_scale(metadata)),
            now=now(),
        )
        record = self._records[conversation.id] = Record(conversation, principal, agent_id)
        return record

    def _time_scale(self, metadata: dict[str, Any]) -> float:
        if not self._time_scale_allowed or "timeScale" not in metadata:
            return 1.0
        scale = msgspec.convert(metadata["timeScale"], float)
        if not 1 <= scale <= MAX_TIME_SCALE:
            raise msgspec.ValidationError(f"Expected 1 to {MAX_TIME_SCALE} - at `$.timeScale`")
        return scale

    def find(self, conversation_id: str, principal: str) -> Record | None:
        """Return a conversation of that principal; others' are as good as unknown."""
        record = self._records.get(conversation_id)
        return record if record is not None and record.principal == principal else None

    def attach(self, record: Record, socket: Socket, rank: int) -> Call:
        """Let a conversation run in a call on `socket`, in place of the call it had."""
        self.detach(record)
        record.call = Call(record.conversation, self._engine, socket, rank)
        record.forget_at = inf
        record.conversation.attach()
        socket.nursery.start_soon(record.call.run)
        return record.call

    def detach(self, record: Record) -> None:
        """End a conversation's tasks; its data stay for the window."""
        if record.call is None:
            return
        record.call.close()
        record.call = None
        record.conversation.detach()
        record.forget_at = trio.current_time() + self._window
        self._leaving.append((record.forget_at, record.conversation.id))
        self._sweeper_rests.unpark()

    async def sweep(self) -> None:
        """Forget what nobody came back for, until cancelled."""
        while True:
            while not self._leaving:
                await self._sweeper_rests.park()
            due, conversation_id = self._leaving[0]
            await trio.sleep_until(due)
            self._leaving.popleft()
            record = self._records.get(conversation_id)
            if record is not None and record.forget_at <= due:
                del self._records[conversation_id]
