"""What setkey prints, column for column: SAs, short lines, policies, decoded messages, octets. setkey.md §5 to §8."""

import json
import random
import re

import pytest

from koura.address import parse as packed
from koura.crypto.algorithm import Kind
from koura.pfkey import extensions as x
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.numbers import ADDRESS_PORT_GIVEN, Ext, SaType, Type
from koura.pfkey.policy import PolicyExtension, Request
from koura.pfkey.sockaddr import Sockaddr
from koura.secret import Secret
from koura.setkey import show, show_json, show_message, show_policy, show_sa
from koura.setkey.show import View
from tests.unit.pfkey.recordings import freebsd_cases

CREATED = 1772874902  # Mar  7 09:15:02 2026 UTC
VIEW = View(CREATED + 340)


def ends(src: str = "192.0.2.7", dst: str = "198.51.100.9") -> tuple[x.Address, x.Address]:
    return (
        x.Address(Ext.ADDRESS_SRC, Sockaddr(packed(src)), 255, 8 * len(packed(src))),
        x.Address(Ext.ADDRESS_DST, Sockaddr(packed(dst)), 255, 8 * len(packed(dst))),
    )  # fmt: skip


ENCAPSULATED = Message(
    Type.DUMP, SaType.ESP, 0, 4711, 0, 2,
    (
        x.Sa(0xB6000000, 64, 1, 0, 20, 0x440), x.Sa2(2, 42, 1001), x.Lifetime(Ext.LIFETIME_HARD, add_s=3600),
        x.Lifetime(Ext.LIFETIME_SOFT, add_s=2880), x.Lifetime(Ext.LIFETIME_CURRENT, 42, 5208, CREATED, CREATED + 338), *ends(),
        x.Key.of(Ext.KEY_ENCRYPT, Secret(bytes.fromhex("0f1e2d3c4b5a69788796a5b4c3d2e1f0a1b2c3d4"))), x.NatType(2),
        x.NatPort(Ext.X_NAT_T_SPORT, 4500), x.NatPort(Ext.X_NAT_T_DPORT, 4500),
        x.Address(Ext.X_NAT_T_OAI, Sockaddr(packed("10.66.0.3")), 255, 32),
    ),
)  # fmt: skip


def test_an_sa_in_udp_line_by_line() -> None:
    assert show_sa.whole(ENCAPSULATED, VIEW) == (
        "192.0.2.7[4500] 198.51.100.9[4500]\n"
        "\tesp-udp mode=tunnel spi=3053453312(0xb6000000) reqid=1001(0x000003e9)\n"
        "\tNAT: OAI=10.66.0.3\n"
        "\tE: aes-gcm-16  0f1e2d3c 4b5a6978 8796a5b4 c3d2e1f0 a1b2c3d4\n"
        "\tseq=0x0000002a replay=8 flags=0x00000440 state=mature \n"
        "\tcreated: Mar  7 09:15:02 2026\tcurrent: Mar  7 09:20:42 2026\n"
        "\tdiff: 340(s)\thard: 3600(s)\tsoft: 2880(s)\n"
        "\tlast: Mar  7 09:20:40 2026\thard: 0(s)\tsoft: 0(s)\n"
        "\tcurrent: 5208(bytes)\thard: 0(bytes)\tsoft: 0(bytes)\n"
        "\tallocated: 42\thard: 0\tsoft: 0\n"
        "\tsadb_seq=0 pid=4711 refcnt=2\n"
    )


def test_keys_can_be_hidden_and_keep_their_shape() -> None:
    hidden = show_sa.whole(ENCAPSULATED, View(VIEW.now_s, hides_keys=True))
    assert "\tE: aes-gcm-16  ******** ******** ******** ******** ********\n" in hidden
    assert "0f1e" not in hidden
    assert show_json.sa(ENCAPSULATED, View(VIEW.now_s, hides_keys=True))["encryption_key"] is None


def test_ipcomp_shares_its_line_with_what_follows() -> None:
    message = Message(Type.DUMP, SaType.IPCOMP, 1, 2, 0, 1, (x.Sa(2, 0, 1, 0, 2, 0), x.Sa2(1), *ends("::1", "2001:db8::2")))
    assert show_sa.whole(message, VIEW) == (
        "::1 2001:db8::2\n\tipcomp mode=transport spi=2(0x00000002) reqid=0(0x00000000)\n"
        "\tC: deflate \tseq=0x00000000 replay=0 flags=0x00000000 state=mature \n\tsadb_seq=1 pid=2 refcnt=1\n"
    )


