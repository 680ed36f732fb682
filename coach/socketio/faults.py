"""How faults of ours are told in the log."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def places(error: BaseException) -> Iterator[str]:
    """Say what failed where, one line for each fault of a group.

    An exception's message may quote what was said on a call, so it is left out.
    """
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from places(part)
    else:
        frames = traceback.extract_tb(error.__traceback__)
        where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        yield type(error).__name__ + where
