"""The language of setkey(8), form by form: FreeBSD's, ipsec-tools' and ours; and what is said to what is none of them."""

from pathlib import Path

import pytest

from koura.moment import Moment
from koura.replay.load import load
from koura.sadb.agreement import SaFlags
from koura.sadb.association import Association
from koura.setkey.parse import Script, check, parse
from koura.sim.entropy import Seeded
from koura.spd.entry import Entry
from koura.stack import Stack

AT = Moment.of_s(1_800_000_000)
VECTORS = Path(__file__).parents[2] / "vectors" / "pfkey"
KEY = "-E aes-cbc 0x000102030405060708090a0b0c0d0e0f"
SA = "add 192.0.2.1 192.0.2.2 esp 0x1000 "
SP = "spdadd 10.0.0.1 10.0.0.2 "


def stack_of(text: str) -> Stack:
    stack, refused = load(parse(text), Seeded(1), AT)
    assert not refused, refused[0].fault
    return stack


def one_sa(text: str) -> Association:
    (sa,) = stack_of(text).sadb
    return sa


def one_policy(text: str) -> Entry:
    (entry,) = stack_of(text).spd.entries(7)
    return entry


def key(octets: int) -> str:
    return "0x" + "ab" * octets


def test_the_script_of_every_form_parses() -> None:
    """The script that ipsec-tools' setkey was recorded with."""
    script = check((VECTORS / "setkey-all.conf").read_text(), "setkey-all.conf")
    assert (script.faults, script.warnings, len(script.statements)) == ((), (), 35)


# -- what is good, and arrives in the databases -------------------------------------------------------------------------

ESP = [
    KEY, f"-E aes-cbc {key(24)}", f"-E rijndael-cbc {key(32)}", f"-E aes-ctr {key(20)}", f"-E aes-gcm-16 {key(36)}",
    f"-E aes-gcm {key(20)}", f"-E aes-gcm-12 {key(20)}", f"-E aes-gcm-8 {key(28)}", f"-E aes-ccm-16 {key(19)}",
    f"-E aes-ccm-12 {key(27)}", f"-E aes-ccm-8 {key(35)}", f"-E aes-gmac {key(20)}", f"-E chacha20-poly1305 {key(36)}",
    f"-E camellia-cbc {key(24)}", f"-E camellia-ctr {key(20)}", f"-E 3des-cbc {key(24)}", f"-E des-cbc {key(8)}",
    f"-E blowfish-cbc {key(5)}", f"-E cast128-cbc {key(16)}", '-E null ""', "-E null", "-E null 0x00 -A null",
    f"-E null {key(3)} -A hmac-sha1 {key(20)}", f'-E 3des-cbc "123456789012123456789012" -A hmac-md5 {key(16)}',
    f"-E aes-cbc {key(16)} -A hmac-sha256 {key(32)}", f"-A hmac-sha1 {key(20)} -E aes-cbc {key(16)}",
]  # fmt: skip
AH = [
    f"hmac-sha1 {key(20)}", f"hmac-sha2-256 {key(32)}", f"hmac-sha2-384 {key(48)}", f"hmac-sha2-512 {key(64)}",
    f"hmac-sha2-256-96 {key(32)}", f"hmac-md5 {key(16)}", f"hmac-ripemd160 {key(20)}", f"aes-xcbc-mac {key(16)}",
    f"aes-cmac {key(16)}", f"keyed-md5 {key(16)}", f"keyed-sha1 {key(20)}", "null",
]  # fmt: skip
OTHERS = [
    f"add -4n 192.0.2.1 192.0.2.2 esp 4096 {KEY}", f"add -4 -n 192.0.2.1 192.0.2.2 esp 0xFFFFFFFF {KEY}", f"add -6 ::1 ::2 esp 256 {KEY}",
    f"add fe80::1%2 fe80::2%2 esp 0x1000 {KEY}", f"add 192.0.2.1 192.0.2.2 esp-old 0x1000 -E des-cbc {key(8)}",
    f"add 192.0.2.1 192.0.2.2 esp-old 0x1000 -E des-cbc {key(8)} -A hmac-md5 {key(16)}",
    f"add 192.0.2.1 192.0.2.2 ah-old 0x1000 -A keyed-md5 {key(16)}", 'add 192.0.2.1 192.0.2.2 tcp 0x1000 -A tcp-md5 "secret"',
    "add 192.0.2.1 192.0.2.2 ipcomp 2 -C deflate", "add 192.0.2.1 192.0.2.2 ipcomp 0x12345678 -C deflate -R",
    f"add 192.0.2.1[4500] 192.0.2.2[4500] esp-udp 0x1000 {KEY}", f"add 192.0.2.1 [4500] 192.0.2.2 [ 4501 ] esp 0x1000 {KEY}",
    f"add 192.0.2.1 192.0.2.2 esp-udp 0x1000 {KEY}", "getspi 192.0.2.1 192.0.2.2 esp 0 -m tunnel -u 7", "getspi 192.0.2.1 192.0.2.2 ah 300",
]  # fmt: skip


