"""Path MTUs through the doors: what is refused, cut, learned, told and forgotten. RFC 4301 §8; M23, S28-S30, S38."""

import random
from dataclasses import replace

import pytest

from koura.notices import LocalAddresses, PathMtu
from koura.reasons import PMTU_FORWARDED, PMTU_LOCAL, PMTU_OUTER
from koura.traffic.outcome import LOCAL, Bypass, Deliver, Discard, Emit, Forward, Origin, TooBig
from koura.wire import checksum, icmp, ipv4, ipv6, tcp
from koura.wire.summary import summarise
from tests.unit.stack.kit import GCM, SHA, Host, discards
from tests.unit.traffic.kit import INNER_A, INNER_A6, INNER_B, INNER_B6, A, B, datagram

ROUTER, ROUTER6 = b"\xcb\0\x71\1", b"\x20\1\x0d\xb8" + bytes(11) + b"\x99"
TRANSIT = Origin(is_forwarded=True)
KINDS = {
    "esp": f"esp 0x1000 {GCM}", "ah": f"ah 0x1000 {SHA}", "ipcomp": "ipcomp 0x1000 -C deflate",
    "udp": f"esp-udp 0x1000 {GCM}",
}  # fmt: skip


def tunnel(kind: str = "esp", outer: int = 4) -> str:
    a, b = ("192.0.2.1", "192.0.2.2") if outer == 4 else ("2001:db8::a", "2001:db8::b")
    name = "esp" if kind == "udp" else kind
    return (
        f"spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec {name}/tunnel/{a}-{b}/require;"
        f"spdadd 2001:db8:1::/64 2001:db8:2::/64 any -P out ipsec {name}/tunnel/{a}-{b}/require;"
        f"add {a} {b} {KINDS[kind]};"
    )


def transport(kind: str = "esp", family: int = 4) -> str:
    a, b = ("192.0.2.1", "192.0.2.2") if family == 4 else ("2001:db8::a", "2001:db8::b")
    name = "esp" if kind == "udp" else kind
    return f"spdadd {a} {b} any -P out ipsec {name}/transport//require; add {a} {b} {KINDS[kind]};"


def noise(packet: bytes) -> bytes:
    """The same UDP packet with a payload that does not compress."""
    head = 28 if packet[0] >> 4 == 4 else 48
    return packet[:head] + random.Random(1).randbytes(len(packet) - head)


def need_frag(sealed: bytes, mtu: int, quoted_octets: int = 548) -> bytes:
    about = ipv4.read(sealed)[0]
    message = icmp.Message(icmp.UNREACHABLE, icmp.FRAGMENTATION_NEEDED, mtu, sealed[:quoted_octets])
    return icmp.packet(ROUTER, about.src, message)


def too_big6(sealed: bytes, mtu: int) -> bytes:
    return icmp.packet(ROUTER6, ipv6.read(sealed)[0].src, icmp.Message(icmp.TOO_BIG6, 0, mtu, sealed[:1232]))


@pytest.mark.covers("M23", "S29")
@pytest.mark.reason("pmtu.local")
@pytest.mark.parametrize("kind", KINDS)
def test_a_local_packet_with_df_learns_the_exact_size_that_fits(kind: str) -> None:
    host = Host(transport(kind))
    host.notice(PathMtu(b"", 1000))
    big = noise(datagram(A, B, 1300, is_df=True))
    discards(host, host.send(big), PMTU_LOCAL)
    (told,) = host.take(TooBig)
    assert isinstance(told, TooBig)
    fits = noise(datagram(A, B, told.mtu_octets - 28, is_df=True))
    (sealed,) = host.all_forwarded(fits) if kind != "ipcomp" else (host.forwarded(fits),)
    assert len(sealed) <= 1000
    discards(host, host.send(noise(datagram(A, B, told.mtu_octets - 27, is_df=True))), PMTU_LOCAL, 2)


