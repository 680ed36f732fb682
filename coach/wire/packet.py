"""Socket.IO packets and their encoding (S, "Packet encoding").

``<type>[<number of attachments>-][<namespace>,][<ack id>][<JSON payload>]``, followed by one
binary message for each attachment. Payloads stay plain Python data; what may be in one is checked
here, so that whoever holds a `Packet` holds a valid one.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Any, Final

import msgspec

from coach.wire.errors import ProtocolError

MAX_ATTACHMENTS: Final = 10
"""Attachments that one packet may announce, as in socket.io-parser 4.2."""

RESERVED_EVENTS: Final = frozenset(
    {"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"}
)
"""Names that belong to the libraries on both ends (S, "EVENT"); a peer may not send them."""


class PacketType(IntEnum):
    """The first character of a packet."""

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


class Packet(msgspec.Struct, frozen=True):
    """One packet, binary attachments already in their places.

    `data` is None, or an object for CONNECT and CONNECT_ERROR, or the array of an event or an ack.
    Received binary packets come as EVENT and ACK: once whole, they do not differ.
    """

    type: PacketType
    namespace: str = "/"
    data: Any = None
    id: int | None = None


# An ack id is a counter of the peer's, and JavaScript counts exactly up to 16 digits: longer digit
# strings fall through to the payload, where they are refused.
_HEADER = re.compile(r"([0-6])(?:([0-9]{1,3})-)?(?:(/[^,]*),?)?([0-9]{1,16})?")
# Half of a surrogate pair as a JSON escape; group 1 takes what is none, so that no half is seen in
# it: escaped backslashes, a whole pair. Other escapes are passed over, for speed.
_ESCAPE = re.compile(
    r"\\(?:(\\(?:\\\\)*|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
_TYPES: Final = {str(int(type_)): type_ for type_ in PacketType}
_BINARY: Final = {
    PacketType.BINARY_EVENT: PacketType.EVENT,
    PacketType.BINARY_ACK: PacketType.ACK,
}
_json = msgspec.json.Decoder()


class Decoder:
    """Turns the messages of one peer into packets.

    A packet with attachments spans several messages, and nothing else may come between them.
    """

    __slots__ = ("_attachments", "_head", "_missing")

    def __init__(self) -> None:
        self._head: Packet | None = None
        self._missing = 0
        self._attachments: list[bytes] = []

    def receive(self, message: str | bytes) -> Packet | None:
        """Return the packet that `message` completes, or None while attachments are missing.

        Raises:
            ProtocolError: the message is not a packet, or not the one due now.
        """
        if isinstance(message, bytes):
            return self._receive_attachment(message)
        if self._head is not None:
            raise ProtocolError("text while attachments are missing")
        packet, attachments = _parse(message)
        if not attachments:
            return packet
        self._head, self._missing = packet, attachments
        return None

    def _receive_attachment(self, data: bytes) -> Packet | None:
        if self._head is None:
            raise ProtocolError("attachment of no packet")
        self._attachments.append(data)
        if len(self._attachments) < self._missing:
            return None
        head, attachments = self._head, self._attachments
        self._head, self._attachments = None, []
        try:
            return msgspec.structs.replace(head, data=_fill(head.data, attachments))
        except RecursionError:
            raise ProtocolError("payload nested too deeply") from None


def _parse(text: str) -> tuple[Packet, int]:
    match = _HEADER.match(text)
    if match is None:
        raise ProtocolError("unknown packet type")
    kind, attachments, namespace, ack_id = match.groups()
    type_ = _TYPES[kind]
    if (type_ in _BINARY) != (attachments is not None):
        raise ProtocolError("attachment count missing or out of place")
    count = int(attachments or 0)
    if type_ in _BINARY and not 1 <= count <= MAX_ATTACHMENTS:
        raise ProtocolError("attachment count out of bounds")
    type_ = _BINARY.get(type_, type_)
    payload = text[match.end() :]
    data = _decode_json(payload) if payload else None
    if payload:
        _check(type_, data)
    elif type_ is PacketType.CONNECT_ERROR:
        raise ProtocolError("payload of CONNECT_ERROR missing")
    # The reference server ignores an event or ack that carries no payload at all.
    return Packet(type_, namespace or "/", data, int(ack_id) if ack_id else None), count


def _decode_json(payload: str) -> Any:
    try:
        return _json.decode(payload)
    except RecursionError:
        raise ProtocolError("payload nested too deeply") from None
    except ValueError:
        pass
    # JSON.stringify writes half of a surrogate pair (a text cut through an emoji) as an escape,
    # which no UTF-8 can hold. The peer is not at fault: it becomes U+FFFD.
    if "\\u" in payload:
        try:
            return _json.decode(_ESCAPE.sub(lambda m: m[0] if m[1] else "\\ufffd", payload))
        except (ValueError, RecursionError):
            pass
    raise ProtocolError("payload is not JSON")


def _check(type_: PacketType, data: Any) -> None:
    match type_:
        case PacketType.CONNECT:
            valid = isinstance(data, dict)
        case PacketType.DISCONNECT:
            valid = False
        case PacketType.CONNECT_ERROR:
            valid = isinstance(data, dict | str)
        case PacketType.EVENT:
            valid = isinstance(data, list) and bool(data) and _is_event_name(data[0])
        case _:
            valid = isinstance(data, list)
    if not valid:
        raise ProtocolError(f"payload of {type_.name} has the wrong form")


def _is_event_name(name: Any) -> bool:
    if isinstance(name, str):
        return name not in RESERVED_EVENTS
    return isinstance(name, int | float) and not isinstance(name, bool)


def _fill(data: Any, attachments: list[bytes]) -> Any:
    """Put the attachments where their placeholders stand."""
    if isinstance(data, list):
        return [_fill(item, attachments) for item in data]
    if not isinstance(data, dict):
        return data
    if data.get("_placeholder") is not True:
        return {key: _fill(value, attachments) for key, value in data.items()}
    number = data.get("num")
    if type(number) is not int or not 0 <= number < len(attachments):
        raise ProtocolError("placeholder of no attachment")
    return attachments[number]


def encode(packet: Packet) -> list[str | bytes]:
    """Encode a packet as one text message and a binary one for each `bytes` in its payload.

    Raises:
        TypeError: the payload holds what JSON cannot.
        UnicodeEncodeError: a text holds half of a surrogate pair.
        RecursionError: it is nested more than some 480 deep.
    """
    attachments: list[bytes] = []
    payload = "" if packet.data is None else _encode_json(packet.data, attachments)
    type_ = packet.type
    head = str(int(type_))
    if attachments:
        binary = PacketType.BINARY_EVENT if type_ is PacketType.EVENT else PacketType.BINARY_ACK
        head = f"{int(binary)}{len(attachments)}-"
    if packet.namespace != "/":
        head += packet.namespace + ","
    if packet.id is not None:
        head += str(packet.id)
    return [head + payload, *attachments]


def _encode_json(data: Any, attachments: list[bytes]) -> str:
    # msgspec would write bytes as base64 text, so they are taken out before; only containers
    # of plain data can hold some, messages (Structs) are text throughout.
    return msgspec.json.encode(_extract(data, attachments)).decode()


def _extract(data: Any, attachments: list[bytes]) -> Any:
    """Replace each `bytes`, depth first, by its placeholder."""
    if isinstance(data, bytes):
        attachments.append(data)
        return {"_placeholder": True, "num": len(attachments) - 1}
    if isinstance(data, list | tuple):
        return [_extract(item, attachments) for item in data]
    if isinstance(data, dict):
        return {key: _extract(value, attachments) for key, value in data.items()}
    return data
