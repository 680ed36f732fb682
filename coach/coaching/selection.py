"""Following a chosen option: the agent says it, the customer reacts, silence, the next tip."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from coach.coaching.situation import Line


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """When the coach speaks by itself. All in seconds.

    warmup: from the start of a call to its first tip.
    interval: from a tip to the next.
    silence: that ends a reaction.
    reaction_limit: a reaction's length, counted as ended after it.
    selection_timeout: a selection's life after it was made or the agent spoke.
    """

    warmup: float = 180.0
    interval: float = 30.0
    silence: float = 3.0
    reaction_limit: float = 10.0
    selection_timeout: float = 30.0

    def scaled(self, factor: float) -> Timing:
        """The same at `factor` times the speed, for replays."""
        return Timing(
            warmup=self.warmup / factor,
            interval=self.interval / factor,
            silence=self.silence / factor,
            reaction_limit=self.reaction_limit / factor,
            selection_timeout=self.selection_timeout / factor,
        )


class Selection:
    """One chosen option on its way: chosen, spoken, reacted to.

    `due_at` is when something follows by itself; `deserves_tip` says whether that is a tip (the
    agent spoke) or nothing (the selection just expires).
    """

    def __init__(self, key: tuple[str, int], script: str, timing: Timing, now: float) -> None:
        self.key = key
        self.script = script
        self._timing = timing
        self._agent_seq = 0
        self._reaction_seq = 0
        self._reaction_ends_by = inf
        self.due_at = now + timing.selection_timeout

    def renew(self, now: float) -> None:
        """It was chosen again, as after reading it out: what was heard stays."""
        if not self._reaction_seq:
            self.due_at = now + self._timing.selection_timeout

    def hear(self, line: Line, now: float) -> None:
        """Take in a line of the call."""
        if line.speaker == "agent":
            self._agent_seq = line.seq
            if not self._reaction_seq:
                self.due_at = now + self._timing.selection_timeout
                return
        elif not self._agent_seq:
            return  # Nothing was said yet to react to.
        elif not self._reaction_seq:
            self._reaction_seq = line.seq
            self._reaction_ends_by = now + self._timing.reaction_limit
        self.due_at = min(now + self._timing.silence, self._reaction_ends_by)

    @property
    def deserves_tip(self) -> bool:
        """Whether the agent said anything since the choice."""
        return self._agent_seq > 0

    def is_answered_by(self, based_on: int) -> bool:
        """Whether a tip that rests on this line already took the exchange into account."""
        return self.deserves_tip and based_on >= (self._reaction_seq or self._agent_seq)