@pytest.mark.covers("R42", "M23")
@pytest.mark.reason("pmtu.forwarded")
@pytest.mark.parametrize("family", [4, 6])
def test_the_sender_of_a_packet_in_transit_is_told(family: int) -> None:
    host = Host(tunnel())
    host.tune("net.inet.ipsec.dfbit", 2)
    host.notice(LocalAddresses(frozenset((A, B"\x0a\0\1\xfe", ROUTER6))))
    host.notice(PathMtu(b"", 1400))
    src, dst = (INNER_A, INNER_B) if family == 4 else (INNER_A6, INNER_B6)
    discards(host, host.send(datagram(src, dst, 1400, is_df=True), TRANSIT), PMTU_FORWARDED)
    assert host.stack.report.read("ipsec" if family == 4 else "ipsec6")["out_inval"] == 1
    (told,) = host.take(Emit)
    assert isinstance(told, Emit)
    found = summarise(told.packet)
    assert (found.dst, found.sport, found.dport) == ((src, 3, 4) if family == 4 else (src, 2, 0))
    message = icmp.read(told.packet[found.offset :])
    mtu = message.rest & 0xFFFF
    assert message.data[:20] == datagram(src, dst, 1400, is_df=True)[:20]
    assert 1280 <= mtu < 1400
    header = 28 if family == 4 else 48
    assert isinstance(host.send(datagram(src, dst, mtu - header, is_df=True), TRANSIT), Forward)


def test_no_error_about_an_error() -> None:
    host = Host(tunnel())
    host.tune("net.inet.ipsec.dfbit", 1)
    host.notice(LocalAddresses(frozenset((A,))))
    host.notice(PathMtu(b"", 600))
    error = icmp.packet(INNER_A, INNER_B, icmp.Message(icmp.TIME_EXCEEDED, 0, 0, bytes(548)))
    header, message = ipv4.read(error)
    discards(host, host.send(ipv4.write(replace(header, is_df=True), message), TRANSIT), PMTU_FORWARDED)
    assert not host.take(Emit)


@pytest.mark.covers("R42")
def test_the_error_comes_from_the_address_nearest_to_who_hears_it() -> None:
    """Not from the loopback, a link, or the tunnel's end, as long as there is one on his side."""
    host = Host(tunnel())
    host.tune("net.inet.ipsec.dfbit", 2)
    near, near6 = b"\x0a\0\1\xfe", INNER_A6[:15] + b"\xfe"
    link6, loop6 = b"\xfe\x80" + bytes(13) + b"\1", bytes(15) + b"\1"
    host.notice(LocalAddresses(frozenset((A, near, b"\x7f\0\0\1", ROUTER6, near6, link6, loop6))))
    host.notice(PathMtu(b"", 1400))
    for packet, expected in ((datagram(INNER_A, INNER_B, 1400, is_df=True), near), (datagram(INNER_A6, INNER_B6, 1400), near6)):
        discards(host, host.send(packet, TRANSIT), PMTU_FORWARDED, 1 if expected == near else 2)
        (told,) = host.take(Emit)
        assert isinstance(told, Emit)
        assert summarise(told.packet).src == expected


@pytest.mark.covers("R42")
def test_the_icmp_error_itself_is_protected_where_policy_says_so() -> None:
    """RFC 4301 §8.2.1: what a gateway says into a protected network goes through the tunnel to it."""
    host = Host(tunnel() + f"spdadd 0.0.0.0/0 10.0.1.0/24 icmp -P out ipsec esp/tunnel/192.0.2.1-192.0.2.3/require;"
                f"add 192.0.2.1 192.0.2.3 esp 0x2000 {GCM};")  # fmt: skip
    host.tune("net.inet.ipsec.dfbit", 2)
    host.notice(LocalAddresses(frozenset((A,))))
    host.notice(PathMtu(b"", 1000))
    discards(host, host.send(datagram(INNER_A, INNER_B, 1300, is_df=True), TRANSIT), PMTU_FORWARDED)
    (told,) = host.take(Emit)
    assert isinstance(told, Emit)
    assert summarise(told.packet).protocol == 50


@pytest.mark.covers("R36", "M23")
@pytest.mark.parametrize("origin", [LOCAL, TRANSIT])
def test_with_df_outside_alone_it_is_cut_before_sealing(origin: Origin) -> None:
    """A sender that allows fragments is told no size and needs none."""
    host = Host(tunnel())
    host.tune("net.inet.ipsec.dfbit", 1)
    host.notice(PathMtu(b"", 1000))
    pieces = host.all_forwarded(datagram(INNER_A, INNER_B, 1300), origin)
    assert all(len(piece) <= 1000 and ipv4.read(piece)[0].is_df for piece in pieces)
    assert [host.receive(piece) for piece in pieces][-1].packet == datagram(INNER_A, INNER_B, 1300)  # type: ignore[union-attr]