@pytest.mark.covers("M16", "M17", "M18", "S34", "S36", "S37")
@pytest.mark.parametrize("text", [SA + words for words in ESP] + [f"add ::1 ::2 ah 0x1000 -A {words}" for words in AH] + OTHERS)
def test_an_sa_is_made(text: str) -> None:
    assert len(stack_of(text + ";").sadb) == 1


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ("-r 4", "window_packets", 32), ("-r 536870", "window_packets", 8 * 536870), ("", "window_packets", 0),
        ("-esn", "has_esn", True), ("-esn -seq 8589934592", "sequence", 1 << 33), ("-m tunnel -tfc 500", "tfc_octets", 500),
        ("-f zero-pad", "flags", SaFlags.PZERO | SaFlags.CYCSEQ), ("-f random-pad -f nocyclic-seq", "flags", SaFlags.PRAND),
        ("-hwif em0", "offload_interface", "em0"),
    ],
)  # fmt: skip
def test_an_option_arrives(options: str, name: str, value: object) -> None:
    assert getattr(one_sa(f"{SA} {options} {KEY};").agreement, name) == value


@pytest.mark.covers("S20")
def test_lifetimes_arrive() -> None:
    agreement = one_sa(f"{SA} -lh 100 -ls 90 -bh 2000 -bs 1000 -ph 30 -ps 20 -uh 4 -us 3 {KEY};").agreement
    assert (agreement.hard.add_s, agreement.hard.octets, agreement.hard.packets, agreement.hard.use_s) == (100, 2000, 30, 4)
    assert (agreement.soft.add_s, agreement.soft.octets, agreement.soft.packets, agreement.soft.use_s) == (90, 1000, 20, 3)
    assert one_sa(f"{SA} -lh 100 {KEY};").agreement.soft.add_s == 80


@pytest.mark.covers("M12")
def test_nat_traversal_in_both_spellings() -> None:
    natt = "-natt 10.0.0.1[4500] 10.0.0.2[31000] -natt_mtu 500"
    around = one_sa(f"{SA} {natt} {KEY};").agreement.encapsulation
    assert around == one_sa(f"add 192.0.2.1[4500] 192.0.2.2[31000] esp-udp 0x1000 {natt} {KEY};").agreement.encapsulation
    assert around is not None
    assert (around.sport, around.dport, around.oai, around.oar, around.frag_octets) == (
        4500, 31000, bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2)), 500,
    )  # fmt: skip
    around = one_sa(f"add 192.0.2.1[4500] 192.0.2.2[31000] esp-udp 0x1000 {KEY};").agreement.encapsulation
    assert around is not None
    assert (around.sport, around.dport, around.oai, around.oar) == (4500, 31000, b"", b"")


def test_ahs_alignment() -> None:
    assert one_sa(f"add 192.0.2.1 192.0.2.2 ah 0x1000 -align 8 -A hmac-sha1 {key(20)};").agreement.align_octets == 8
    assert one_sa(f"add 192.0.2.1 192.0.2.2 ah 0x1000 -A hmac-sha1 {key(20)};").agreement.align_octets == 4


def test_a_key_of_an_odd_count_of_digits() -> None:
    """The first digit makes the first octet alone."""
    assert one_sa(f"{SA} -E des-cbc 0x123456789abcdef;").agreement.encryption_key.reveal().hex() == "0123456789abcdef"


POLICIES = [
    f"{SP} any -P out none", f"{SP} any -P in discard", f"{SP} any -P out", "spdadd ::/0 ::/0 ipv6-icmp 135,0 -P out none",
    "spdadd 10.0.0.0/8[any] 10.0.0.0 / 8 [80] tcp -P out none", "spdadd 10.0.0.1[ssh] 10.0.0.2 tcp -P in none",
    f"{SP} icmp 8 -P in none", f"{SP} ip4 -P in none", f"{SP} gre -P in none", f"{SP} 253 -P in none",
    f"{SP} any -P out ipsec esp/transport", f"{SP} any -P out ipsec esp/transport/", f"{SP} any -P out ipsec esp/transport//require",
    f"{SP} any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2", f"{SP} any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/",
    f"{SP} any -P out ipsec esp/tunnel/192.0.2.1[4500]-192.0.2.2[4500]/require", f"{SP} any -P out ipsec esp/tunnel/::1-::2/unique:7",
    f"{SP} any -P out ipsec esp/transport//default ah/transport//use\n\tipcomp/transport//use",
    f"{SP} any -P out ipsec ah/transport//unique#20000",
    f"{SP} any -P out ipsec esp/transport/me-any/require", f"{SP} any -P in ipsec esp/transport/any-me/require",
    f"{SP} any -P out prio high + 10 none", f"{SP} any -P out priority def-3 none", f"{SP} any -P out prio -5 discard",
    f"{SP} any -P fwd ipsec esp/transport//require", f"{SP} any -P out ipsec esp/transport//require -hwif em0",
    "spdupdate 10.0.0.1 10.0.0.2 any -P out none",
]  # fmt: skip


