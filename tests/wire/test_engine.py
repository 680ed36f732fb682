"""One Engine.IO session, to the second: packet types, the heartbeat, the queue, the end.

E is the protocol document named in `coach.wire`.
"""

from __future__ import annotations

import json
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coach.wire.engine import PING, Config, Session
from coach.wire.errors import ProtocolError

START = 1000.0
INTERVAL = 20.0
TIMEOUT = 5.0
FIRST_PING = START + INTERVAL
CONFIG = Config(ping_interval=INTERVAL, ping_timeout=TIMEOUT, max_buffered=10)

other_packets = pytest.mark.parametrize("packet", ['42["a"]', "4", b"1", b""], ids=repr)


def open_session(config: Config = CONFIG) -> Session:
    return Session("abc", config, START)


def pinged(session: Session) -> Session:
    session.tick(session.next_deadline)
    assert session.take() == [PING]
    return session


def tick_until(session: Session, now: float) -> None:
    for _ in range(2):  # Without a pong, a session ticks twice in its life.
        if session.next_deadline <= now:
            session.tick(session.next_deadline)


# The handshake


def test_the_open_packet_has_five_fields_and_tells_times_in_milliseconds() -> None:
    config = Config(ping_interval=20, ping_timeout=0.25, max_payload=500_000)
    packet = open_session(config).open_packet(["websocket"])
    assert packet[0] == "0"
    assert json.loads(packet[1:]) == {
        "sid": "abc",
        "upgrades": ["websocket"],
        "pingInterval": 20_000,
        "pingTimeout": 250,
        "maxPayload": 500_000,
    }


def test_the_open_packet_is_compact_and_in_the_order_of_the_protocol() -> None:
    assert open_session(Config()).open_packet([]) == (
        '0{"sid":"abc","upgrades":[],"pingInterval":20000,"pingTimeout":20000,"maxPayload":1000000}'
    )


def test_the_open_packet_is_not_queued_by_the_session_itself() -> None:
    session = open_session()
    session.open_packet([])
    assert session.take() == []


# The heartbeat


def test_the_first_ping_goes_out_exactly_an_interval_after_the_start() -> None:
    session = open_session()
    assert session.next_deadline == FIRST_PING
    session.tick(FIRST_PING - 0.001)
    assert session.take() == []
    session.tick(FIRST_PING)
    assert session.take() == [PING]


def test_while_a_pong_is_due_no_other_ping_goes_out() -> None:
    session = pinged(open_session())
    assert session.next_deadline == FIRST_PING + TIMEOUT
    session.tick(FIRST_PING + TIMEOUT - 0.001)
    assert session.take() == []
    assert session.close_reason is None


def test_the_next_ping_goes_out_an_interval_after_the_pong() -> None:
    session = pinged(open_session())
    assert session.receive("3", FIRST_PING + 2) is None
    assert session.next_deadline == FIRST_PING + 2 + INTERVAL
    session.tick(FIRST_PING + TIMEOUT)
    assert session.close_reason is None
    session.tick(FIRST_PING + 2 + INTERVAL)
    assert session.take() == [PING]
    assert session.next_deadline == FIRST_PING + 2 + INTERVAL + TIMEOUT


def test_a_pong_just_in_time_keeps_the_session() -> None:
    session = pinged(open_session())
    session.receive("3", FIRST_PING + TIMEOUT - 0.001)
    session.tick(FIRST_PING + TIMEOUT)
    assert session.close_reason is None


def test_without_a_pong_the_session_ends_exactly_at_the_timeout() -> None:
    session = pinged(open_session())
    session.tick(FIRST_PING + TIMEOUT)
    assert session.close_reason == "ping timeout"
    assert session.next_deadline == inf


def test_a_late_tick_sends_the_ping_and_leaves_the_whole_timeout_for_the_pong() -> None:
    session = open_session()
    session.tick(FIRST_PING + 60)
    assert session.take() == [PING]
    assert session.next_deadline == FIRST_PING + 60 + TIMEOUT


