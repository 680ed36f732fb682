"""The local matcher: picks scripts for the latest turns without a model.

Deterministic and without I/O. A script scores by how much of one of its trigger phrases was said,
each word weighing by how rare it is in the playbook, plus a little for standing at the right stage.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import takewhile
from math import log
from typing import TYPE_CHECKING, Final

from coach.coaching.messages import Stage
from coach.coaching.situation import Draft

if TYPE_CHECKING:
    from collections.abc import Iterable

    from coach.coaching.playbook import Playbook, Script
    from coach.coaching.situation import Line, Situation

MAX_OPTIONS: Final = 3
MAX_HEARD: Final = 300
"""Words of a turn that are looked at, some two minutes of speech."""

_ENOUGH: Final = 0.6
"""The part of a trigger's weight that has to be heard for the trigger to count."""

_PROGRESS: Final = tuple(stage for stage in Stage if stage is not Stage.OBJECTION_HANDLING)
_WORD = re.compile(r"[\w']+")

Words = tuple[str, ...]


def words(text: str) -> Words:
    """Split text into lower-case words; apostrophes stay, whatever their form."""
    return tuple(_WORD.findall(text.lower().replace("\u2019", "'")))


class Matcher:
    """Ranks the scripts of one playbook."""

    def __init__(self, playbook: Playbook) -> None:
        self._triggers = {script.id: _phrases(script.triggers) for script in playbook.scripts}
        self._avoid = {script.id: _phrases(script.avoid) for script in playbook.scripts}
        counts = Counter(
            word for triggers in self._triggers.values() for word in set(sum(triggers, ()))
        )
        self._weights = {
            word: log(1 + len(playbook.scripts) / count) for word, count in counts.items()
        }

    def draft(self, situation: Situation) -> Draft:
        """Pick the best scripts for a situation; always at least one."""
        return Draft(tuple(self.rank(situation)[:MAX_OPTIONS]), "playbook")

    def rank(self, situation: Situation) -> list[Script]:
        """Return the scripts that may be shown, best first; the same for the same situation."""
        heard = _Turn(situation.lines)
        scripts = situation.playbook.scripts
        candidates = (
            [script for script in scripts if script.id not in situation.barred]
            or [script for script in scripts if script.id not in situation.excluded]
            or scripts
        )
        return sorted(candidates, key=lambda script: -self._score(script, heard, situation))

    def _score(self, script: Script, heard: _Turn, situation: Situation) -> float:
        if any(heard.contains(phrase) for phrase in self._avoid[script.id]):
            return -10.0
        matches = sorted((self._match(t, heard) for t in self._triggers[script.id]), reverse=True)
        evidence = sum(match / (1 << place) for place, match in enumerate(matches[:3]))
        repeated = 3.0 if script.id in situation.given else 0.0
        return evidence + _stage_prior(script.stage, situation.stage) - repeated

    def _match(self, trigger: Words, heard: _Turn) -> float:
        """How strongly a turn speaks for a trigger: its weight if said as it stands."""
        weight = sum(self._weights[word] for word in trigger)
        if heard.contains(trigger):
            return weight
        overlap = sum(self._weights[word] for word in heard.words.intersection(trigger)) / weight
        return weight * overlap**2 / 2 if overlap >= _ENOUGH else 0.0


def _phrases(texts: Iterable[str]) -> tuple[Words, ...]:
    return tuple(phrase for text in texts if (phrase := words(text)))


class _Turn:
    """What the caller said in their newest turn, at most `MAX_HEARD` words of it."""

    def __init__(self, lines: Iterable[Line]) -> None:
        newest_first = [*lines][::-1]
        while newest_first and newest_first[0].speaker == "agent":
            del newest_first[0]
        turn = [*takewhile(lambda line: line.speaker == "caller", newest_first)][::-1]
        said = [word for line in turn for word in words(line.text)][-MAX_HEARD:]
        self.words = frozenset(said)
        self._text = f" {' '.join(said)} "

    def contains(self, phrase: Words) -> bool:
        """Whether a phrase was said as it stands."""
        return f" {' '.join(phrase)} " in self._text


def _stage_prior(script: Stage, present: Stage) -> float:
    """Without evidence a call goes on: here, or one stage further."""
    if script is Stage.OBJECTION_HANDLING:
        return 0.0
    ahead = _PROGRESS.index(script) - _PROGRESS.index(present)
    return {0: 0.6, 1: 0.8}.get(ahead, 0.0)