def test_ah_with_a_long_key_a_wide_window_and_numbers_without_names() -> None:
    key = x.Key.of(Ext.KEY_AUTH, Secret(bytes(range(48))))
    said = (x.Sa(0x1234, 2040, 7, 6, 0, 0x40), x.Sa2(9, 1, 5), x.SaReplay(4096), *ends(), key)
    text = show_sa.whole(Message(Type.GET, SaType.AH, 3, 4, 0, 2, said), VIEW)
    assert "\tah mode=9 spi=4660(0x00001234)" in text
    assert (
        "\tA: hmac-sha2-384  00010203 04050607 08090a0b 0c0d0e0f 10111213 14151617 18191a1b 1c1d1e1f\n"
        " 20212223 24252627 28292a2b 2c2d2e2f\n"
    ) in text
    assert "replay=512 flags=0x00000040 state=7 \n" in text
    assert "created" not in text


def test_offload_is_shown() -> None:
    said = (x.Sa(300, 0, 1, 0, 11, 0), x.Sa2(1), *ends(), x.Offload("ixl0"), x.Lifetime(Ext.X_LFT_CUR_SW_OFFL, 3, 99, 0, CREATED))
    text = show_sa.whole(Message(Type.DUMP, SaType.ESP, extensions=said), VIEW)
    assert "state=mature \n\thw offl if: ixl0\n" in text
    assert text.endswith("\tsw offl use: Mar  7 09:15:02 2026\tsw offl allocated: 3\tsw offl: 99(bytes)\n")


def test_short_lines() -> None:
    assert show_sa.SHORT_HEADER == "time p   s spi      ltime   src -> dst"
    assert show_sa.short(ENCAPSULATED, VIEW) == "2042 esp M b6000000 340/big 192.0.2.7 -> 198.51.100.9\n"
    bare = Message(Type.DUMP, SaType.IPCOMP, extensions=(x.Sa(2, 0, 0, 0, 2, 0), *ends()))
    assert show_sa.short(bare, VIEW) == "2042 #9  L 00000002 ???/??? 192.0.2.7 -> 198.51.100.9\n"


def policy(*requests: Request, src: x.Address, dst: x.Address, kind: int = 2, scope: int = 1, priority: int = 0) -> Message:
    return Message(Type.X_SPDDUMP, 0, 3, 812, 0, 1, (src, dst, PolicyExtension(kind, 2, 17, priority, scope, requests)))


def selector(protocol: int, src: str, dst: str, ports: tuple[int, int] = (0, 0), given: int = 0) -> tuple[x.Address, x.Address]:
    found = []
    for ext, text, port in ((Ext.ADDRESS_SRC, src, ports[0]), (Ext.ADDRESS_DST, dst, ports[1])):
        host, _, bits = text.partition("/")
        found.append(x.Address(ext, Sockaddr(packed(host), port), protocol, int(bits or 8 * len(packed(host))), given))
    return found[0], found[1]


def test_a_policy_line_by_line() -> None:
    src, dst = selector(6, "10.7.0.0/16", "10.8.4.0/24", (0, 443))
    tunnel = Request(50, 2, 3, 1001, Sockaddr(packed("192.0.2.7")), Sockaddr(packed("198.51.100.9")))
    assert show_policy.whole(policy(Request(108, 1, 1), tunnel, src=src, dst=dst), VIEW) == (
        "10.7.0.0/16[any] 10.8.4.0/24[443] tcp\n"
        "\tout ipsec\n"
        "\tipcomp/transport//use\n"
        "\tesp/tunnel/192.0.2.7-198.51.100.9/unique:1001\n"
        "\tspid=17 seq=3 pid=812 scope=global \n"
        "\trefcnt=1\n"
    )


@pytest.mark.parametrize(
    ("ends_", "first"),
    [
        (selector(255, "::/0", "2001:db8::1"), "::/0[any] 2001:db8::1[any] any"),
        (selector(58, "::/0", "::/0"), "::/0 ::/0 icmp6"),
        (selector(58, "::/0", "::/0", (135, 0)), "::/0 ::/0 icmp6 135,0"),
        (selector(58, "::/0", "::/0", (0, 0), ADDRESS_PORT_GIVEN), "::/0 ::/0 icmp6 0,0"),
        (selector(1, "10.0.0.1", "10.0.0.2"), "10.0.0.1[any] 10.0.0.2[any] icmp"),
        (selector(4, "10.0.0.1", "10.0.0.2/31", (7, 0)), "10.0.0.1[7] 10.0.0.2/31[any] ip4"),
        (selector(250, "10.0.0.1", "10.0.0.2"), "10.0.0.1[any] 10.0.0.2[any] 250"),
    ],
)
def test_the_first_line_of_a_policy(ends_: tuple[x.Address, x.Address], first: str) -> None:
    assert show_policy.whole(policy(src=ends_[0], dst=ends_[1], kind=1), VIEW).splitlines()[0] == first


