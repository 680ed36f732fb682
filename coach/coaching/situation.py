"""What whoever makes a tip gets to know, and what they give back."""

from __future__ import annotations

import msgspec

from coach.coaching.messages import Source, Speaker, Stage
from coach.coaching.playbook import Playbook, Script


class Line(msgspec.Struct, frozen=True):
    """One finished sentence. `seq` counts from 1 in each call."""

    seq: int
    speaker: Speaker
    text: str
    at_ms: int


class Situation(msgspec.Struct, frozen=True):
    """A call at the moment somebody asks for a tip.

    `lines` are the newest ones, oldest first. `said` is the script that the agent chose last.
    `given` are the ids of scripts shown before, newest last; `excluded` must not come again.
    """

    playbook: Playbook
    values: dict[str, str]
    lines: tuple[Line, ...]
    stage: Stage
    said: str | None
    given: tuple[str, ...]
    excluded: frozenset[str]

    @property
    def barred(self) -> frozenset[str]:
        """What may not come now: what is excluded, and the script shown last."""
        return self.excluded.union(self.given[-1:])


class Usage(msgspec.Struct, frozen=True):
    """What a model's answer cost: tokens, and US dollars."""

    tokens: int = 0
    cost_usd: float = 0.0


class Draft(msgspec.Struct, frozen=True):
    """A tip in the making: 1 to 3 scripts, best first, and values for their placeholders."""

    scripts: tuple[Script, ...]
    source: Source
    values: dict[str, str] = {}
    usage: Usage = Usage()
