"""One call as a state machine: what was said, which tips were shown, when the next one is due.

Inputs are methods, each with the time it happens at; they return what has to be done. The owner
performs it, and calls `tick` whenever `next_deadline` has passed. The rules:

- The first tip comes at the end of the warm-up, or with the first line after it.
- In auto and hybrid mode a tip follows `interval` after the last one, if anything new was said
  by then, else with the next line. In hybrid mode it waits while a selection is followed.
- In event-driven and hybrid mode a tip follows a selection that was spoken and answered.
- A request gets its tip at once. It joins the ask in flight if that rests on the same words and
  the same selection, and supersedes it otherwise. Nothing else supersedes an ask.
- At most one ask is in flight. Without a client there is none: timers keep their absolute times,
  and an ask that was not answered is made again once a client is back.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

import msgspec

from coach.coaching.matcher import words
from coach.coaching.messages import (
    ConversationEnded,
    Mode,
    Option,
    ServerMessage,
    Speaker,
    Stage,
    Summary,
    Tip,
    Trigger,
)
from coach.coaching.selection import Selection, Timing
from coach.coaching.situation import Line, Situation, Usage

if TYPE_CHECKING:
    from coach.coaching.playbook import Playbook, Script
    from coach.coaching.situation import Draft

MAX_LINES: Final = 50
MAX_TIPS: Final = 100
"""Tips that are remembered, so that their options can be chosen."""

_RECOGNISED: Final = 0.7
_MIN_WORDS: Final = 5
"""An agent's line counts as a script spoken if it has so many words and this part of them is
the script's."""

_TALK_BEFORE_DISCOVERY: Final = 8
"""Lines after which a call is past its greeting, whatever tips it had."""


class Now(msgspec.Struct, frozen=True):
    """A moment: seconds of a monotonic clock for timers, Unix milliseconds for records."""

    mono: float
    unix_ms: int


class Emit(msgspec.Struct, frozen=True):
    """Send this message to the agent."""

    name: str
    payload: ServerMessage


class AskTip(msgspec.Struct, frozen=True):
    """Have a tip made for this situation, dropping the ask before, if any is in flight."""

    id: int
    situation: Situation


Effect = Emit | AskTip


class Request(msgspec.Struct, frozen=True):
    """What a tip is wanted for. `key` names the selection it answers, `said` what that says.

    `history` serves only where no line was heard.
    """

    trigger: Trigger
    key: tuple[str, int] | None = None
    said: str | None = None
    excluded: frozenset[str] = frozenset()
    history: tuple[Line, ...] = ()


class _Ask(msgspec.Struct):
    """The ask in flight, and the newest line it rests on."""

    id: int
    seq: int
    request: Request

    @property
    def is_explicit(self) -> bool:
        return self.request.trigger in ("requested", "alternative")


