"""A call on a clock that stands still until a scenario moves it.

Seconds count from the call's start; the conversation itself is given a clock that began earlier,
so that a time taken for a duration is noticed.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final

from coach.coaching.conversation import AskTip, Conversation, Effect, Emit, Now, Request
from coach.coaching.messages import ConversationEnded, Speaker, Tip
from coach.coaching.playbook import parse_playbook
from coach.coaching.selection import Timing
from coach.coaching.situation import Draft, Usage

if TYPE_CHECKING:
    from coach.coaching.messages import Mode
    from coach.coaching.playbook import Playbook, Script

BOOT: Final = 5_000.0
EPOCH_MS: Final = 1_700_000_000_000
MODES: Final[tuple[Mode, ...]] = ("auto", "event-driven", "hybrid")

PLAYBOOK: Final = parse_playbook("""
title = "Test calls"
goal = "Book a call"

[placeholders]
agentName = "the caller"
company = "our team"
day = "tomorrow"

[[scripts]]
id = "hello"
stage = "GREETING"
label = "Say hello"
text = "Hello, this is [agentName] from [company], do you have half a minute for me?"
when = "They have just picked up."
triggers = ["hello", "who is this"]

[[scripts]]
id = "source"
stage = "DISCOVERY"
label = "Ask where customers come from"
text = "Where do most of your new customers come from these days?"
when = "They are ready to talk."
triggers = ["go ahead"]

[[scripts]]
id = "price"
stage = "OBJECTION_HANDLING"
label = "Price"
text = "The price depends on which parts of the service you really need."
when = "They ask what it costs."
triggers = ["how much is it", "what does it cost"]
avoid = ["not interested"]

[[scripts]]
id = "meet"
stage = "NEXT_STEPS"
label = "Suggest a meeting"
text = "Shall we put fifteen minutes in the calendar for [day] morning?"
when = "They sound curious."
triggers = ["tell me more"]
""")

READS_SOURCE: Final = "Where do most of your new customers come from, then?"
"""What an agent says who reads the script "source" out, nearly word for word."""


def script(script_id: str, playbook: Playbook = PLAYBOOK) -> Script:
    found = playbook.script(script_id)
    assert found is not None
    return found


class Call:
    """One conversation, its owner's clock and an engine that answers after `delay` seconds.

    With a delay of None it never answers by itself. `options` are the scripts of every tip.
    """

    def __init__(
        self,
        mode: Mode = "hybrid",
        *,
        delay: float | None = 0.0,
        timing: Timing | None = None,
        values: dict[str, str] | None = None,
        playbook: Playbook = PLAYBOOK,
    ) -> None:
        self.time = 0.0
        self.delay = delay
        self.options: tuple[str, ...] = ("source", "price", "meet")
        self.usage = Usage()
        self.slots: dict[str, str] = {}
        self.log: list[tuple[float, Effect]] = []
        self._playbook = playbook
        self._pending: list[tuple[float, int]] = []
        self.conversation = Conversation(
            "c0ffee",
            playbook,
            mode=mode,
            values=values or {},
            timing=timing or Timing(),
            now=self.now,
        )

    # What a scenario does

    def at(self, time: float) -> Call:
        """Let time pass; the clock stops wherever something falls due."""
        for _ in range(1000):
            deadline = self.conversation.next_deadline - BOOT
            answer_at, ask_id = min(self._pending, default=(inf, 0))
            if min(deadline, answer_at) > time:
                break
            self.time = max(self.time, min(deadline, answer_at))
            if answer_at <= deadline:
                self.answer(ask_id)
            else:
                self._perform(self.conversation.tick(self.now))
        else:
            raise AssertionError(f"the conversation never rests: {self.log[-3:]}")
        self.time = time
        return self

    def say(self, speaker: Speaker, text: str, said_at: float | None = None) -> None:
        self._perform(self.conversation.say(speaker, text, self.now, said_at))

    def agent(self, text: str = "Right.") -> None:
        self.say("agent", text)

    def caller(self, text: str = "Hm.") -> None:
        self.say("caller", text)

    def select(self, option: int, tip: Tip | None = None) -> None:
        chosen = (tip or self.tips[-1]).recommendation_id
        self._perform(self.conversation.select(chosen, option, self.now))

    def request(self, key: tuple[str, int] | None = None, **fields: Any) -> None:
        self._request(Request("requested", key, **fields))

    def alternative(self, *excluded: str) -> None:
        self._request(Request("alternative", excluded=frozenset(excluded)))

    def answer(self, ask_id: int | None = None) -> None:
        """The engine answers: this ask, or the newest one."""
        answered = ask_id or self.asks[-1][1].id
        self._pending = [(due, id_) for due, id_ in self._pending if id_ != answered]
        draft = Draft(
            tuple(script(id_, self._playbook) for id_ in self.options),
            "llm",
            self.slots,
            self.usage,
        )
        self._perform(self.conversation.tip_ready(answered, draft, self.now))

    def tick(self) -> None:
        self._perform(self.conversation.tick(self.now))

    def detach(self) -> None:
        self.conversation.detach()

    def attach(self) -> None:
        self.conversation.attach()

    def end(self) -> ConversationEnded:
        effects = self.conversation.end(self.now)
        self._perform(effects)
        [effect] = effects
        assert isinstance(effect, Emit)
        assert isinstance(effect.payload, ConversationEnded)
        return effect.payload

    # What came of it

    @property
    def now(self) -> Now:
        return Now(BOOT + self.time, EPOCH_MS + round(self.time * 1000))

    @property
    def asks(self) -> list[tuple[float, AskTip]]:
        return [(time, effect) for time, effect in self.log if isinstance(effect, AskTip)]

    @property
    def asked_at(self) -> list[float]:
        return [time for time, _ in self.asks]

    @property
    def tips(self) -> list[Tip]:
        return [tip for _, tip in self._shown()]

    @property
    def shown(self) -> list[tuple[float, str]]:
        """When each tip came, and why."""
        return [(time, tip.trigger) for time, tip in self._shown()]

    @property
    def deadline(self) -> float:
        return self.conversation.next_deadline - BOOT

    def _shown(self) -> list[tuple[float, Tip]]:
        return [
            (time, effect.payload)
            for time, effect in self.log
            if isinstance(effect, Emit) and isinstance(effect.payload, Tip)
        ]

    def _request(self, request: Request) -> None:
        self._perform(self.conversation.request(request, self.now))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            self.log.append((self.time, effect))
            if isinstance(effect, AskTip) and self.delay is not None:
                self._pending.append((self.time + self.delay, effect.id))
        if self.delay == 0:
            for _, ask_id in self._pending[:]:
                self.answer(ask_id)


def warmed_up(mode: Mode, **options: Any) -> Call:
    """A call whose first tip came at 180 s, resting on line 1."""
    call = Call(mode, **options)
    call.at(5).caller("Hello?")
    call.at(180)
    return call
