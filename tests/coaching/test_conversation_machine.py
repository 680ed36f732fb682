"""Whatever happens on a call, in whatever order: what always holds."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from coach.coaching.conversation import MAX_LINES, AskTip, Conversation, Effect, Now, Request
from coach.coaching.messages import ConversationEnded, Tip
from coach.coaching.selection import Timing
from coach.coaching.situation import Draft, Usage
from tests.coaching.driver import BOOT, EPOCH_MS, MODES, PLAYBOOK, READS_SOURCE

if TYPE_CHECKING:
    from coach.coaching.messages import Mode, Speaker

AUTOMATIC = {"warmup", "interval", "reaction"}
SECONDS = st.sampled_from([0.0, 0.5, 1.0, 2.9, 3.0, 7.0, 10.0, 29.5, 30.0, 31.0, 180.0])
SPEAKERS = st.sampled_from(["agent", "caller"])
TEXTS = st.sampled_from(["Yes.", "How much is it?", READS_SOURCE, "[agentName]"])
OPTIONS = st.integers(1, 3)
SCRIPTS = st.lists(
    st.sampled_from(PLAYBOOK.scripts), min_size=1, max_size=3, unique_by=lambda each: each.id
)


class AnyCall(RuleBasedStateMachine):
    """A conversation with an owner that ticks whenever a deadline has passed."""

    @initialize(mode=st.sampled_from(MODES), scale=st.sampled_from([1, 7, 100]))
    def start(self, mode: Mode, scale: int) -> None:
        self.mode = mode
        self.time = BOOT
        self.lines = 0
        self.ask: AskTip | None = None
        self.ask_is_request = False
        self.is_owed = False
        self.old_asks: list[int] = []
        self.tips: list[Tip] = []
        self.ended: ConversationEnded | None = None
        self.is_attached = True
        self.conversation = Conversation(
            "c0ffee",
            PLAYBOOK,
            mode=mode,
            values={"agentName": "[Dana]"},
            timing=Timing().scaled(scale),
            now=self.now,
        )

    # What happens

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        until = self.time + seconds
        while self.conversation.next_deadline <= until:
            self.time = max(self.time, self.conversation.next_deadline)
            self.settle()
        self.time = until

    @rule(speaker=SPEAKERS, text=TEXTS)
    def say(self, speaker: Speaker, text: str) -> None:
        self.lines += 1
        self.perform(self.conversation.say(speaker, text, self.now))

    @rule(speaker=SPEAKERS, text=TEXTS)
    def say_twice(self, speaker: Speaker, text: str) -> None:
        self.lines += 1
        # No two lines are of the same moment.
        self.perform(self.conversation.say(speaker, text, self.now, said_at=self.lines))
        assert self.conversation.say(speaker, text, self.now, said_at=self.lines) == []

    @precondition(lambda self: self.tips)
    @rule(data=st.data(), option=OPTIONS)
    def select(self, data: Any, option: int) -> None:
        tip = data.draw(st.sampled_from(self.tips[-5:]))
        number = min(option, len(tip.options))
        self.perform(self.conversation.select(tip.recommendation_id, number, self.now))

    @rule(option=OPTIONS, is_for_choice=st.booleans())
    def request(self, option: int, is_for_choice: bool) -> None:
        key = (self.tips[-1].recommendation_id, option) if self.tips and is_for_choice else None
        self.demand(Request("requested", key))

    @rule(excluded=SCRIPTS)
    def alternative(self, excluded: list[Any]) -> None:
        before = self.ask
        self.demand(Request("alternative", excluded=frozenset(each.id for each in excluded)))
        assert self.ask is None or self.ask is not before

    @precondition(lambda self: self.ask is not None)
    @rule(scripts=SCRIPTS)
    def answer(self, scripts: list[Any]) -> None:
        assert self.ask is not None
        ask, was_request, before = self.ask, self.ask_is_request, len(self.tips)
        self.ask, self.ask_is_request = None, False
        self.perform(self.conversation.tip_ready(ask.id, self.draft(scripts), self.now))
        assert len(self.tips) == before + 1
        assert (self.tips[-1].trigger in AUTOMATIC) is not was_request

    @precondition(lambda self: self.old_asks)
    @rule(data=st.data(), scripts=SCRIPTS)
    def answer_late(self, data: Any, scripts: list[Any]) -> None:
        late = data.draw(st.sampled_from(self.old_asks))
        assert self.conversation.tip_ready(late, self.draft(scripts), self.now) == []

    @rule()
    def client_goes(self) -> None:
        self.conversation.detach()
        self.is_attached = False
        self.is_owed = self.is_owed or self.ask_is_request
        self.drop_ask()

    @rule()
    def client_comes(self) -> None:
        self.conversation.attach()
        self.is_attached = True
        self.perform(self.conversation.tick(self.now))
        if self.is_owed and self.ended is None:
            assert self.ask is not None
            self.ask_is_request = True
        self.is_owed = False

    @precondition(lambda self: len(self.tips) > 2)
    @rule()
    def end(self) -> None:
        before = self.ended
        self.perform(self.conversation.end(self.now))
        assert self.ended is not None
        assert before is None or self.ended is before
        self.drop_ask()

    # What always holds

    @invariant()
    def every_line_counts_once(self) -> None:
        assert self.conversation.seq == self.lines

    @invariant()
    def the_next_deadline_lies_ahead(self) -> None:
        if self.ended or not self.is_attached or self.ask is not None:
            assert self.conversation.next_deadline == inf
        else:
            self.settle()
            assert self.conversation.next_deadline > self.time

    @invariant()
    def the_newest_tip_is_on_display(self) -> None:
        assert self.conversation.tip_on_display is (self.tips[-1] if self.tips else None)

    # How it is observed

    @property
    def now(self) -> Now:
        return Now(self.time, EPOCH_MS + round(self.time * 1000))

    def draft(self, scripts: list[Any]) -> Draft:
        return Draft(tuple(scripts), "llm", {"company": "]["}, Usage(10, 0.001))

    def demand(self, request: Request) -> None:
        """A request is in flight afterwards, or remembered for when the client is back."""
        self.perform(self.conversation.request(request, self.now), is_request=True)
        if self.ended is not None:
            assert self.ask is None
        elif self.is_attached:
            assert self.ask is not None
            self.ask_is_request = True
        else:
            self.is_owed = True

    def drop_ask(self) -> None:
        if self.ask is not None:
            self.old_asks.append(self.ask.id)
        self.ask, self.ask_is_request = None, False

    def settle(self) -> None:
        """Tick as an owner does. That comes to rest: time moves on, or an ask goes out."""
        for _ in range(3):
            if self.conversation.next_deadline > self.time:
                return
            self.perform(self.conversation.tick(self.now))
        raise AssertionError("a deadline that has passed stays")

    def perform(self, effects: list[Effect], *, is_request: bool = False) -> None:
        for effect in effects:
            if isinstance(effect, AskTip):
                self.check_ask(effect, is_request=is_request)
            elif isinstance(effect.payload, Tip):
                assert effect.name == "AI_TIP"
                self.check_tip(effect.payload)
            else:
                assert isinstance(effect.payload, ConversationEnded)
                self.ended = effect.payload

    def check_ask(self, ask: AskTip, *, is_request: bool) -> None:
        assert self.ended is None
        assert self.is_attached
        if not is_request:
            assert self.ask is None, "only a request supersedes"
        assert ask.id not in self.old_asks
        assert len(ask.situation.lines) == min(self.lines, MAX_LINES)
        self.drop_ask()
        self.ask = ask

    def check_tip(self, tip: Tip) -> None:
        assert self.ended is None
        assert self.is_attached
        assert 1 <= len(tip.options) <= 3
        assert not any(set("[]") & set(option.script) for option in tip.options)
        assert tip.recommendation_id.startswith("c0ffee.")
        assert tip.recommendation_id not in {each.recommendation_id for each in self.tips}
        assert tip.based_on <= self.lines
        if tip.trigger in AUTOMATIC:
            assert tip.based_on > (self.tips[-1].based_on if self.tips else 0), "nothing new"
        if self.mode == "auto":
            assert tip.trigger != "reaction"
        if self.mode == "event-driven":
            assert tip.trigger != "interval"
        self.tips.append(tip)


TestAnyCall = AnyCall.TestCase
TestAnyCall.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, database=None
)
