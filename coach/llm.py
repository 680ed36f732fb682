"""Who makes tips: an OpenAI model, with the local matcher for whenever the model fails.

Nothing of the SDK leaves this module, neither its types nor its exceptions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog
import trio

from coach.coaching.matcher import Matcher
from coach.coaching.prompts import (
    MAX_REPLY_TOKENS,
    BadReplyError,
    read_reply,
    reply_schema,
    system_prompt,
    user_prompt,
)
from coach.coaching.situation import Draft, Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from coach.coaching.playbook import Playbook
    from coach.coaching.situation import Situation

log = structlog.get_logger(__name__)

PRICES: Final = {"gpt-4o-mini": (0.15, 0.075, 0.60)}
"""US dollars for a million tokens: prompt, cached prompt, answer. Other models count as free."""

CONNECT_TIMEOUT: Final = 2.0


class TipEngine(Protocol):
    """Makes tips."""

    async def draft(self, situation: Situation) -> Draft:
        """Make a tip for a situation. It always returns one, unless it is cancelled."""


class PlaybookEngine:
    """Picks scripts locally."""

    def __init__(self, playbook: Playbook) -> None:
        self._matcher = Matcher(playbook)

    async def draft(self, situation: Situation) -> Draft:
        """Pick the best matching scripts."""
        await trio.lowlevel.checkpoint()
        return self._matcher.draft(situation)


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class OpenAIEngine:
    """Asks a model for the best script; picks locally when no usable answer comes in time.

    `hedge` is how long, in seconds, an agent waits for the model. Cancelling `draft` closes the
    connection of its request at once.
    """

    def __init__(
        self, client: AsyncOpenAI, playbook: Playbook, *, model: str, hedge: float
    ) -> None:
        self._client = client
        self._model = model
        self._hedge = hedge
        self._matcher = Matcher(playbook)
        self._system = system_prompt(playbook)
        self._format = {
            "type": "json_schema",
            "json_schema": {
                "name": "next_script",
                "strict": True,
                "schema": reply_schema(playbook),
            },
        }

    async def draft(self, situation: Situation) -> Draft:
        """Ask the model; let the matcher answer if it fails or takes too long."""
        with trio.move_on_after(self._hedge):
            try:
                return await self._ask(situation)
            except BadReplyError as error:
                log.warning("model's answer not used", reason=str(error))
                return self._matcher.draft(situation)
        log.warning("model too late", hedge_ms=round(self._hedge * 1000))
        return self._matcher.draft(situation)

    async def _ask(self, situation: Situation) -> Draft:
        completion = await self._complete(
            {
                "model": self._model,
                "messages": [
                    {"role": "system", "content": self._system},
                    {"role": "user", "content": user_prompt(situation)},
                ],
                "response_format": self._format,
                "max_completion_tokens": MAX_REPLY_TOKENS,
                "temperature": 0,
            }
        )
        if not completion.choices:
            raise BadReplyError("no choices")
        choice = completion.choices[0]
        if choice.finish_reason == "length":
            raise BadReplyError("cut off")
        scripts, values = read_reply(choice.message.content, situation, self._matcher)
        return Draft(scripts, "llm", values, self._price(completion.usage or _Usage()))

    async def _complete(self, body: dict[str, Any]) -> _Completion:
        # The SDK's typed method spends some half of its CPU on transforming the request and
        # building response objects (3-4 ms a call); its low-level `post` does neither.
        import httpx2  # noqa: PLC0415 - imported with openai, which takes a second
        import openai  # noqa: PLC0415

        try:
            response = await self._client.post(
                "/chat/completions", cast_to=httpx2.Response, body=body
            )
            return msgspec.json.decode(response.content, type=_Completion)
        except openai.APIStatusError as error:
            raise BadReplyError(f"status {error.status_code}") from None
        except openai.OpenAIError as error:
            raise BadReplyError(type(error).__name__) from None
        except (ValueError, RecursionError):
            raise BadReplyError("no chat completion") from None

    def _price(self, usage: _Usage) -> Usage:
        prompt_price, cached_price, answer_price = PRICES.get(self._model, (0.0, 0.0, 0.0))
        details = usage.prompt_tokens_details
        cached = (details.cached_tokens or 0) if details else 0
        cost = (
            (usage.prompt_tokens - cached) * prompt_price
            + cached * cached_price
            + usage.completion_tokens * answer_price
        ) / 1_000_000
        return Usage(usage.prompt_tokens + usage.completion_tokens, cost)


def connect_openai(api_key: str, base_url: str | None, timeout: float) -> AsyncOpenAI:
    """Return the process's one client; `timeout` in seconds bounds each request.

    Retries and deadlines are this project's own, so the SDK makes none.
    """
    import httpx2  # noqa: PLC0415 - importing openai takes a second: not before it is needed
    import openai  # noqa: PLC0415

    return openai.AsyncOpenAI(
        api_key=api_key,
        base_url=base_url,
        max_retries=0,
        timeout=httpx2.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT)),
    )
