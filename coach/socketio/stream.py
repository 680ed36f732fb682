"""Connections as streams of bytes."""

from __future__ import annotations

import os
from typing import Final, Protocol

import trio

RECEIVE_BYTES: Final = 16 * 1024
"""What is read at most at a time."""


class Stream(Protocol):
    """What the server needs of a connection."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Wait for bytes; none of them at the end."""

    async def send_some(self, data: bytes) -> int:
        """Write what can be, and return how much that was; cancelled, none of it."""

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it; cancelled, any part of it."""

    async def aclose(self) -> None:
        """Close it; cancelled, at once."""


class SocketStream(trio.abc.HalfCloseableStream):
    """A `trio.SocketStream` that waits before it reads.

    Trio's own reads first and waits if there was nothing. On a connection that is silent most of
    the time this is a system call and an exception for each message, a tenth of its cost.
    """

    __slots__ = ("_stream", "socket")

    def __init__(self, stream: trio.SocketStream) -> None:
        self.socket = stream.socket
        self._stream = stream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for bytes; none of them at the end.

        Raises:
            trio.BrokenResourceError: the connection is lost.
            trio.ClosedResourceError: it was closed here.
        """
        while True:
            try:
                await trio.lowlevel.wait_readable(self.socket)
                return os.read(self.socket.fileno(), max_bytes or RECEIVE_BYTES)
            except BlockingIOError:
                continue  # Readiness may be a false alarm (select(2), "BUGS").
            except OSError as error:
                if self.socket.fileno() == -1:
                    raise trio.ClosedResourceError("closed here") from None
                raise trio.BrokenResourceError("the connection is lost") from error

    async def send_some(self, data: bytes) -> int:
        """Write what can be, and return how much that was; cancelled, none of it.

        Raises as `receive_some` does.
        """
        try:
            return await self.socket.send(data)
        except OSError as error:
            raise trio.BrokenResourceError("the connection is lost") from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it; cancelled, any part of it. Raises as `receive_some` does."""
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until something can be written."""
        await self._stream.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Say that nothing more will be written."""
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the connection; cancelled, at once."""
        await self._stream.aclose()
