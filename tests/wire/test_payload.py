from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach.wire.errors import ProtocolError
from coach.wire.payload import decode_payload, encode_payload

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x1e")).map(
    lambda text: "4" + text
)


@pytest.mark.parametrize(
    ("packets", "body"),
    [
        (["4hello"], b"4hello"),
        (["4hello", "2", "4world"], b"4hello\x1e2\x1e4world"),
        (["4hello", b"\x01\x02\x03\x04"], b"4hello\x1ebAQIDBA=="),
        (["4\u20ac"], b"4\xe2\x82\xac"),
        ([b""], b"b"),
    ],
)
def test_the_examples_of_the_protocol(packets: list[str | bytes], body: bytes) -> None:
    assert encode_payload(packets) == body
    assert decode_payload(body) == packets


@given(st.lists(st.one_of(texts, st.binary()), min_size=1))
def test_what_was_joined_comes_apart_again(packets: list[str | bytes]) -> None:
    assert decode_payload(encode_payload(packets)) == packets


@pytest.mark.parametrize(
    "body", [b"\xff", b"4a\x1e\xc3", b"bA", b"b====", b"b!!!!", b"4\x1eb\xc3\xa9"]
)
def test_what_is_no_payload_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_payload(body)


@given(st.binary())
def test_of_any_body_nothing_but_the_declared_error_comes(body: bytes) -> None:
    try:
        packets = decode_payload(body)
    except ProtocolError:
        return
    assert packets
