"""A Socket.IO v5 server on Trio.

The protocol itself is `coach.wire`; this package gives it sockets, tasks and time. It knows
nothing of coaching::

    class Echo:
        def __init__(self, socket: Socket) -> None:
            self.socket = socket

        def event(self, name, args, ack):
            self.socket.emit(name, *args)

        def disconnected(self, reason): ...

    server = Server({"/": lambda socket, auth: Echo(socket)})
    async with trio.open_nursery() as nursery:
        await nursery.start(server.serve, listeners, other_http)
"""

from coach.socketio.frontdoor import Request
from coach.socketio.polling import PollingRequest, PollingResponse, serve_polling
from coach.socketio.server import EngineServer, Server
from coach.socketio.session import Peer, Session
from coach.socketio.socket import Ack, Connect, Handler, Refused, Socket
from coach.socketio.stream import SocketStream

__all__ = [
    "Ack",
    "Connect",
    "EngineServer",
    "Handler",
    "Peer",
    "PollingRequest",
    "PollingResponse",
    "Refused",
    "Request",
    "Server",
    "Session",
    "Socket",
    "SocketStream",
    "serve_polling",
]
