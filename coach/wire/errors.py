"""Whose mistake it was."""


class ProtocolError(Exception):
    """The peer broke a rule of Engine.IO or Socket.IO: its session has to be closed.

    The message names the rule and never quotes what the peer sent, so it may be logged.
    """
