"""A server on loopback that speaks OpenAI's chat completions API, well or badly as it is told.

https://platform.openai.com/docs/api-reference/chat. Also a program: `python -m tests.fake_openai
--port P --mode ok|slow|hang|429|500|garbage|truncated --latency-ms N`; `GET /stats` counts.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import h11
import msgspec
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Mode = Literal["ok", "slow", "hang", "429", "500", "garbage", "truncated"]
Reply = dict[str, Any] | str | None

SLOW_MS: Final = 5_000
"""What `slow` takes at least: long enough to hang up meanwhile."""

PIECES: Final = 4
"""Chunks that a streamed answer comes in."""


class Stats(msgspec.Struct, rename="camel"):
    """What happened: `requests` came, `open` are being answered, `aborted` lost their client."""

    requests: int = 0
    open: int = 0
    connections: int = 0
    aborted: int = 0
    max_open: int = 0


class _Request(msgspec.Struct):
    """What of a request must be well-formed to be answered."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None


class _Asked(msgspec.Struct):
    """What a user message, if it is JSON, says of the scripts to choose from."""

    given: list[Any] = []
    excluded: list[Any] = []


class FakeOpenAI:
    """The server. `mode`, `latency_ms` and `reply` hold for the requests that come from then on."""

    def __init__(self, url: str, mode: Mode, latency_ms: float) -> None:
        self.url = url
        self.mode: Mode = mode
        self.latency_ms = latency_ms
        self.reply: Reply | Callable[[dict[str, Any]], Reply] = None
        self.requests: list[dict[str, Any]] = []
        self.stats = Stats()
        self._changed = trio.lowlevel.ParkingLot()

    async def wait_for(self, is_so: Callable[[Stats], bool]) -> None:
        """Wait until the stats are so."""
        while not is_so(self.stats):
            await self._changed.park()

    def count(self, **changes: int) -> None:
        for name, change in changes.items():
            setattr(self.stats, name, getattr(self.stats, name) + change)
        self.stats.max_open = max(self.stats.max_open, self.stats.open)
        self._changed.unpark_all()

    def content(self, body: dict[str, Any]) -> str:
        """What the model says to this request."""
        reply = self.reply(body) if callable(self.reply) else self.reply
        if reply is None:
            reply = _default_reply(body)
        return reply if isinstance(reply, str) else json.dumps(reply)


