"""The accept loop: reads a request's head and shows it to the right room.

WebSocket upgrades stay in this package, on the bare stream; everything else is HTTP and goes to
the application's HTTP server over a stream that replays what was read here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

import h11
import msgspec
import trio

if TYPE_CHECKING:
    from coach.socketio.stream import Stream

MAX_HEAD_BYTES: Final = 16 * 1024
HEAD_TIMEOUT: Final = 10.0
"""Seconds that a client has for sending a request's head (RFC 9110, 15.5.9)."""


class Request(msgspec.Struct, frozen=True):
    """A request's head, parsed and as it came; `rest` is what was read beyond it."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    head: bytes
    rest: bytes

    @property
    def is_websocket(self) -> bool:
        """Whether the client asks for a WebSocket (RFC 6455, 4.2.1)."""
        return self.headers.get("upgrade", "").lower() == "websocket"


class BadRequest(Exception):  # noqa: N818 - the name of its HTTP answer
    """What came cannot be served; `status` and `body` are the answer to it."""

    body = b""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


async def read_request(stream: Stream) -> Request | None:
    """Read a request's head; None if the client went away or said nothing in time.

    Raises:
        BadRequest: the head is malformed, longer than `MAX_HEAD_BYTES`, or not sent in time.
    """
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
    raw = bytearray()
    with trio.move_on_after(HEAD_TIMEOUT):
        while True:
            try:
                event = parser.next_event()
            except h11.RemoteProtocolError as error:
                raise BadRequest(error.error_status_hint) from None
            if isinstance(event, h11.Request):
                if event.http_version not in (b"1.0", b"1.1"):
                    raise BadRequest(505)
                rest = parser.trailing_data[0]
                head = bytes(raw[: len(raw) - len(rest)])
                if len(head) > MAX_HEAD_BYTES:  # h11 minds only what is not complete yet.
                    raise BadRequest(431)
                return _request(event, head, rest)
            data = await stream.receive_some(MAX_HEAD_BYTES)
            if not data:
                return None
            raw += data
            parser.receive_data(bytes(data))
    if raw:
        raise BadRequest(408)
    return None


def _request(event: h11.Request, head: bytes, rest: bytes) -> Request:
    # h11 lets only visible ASCII into targets; header values are latin-1 by RFC 9110, 5.5.
    try:
        target = urlsplit(event.target.decode("ascii"))
    except ValueError:
        raise BadRequest(400) from None
    return Request(
        method=event.method.decode("ascii"),
        path=target.path,
        query=dict(parse_qsl(target.query, keep_blank_values=True)),
        headers={name.decode("ascii"): value.decode("latin-1") for name, value in event.headers},
        head=head,
        rest=rest,
    )


async def respond(
    stream: Stream, status: int, body: bytes = b"", content_type: str = "application/json"
) -> None:
    """Answer with a short body and announce the end of the connection."""
    writer = h11.Connection(h11.SERVER)
    headers = [("Content-Length", str(len(body))), ("Connection", "close")]
    if body:
        headers.append(("Content-Type", content_type))
    data = [
        writer.send(h11.Response(status_code=status, headers=headers)),
        writer.send(h11.Data(data=body)),
        writer.send(h11.EndOfMessage()),
    ]
    await stream.send_all(b"".join(part for part in data if part))