def test_pongs_that_nobody_asked_for_do_not_put_the_ping_off() -> None:
    session = open_session()
    for second in range(int(INTERVAL)):
        session.receive("3", START + second)
    assert session.next_deadline == FIRST_PING
    session.tick(FIRST_PING)
    assert session.take() == [PING]


def test_a_second_pong_to_one_ping_changes_nothing() -> None:
    session = pinged(open_session())
    session.receive("3", FIRST_PING + 1)
    session.receive("3", FIRST_PING + 4)
    assert session.next_deadline == FIRST_PING + 1 + INTERVAL


@other_packets
def test_packets_do_not_put_the_ping_off(packet: str | bytes) -> None:
    session = open_session()
    session.receive(packet, START + 19)
    assert session.next_deadline == FIRST_PING


@other_packets
def test_another_packet_extends_the_wait_for_the_pong_but_only_once(packet: str | bytes) -> None:
    session = pinged(open_session())
    session.receive(packet, FIRST_PING + 3)
    assert session.next_deadline == FIRST_PING + 3 + TIMEOUT
    session.receive(packet, FIRST_PING + 7)
    assert session.next_deadline == FIRST_PING + 3 + TIMEOUT
    session.tick(FIRST_PING + 3 + TIMEOUT)
    assert session.close_reason == "ping timeout"


def test_each_ping_may_be_extended_anew() -> None:
    session = pinged(open_session())
    session.receive("4", FIRST_PING + 1)
    session.receive("3", FIRST_PING + 2)
    pinged(session)
    second_ping = FIRST_PING + 2 + INTERVAL
    session.receive("4", second_ping + 4)
    assert session.next_deadline == second_ping + 4 + TIMEOUT


@pytest.mark.parametrize("packet", ["0", "5", "6"])
def test_packets_without_a_message_do_not_extend_the_wait(packet: str) -> None:
    session = pinged(open_session())
    session.receive(packet, FIRST_PING + 3)
    assert session.next_deadline == FIRST_PING + TIMEOUT


silent_packets = st.sampled_from(['42["a"]', "4", "0", "5", "6", b"1"])


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(st.tuples(st.floats(0, 8), silent_packets), max_size=40))
def test_a_client_that_answers_no_ping_is_given_up_in_bounded_time_whatever_else_it_sends(
    sent: list[tuple[float, str | bytes]],
) -> None:
    session = open_session()
    now = START
    for delay, packet in sent:
        now += delay
        tick_until(session, now)
        session.receive(packet, now)
    tick_until(session, max(now, FIRST_PING + 2 * TIMEOUT))
    assert session.close_reason == "ping timeout"
    assert session.take() == [PING]


def test_a_client_that_sends_other_packets_only_is_given_up_after_one_extension() -> None:
    session = open_session()
    for second in range(0, 27, 3):
        tick_until(session, START + second)
        session.receive("4", START + second)
    assert session.next_deadline == START + 21 + TIMEOUT
    tick_until(session, START + 21 + TIMEOUT)
    assert session.close_reason == "ping timeout"


# What a client may send


@pytest.mark.parametrize(
    ("packet", "message"),
    [('42["a"]', '2["a"]'), ("4", ""), ("44", "4"), (b"4", b"4"), (b"", b"")],
)
def test_text_loses_its_type_and_binary_stands_for_itself(
    packet: str | bytes, message: str | bytes
) -> None:
    assert open_session().receive(packet, START) == message


@pytest.mark.parametrize("packet", ["0", "0{}", "3", "3probe", "5", "6"])
def test_packets_that_mean_nothing_here_are_ignored(packet: str) -> None:
    session = open_session()
    assert session.receive(packet, START) is None
    assert session.close_reason is None
    assert session.take() == []


@pytest.mark.parametrize("packet", ["2", "2probe"])
def test_a_ping_from_a_client_is_refused(packet: str) -> None:
    with pytest.raises(ProtocolError):
        open_session().receive(packet, START)


@pytest.mark.parametrize("packet", ["", "7", "9", "abc", " 4", "b4", "\u0664", "\u00b2", "\ud800"])
def test_a_packet_of_no_known_type_is_refused(packet: str) -> None:
    with pytest.raises(ProtocolError):
        open_session().receive(packet, START)