@pytest.mark.covers("R36", "M23")
@pytest.mark.reason("pmtu.outer")
def test_what_may_be_cut_neither_before_nor_after_is_refused() -> None:
    """Transport mode takes whole packets, and the tunnel around it says DF."""
    host = Host(
        "spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec ah/transport//require esp/tunnel/192.0.2.1-192.0.2.2/require;"
        f"add 10.0.1.1 10.0.2.1 ah 0x2000 {SHA}; add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM};"
    )
    host.tune("net.inet.ipsec.dfbit", 1)
    host.notice(PathMtu(b"", 1000))
    discards(host, host.send(datagram(INNER_A, INNER_B, 1300)), PMTU_OUTER)


@pytest.mark.covers("M23")
@pytest.mark.parametrize("dfbit", [0, 1, 2])
@pytest.mark.parametrize("outer", [4, 6])
def test_ipv6_of_the_least_mtu_always_passes(outer: int, dfbit: int) -> None:
    """Nobody makes such a packet smaller, so it is cut after sealing, and routers may cut it as well: alone, or a fragment of more."""
    host = Host(tunnel(outer=outer))
    host.tune("net.inet.ipsec.dfbit", dfbit)
    host.notice(PathMtu(b"", 1290))
    for octets, fragment_octets, count in ((1280 - 48, 0, 2), (3000, 1280, 5)):
        packet = datagram(INNER_A6, INNER_B6, octets)
        pieces = host.all_forwarded(packet, Origin(is_forwarded=True, fragment_octets=fragment_octets))
        assert len(pieces) >= count
        assert all(len(piece) <= 1290 for piece in pieces)
        if outer == 4:
            headers = [ipv4.read(piece)[0] for piece in pieces]
            assert not any(header.is_df for header in headers if header.is_fragment)
        assert [host.receive(piece) for piece in pieces][-1].packet == packet  # type: ignore[union-attr]


@pytest.mark.covers("M23")
def test_a_report_makes_routers_cut_the_least_ipv6_packet_though_dfbit_says_no() -> None:
    """The path is narrower than the link: what leaves is whole, and without DF."""
    host = Host(tunnel())
    host.tune("net.inet.ipsec.dfbit", 1)
    host.notice(PathMtu(b"", 1500))
    packet = datagram(INNER_A6, INNER_B6, 1280 - 48)
    sealed = host.forwarded(packet, TRANSIT)
    assert ipv4.read(sealed)[0].is_df
    host.receive(need_frag(sealed, 1300))
    again = ipv4.read(host.forwarded(packet, TRANSIT))[0]
    assert not again.is_df
    assert again.identification != ipv4.read(host.forwarded(packet, TRANSIT))[0].identification


@pytest.mark.covers("M23")
def test_fragments_with_df_keep_it() -> None:
    host = Host(tunnel())
    host.tune("net.inet.ipsec.dfbit", 2)
    host.notice(PathMtu(b"", 1500))
    header, payload = ipv4.read(datagram(INNER_A, INNER_B, 1800, is_df=True))
    for number, (part, is_mf) in enumerate(((payload[:1000], True), (payload[1000:], False))):
        outcome = host.send(ipv4.write(replace(header, is_mf=is_mf, offset_octets=1000 * number), part), TRANSIT)
    assert isinstance(outcome, Forward)
    assert len(outcome.packets) == 2
    whole = [host.receive(piece) for piece in outcome.packets][-1]
    assert isinstance(whole, Deliver)
    assert (whole.packet, whole.fragment_octets) == (datagram(INNER_A, INNER_B, 1800, is_df=True), 1020)


@pytest.mark.covers("M23")
@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("kind", ["esp", "udp"])
def test_without_df_the_outer_packet_is_cut_and_opens_again(kind: str, outer: int) -> None:
    host = Host(tunnel(kind, outer))
    host.notice(PathMtu(b"", 1300))
    inner = datagram(INNER_A, INNER_B, 2000)
    pieces = host.all_forwarded(inner)
    assert len(pieces) == 2
    assert all(len(piece) <= 1300 for piece in pieces)
    outcomes = [host.receive(piece) for piece in pieces]
    assert outcomes[-1].packet == inner  # type: ignore[union-attr]