@asynccontextmanager
async def serve_fake_openai(
    mode: Mode = "ok", latency_ms: float = 0, port: int = 0
) -> AsyncIterator[FakeOpenAI]:
    """Serve as long as the block runs."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    fake = FakeOpenAI(f"http://127.0.0.1:{port}/v1", mode, latency_ms)

    async def connection(stream: trio.SocketStream) -> None:
        fake.count(connections=1)
        try:
            async with stream:
                await _Connection(stream, fake).run()
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            pass  # a broken client ends its own connection only
        finally:
            fake.count(connections=-1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, connection, listeners)
        yield fake
        nursery.cancel_scope.cancel()


class _Connection:
    def __init__(self, stream: trio.SocketStream, fake: FakeOpenAI) -> None:
        self._stream = stream
        self._fake = fake
        self._http = h11.Connection(h11.SERVER)
        self._hung_up = False

    async def run(self) -> None:
        while True:
            request = await self._next_event()
            if not isinstance(request, h11.Request):
                return
            body = b""
            while isinstance(event := await self._next_event(), h11.Data):
                body += event.data
            del event
            await self._answer(request, body)
            if self._http.our_state is not h11.DONE:
                return
            self._http.start_next_cycle()

    async def _next_event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(bytes(await self._stream.receive_some()))
        return event

    async def _answer(self, request: h11.Request, body: bytes) -> None:
        match (request.method, request.target):
            case (b"GET", b"/stats"):
                await self._send_json(200, msgspec.to_builtins(self._fake.stats))
            case (b"POST", b"/v1/chat/completions"):
                try:
                    msgspec.json.decode(body, type=_Request)
                    asked = json.loads(body)
                except (ValueError, RecursionError):
                    await self._send_error(400, "invalid_request_error", "no request in JSON")
                else:
                    await self._complete(asked)
            case (b"HEAD", _):
                await self._send(404, "application/json", b"")  # h11 forbids it a body
            case _:
                await self._send_error(404, "invalid_request_error", "unknown URL")

    async def _complete(self, body: dict[str, Any]) -> None:
        """Answer, unless the client hangs up meanwhile."""
        fake = self._fake
        fake.requests.append(body)
        fake.count(requests=1, open=1)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, nursery.cancel_scope)
                await self._speak(fake.mode, body)
                nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError:
            self._hung_up = True
        finally:
            complete = self._http.our_state in (h11.DONE, h11.MUST_CLOSE)
            fake.count(open=-1, aborted=int(self._hung_up and not complete))

    async def _watch(self, answering: trio.CancelScope) -> None:
        """What comes while an answer is made is kept; the end of it ends the answer."""
        while data := await self._stream.receive_some():
            self._http.receive_data(bytes(data))
        self._hung_up = True
        answering.cancel()

    async def _speak(self, mode: Mode, body: dict[str, Any]) -> None:
        latency = max(self._fake.latency_ms, SLOW_MS if mode == "slow" else 0) / 1000
        if mode in ("ok", "slow", "truncated"):
            # Before any wait: what is set meanwhile is for the requests after this one.
            content = self._fake.content(body)
            if body.get("stream"):
                await self._stream_completion(mode, body, content, latency)
            else:
                await trio.sleep(latency)
                await self._send_json(200, _completion(body, content, mode))
            return
        await trio.sleep(math.inf if mode == "hang" else latency)
        match mode:
            case "429":
                retry = [("Retry-After", "1")]
                await self._send_error(429, "rate_limit_exceeded", "slow down", retry)
            case "500":
                await self._send_error(500, "server_error", "something went wrong")
            case _:
                await self._send(200, "text/html", b"<html><body>Welcome!</body></html>")

    async def _stream_completion(
        self, mode: Mode, body: dict[str, Any], content: str, latency: float
    ) -> None:
        """Spend half of the latency before the first chunk, the rest after each piece."""
        await trio.sleep(latency / 2)
        headers = [("Content-Type", "text/event-stream")]
        await self._write(h11.Response(status_code=200, headers=headers))
        size = max(1, -(-len(content) // PIECES))
        pieces = [content[at : at + size] for at in range(0, len(content), size)] or [""]
        for number, piece in enumerate(pieces):
            delta = {"content": piece} | ({} if number else {"role": "assistant"})
            await self._write_chunk(_chunk(body, delta))
            if mode == "truncated" and number == (len(pieces) - 1) // 2:
                return
            await trio.sleep(latency / 2 / len(pieces))
        await self._write_chunk(_chunk(body, {}, "stop"))
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = _completion(body, content, mode)["usage"]
            await self._write_chunk(_chunk(body, None) | {"usage": usage})
        await self._write(h11.Data(data=b"data: [DONE]\n\n"))
        await self._write(h11.EndOfMessage())

    async def _write_chunk(self, chunk: dict[str, Any]) -> None:
        await self._write(h11.Data(data=b"data: " + json.dumps(chunk).encode() + b"\n\n"))

    async def _send_error(
        self, status: int, code: str, message: str, headers: list[tuple[str, str]] | None = None
    ) -> None:
        error = {"message": message, "type": code, "param": None, "code": code}
        await self._send_json(status, {"error": error}, headers)

    async def _send_json(
        self, status: int, body: Any, headers: list[tuple[str, str]] | None = None
    ) -> None:
        await self._send(status, "application/json", json.dumps(body).encode(), headers)

    async def _send(
        self, status: int, type_: str, body: bytes, headers: list[tuple[str, str]] | None = None
    ) -> None:
        headers = [("Content-Type", type_), ("Content-Length", str(len(body))), *(headers or [])]
        await self._write(h11.Response(status_code=status, headers=headers))
        await self._write(h11.Data(data=body))
        await self._write(h11.EndOfMessage())

    async def _write(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> None:
        if data := self._http.send(event):
            await self._stream.send_all(data)


def _default_reply(body: dict[str, Any]) -> Reply:
    """Choose the first script that was not given before, or one that may come at least."""
    try:
        ids = list(body["response_format"]["json_schema"]["schema"]["properties"]["id"]["enum"])
    except (KeyError, TypeError):
        return "OK"
    said = [message.get("content") for message in body["messages"] if message.get("role") == "user"]
    try:
        asked = msgspec.json.decode(said[-1], type=_Asked)
    except (IndexError, TypeError, ValueError, RecursionError):
        asked = _Asked()
    allowed = [id_ for id_ in ids if id_ not in asked.excluded]
    fresh = [id_ for id_ in allowed if id_ not in asked.given]
    return {"id": next(iter(fresh or allowed or ids), None), "slots": []}


def _completion(body: dict[str, Any], content: str, mode: Mode) -> dict[str, Any]:
    if mode == "truncated":
        content = content[: len(content) // 2]
    prompt = max(1, sum(len(str(message.get("content"))) for message in body["messages"]) // 4)
    answer = max(1, len(content) // 4)
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content, "refusal": None},
                "finish_reason": "length" if mode == "truncated" else "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": answer,
            "total_tokens": prompt + answer,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


def _chunk(
    body: dict[str, Any], delta: dict[str, str] | None, finish_reason: str | None = None
) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": body["model"],
        "choices": [] if delta is None else [choice],
    }


async def _main(port: int, mode: Mode, latency_ms: float) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with serve_fake_openai(mode, latency_ms, port) as fake:
            print(f"listening on {fake.url}", flush=True)  # noqa: T201 - a program's output
            async for _ in signals:
                break


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mode", choices=get_args(Mode), default="ok")
    parser.add_argument("--latency-ms", type=float, default=0)
    options = parser.parse_args()
    trio.run(_main, options.port, options.mode, options.latency_ms)
