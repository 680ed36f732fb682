"""The fake OpenAI server: the real SDK takes it for OpenAI, and it counts who hangs up."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
import trio

from tests.fake_openai import FakeOpenAI, Mode, serve_fake_openai
from tests.processes import CLEAN, ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# The SDK leaves its async generators to the garbage collector, which Trio warns of.
pytestmark = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")

REQUEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAMED: dict[str, Any] = REQUEST | {"stream": True, "stream_options": {"include_usage": True}}
LONG = "a reply of several words"


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[FakeOpenAI, openai.AsyncOpenAI]]:
    async with serve_fake_openai() as fake:
        client = openai.AsyncOpenAI(api_key="k", base_url=fake.url, max_retries=0)
        with trio.fail_after(10):
            async with client:
                yield fake, client


async def post(fake: FakeOpenAI, content: bytes) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"{fake.url}/chat/completions", content=content)


async def open_stream(fake: FakeOpenAI) -> trio.SocketStream:
    return await trio.open_tcp_stream("127.0.0.1", httpx.URL(fake.url).port or 0)


def raw_request(body: bytes) -> bytes:
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: fake\r\nContent-Length: "
    return head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body


def choosing(ids: list[str], said: str) -> dict[str, Any]:
    schema = {"properties": {"id": {"enum": ids}}}
    return {
        "model": "m",
        "messages": [
            {"role": "user", "content": said},
            {"role": "assistant", "content": "OK"},
        ],
        "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
    }


async def test_a_plain_answer_is_a_whole_completion() -> None:
    async with serving() as (fake, client):
        completion = await client.chat.completions.create(**REQUEST)
        await client.chat.completions.create(**REQUEST)
        assert fake.stats.connections == 1  # kept alive
    assert (completion.object, completion.model) == ("chat.completion", "m")
    choice = completion.choices[0]
    assert (choice.message.content, choice.message.refusal) == ("OK", None)
    assert choice.finish_reason == "stop"
    usage = completion.usage
    assert usage
    assert usage.prompt_tokens_details
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens >= 2
    assert fake.requests == [REQUEST, REQUEST]
    assert (fake.stats.requests, fake.stats.max_open, fake.stats.aborted) == (2, 1, 0)


async def test_a_streamed_answer_comes_in_pieces_with_its_usage_last() -> None:
    async with serving() as (fake, client):
        fake.reply = LONG
        fake.latency_ms = 10
        chunks = [chunk async for chunk in await client.chat.completions.create(**STREAMED)]
        assert fake.stats.aborted == 0
    *deltas, final, usage = chunks
    assert 3 <= len(deltas) <= 5
    assert "".join(chunk.choices[0].delta.content for chunk in deltas) == LONG
    assert deltas[0].choices[0].delta.role == "assistant"
    assert final.choices[0].finish_reason == "stop"
    assert not usage.choices
    assert usage.usage.completion_tokens == len(LONG) // 4


@pytest.mark.parametrize("reply", ["", "x"])
async def test_short_replies_are_streamed_too(reply: str) -> None:
    async with serving() as (fake, client):
        fake.reply = reply
        chunks = [c async for c in await client.chat.completions.create(**REQUEST, stream=True)]
    first, final = chunks  # no usage: it was not asked for
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", reply)
    assert final.choices[0].finish_reason == "stop"


async def test_replies_are_what_the_test_says() -> None:
    async with serving() as (fake, client):
        said = []
        for reply in ({"id": "a", "slots": []}, "raw", lambda body: body["model"], lambda _: None):
            fake.reply = reply
            completion = await client.chat.completions.create(**REQUEST)
            said.append(completion.choices[0].message.content)
    assert said == ['{"id": "a", "slots": []}', "raw", "m", "OK"]


@pytest.mark.parametrize(
    ("said", "chosen"),
    [
        ('{"given": ["a"], "excluded": ["b"]}', "c"),
        ('{"given": ["a", "c"], "excluded": ["b"]}', "a"),
        ('{"excluded": ["a", "b", "c"]}', "a"),
        ('{"given": null}', "a"),
        ("[]", "a"),
        ("no JSON", "a"),
    ],
)
async def test_the_default_reply_chooses_what_may_come(said: str, chosen: str) -> None:
    async with serving() as (fake, _):
        body = json.dumps(choosing(["a", "b", "c"], said))
        answer = (await post(fake, body.encode())).json()
    assert json.loads(answer["choices"][0]["message"]["content"]) == {"id": chosen, "slots": []}


@pytest.mark.parametrize(
    ("mode", "error"),
    [("429", openai.RateLimitError), ("500", openai.InternalServerError)],
)
@pytest.mark.parametrize("request_", [REQUEST, STREAMED], ids=["plain", "streamed"])
async def test_errors_are_the_sdks(
    mode: Mode, error: type[openai.APIStatusError], request_: dict[str, Any]
) -> None:
    async with serving() as (fake, client):
        fake.mode = mode
        with pytest.raises(error) as raised:
            await client.chat.completions.create(**request_)
        fake.mode = "ok"
        await client.chat.completions.create(**REQUEST)
        assert fake.stats.connections == 1
    assert raised.value.status_code == int(mode)
    assert isinstance(raised.value.body, dict)
    assert raised.value.body.keys() == {"message", "type", "param", "code"}
    if mode == "429":
        assert raised.value.body["type"] == "rate_limit_exceeded"
        assert raised.value.response.headers["Retry-After"] == "1"


async def test_garbage_is_html() -> None:
    async with serving() as (fake, _):
        fake.mode = "garbage"
        response = await post(fake, json.dumps(REQUEST).encode())
    assert (response.status_code, response.headers["Content-Type"]) == (200, "text/html")
    assert response.text.startswith("<html>")


async def test_truncated_answers_end_in_the_middle() -> None:
    async with serving() as (fake, client):
        fake.mode = "truncated"
        fake.reply = {"id": "a", "slots": []}
        completion = await client.chat.completions.create(**REQUEST)
        content = completion.choices[0].message.content
        assert content
        with pytest.raises(json.JSONDecodeError):
            json.loads(content)
        assert completion.choices[0].finish_reason == "length"


@pytest.mark.parametrize("reply", ["", "x", LONG])
async def test_truncated_streams_are_cut(reply: str) -> None:
    async with serving() as (fake, _):
        fake.mode = "truncated"
        fake.reply = reply
        url = f"{fake.url}/chat/completions"
        async with (
            httpx.AsyncClient() as client,
            client.stream("POST", url, json=STREAMED) as response,
        ):
            text = ""

            async def read() -> None:
                nonlocal text
                async for piece in response.aiter_text():
                    text += piece

            with pytest.raises(httpx.RemoteProtocolError):
                await read()
        await fake.wait_for(lambda stats: stats.connections == 0)
    assert text.startswith("data: {")
    assert "[DONE]" not in text
    assert fake.stats.aborted == 0  # it was the server that hung up


@pytest.mark.parametrize("mode", ["slow", "hang"])
@pytest.mark.parametrize("request_", [REQUEST, STREAMED], ids=["plain", "streamed"])
async def test_a_client_that_hangs_up_is_noticed_at_once(
    mode: Mode, request_: dict[str, Any]
) -> None:
    async with serving() as (fake, client):
        fake.mode = mode
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(client.chat.completions.create, **request_))
            await fake.wait_for(lambda stats: stats.open == 1)
            nursery.cancel_scope.cancel()
        with trio.fail_after(1):
            await fake.wait_for(lambda stats: stats.aborted == 1)
        assert (fake.stats.open, fake.stats.max_open) == (0, 1)


@pytest.mark.parametrize("mode", ["ok", "truncated"])
async def test_a_client_that_hangs_up_between_chunks_is_noticed_at_once(mode: Mode) -> None:
    async with serving() as (fake, _):
        fake.mode = mode
        fake.latency_ms = 100
        fake.reply = LONG
        async with await open_stream(fake) as stream:
            await stream.send_all(raw_request(json.dumps(STREAMED).encode()))
            await stream.receive_some()
        with trio.fail_after(1):
            await fake.wait_for(lambda stats: stats.aborted == 1)


async def test_half_a_hang_up_is_one() -> None:
    async with serving() as (fake, _):
        fake.mode = "hang"
        async with await open_stream(fake) as stream:
            await stream.send_all(raw_request(json.dumps(REQUEST).encode()))
            await fake.wait_for(lambda stats: stats.open == 1)
            await stream.send_eof()
            with trio.fail_after(1):
                await fake.wait_for(lambda stats: stats.aborted == 1)


async def test_what_comes_during_an_answer_is_kept_for_the_next() -> None:
    async with serving() as (fake, _):
        fake.latency_ms = 50
        request = raw_request(json.dumps(REQUEST).encode())
        async with await open_stream(fake) as stream:
            await stream.send_all(request)
            await fake.wait_for(lambda stats: stats.open == 1)
            await stream.send_all(request)
            await fake.wait_for(lambda stats: stats.requests == 2 and stats.open == 0)


async def test_the_servers_own_end_is_nobodys_hang_up() -> None:
    async with AsyncExitStack() as stack:
        async with serve_fake_openai(mode="hang") as fake:
            stream = await stack.enter_async_context(await open_stream(fake))
            await stream.send_all(raw_request(json.dumps(REQUEST).encode()))
            await fake.wait_for(lambda stats: stats.open == 1)
        assert (fake.stats.open, fake.stats.connections, fake.stats.aborted) == (0, 0, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"model": "m", "messages": [1]}',
        b'{"model": "m", "messages": [], "stream_options": 1}',
    ],
)
async def test_what_is_no_request_is_refused(body: bytes) -> None:
    async with serving() as (fake, client):
        response = await post(fake, body)
        await client.chat.completions.create(**REQUEST)
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert fake.stats.requests == 1


@pytest.mark.parametrize("raw", [b"\0\r\n\r\n", b"GET", raw_request(b"{}")[:-1]])
async def test_a_broken_client_ends_only_its_own_connection(raw: bytes) -> None:
    async with serving() as (fake, client):
        async with await open_stream(fake) as stream:
            await stream.send_all(raw)
            await stream.send_eof()
            assert await stream.receive_some() == b""
        await client.chat.completions.create(**REQUEST)
        assert fake.stats.aborted == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_other_urls_are_not_found(method: str) -> None:
    async with serving() as (fake, _), httpx.AsyncClient() as client:
        response = await client.request(method, f"{fake.url}/models")
        assert response.status_code == 404
        if method != "HEAD":
            assert response.json()["error"].keys() == {"message", "type", "param", "code"}
        assert (await client.request(method, f"{fake.url}/models")).status_code == 404


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
async def test_the_program_serves_until_a_signal(how: signal.Signals) -> None:
    program = [sys.executable, "-m", "tests.fake_openai", "--port", "0", "--mode", "429"]
    start = partial(
        trio.run_process,
        [*program, "--latency-ms", "1"],
        env=CLEAN | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdout=PIPE,
        stderr=PIPE,
        check=False,
    )
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(start)
            assert process.stdout
            assert process.stderr
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
            words = line.decode().split()
            assert words[:2] == ["listening", "on"]
            async with httpx.AsyncClient() as client:
                answer = await client.post(f"{words[2]}/chat/completions", json=REQUEST)
                assert answer.status_code == 429
                stats = await client.get(f"{words[2].removesuffix('/v1')}/stats")
                process.send_signal(how)  # while a connection is open
                assert await process.wait() == 0
            assert await process.stderr.receive_some() == b""
    assert stats.json() == {
        "requests": 1,
        "open": 0,
        "connections": 1,
        "aborted": 0,
        "maxOpen": 1,
    }