@pytest.mark.covers("M23")
def test_pre_frag_cuts_before_sealing() -> None:
    host = Host(tunnel())
    host.tune("net.koura.pre_frag", 1)
    host.notice(PathMtu(b"", 1000))
    pieces = host.all_forwarded(datagram(INNER_A, INNER_B, 2000))
    assert len(pieces) == 3
    assert all(len(piece) <= 1000 and not ipv4.read(piece)[0].is_fragment for piece in pieces)
    assert [host.receive(piece) for piece in pieces][-1].packet == datagram(INNER_A, INNER_B, 2000)  # type: ignore[union-attr]


@pytest.mark.covers("S38", "S30", "M23", "R42")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", [4, 6])
def test_icmp_about_a_protected_packet_narrows_the_path_of_its_sa(kind: str, family: int) -> None:
    host = Host(tunnel(kind, family))
    host.tune("net.inet.ipsec.dfbit", 1)
    src, dst = (INNER_A6, INNER_B6)
    packet = datagram(src, dst, 1380)  # compresses, so that IPComp's header is there to be quoted
    sealed = host.forwarded(packet)
    report = need_frag(sealed, 1350) if family == 4 else too_big6(sealed, 1350)
    big = noise(datagram(src, dst, 1380))
    assert isinstance(host.send(big, TRANSIT), Forward)
    host.receive(report)
    assert host.send(big, TRANSIT) == Discard(PMTU_FORWARDED)
    host.later(600)
    assert isinstance(host.send(big, TRANSIT), Forward), "forgotten after pmtu_timeout_s"


@pytest.mark.covers("M23", "S38")
def test_icmp_that_cannot_be_true_changes_nothing() -> None:
    host = Host(tunnel() + f"add 192.0.2.9 192.0.2.2 esp 0x3000 {GCM};")
    host.tune("net.inet.ipsec.dfbit", 1)
    sealed = host.forwarded(datagram(INNER_A, INNER_B, 1300))
    other_spi = sealed[:20] + b"\0\0\x99\0" + sealed[24:]
    from_another = ipv4.write(ipv4.Header(b"\xc0\0\2\7", B, 50), sealed[20:])
    wrong_sum = bytearray(need_frag(sealed, 1000))
    wrong_sum[22] ^= 1
    bad = (
        need_frag(sealed, 575), need_frag(other_spi, 1000), need_frag(from_another, 1000), bytes(wrong_sum),
        need_frag(sealed, 1000, quoted_octets=22), need_frag(sealed, 0),
    )  # fmt: skip
    big = datagram(INNER_A, INNER_B, 1300, is_df=True)
    for report in bad:
        host.receive(report)
        assert isinstance(host.send(big), Forward)
    host.receive(need_frag(sealed, 1000))
    assert host.send(big) == Discard(PMTU_LOCAL)
    host.receive(need_frag(sealed, 1400))
    assert host.send(big) == Discard(PMTU_LOCAL), "a report never makes a path wider"


SYN, SYN_ACK, ACK = 2, 18, 16


def handshake(src: bytes, dst: bytes, mss: int, flags: int = SYN, before: bytes = b"") -> bytes:
    """A segment with an MSS option; before: other options in front of it."""
    options = before + b"\2\4" + mss.to_bytes(2, "big")
    options += bytes(-len(options) % 4)
    body = bytes.fromhex("0457 08ae 00000001 00000000") + bytes(((20 + len(options)) << 2, flags, 255, 255)) + bytes(4) + options
    body = body[:16] + checksum.upper(src, dst, 6, body).to_bytes(2, "big") + body[18:]
    return ipv4.write(ipv4.Header(src, dst, 6), body) if len(src) == 4 else ipv6.write(ipv6.Header(src, dst, 6), body)


def mss_of(packet: bytes) -> int:
    """The MSS in a segment whose checksum is right."""
    found = summarise(packet)
    segment = packet[found.offset :]
    assert checksum.upper(found.src, found.dst, 6, segment) == 0
    return next(int.from_bytes(one.data, "big") for one in tcp.read_options(tcp.Header.read(segment).options) if one.kind == tcp.MSS)


def clamping(family: int, *, is_on: int = 1) -> tuple[Host, Host, bytes, bytes]:
    """A host that clamps, its peer that does not, and the addresses behind them."""
    ways = ("-P out", "-P in")
    back = f"add 192.0.2.2 192.0.2.1 esp 0x2000 {GCM};"
    inward = "".join(
        f"spdadd {b} {a} any -P WAY ipsec esp/tunnel/192.0.2.2-192.0.2.1/require;"
        for a, b in (("10.0.1.0/24", "10.0.2.0/24"), ("2001:db8:1::/64", "2001:db8:2::/64"))
    )
    host = Host(tunnel() + back + inward.replace("WAY", "in"))
    peer = Host((tunnel() + back).replace(ways[0], ways[1]) + inward.replace("WAY", "out"))
    host.tune("net.koura.mss_clamp", is_on)
    host.notice(PathMtu(b"", 1500))
    return host, peer, *((INNER_A, INNER_B) if family == 4 else (INNER_A6, INNER_B6))


