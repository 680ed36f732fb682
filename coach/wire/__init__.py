"""Engine.IO v4 and Socket.IO v5, server side, without I/O.

Everything here is a state machine or a codec: packets in, packets and events out, time passed in
as seconds of any monotonic clock. Nothing in this package reads a socket, a clock or a source of
randomness, and nothing knows of coaching.

Sources, cited as E and S in this package:

- E: https://github.com/socketio/engine.io-protocol (revision 4)
- S: https://github.com/socketio/socket.io-protocol (revision 5)
- the reference server, https://github.com/socketio/socket.io (engine.io 6.6, socket.io 4.8)
"""