@pytest.mark.covers("R21", "R29", "S35")
@pytest.mark.parametrize("text", POLICIES)
def test_a_policy_is_made(text: str) -> None:
    assert len(list(stack_of(text + ";").spd.entries(7))) == 1


def test_priorities_put_high_first() -> None:
    """ipsec-tools' larger number is asked earlier; before them all comes what has no priority, as on Linux."""
    text = f"{SP} udp -P out none; {SP} tcp -P out prio low none; {SP} any -P out prio high none; {SP} icmp -P out prio high + 10 none;"
    assert [entry.policy.selector.protocol for entry in _ordered(stack_of(text)) if entry.policy.selector] == [17, 1, 255, 6]


def _ordered(stack: Stack) -> list[Entry]:
    return sorted(stack.spd.entries(7), key=lambda entry: entry.policy.priority)


def test_comments_blanks_and_lines() -> None:
    text = f"# a comment; with a semicolon\n{SP}any -P out # inside\n ipsec\n\tesp/transport//require ;;"
    text += 'add 192.0.2.1\n192.0.2.2 esp 1000 -E des-cbc "a;b#c\nde" ;'
    stack = stack_of(text)
    assert (len(stack.sadb), len(list(stack.spd.entries(7)))) == (1, 1)


def test_what_removes() -> None:
    text = f"{SA}{KEY}; {SP}any -P out none;"
    assert len(stack_of(f"{text} delete 192.0.2.1 192.0.2.2 esp 0x1000; spddelete 10.0.0.1 10.0.0.2 any -P out;").sadb) == 0
    assert len(stack_of(f"{text} deleteall 192.0.2.1 192.0.2.2; spdflush;").sadb) == 0
    assert len(stack_of(f"{text} flush esp;").sadb) == 0
    assert len(stack_of(f"{text} flush ah; deleteall 192.0.2.1 192.0.2.2 ah; dump; spddump; get 192.0.2.1 192.0.2.2 esp 0x1000;").sadb) == 1


# -- what is not ---------------------------------------------------------------------------------------------------------