class Conversation:
    """The state of one call, from START_CONVERSATION to its end and a little beyond."""

    def __init__(
        self,
        conversation_id: str,
        playbook: Playbook,
        *,
        mode: Mode,
        values: dict[str, str],
        timing: Timing,
        now: Now,
    ) -> None:
        self.id: Final = conversation_id
        self.mode: Final = mode
        self.seq = 0
        self.stage = Stage.GREETING
        self.ended: ConversationEnded | None = None
        self._playbook = playbook
        self._values = values
        self._timing = timing
        self._began = now
        self._attached = True
        self._lines: list[Line] = []
        self._heard: dict[tuple[Speaker, str, float], None] = {}
        self._tips: dict[str, Tip] = {}
        self._given: dict[str, None] = {}
        self._tip_count = 0
        self._usage = Usage()
        self._last_tip_at = -inf
        self._last_tip: Tip | None = None
        self._warmed_up = False
        self._selection: Selection | None = None
        self._asks = 0
        self._ask: _Ask | None = None
        self._waiting: Request | None = None

    @property
    def tip_on_display(self) -> Tip | None:
        """The newest tip."""
        return self._last_tip

    # What happens

    def say(
        self, speaker: Speaker, text: str, now: Now, said_at: float | None = None
    ) -> list[Effect]:
        """A finished sentence was spoken, `said_at` by the client's own clock.

        A client that reconnects may send a line again: the same words of the same moment count
        once.
        """
        if said_at is not None:
            if (speaker, text, said_at) in self._heard:
                return self._settle(now)
            self._heard[speaker, text, said_at] = None
            _keep_newest(self._heard, MAX_LINES)
        self.seq += 1
        line = Line(self.seq, speaker, text, now.unix_ms)
        self._lines.append(line)
        del self._lines[:-MAX_LINES]
        if speaker == "agent" and self._selection is None:
            self._recognise(text, now)
        if self._selection is not None:
            self._selection.hear(line, now.mono)
        return self._settle(now)

    def select(self, recommendation_id: str, option: int, now: Now) -> list[Effect]:
        """The agent chose an option of a tip that was shown, counted from 1.

        Raises:
            LookupError: no such tip was shown in this call, or it has no such option.
        """
        tip = self._tips[recommendation_id]
        self._follow(tip, option, now)
        return self._settle(now)

    def request(self, request: Request, now: Now) -> list[Effect]:
        """The agent wants a tip now."""
        ask = self._ask
        if (
            ask is not None
            and request.trigger == "requested"
            and ask.seq == self.seq
            and request.key in (None, ask.request.key)
        ):
            if not ask.is_explicit:
                ask.request = msgspec.structs.replace(ask.request, trigger=request.trigger)
            return []
        self._ask = None
        self._waiting = request
        return self._settle(now)

    def tip_ready(self, ask_id: int, draft: Draft, now: Now) -> list[Effect]:
        """A tip was made. The tip of an ask that is no longer in flight is dropped."""
        self._usage = Usage(
            self._usage.tokens + draft.usage.tokens, self._usage.cost_usd + draft.usage.cost_usd
        )
        ask = self._ask
        if ask is None or ask.id != ask_id:
            return []
        self._ask = None
        tip = self._make_tip(ask, draft, now)
        self._show(tip, ask, now)
        return [Emit("AI_TIP", tip), *self._settle(now)]

    def end(self, now: Now) -> list[Effect]:
        """The call is over. Ending it again gives the same answer."""
        if self.ended is None:
            summary = Summary(
                duration_ms=round((now.mono - self._began.mono) * 1000),
                transcripts=self.seq,
                tips=self._tip_count,
                tokens=self._usage.tokens,
                cost_usd=round(self._usage.cost_usd, 6),
            )
            self.ended = ConversationEnded(self.id, now.unix_ms, summary)
            self._ask = self._waiting = self._selection = None
        return [Emit("CONVERSATION_ENDED", self.ended)]

    def attach(self) -> None:
        """A client is there. What is due comes with the next input."""
        self._attached = True

    def detach(self) -> None:
        """The client is gone, and with it the ask in flight."""
        self._attached = False
        if self._ask is not None:
            self._waiting, self._ask = self._ask.request, None

    def tick(self, now: Now) -> list[Effect]:
        """Do what is due by time."""
        return self._settle(now)

    @property
    def next_deadline(self) -> float:
        """When `tick` is due next, in seconds of the monotonic clock; never is infinity."""
        if not self._attached or self.ended is not None or self._ask is not None:
            return inf
        return min(self._selection_due_at(), self._warmup_due_at(), self._interval_due_at())

    # The rules

    def _settle(self, now: Now) -> list[Effect]:
        """Ask for the tip that is due, if one is."""
        if not self._attached or self.ended is not None or self._ask is not None:
            return []
        if self._waiting is not None:
            request, self._waiting = self._waiting, None
            return [self._start_ask(request)]
        if now.mono >= self._selection_due_at() and (asked := self._end_selection()):
            return [asked]
        if now.mono >= self._warmup_due_at():
            return [self._start_ask(Request("warmup"))]
        if now.mono >= self._interval_due_at():
            return [self._start_ask(Request("interval"))]
        return []

    def _selection_due_at(self) -> float:
        return inf if self._selection is None else self._selection.due_at

    def _warmup_due_at(self) -> float:
        if self._warmed_up or not self._has_news():
            return inf
        return self._began.mono + self._timing.warmup

    def _interval_due_at(self) -> float:
        if self.mode == "event-driven" or not self._warmed_up or not self._has_news():
            return inf
        if self._selection is not None:
            return inf
        return self._last_tip_at + self._timing.interval

    def _has_news(self) -> bool:
        """Whether anything was said that no tip has used."""
        return self.seq > (self._last_tip.based_on if self._last_tip else 0)

    def _end_selection(self) -> AskTip | None:
        """The followed selection is complete or has expired; it may call for a tip."""
        selection, self._selection = self._selection, None
        if selection is None or not selection.deserves_tip:
            return None
        # None within the same turn as a tip already shown.
        if self._last_tip is not None and selection.is_answered_by(self._last_tip.based_on):
            return None
        return self._start_ask(Request("reaction", selection.key, selection.script))

    def _start_ask(self, request: Request) -> AskTip:
        self._asks += 1
        self._ask = _Ask(self._asks, self.seq, request)
        situation = Situation(
            playbook=self._playbook,
            values=self._values,
            lines=tuple(self._lines) or request.history,
            stage=self._present_stage(),
            said=request.said,
            given=tuple(self._given),
            excluded=request.excluded,
        )
        return AskTip(self._asks, situation)

    # Tips

    def _present_stage(self) -> Stage:
        is_past_greeting = self.seq >= _TALK_BEFORE_DISCOVERY
        if self.stage is Stage.GREETING and is_past_greeting:
            return Stage.DISCOVERY
        return self.stage

    def _make_tip(self, ask: _Ask, draft: Draft, now: Now) -> Tip:
        best = draft.scripts[0]
        self._tip_count += 1
        return Tip(
            # From the conversation's id and a counter: any instance finds the call by it.
            recommendation_id=f"{self.id}.{self._tip_count}",
            conversation_id=self.id,
            stage=best.stage,
            heading=best.label,
            context=best.when,
            options=[self._option(script, draft) for script in draft.scripts],
            timestamp=now.unix_ms,
            source=draft.source,
            trigger=ask.request.trigger,
            based_on=ask.seq,
        )

    def _option(self, script: Script, draft: Draft) -> Option:
        text = self._playbook.render(script, draft.values | self._values)
        return Option(label=script.label, script=text, id=script.id)

    def _show(self, tip: Tip, ask: _Ask, now: Now) -> None:
        self._tips[tip.recommendation_id] = tip
        _keep_newest(self._tips, MAX_TIPS)
        self._given.pop(tip.options[0].id, None)
        self._given[tip.options[0].id] = None
        self._last_tip, self._last_tip_at = tip, now.mono
        if now.mono >= self._began.mono + self._timing.warmup:
            self._warmed_up = True
        if tip.stage is not Stage.OBJECTION_HANDLING:
            self.stage = tip.stage
        if self._selection is not None and self._selection.key == ask.request.key:
            self._selection = None

    # Selections

    def _follow(self, tip: Tip, option: int, now: Now) -> None:
        if not 1 <= option <= len(tip.options):
            raise IndexError(option)
        chosen = tip.options[option - 1]
        key = (tip.recommendation_id, option)
        if self._selection is not None and self._selection.key == key:
            self._selection.renew(now.mono)
        elif self.mode != "auto":
            self._selection = Selection(key, chosen.script, self._timing, now.mono)

    def _recognise(self, text: str, now: Now) -> None:
        """Agents often read an option out without choosing it first: that is a choice too."""
        spoken = set(words(text))
        if self._last_tip is None or len(spoken) < _MIN_WORDS:
            return
        for number, option in enumerate(self._last_tip.options, start=1):
            if len(spoken & set(words(option.script))) >= _RECOGNISED * len(spoken):
                self._follow(self._last_tip, number, now)
                return


def _keep_newest(table: dict[Any, Any], count: int) -> None:
    if len(table) > count:
        del table[next(iter(table))]