@pytest.mark.covers("M36")
@pytest.mark.parametrize("flags", [SYN, SYN_ACK])
@pytest.mark.parametrize("before", [b"", b"\1", b"\3\3\7"])
@pytest.mark.parametrize("family", [4, 6])
def test_mss_is_clamped_to_what_is_left_whoever_begins(family: int, before: bytes, flags: int) -> None:
    """On its way out and on its way in; at odd places as well, where the checksum's words lie across it."""
    host, peer, a, b = clamping(family)
    out = mss_of(peer.delivered(host.forwarded(handshake(a, b, 1460, flags, before))))
    came = mss_of(host.delivered(peer.forwarded(handshake(b, a, 1460, flags, before))))
    assert out == came
    header = 40 if family == 4 else 60
    assert len(host.forwarded(datagram(a, b, out + header - (28 if family == 4 else 48), is_df=True))) <= 1500
    longer = datagram(a, b, out + header + 1 - (28 if family == 4 else 48), is_df=True)
    assert len(host.all_forwarded(longer)) > 1, "one octet more does not fit"


@pytest.mark.covers("M36")
@pytest.mark.parametrize("family", [4, 6])
def test_mss_is_never_raised_nor_touched_elsewhere(family: int) -> None:
    host, peer, a, b = clamping(family)
    for segment in (handshake(a, b, 536), handshake(a, b, 1460, ACK)):
        assert peer.delivered(host.forwarded(segment)) == segment
    for segment in (handshake(b, a, 536), handshake(b, a, 1460, ACK)):
        assert host.delivered(peer.forwarded(segment)) == segment
    host, peer, a, b = clamping(family, is_on=0)
    assert mss_of(host.delivered(peer.forwarded(handshake(b, a, 1460)))) == 1460
    assert mss_of(peer.delivered(host.forwarded(handshake(a, b, 1460)))) == 1460


@pytest.mark.covers("M36")
def test_mss_of_what_comes_in_is_as_it_was_where_no_way_back_is_known() -> None:
    host, peer, a, b = clamping(4)
    segment = handshake(b, a, 1460)
    for script in ("spddelete 10.0.1.0/24 10.0.2.0/24 any -P out;", "spdadd 10.0.1.0/24 10.0.2.0/24 any -P out none;"):
        host.setkey(script)
        assert host.delivered(peer.forwarded(segment)) == segment
    inward = "spdadd 10.0.2.0/24 10.0.1.0/24 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/require;"
    host.setkey("spdflush;" + tunnel().partition("add 192")[0] + inward)
    assert mss_of(host.delivered(peer.forwarded(segment))) < 1460
    host.setkey("delete 192.0.2.1 192.0.2.2 esp 0x1000;")
    assert host.delivered(peer.forwarded(segment)) == segment, "no SA, no room"


@pytest.mark.covers("S28")
@pytest.mark.parametrize(("dfbit", "inner_df", "expected"), [(0, 1, 0), (0, 0, 0), (1, 0, 1), (1, 1, 1), (2, 0, 0), (2, 1, 1)])
def test_df_of_the_outer_header(dfbit: int, inner_df: int, expected: int) -> None:
    host = Host(tunnel())
    host.tune("net.inet.ipsec.dfbit", dfbit)
    sealed = host.forwarded(datagram(INNER_A, INNER_B, is_df=bool(inner_df)))
    assert ipv4.read(sealed)[0].is_df == bool(expected)
    sealed = host.forwarded(datagram(INNER_A6, INNER_B6))
    assert ipv4.read(sealed)[0].is_df == (dfbit == 1), "IPv6 inside: set only by 1"


def test_what_goes_in_clear_is_the_ip_layers_to_cut() -> None:
    host = Host("spdadd 0.0.0.0/0 0.0.0.0/0 any -P out none;")
    host.notice(PathMtu(b"", 600))
    assert host.send(datagram(A, B, 1300)) == Bypass((datagram(A, B, 1300),))