BAD = [
    (f"add 192.0.2.1 192.0.2.2 esp 0x100000000 {KEY}", "SPI too big."),
    (f"add 192.0.2.1 192.0.2.2 esp 255 {KEY}", "SPIs 0 to 255 are reserved"),
    (f"add 192.0.2.1 192.0.2.2 esq 0x1000 {KEY}", "`esq` is no IPsec protocol"),
    (f"add 192.0.2.0/24 192.0.2.2 esp 0x1000 {KEY}", "an SA has addresses, not prefixes"),
    (SA, "ESP needs an encryption algorithm"),
    (SA + f"-A hmac-sha1 {key(20)}", "ESP needs an encryption algorithm"),
    (SA + f"-E aes-cbd {key(16)}", "unknown algorithm `aes-cbd`"),
    (SA + f"-E aes-cbc {key(17)}", "AES-CBC needs 16, 24 or 32 octets; this one has 17"),
    (SA + f"-E aes-gcm-16 {key(16)}", "AES-GCM needs 20, 28 or 36 octets: key plus 4 of salt; this one has 16"),
    (SA + f"-E aes-ccm-8 {key(20)}", "AES-CCM needs 19, 27 or 35 octets: key plus 3 of salt; this one has 20"),
    (SA + f"-E hmac-sha1 {key(20)}", "`hmac-sha1` does not belong here"),
    (SA + f"-E twofish-cbc {key(16)}", "unsupported algorithm `twofish-cbc`"),
    (SA + f"-E aes-gcm-16 {key(20)} -A hmac-sha1 {key(20)}", "aes-gcm-16 authenticates by itself"),
    (SA + "-E aes-cbc 000102", "the key of aes-cbc is a quoted string or 0x and hexadecimal digits"),
    (SA + "-E aes-cbc 0x0001zz", "the key of aes-cbc has characters that are no hexadecimal digits"),
    (SA + f"-r 536870908 {KEY}", "replay window is too large"),
    (SA + f"-seq 4294967296 {KEY}", "sequence numbers beyond 32 bits need -esn"),
    (SA + f"-m transport -tfc 100 {KEY}", "TFC padding needs tunnel mode"),
    (SA + f"-align 8 {KEY}", "-align means nothing to esp"),
    (SA + f"-m transport -m tunnel {KEY}", "-m is given twice"),
    (SA + f"-natt 10.0.0.1 10.0.0.2 {KEY}", "a UDP port is missing"),
    (f"add 10.0.0.1[4500] 10.0.0.2[7] esp 0x1000 -natt 10.0.0.1[4500] 10.0.0.2[8] {KEY}", "-natt names other ports than the addresses do"),
    (SA + f"-natt_mtu 500 {KEY}", "-natt_mtu without -natt"),
    (SA + f"-ctx 1 1 x {KEY}", "security contexts (-ctx) are not supported"),
    (f"add 192.0.2.1 192.0.2.2 ah-old 0x1000 -r 4 -A keyed-md5 {key(16)}", "replay prevention cannot be used with ah/esp-old"),
    (f"add 192.0.2.1 192.0.2.2 ah 0x1000 -align 6 -A hmac-sha1 {key(20)}", "AH's ICV is aligned to 4 or 8 octets"),
    ("add 192.0.2.1 192.0.2.2 ipcomp 0x12345 -C deflate", "a CPI has 16 bits"),
    (f"add 192.0.2.1 192.0.2.2 tcp 0x1000 -A tcp-md5 {key(81)}", "TCP-MD5 needs 1 to 80 octets; this one has 81"),
    (f"add -4 -6 192.0.2.1 192.0.2.2 esp 0x1000 {KEY}", "-4 and -6 exclude one another"),
    ("spdadd tagged x -P out none", "tagged policies need a firewall's tags, which there are none of"),
    (SP + "tpc -P out none", "invalid upper layer protocol `tpc`"),
    (SP + "tcp 80 -P out none", "-P is expected, not `80`"),
    (SP + "gre 1234 -P out none", "-P is expected, not `1234`"),
    ("spdadd 10.0.0.1[80] 10.0.0.2 icmp 8 -P out none", "ICMP has no ports"),
    ("spdadd 10.0.0.1[nosuch] 10.0.0.2 tcp -P out none", "there is no service `nosuch`"),
    (SP + "any", "-P and a policy is missing"),
    (SP + "any -P out ipsec", "ipsec needs at least one request"),
    (SP + "any -P out ipsec esp", "esp needs a mode"),
    (SP + "any -P out ipsec esp/tunnel//require", "a tunnel needs its endpoints"),
    (SP + "any -P out ipsec esp/tunnel/192.0.2.1-::1/use", "the endpoints are of two families"),
    (SP + "any -P out ipsec esp/transport/any-me/require", "any-me does not fit out"),
    (SP + "any -P out none esp/transport", "nothing may follow none"),
    (SP + "any -P out bypass", "bypass is for sockets only"),
    ("flsh", "`flsh` is no command"),
    ("flush 4", "`4` is no IPsec protocol"),
]


@pytest.mark.parametrize(("text", "why"), BAD, ids=[text for text, _ in BAD])
def test_a_mistake_has_its_sentence(text: str, why: str) -> None:
    script = check(text + ";", "peer.conf")
    assert [fault.why for fault in script.faults] == [why]
    fault = script.faults[0]
    assert (fault.file, fault.line) == ("peer.conf", 1)
    assert 1 <= fault.column <= len(text) + 1


def test_a_forgotten_end_costs_one_fault() -> None:
    script: Script = check(f"{SA}{KEY}\nflush;\nflsh;\n{SP}any -P out none;\n")
    assert [(fault.line, fault.column) for fault in script.faults] == [(2, 1), (3, 1)]
    assert len(script.statements) == 2


def test_warnings_hinder_nothing() -> None:
    script = check(f'{SA}-E simple "";\ndelete 192.0.2.1 192.0.2.2 esp 0x1000 -m any;')
    assert not script.faults
    assert [fault.why for fault in script.warnings] == ["obsolete algorithm", "mode is obsolete"]


def test_a_byte_order_mark_and_crlf_change_nothing() -> None:
    text = f"{SA} -r 4 {KEY};\r\n{SP} any -P out ipsec\r\n esp/transport//require;\r\n"
    assert parse("\ufeff" + text).statements == parse(text).statements
    assert len(parse(text).statements) == 2


def test_a_long_word_is_told_short() -> None:
    (fault,) = check("a" * 100_000).faults
    assert len(fault.bsd()) < 300
    assert len(str(fault)) < 600
