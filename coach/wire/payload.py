"""Several packets in the body of one HTTP request (E, "HTTP long-polling")."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Final

from coach.wire.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

SEPARATOR: Final = "\x1e"
_BINARY: Final = "b"


def encode_payload(packets: Iterable[str | bytes]) -> bytes:
    """Join packets; binary ones travel as base64."""
    return SEPARATOR.join(
        packet if isinstance(packet, str) else _BINARY + b64encode(packet).decode()
        for packet in packets
    ).encode()


def decode_payload(body: bytes) -> list[str | bytes]:
    """Split a body into its packets; their types are the session's business.

    Raises:
        ProtocolError: the body is not UTF-8, or a binary packet not base64.
    """
    try:
        return [
            b64decode(part[1:], validate=True) if part.startswith(_BINARY) else part
            for part in body.decode().split(SEPARATOR)
        ]
    except UnicodeDecodeError:
        raise ProtocolError("payload is not UTF-8") from None
    except (binascii.Error, ValueError):
        raise ProtocolError("binary packet is not base64") from None
