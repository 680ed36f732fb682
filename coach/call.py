"""The running side of a conversation: its timer task and its tip request task."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import structlog
import trio

from coach.coaching.conversation import Emit, Now

if TYPE_CHECKING:
    from coach.coaching.conversation import AskTip, Conversation, Effect
    from coach.coaching.messages import ServerMessage
    from coach.llm import TipEngine
    from coach.socketio import Socket


def now() -> Now:
    """Return this moment by both clocks: Trio's for timers, the wall's for records."""
    return Now(trio.current_time(), round(time.time() * 1000))


def send(socket: Socket, name: str, payload: ServerMessage) -> None:
    """Emit a message in the envelope that clients expect."""
    socket.emit(name, {"type": name, "payload": payload})


class Call:
    """A conversation on the socket that it is bound to.

    `run` is its scope: a timer that sleeps until the conversation's next deadline, and at most one
    task that has a tip made. `rank` orders sockets by when they came: a call follows the newest.
    """

    __slots__ = (
        "_asking",
        "_closed",
        "_conversation",
        "_due",
        "_engine",
        "_nap",
        "_socket",
        "rank",
    )

    def __init__(
        self, conversation: Conversation, engine: TipEngine, socket: Socket, rank: int
    ) -> None:
        self.rank = rank
        self._conversation = conversation
        self._engine = engine
        self._socket = socket
        self._closed = False
        self._nap = trio.CancelScope()
        self._due: AskTip | None = None
        self._asking: trio.CancelScope | None = None

    async def run(self) -> None:
        """Keep the conversation's time and have its tips made, until `close`."""
        structlog.contextvars.bind_contextvars(conversation_id=self._conversation.id)
        async with trio.open_nursery() as nursery:
            while not self._closed:
                if self._due is not None:
                    ask, self._due = self._due, None
                    self._asking = trio.CancelScope()
                    nursery.start_soon(self._answer, ask, self._asking)
                self._nap = trio.CancelScope(deadline=self._conversation.next_deadline)
                with self._nap:
                    await trio.sleep_forever()
                if not self._closed:
                    self.perform(self._conversation.tick(now()))

    def perform(self, effects: list[Effect]) -> None:
        """Do what the conversation wants done, and keep its new time."""
        for effect in effects:
            if isinstance(effect, Emit):
                send(self._socket, effect.name, effect.payload)
            else:
                # One ask in flight: the one before ends here, and its connection with it.
                if self._asking is not None:
                    self._asking.cancel()
                self._due = effect
        if self._due is not None:
            self._nap.cancel()
        elif self._nap.deadline != (deadline := self._conversation.next_deadline):
            self._nap.deadline = deadline  # Trio sorts it in anew, changed or not.

    def close(self) -> None:
        """End both tasks at once."""
        self._closed = True
        self._nap.cancel()
        if self._asking is not None:
            self._asking.cancel()

    async def _answer(self, ask: AskTip, scope: trio.CancelScope) -> None:
        with scope:
            draft = await self._engine.draft(ask.situation)
            self.perform(self._conversation.tip_ready(ask.id, draft, now()))
