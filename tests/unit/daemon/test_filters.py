"""`koura filter`'s rules on a stack: order, stages, ways, what is refused, and what the next engine gets."""

import ctypes.util

import pytest

from koura import Stack
from koura.daemon.filters import INPUT, MOST_RULES, Filters
from koura.daemon.journal import Journal
from koura.enc.filter import AFTER, BEFORE
from koura.errors import Errno, Refused
from koura.saindex import Direction
from koura.sim.entropy import Seeded
from koura.traffic.outcome import Deliver
from koura.wire import ipv4, udp

pytestmark = pytest.mark.skipif(ctypes.util.find_library("pcap") is None, reason="no libpcap here (Debian: libpcap0.8)")

IN, OUT = Direction.INBOUND, Direction.OUTBOUND
PACKET = ipv4.write(ipv4.Header(bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), 17, 64), udp.write(udp.Header(1000, 53), b"query"))


@pytest.fixture
def filters() -> Filters:
    stack = Stack(Seeded(1))
    return Filters(stack, Journal(stack))


@pytest.mark.covers("R10")
def test_the_first_rule_that_matches_decides_and_counts(filters: Filters) -> None:
    assert [filters.add(0, False, "both", "any", "udp port 53"), filters.add(5, True, "out", "before", "host 10.0.0.1")] == [10, 5]
    assert filters(BEFORE, OUT, PACKET)
    assert not filters(AFTER, OUT, PACKET)
    assert not filters(BEFORE, IN, PACKET)
    rows = [(row["number"], row["packets"], row["octets"]) for row in filters.rows()]
    assert rows == [(5, 1, len(PACKET)), (10, 2, 2 * len(PACKET))]


def test_without_a_rule_that_matches_packets_pass(filters: Filters) -> None:
    filters.add(0, False, "in", "any", "tcp")
    assert filters(BEFORE, IN, PACKET)


@pytest.mark.covers("R11", "M1")
def test_the_input_stage_is_asked_about_what_tunnels_brought_and_filtertunnel_wants_seen(filters: Filters) -> None:
    filters.add(0, False, "in", "input", "")
    came = Deliver(PACKET, (object(),))  # type: ignore[arg-type]
    assert not filters.lets_in(came)
    assert filters.lets_in(Deliver(PACKET, came.history, 0, skips_filter=True))
    assert filters.lets_in(Deliver(PACKET))
    assert filters(BEFORE, IN, PACKET)
    assert not filters(INPUT, IN, PACKET)


def test_the_hook_is_free_while_there_are_no_rules() -> None:
    stack = Stack(Seeded(1))
    filters = Filters(stack, Journal(stack))
    filters.add(0, True, "both", "any", "")
    assert stack.filter.rule is filters
    assert filters.flush() == 1
    assert stack.filter.rule is None


@pytest.mark.parametrize(
    ("arguments", "errno"),
    [
        ((0, True, "both", "any", "tcp prt 5"), Errno.EINVAL),
        ((0, True, "up", "any", ""), Errno.EINVAL),
        ((0, True, "in", "late", ""), Errno.EINVAL),
        ((65536, True, "in", "any", ""), Errno.EINVAL),
        ((0, True, "in", "any", "tcp or " * 1000 + "tcp"), Errno.EINVAL),
        ((0, True, "in", "any", "tcp\0"), Errno.EINVAL),
    ],
)
def test_bad_rules_are_refused_and_nothing_changes(filters: Filters, arguments: tuple[int, bool, str, str, str], errno: Errno) -> None:
    with pytest.raises(Refused) as caught:
        filters.add(*arguments)
    assert caught.value.errno is errno
    assert not list(filters.rows())


def test_numbers_are_taken_once_and_the_count_has_a_limit(filters: Filters) -> None:
    filters.add(1, True, "both", "any", "")
    with pytest.raises(Refused) as caught:
        filters.add(1, True, "both", "any", "")
    assert caught.value.errno is Errno.EEXIST
    for number in range(2, MOST_RULES + 1):
        filters.add(number, True, "both", "any", "")
    with pytest.raises(Refused) as caught:
        filters.add(0, True, "both", "any", "")
    assert caught.value.errno is Errno.ENOBUFS


def test_the_next_engine_has_the_rules_with_their_numbers() -> None:
    stack = Stack(Seeded(1))
    book = Journal(stack)
    before = Filters(stack, book)
    before.add(20, False, "in", "after", "udp")
    before.add(10, True, "both", "any", "")
    before.delete(10)
    kept: dict[bytes, bytes] = {}
    for key, value in book.take():
        if value is None:
            kept.pop(key, None)
        else:
            kept[key] = value
    after = Filters(stack, book)
    after.resume(kept)
    assert [(row["number"], row["expression"]) for row in after.rows()] == [(20, "udp")]
