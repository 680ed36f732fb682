"""Socket.IO packets: what is one, what is refused, and what the other end gets to read.

S is the protocol document named in `coach.wire`; its examples are in "Packet encoding".
"""

from __future__ import annotations

import json
from time import thread_time
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coach.wire.errors import ProtocolError
from coach.wire.packet import MAX_ATTACHMENTS, RESERVED_EVENTS, Decoder, Packet, PacketType, encode

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR, BINARY_EVENT, BINARY_ACK = PacketType

generated = settings(max_examples=150, deadline=None, database=None)


def decode(*messages: str | bytes) -> Packet | None:
    """Decode messages of which only the last may complete a packet."""
    decoder = Decoder()
    *first, last = messages
    for message in first:
        assert decoder.receive(message) is None
    return decoder.receive(last)


def refused(*messages: str | bytes) -> str:
    with pytest.raises(ProtocolError) as info:
        decode(*messages)
    return str(info.value)


def argument(literal: str) -> Any:
    """Decode an event with one JSON literal as its argument."""
    packet = decode(f'2["hello",{literal}]')
    assert packet is not None
    return packet.data[1]


def placeholder(number: Any) -> dict[str, Any]:
    return {"_placeholder": True, "num": number}


# The examples of the protocol document

EXAMPLES: list[tuple[Packet, list[str | bytes]]] = [
    (Packet(CONNECT), ["0"]),
    (
        Packet(CONNECT, "/admin", {"sid": "oSO0OpakMV_3jnilAAAA"}),
        ['0/admin,{"sid":"oSO0OpakMV_3jnilAAAA"}'],
    ),
    (Packet(CONNECT_ERROR, "/", {"message": "Not authorized"}), ['4{"message":"Not authorized"}']),
    (Packet(EVENT, "/", ["foo"]), ['2["foo"]']),
    (Packet(EVENT, "/admin", ["bar"]), ['2/admin,["bar"]']),
    (
        Packet(EVENT, "/", ["baz", b"\x01\x02\x03\x04"]),
        ['51-["baz",{"_placeholder":true,"num":0}]', b"\x01\x02\x03\x04"],
    ),
    (
        Packet(EVENT, "/admin", ["baz", b"\x01\x02", b"\x03\x04"]),
        [
            '52-/admin,["baz",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]',
            b"\x01\x02",
            b"\x03\x04",
        ],
    ),
    (Packet(EVENT, "/", ["foo"], 12), ['212["foo"]']),
    (Packet(ACK, "/admin", ["bar"], 13), ['3/admin,13["bar"]']),
    (
        Packet(ACK, "/", ["bar", b"\x01\x02\x03\x04"], 15),
        ['61-15["bar",{"_placeholder":true,"num":0}]', b"\x01\x02\x03\x04"],
    ),
    (Packet(DISCONNECT), ["1"]),
    (Packet(DISCONNECT, "/admin"), ["1/admin,"]),
    # Those of "Sample session" that differ from the above in form.
    (Packet(CONNECT, "/admin"), ["0/admin,"]),
    (Packet(EVENT, "/admin", ["tellme"], 1), ['2/admin,1["tellme"]']),
    (
        Packet(ACK, "/admin", [b"\x01"], 1),
        ['61-/admin,1[{"_placeholder":true,"num":0}]', b"\x01"],
    ),
]
every_example = pytest.mark.parametrize(
    ("packet", "messages"), EXAMPLES, ids=[str(messages[0]) for _, messages in EXAMPLES]
)


@every_example
def test_examples_of_the_protocol_are_encoded_to_the_letter(
    packet: Packet, messages: list[str | bytes]
) -> None:
    assert encode(packet) == messages


@every_example
def test_examples_of_the_protocol_are_understood(
    packet: Packet, messages: list[str | bytes]
) -> None:
    assert decode(*messages) == packet


