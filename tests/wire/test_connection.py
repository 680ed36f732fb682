"""One client's namespaces: joining, talking, leaving, and what a client may not do when (S)."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coach.wire.connection import (
    AckReceived,
    Connection,
    ConnectRequested,
    EventReceived,
    Left,
)
from coach.wire.errors import ProtocolError

START = 1000.0
NAMESPACES = ["/", "/admin"]

in_each_namespace = pytest.mark.parametrize(
    ("namespace", "prefix"), [("/", ""), ("/admin", "/admin,")]
)


def connected(*namespaces: str) -> Connection:
    connection = Connection(45, START)
    for namespace in namespaces or NAMESPACES:
        connection.accept(namespace, "abc")
    return connection


# Joining


@in_each_namespace
def test_a_client_asks_to_join_and_is_let_in(namespace: str, prefix: str) -> None:
    connection = Connection(45, START)
    assert connection.receive(f"0{prefix}") == ConnectRequested(namespace, None)
    assert connection.accept(namespace, "abc") == [f'0{prefix}{{"sid":"abc"}}']


@in_each_namespace
def test_a_client_shows_its_credentials_and_is_refused(namespace: str, prefix: str) -> None:
    connection = Connection(45, START)
    requested = connection.receive(f'0{prefix}{{"token":"1"}}')
    assert requested == ConnectRequested(namespace, {"token": "1"})
    assert connection.refuse(namespace, "No") == [f'4{prefix}{{"message":"No"}}']


def test_a_refused_client_may_try_again() -> None:
    connection = Connection(45, START)
    connection.receive("0")
    connection.refuse("/", "Authentication failed")
    assert connection.receive('0{"token":"2"}') == ConnectRequested("/", {"token": "2"})


def test_a_namespace_cannot_be_joined_twice() -> None:
    connection = connected("/")
    with pytest.raises(ProtocolError):
        connection.receive("0")


def test_each_namespace_is_joined_by_itself() -> None:
    connection = connected("/")
    assert connection.receive("0/admin") == ConnectRequested("/admin", None)
    with pytest.raises(ProtocolError):
        connection.receive('2/admin,["a"]')


def test_a_client_without_a_namespace_has_until_the_deadline() -> None:
    connection = Connection(45, START)
    assert connection.deadline == START + 45
    connection.receive("0")
    connection.refuse("/", "Authentication failed")
    assert connection.deadline == START + 45


def test_once_let_in_the_deadline_is_off_for_good() -> None:
    connection = Connection(45, START)
    connection.accept("/", "abc")
    assert connection.deadline == inf
    connection.receive("1")
    assert connection.deadline == inf


# Before a namespace is joined


@in_each_namespace
@pytest.mark.parametrize(
    ("kind", "rest"), [("2", '["a"]'), ("2", '1["a"]'), ("2", ""), ("3", "1[]"), ("1", "")]
)
@pytest.mark.parametrize("asked", [False, True])
def test_packets_for_a_namespace_not_joined_are_refused(
    asked: bool, kind: str, rest: str, namespace: str, prefix: str
) -> None:
    connection = connected("/other")
    if asked:
        connection.receive(f"0{prefix}")
    with pytest.raises(ProtocolError):
        connection.receive(f"{kind}{prefix}{rest}")


def test_a_binary_event_before_joining_is_refused_with_its_last_attachment() -> None:
    connection = Connection(45, START)
    assert connection.receive('51-["a",{"_placeholder":true,"num":0}]') is None
    with pytest.raises(ProtocolError):
        connection.receive(b"1")


@in_each_namespace
def test_nothing_is_sent_to_a_namespace_not_joined(namespace: str, prefix: str) -> None:
    connection = connected("/other")
    assert connection.emit(namespace, "a", b"1") == []
    assert connection.ack(namespace, 1) == []
    assert connection.disconnect(namespace) == []


# Talking


@in_each_namespace
def test_an_event_arrives_with_its_name_arguments_and_ack_id(namespace: str, prefix: str) -> None:
    connection = connected()
    assert connection.receive(f'2{prefix}["a"]') == EventReceived(namespace, "a", [], None)
    event = connection.receive(f'2{prefix}7["a",1,{{"b":null}}]')
    assert event == EventReceived(namespace, "a", [1, {"b": None}], 7)


def test_the_first_ack_id_is_zero() -> None:
    connection = connected()
    assert connection.receive('20["a"]') == EventReceived("/", "a", [], 0)
    assert connection.receive("30[]") == AckReceived("/", 0, [])


def test_a_number_may_name_an_event() -> None:
    assert connected().receive("2[1.5,2]") == EventReceived("/", 1.5, [2], None)


def test_a_binary_event_arrives_with_its_last_attachment() -> None:
    connection = connected()
    head = '52-/admin,3["a",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]'
    assert connection.receive(head) is None
    assert connection.receive(b"0") is None
    assert connection.receive(b"1") == EventReceived("/admin", "a", [b"1", b"0"], 3)


@in_each_namespace
def test_an_ack_arrives_with_its_id(namespace: str, prefix: str) -> None:
    assert connected().receive(f"3{prefix}7[1]") == AckReceived(namespace, 7, [1])


def test_a_binary_ack_arrives_with_its_attachment() -> None:
    connection = connected()
    assert connection.receive('61-7[{"_placeholder":true,"num":0}]') is None
    assert connection.receive(b"1") == AckReceived("/", 7, [b"1"])


@pytest.mark.parametrize("message", ["2", "27", "3", "37", "3[]", "3[1]"])
def test_events_without_payload_and_acks_of_nothing_mean_nothing(message: str) -> None:
    connection = connected()
    assert connection.receive(message) is None
    assert connection.receive('2["a"]') == EventReceived("/", "a", [], None)


@pytest.mark.parametrize("message", ["4{}", '4{"message":"x"}', '4"x"', "4", "4/admin,{}"])
def test_a_client_may_not_send_a_connect_error(message: str) -> None:
    with pytest.raises(ProtocolError):
        connected().receive(message)


@pytest.mark.parametrize("message", ["", "9", "2{}", '2["connect"]', "42[]", b"1"])
def test_what_the_decoder_refuses_is_refused_here(message: str | bytes) -> None:
    with pytest.raises(ProtocolError):
        connected().receive(message)


@in_each_namespace
def test_events_and_acks_go_out_to_their_namespace(namespace: str, prefix: str) -> None:
    connection = connected()
    assert connection.emit(namespace, "a") == [f'2{prefix}["a"]']
    assert connection.emit(namespace, "a", 1, None) == [f'2{prefix}["a",1,null]']
    assert connection.ack(namespace, 7) == [f"3{prefix}7[]"]
    assert connection.ack(namespace, 0, {"ok": True}) == [f'3{prefix}0[{{"ok":true}}]']


def test_bytes_go_out_as_attachments() -> None:
    connection = connected()
    assert connection.emit("/", "a", b"1") == ['51-["a",{"_placeholder":true,"num":0}]', b"1"]
    assert connection.ack("/", 7, b"1") == ['61-7[{"_placeholder":true,"num":0}]', b"1"]


# Leaving


@in_each_namespace
def test_a_client_leaves_one_namespace_and_keeps_the_other(namespace: str, prefix: str) -> None:
    connection = connected()
    [other] = set(NAMESPACES) - {namespace}
    assert connection.receive(f"1{prefix}") == Left(namespace)
    assert connection.emit(namespace, "a") == []
    assert connection.emit(other, "a") != []


def test_who_left_may_not_talk_but_may_join_again() -> None:
    connection = connected("/")
    connection.receive("1")
    assert connection.receive("0") == ConnectRequested("/", None)
    with pytest.raises(ProtocolError):
        connection.receive('2["a"]')


def test_a_client_cannot_leave_twice() -> None:
    connection = connected("/")
    connection.receive("1")
    with pytest.raises(ProtocolError):
        connection.receive("1")


@in_each_namespace
def test_a_client_is_put_out_of_one_namespace_and_keeps_the_other(
    namespace: str, prefix: str
) -> None:
    connection = connected()
    [other] = set(NAMESPACES) - {namespace}
    assert connection.disconnect(namespace) == [f"1{prefix}"]
    assert connection.emit(namespace, "a") == []
    assert connection.disconnect(namespace) == []
    assert connection.emit(other, "a") != []


def test_who_was_put_out_may_not_talk_but_may_ask_again() -> None:
    connection = connected("/")
    connection.disconnect("/")
    assert connection.receive("0") == ConnectRequested("/", None)
    with pytest.raises(ProtocolError):
        connection.receive('2["a"]')


# Anything at all

messages = (
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from("01234569"),
            st.sampled_from(["", "1-"]),
            st.sampled_from(["", "/admin,"]),
            st.sampled_from(["", "7"]),
            st.sampled_from(["", "[]", "{}", '["a"]', '["a",{"_placeholder":true,"num":0}]']),
        ),
    )
    | st.text()
    | st.binary()
)


@settings(max_examples=200, deadline=None, database=None)
@given(st.lists(messages, max_size=10))
def test_whatever_arrives_only_members_of_a_namespace_are_heard_in_it(
    arriving: list[str | bytes],
) -> None:
    connection = Connection(45, START)
    joined = set()
    for message in arriving:
        try:
            event = connection.receive(message)
        except ProtocolError:
            return
        if isinstance(event, ConnectRequested):
            assert event.namespace not in joined
            connection.accept(event.namespace, "abc")
            joined.add(event.namespace)
        elif event is not None:
            assert event.namespace in joined
            if isinstance(event, Left):
                joined.remove(event.namespace)