def test_scopes_lifetimes_and_what_has_no_selector() -> None:
    src, dst = selector(255, "0.0.0.0/0", "0.0.0.0/0")
    of_a_socket = show_policy.whole(policy(src=src, dst=dst, kind=4, scope=4), VIEW)
    assert of_a_socket.startswith("(no selector, probably per-socket policy) \n\tout bypass\n")
    assert "scope=pcb \n" in of_a_socket
    of_an_interface = show_policy.whole(policy(src=src, dst=dst, kind=1, scope=2, priority=3), View(0, interface=lambda n: f"ipsec{n}"))
    assert "scope=ifnet ifname=ipsec3\n" in of_an_interface
    timed = policy(src=src, dst=dst, kind=0)
    times = (x.Lifetime(Ext.LIFETIME_CURRENT, 0, 0, CREATED, 0), x.Lifetime(Ext.LIFETIME_HARD, 0, 0, 600, 60))
    text = show_policy.whole(Message(timed.type, 0, 3, 812, 0, 1, (*timed.extensions, *times)), VIEW)
    assert "\tcreated: Mar  7 09:15:02 2026  lastused:                     \n\tlifetime: 600(s) validtime: 60(s)\n" in text


def test_a_message_decoded() -> None:
    assert show_message.decoded(ENCAPSULATED.write(FREEBSD), VIEW).startswith(
        "sadb_msg{ version=2 type=10(DUMP) errno=0 satype=3\n"
        "  len=34 reserved=2 seq=0 pid=4711\n"
        "sadb_ext{ len=2 type=1(SA) }\n"
        "sadb_sa{ spi=3053453312 replay=8 state=1\n"
        "  auth=0 encrypt=20 flags=0x00000440 }\n"
        "sadb_ext{ len=2 type=19(SA2) }\n"
        "sadb_x_sa2{ mode=2 reqid=1001\n"
        "  reserved1=0 reserved2=0 sequence=42 }\n"
        "sadb_ext{ len=4 type=3(LIFETIME_HARD) }\n"
        "sadb_lifetime{ alloc=0, bytes=0\n"
        "  addtime=3600, usetime=0 }\n"
    )


def test_every_recorded_message_is_decoded_whole_and_anything_else_says_so() -> None:
    dice = random.Random(7)
    for case in freebsd_cases():
        for octets in (case.request, *case.replies[0]):
            text = show_message.decoded(octets, VIEW)
            assert text.endswith("\n")
            broken = bytes(dice.randrange(256) if dice.random() < 0.05 else one for one in octets)
            assert show_message.decoded(broken, VIEW).endswith("\n")
            assert show_message.decoded(octets[: dice.randrange(len(octets))], VIEW).endswith("\n")


def test_octets_in_lines_of_sixteen() -> None:
    lines = list(show.octets(bytes(range(18))))
    assert lines == ["00000000: 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f ", "00000010: 10 11 "]


def test_the_calendar() -> None:
    assert show.utc(0) == "Jan  1 00:00:00 1970"
    assert show.utc(951782400) == "Feb 29 00:00:00 2000"
    assert show.utc(4102444799) == "Dec 31 23:59:59 2099"
    assert re.fullmatch(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}", show.utc(CREATED))
    assert show.algorithm(Kind.CIPHER, 0) == "none"


def test_json_has_the_same_facts() -> None:
    found = show_json.sa(ENCAPSULATED, VIEW)
    assert json.loads(json.dumps(found)) == found
    assert (found["type"], found["spi"], found["mode"], found["reqid"], found["window_packets"]) == ("esp", 0xB6000000, "tunnel", 1001, 64)
    assert found["nat_t"] == {"type": 2, "sport": 4500, "dport": 4500, "oai": "10.66.0.3"}
    src, dst = selector(58, "::/0", "2001:db8::1", (135, 0))
    one = show_json.policy(policy(Request(50, 1, 2), src=src, dst=dst), VIEW)
    assert (one["src"], one["dst"], one["protocol"], one["icmp_type"], one["icmp_code"]) == ("::/0", "2001:db8::1/128", "icmp6", 135, None)
    assert one["text"] == "out ipsec esp/transport//require"