# Forms that the examples leave out


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0/random", Packet(CONNECT, "/random")),
        ("0/admin?token=1&x=2,{}", Packet(CONNECT, "/admin?token=1&x=2", {})),
        ('0{"token":"123"}', Packet(CONNECT, "/", {"token": "123"})),
        ("0/,", Packet(CONNECT, "/")),
        ('2/,["foo"]', Packet(EVENT, "/", ["foo"])),
        ('2/a/b,["foo"]', Packet(EVENT, "/a/b", ["foo"])),
        ("30[]", Packet(ACK, "/", [], 0)),
        ("3[]", Packet(ACK, "/", [])),
        ('4"Not authorized"', Packet(CONNECT_ERROR, "/", "Not authorized")),
        ('29999999999999999["foo"]', Packet(EVENT, "/", ["foo"], 9_999_999_999_999_999)),
        (
            '2["foo",{"b":[null,true,1,1.5,"x"]}]',
            Packet(EVENT, "/", ["foo", {"b": [None, True, 1, 1.5, "x"]}]),
        ),
    ],
    ids=str,
)
def test_packets_that_are_understood(text: str, packet: Packet) -> None:
    assert decode(text) == packet


@pytest.mark.parametrize("name", [0, 1, -1, 1.5, "", "error", "message", "__proto__", "on_event"])
def test_an_event_may_be_named_by_any_number_and_any_string_not_reserved(name: str | float) -> None:
    assert decode("2" + json.dumps([name])) == Packet(EVENT, "/", [name])


@pytest.mark.parametrize("text", ["2", "3", "21", "31", "2/admin,", "3/admin,7"])
def test_events_and_acks_without_any_payload_are_tolerated_like_by_the_reference(text: str) -> None:
    packet = decode(text)
    assert packet is not None
    assert packet.data is None


# Malformed packets


@pytest.mark.parametrize(
    "text",
    [
        # socket.io-parser 4.2, test/parser.js
        '442["some","data"',
        '0/admin,"invalid"',
        "1/admin,{}",
        '2/admin,"invalid',
        "2/admin,{}",
        '2[{"toString":"foo"}]',
        '2[true,"foo"]',
        '2[null,"bar"]',
        '2["connect"]',
        '2["disconnect","123"]',
        "51.23-",
        "5-",
        "999",
        "9",
        "",
        # No such type
        "7",
        "-1",
        " 2",
        "\u0662",
        "\uff12",
        # What each type may carry (S, "Packet types")
        "0[1]",
        '0"token"',
        "00.5",
        "0null",
        "1null",
        "1[]",
        "1,",
        '2"foo"',
        "2{}",
        "2[]",
        "2null",
        "2[[]]",
        "3{}",
        "31{}",
        "3null",
        "4[]",
        "41",
        "4null",
        # No JSON
        "2abc",
        '2abc["foo"]',
        '2["foo"]x',
        '2["foo",]',
        "2['foo']",
        '2["foo","\x00"]',
        '2["foo","\ud800"]',
    ],
)
def test_a_malformed_packet_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("name", sorted(RESERVED_EVENTS))
@pytest.mark.parametrize("head", ["2", "27", "2/admin,", "51-"])
def test_an_event_with_a_reserved_name_is_refused(head: str, name: str) -> None:
    refused(f'{head}["{name}"]')


@pytest.mark.parametrize(
    "messages",
    [
        ['2["secret"'],
        ["secret"],
        ['0"secret"'],
        ['2["secret","\\ud800"'],
        ['51-["a",{"_placeholder":true,"num":"secret"}]', b"secret"],
    ],
)
def test_the_error_never_quotes_what_the_peer_sent(messages: list[str | bytes]) -> None:
    assert "secret" not in refused(*messages)


# Attachments


def test_a_packet_may_announce_ten_attachments_and_comes_with_the_last() -> None:
    assert MAX_ATTACHMENTS == 10
    parts = [bytes([number]) for number in range(10)]
    head = "510-" + json.dumps(["parts", *map(placeholder, range(10))])
    assert decode(head, *parts) == Packet(EVENT, "/", ["parts", *parts])