@settings(max_examples=150, deadline=None, database=None)
@given(st.lists(st.text(st.characters(), max_size=5) | st.binary(max_size=5), max_size=5))
def test_whatever_arrives_nothing_but_a_protocol_error_leaves_the_session(
    packets: list[str | bytes],
) -> None:
    session = open_session()
    for packet in packets:
        try:
            message = session.receive(packet, START)
        except ProtocolError:
            assert isinstance(packet, str)
        else:
            assert message is None or packet in (message, f"4{message!s}")


# What is sent


def test_packets_are_taken_in_order_and_once() -> None:
    session = open_session()
    session.send("a")
    session.send(b"b")
    session.tick(FIRST_PING)
    session.send("c")
    assert session.take() == ["4a", b"b", "2", "4c"]
    assert session.take() == []


def test_a_client_that_leaves_more_than_the_limit_waiting_is_given_up() -> None:
    session = open_session()
    session.send(b"12345")
    session.send("1234")
    session.send(b"1")
    assert session.close_reason is None
    session.send(b"")
    assert session.close_reason == "client does not read"
    assert session.next_deadline == inf
    assert session.take() == [b"12345", "41234", b"1"]


def test_one_message_may_be_longer_than_the_limit() -> None:
    session = open_session()
    session.send(b"x" * 1000)
    assert session.close_reason is None
    assert session.take() == [b"x" * 1000]


def test_what_was_taken_no_longer_counts() -> None:
    session = open_session()
    for _ in range(5):
        session.send(b"1234567890")
        assert session.take() == [b"1234567890"]
    assert session.close_reason is None


def test_the_limit_counts_bytes_and_not_characters() -> None:
    session = open_session()
    session.send("\U0001f600\U0001f600\u00e9")
    session.send("1")
    assert session.close_reason == "client does not read"


def test_a_ping_counts_as_well() -> None:
    session = open_session()
    session.send(b"1234567890")
    session.tick(FIRST_PING)
    session.send(b"")
    assert session.close_reason == "client does not read"


# The end


def test_a_close_packet_ends_the_session() -> None:
    session = open_session()
    assert session.receive("1", START) is None
    assert session.close_reason == "transport close"


def test_what_was_queued_before_the_close_is_still_sent_and_nothing_after() -> None:
    session = open_session()
    session.send("before")
    session.close("server shutting down")
    session.send("after")
    session.send(b"after")
    assert session.take() == ["4before"]
    session.send("after")
    assert session.take() == []


def test_a_closed_session_pings_no_more() -> None:
    session = open_session()
    session.close("server shutting down")
    assert session.next_deadline == inf
    session.tick(FIRST_PING)
    session.tick(FIRST_PING + TIMEOUT)
    assert session.take() == []
    assert session.close_reason == "server shutting down"


@pytest.mark.parametrize("packet", ['42["a"]', b"1", "1", "2", "3", "", "abc"])
def test_a_closed_session_hears_nothing(packet: str | bytes) -> None:
    session = open_session()
    session.close("server shutting down")
    assert session.receive(packet, START) is None
    assert session.close_reason == "server shutting down"
    assert session.next_deadline == inf


def test_the_first_reason_stays() -> None:
    session = open_session()
    session.close("transport close")
    session.close("ping timeout")
    assert session.close_reason == "transport close"


# How much a client may send


def test_a_client_may_send_a_burst_and_then_so_many_packets_a_second() -> None:
    session = Session("sid", Config(rate=10, burst=20), 100.0)
    for _ in range(20):
        session.receive("4hello", 100.0)
    with pytest.raises(ProtocolError, match="too many packets"):
        session.receive("4hello", 100.0)


def test_a_client_that_keeps_to_its_rate_is_never_stopped() -> None:
    session = Session("sid", Config(rate=10, burst=20), 100.0)
    for number in range(1000):
        assert session.receive("4hello", 100.0 + number / 10) == "hello"


def test_a_pause_gives_a_burst_back_and_no_more() -> None:
    session = Session("sid", Config(rate=10, burst=20), 100.0)
    for _ in range(20):
        session.receive(b"", 500.0)
    with pytest.raises(ProtocolError):
        session.receive("3", 500.0)
