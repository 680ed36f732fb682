"""A playbook: the scripts that a company wants its agents to say, as data."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from coach.coaching.messages import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLACEHOLDER: Final = re.compile(r"\[([A-Za-z][A-Za-z0-9]*)\]")
MAX_VALUE: Final = 100
"""Characters of a placeholder's value; what is longer is cut."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]


class PlaybookError(Exception):
    """A playbook that cannot be used; the message says what to mend."""


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to say.

    `when` says when, for the agent and the model. `triggers` are what a caller says that calls
    for it, `avoid` what rules it out, both in lower case.
    """

    id: _Name
    stage: Stage
    label: _Name
    text: str
    when: str
    triggers: tuple[str, ...]
    avoid: tuple[str, ...] = ()

    @property
    def placeholders(self) -> tuple[str, ...]:
        """The names in square brackets that `text` has to be filled with."""
        return tuple(dict.fromkeys(_PLACEHOLDER.findall(self.text)))


class Playbook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Scripts with the goal they serve, and what to say for a placeholder that nobody filled."""

    title: str
    goal: str
    placeholders: dict[str, str]
    scripts: tuple[Script, ...]

    def script(self, script_id: str) -> Script | None:
        """Return the script of that id, if there is one."""
        return next((script for script in self.scripts if script.id == script_id), None)

    def render(self, script: Script, values: Mapping[str, str]) -> str:
        """Fill a script's placeholders from `values`, else from the playbook's own words."""
        return _PLACEHOLDER.sub(
            lambda match: clean_value(values.get(match[1], "")) or self.placeholders[match[1]],
            script.text,
        )


def clean_value(value: str) -> str:
    """Make a value fit for an agent's screen: one line, no brackets or markup, bounded."""
    return " ".join(re.sub(r"[\[\]<>{}\x00-\x1f\x7f]", " ", value).split())[:MAX_VALUE].rstrip()


def parse_playbook(text: str) -> Playbook:
    """Read a playbook from TOML.

    Raises:
        PlaybookError: the text is not TOML, not of a playbook's form, or contradicts itself.
    """
    try:
        playbook = msgspec.convert(tomllib.loads(text), Playbook)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise PlaybookError(str(error)) from None
    seen: set[str] = set()
    if not playbook.scripts:
        raise PlaybookError("a playbook needs at least one script")
    for script in playbook.scripts:
        if script.id in seen:
            raise PlaybookError(f"script {script.id!r} stands there twice")
        seen.add(script.id)
        for name in script.placeholders:
            if not playbook.placeholders.get(name):
                raise PlaybookError(f"script {script.id!r}: [{name}] has no default")
        if "[" in _PLACEHOLDER.sub("", script.text):
            raise PlaybookError(f"script {script.id!r}: a bracket that is no placeholder")
    for name, default in playbook.placeholders.items():
        if clean_value(default) != default:
            raise PlaybookError(f"placeholder {name!r}: its default is too long or has markup")
    return playbook