@pytest.mark.parametrize(
    "head",
    [
        "5",
        "6",
        "50-",
        "511-",
        "60-",
        "611-",
        "55999999-",
        "5-1-",
        "5+1-",
        "5 1-",
        "51.0-",
        "51e0-",
        "5\u0661-",
        "5\u00b2-",
        "51",
        "5/admin,1-",
        "21-",
        "31-",
        "01-",
    ],
)
def test_an_attachment_count_that_is_none_is_refused(head: str) -> None:
    refused(head + '["foo"]')


def test_attachments_fill_their_placeholders_wherever_these_stand() -> None:
    head = json.dumps(["a", [placeholder(2)], {"x": {"y": placeholder(0)}, "z": 1}, placeholder(2)])
    packet = decode("53-" + head, b"zero", b"one", b"two")
    assert packet == Packet(EVENT, "/", ["a", [b"two"], {"x": {"y": b"zero"}, "z": 1}, b"two"])


@pytest.mark.parametrize(
    "number", [-1, 1, 99, 0.0, 1.0, True, False, None, "0", "a", [0], {}, "length", 2**70]
)
def test_a_placeholder_of_no_attachment_is_refused(number: Any) -> None:
    refused("51-" + json.dumps(["foo", [placeholder(number)]]), b"")


def test_a_placeholder_without_a_number_is_refused() -> None:
    refused('51-["foo",{"_placeholder":true}]', b"")


@pytest.mark.parametrize("mark", ["1", "1.0", '"true"', "[]", "null", "false"])
def test_only_true_marks_a_placeholder(mark: str) -> None:
    packet = decode(f'51-["foo",{{"_placeholder":{mark},"num":0}}]', b"unused")
    assert packet is not None
    assert packet.data[1] == {"_placeholder": json.loads(mark), "num": 0}


def test_in_a_text_packet_a_placeholder_is_an_object_like_any_other() -> None:
    assert argument(json.dumps(placeholder(7))) == placeholder(7)


@pytest.mark.parametrize("payload", [[placeholder(0)], placeholder(0)])
def test_an_attachment_cannot_be_the_name_or_the_whole_of_an_event(payload: Any) -> None:
    refused("51-" + json.dumps(payload))


def test_a_text_message_between_attachments_is_refused() -> None:
    refused('52-["foo"]', b"1", '2["bar"]')


@pytest.mark.parametrize("text", ["2", "", "51-", "no packet"])
def test_any_text_is_refused_while_attachments_are_missing(text: str) -> None:
    refused('51-["foo"]', text)


def test_an_attachment_that_no_packet_announced_is_refused() -> None:
    refused(b"1")


def test_an_attachment_too_many_is_refused() -> None:
    decoder = Decoder()
    for message in '51-["foo"]', b"1":
        decoder.receive(message)
    with pytest.raises(ProtocolError):
        decoder.receive(b"2")


def test_after_the_last_attachment_any_packet_may_follow() -> None:
    decoder = Decoder()
    head = '51-["foo",{"_placeholder":true,"num":0}]'
    assert decoder.receive(head) is None
    assert decoder.receive(b"1") == Packet(EVENT, "/", ["foo", b"1"])
    assert decoder.receive('2["bar"]') == Packet(EVENT, "/", ["bar"])
    assert decoder.receive(head) is None
    assert decoder.receive(b"2") == Packet(EVENT, "/", ["foo", b"2"])


def test_a_binary_packet_without_payload_still_takes_its_attachment() -> None:
    assert decode("51-", b"1") == Packet(EVENT)


