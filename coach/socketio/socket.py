"""What an application sees of a client: a `Socket` to talk to, a `Handler` to write."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import trio

    from coach.socketio.peer import SocketIO

Ack = Callable[..., None]
"""Answers the event it came with; the first call counts."""

Connect = Callable[["Socket", dict[str, Any] | None], "Handler"]
"""Lets a client into a namespace, given its `auth`, or raises `Refused`."""


class Refused(Exception):  # noqa: N818 - a decision, not an error
    """The client may not join the namespace; it is told the message."""


class Handler(Protocol):
    """An application's side of one client in one namespace.

    Both methods run in the task that reads the client's connection, in the order in which its
    packets came, so they never wait: what has to wait is started in `Socket.nursery`.
    """

    def event(self, name: str | float, args: list[Any], ack: Ack | None) -> None:
        """An event came; with `ack` the client waits for an answer."""

    def disconnected(self, reason: str) -> None:
        """The client left, or the connection is gone. Nothing can be sent any more."""


class Socket:
    """One client in one namespace.

    `nursery` is the session's: its tasks are cancelled as soon as the client is gone.
    """

    __slots__ = ("_peer", "id", "namespace")

    def __init__(self, peer: SocketIO, namespace: str, sid: str) -> None:
        self.id = sid
        self.namespace = namespace
        self._peer = peer

    @property
    def nursery(self) -> trio.Nursery:
        """Owns whatever serves this client."""
        return self._peer.nursery

    def emit(self, name: str, *args: Any, acked: Callable[..., None] | None = None) -> None:
        """Send an event. It is dropped when the client is gone.

        With `acked` the client is asked for an ack, and `acked` called with what that holds; it
        is never called if none comes.

        Raises:
            TypeError: an argument holds what JSON cannot.
        """
        self._peer.emit(self.namespace, name, args, acked)

    def disconnect(self, *, close: bool = False) -> None:
        """Put the client out of the namespace, or with `close` close its whole connection.

        A client that is put out does not come back by itself; one whose connection closes does.
        """
        if close:
            self._peer.close("forced close")
        else:
            self._peer.leave(self.namespace, "server namespace disconnect")