# Hostile payloads


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('2\u00b2["a"]', id="superscript two"),
        pytest.param('2\u0663["a"]', id="arabic three"),
        pytest.param('2\uff11["a"]', id="fullwidth one"),
        pytest.param('2-1["a"]', id="negative"),
        pytest.param('2+1["a"]', id="signed"),
        pytest.param('21.5["a"]', id="fraction"),
        pytest.param('210000000000000000["a"]', id="17 digits"),
        pytest.param("3" + "1" * 17 + "[]", id="17 digits of an ack"),
    ],
)
def test_an_ack_id_is_at_most_sixteen_ascii_digits(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("payload", ['["a"]', ""])
def test_an_ack_id_of_a_megabyte_is_refused_within_milliseconds(payload: str) -> None:
    text = "2" + "1" * 1_000_000 + payload
    start = thread_time()
    refused(text)
    assert thread_time() - start < 0.04


DEEP = [100, 300, 500, 700, 900, 1000, 3000, 10_000, 200_000]


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("2" + "[" * 200_000, id="lists"),
        pytest.param('2["a",' + '{"a":' * 200_000, id="objects"),
        pytest.param("0" + '{"a":' * 200_000, id="auth"),
        pytest.param('2["\\ud800",' + "[" * 200_000, id="after half a pair"),
    ],
)
def test_bottomless_nesting_is_refused(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("depth", DEEP)
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_nesting_of_any_depth_is_decoded_or_refused_with_attachments_too(
    opening: str, closing: str, depth: int
) -> None:
    payload = f'["a",{opening * depth}1{closing * depth}]'
    for messages in (["2" + payload], ["51-" + payload, b"1"]):
        try:
            decode(*messages)
        except ProtocolError:
            assert depth > 100


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "01", "+1"])
def test_a_number_that_json_lacks_or_no_double_holds_is_refused(literal: str) -> None:
    refused(f'2["hello",{literal}]')


def test_an_integer_of_five_thousand_digits_is_refused() -> None:
    refused(f'2["hello",{"1" * 5000}]')


def test_the_last_of_duplicate_keys_counts_as_in_javascript() -> None:
    assert argument('{"a":1,"a":2}') == {"a": 2}


# JSON.stringify writes half a surrogate pair as an escape


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (r"\ud800", "\ufffd"),
        (r"\uDFFF", "\ufffd"),
        (r"cut\ud83d", "cut\ufffd"),
        (r"\ud83dcut", "\ufffdcut"),
        (r"\ud83d\u0041", "\ufffdA"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\ud83d\ude00\ude00", "\U0001f600\ufffd"),
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\uD83D\uDE00", "\U0001f600"),
        (r"\\ud800", r"\ud800"),
        (r"\\\ud800", "\\\ufffd"),
        ("\\ud83d\\\\ude00", "\ufffd\\ude00"),
        ("\\\\ud83d\\ude00", "\\ud83d\ufffd"),
        (r"\n\ud800\"", '\n\ufffd"'),
    ],
)
def test_half_a_surrogate_pair_becomes_a_replacement_character(escaped: str, text: str) -> None:
    assert argument(f'"{escaped}"') == text


def test_half_a_pair_in_a_key_is_replaced_as_well() -> None:
    assert argument(r'{"\ud800":"\udc00"}') == {"\ufffd": "\ufffd"}


@generated
@given(st.lists(st.sampled_from(["\ud83d", "\ude00", "\U0001f600", "\\", "u", "ud83d", '"', "a"])))
def test_of_any_text_only_the_halves_of_pairs_are_lost_and_the_rest_can_be_sent(
    pieces: list[str],
) -> None:
    text = "".join(pieces)
    halves_replaced = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    received = argument(json.dumps(text))
    assert received == halves_replaced
    assert decode(*encode(Packet(EVENT, "/", ["a", received]))) == Packet(
        EVENT, "/", ["a", received]
    )


def test_the_nul_character_passes_both_ways() -> None:
    assert argument(r'"\u0000"') == "\x00"
    assert encode(Packet(EVENT, "/", ["a", "\x00"])) == [r'2["a","\u0000"]']


# Encoding


def test_attachments_are_numbered_depth_first() -> None:
    data = ["a", {"x": [b"0", {"y": b"1"}], "z": (b"2",)}, b"3"]
    head, *attachments = encode(Packet(EVENT, "/", data))
    assert attachments == [b"0", b"1", b"2", b"3"]
    assert isinstance(head, str)
    assert head.startswith("54-")
    assert json.loads(head[3:]) == [
        "a",
        {"x": [placeholder(0), {"y": placeholder(1)}], "z": [placeholder(2)]},
        placeholder(3),
    ]


def test_encoding_leaves_the_payload_as_it_was() -> None:
    data = ["a", {"x": [b"0"]}]
    encode(Packet(EVENT, "/", data))
    assert data == ["a", {"x": [b"0"]}]


def test_structs_are_sent_as_objects() -> None:
    class Tip(msgspec.Struct, rename="camel"):
        short_text: str

    assert encode(Packet(EVENT, "/", ["tip", Tip("x")])) == ['2["tip",{"shortText":"x"}]']


def test_text_is_sent_as_it_is() -> None:
    assert encode(Packet(EVENT, "/", ["a", "\u00e9\U0001f600"])) == ['2["a","\u00e9\U0001f600"]']


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_json_lacks_are_sent_as_null_like_javascript_does(number: float) -> None:
    assert encode(Packet(EVENT, "/", ["a", number])) == ['2["a",null]']


@pytest.mark.parametrize("value", [object(), {(1,): 2}, [object()], 1j])
def test_what_json_cannot_hold_is_our_own_mistake(value: Any) -> None:
    with pytest.raises(TypeError):
        encode(Packet(EVENT, "/", ["a", value]))


# Anything at all

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text().filter(lambda key: key != "_placeholder"), inner, max_size=4)
    ),
    max_leaves=12,
)
names = st.text().filter(lambda name: name not in RESERVED_EVENTS) | st.integers()
namespaces = st.just("/") | st.text().map(lambda text: "/" + text.replace(",", ""))
ack_ids = st.integers(0, 10**16 - 1)
packets = st.one_of(
    st.builds(
        Packet,
        st.just(EVENT),
        namespaces,
        st.builds(lambda name, args: [name, *args], names, st.lists(json_values, max_size=3)),
        st.none() | ack_ids,
    ),
    st.builds(Packet, st.just(ACK), namespaces, st.lists(json_values, max_size=3), ack_ids),
    st.builds(
        Packet,
        st.sampled_from([CONNECT, CONNECT_ERROR]),
        namespaces,
        st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=3),
    ),
    st.builds(Packet, st.just(DISCONNECT), namespaces),
)


@generated
@given(packets)
def test_what_is_sent_is_what_arrives(packet: Packet) -> None:
    messages = encode(packet)
    assume(len(messages) <= 1 + MAX_ATTACHMENTS)
    assert decode(*messages) == packet


almost_packets = st.builds(
    "".join,
    st.tuples(
        st.sampled_from("0123456789x"),
        st.sampled_from(["", "1-", "2-", "10-", "11-", "-"]),
        st.sampled_from(["", "/", "/a,", "/a", ","]),
        st.sampled_from(["", "0", "7", "9" * 17, "\u00b2"]),
        st.one_of(
            st.just(""),
            st.text(max_size=20),
            st.lists(
                st.sampled_from(['"a"', "connect", "{}", "[", "]", ",", ":", '"', "\\ud800"])
            ).map("".join),
            st.sampled_from(
                [
                    '["a",{"_placeholder":true,"num":0}]',
                    '["a",{"_placeholder":true,"num":1}]',
                    '["a",{"_placeholder":true,"num":null}]',
                    "[]",
                    '{"a":1}',
                    "null",
                ]
            ),
        ),
    ),
)


@settings(generated, max_examples=400)
@given(st.lists(almost_packets | st.text() | st.binary(), max_size=8))
def test_whatever_arrives_nothing_but_a_protocol_error_leaves_the_decoder(
    messages: list[str | bytes],
) -> None:
    decoder = Decoder()
    for message in messages:
        try:
            packet = decoder.receive(message)
        except ProtocolError:
            decoder = Decoder()
        else:
            assert packet is None or packet.type not in (BINARY_EVENT, BINARY_ACK)
