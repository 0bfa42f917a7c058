"""Policy text against what libipsec made of it, and what a person is told about text that is no policy."""

import random
from pathlib import Path

import pytest

from koura.address import parse as packed
from koura.pfkey import dialect
from koura.pfkey.policy import agree, describe, read, write
from koura.saindex import Direction, Mode, Protocol
from koura.spd.language import PRIORITY_DEFAULT, PRIORITY_UNSET, PolicySyntax, parse, show
from koura.spd.policy import Action, Level, Requirement

VECTORS = Path(__file__).parents[2] / "vectors" / "policy"
CODES = {"Invalid argument": 2, "Invalid address specification": 6, "Too few arguments": 25, "Name or service not known": 26}


def rows(name: str) -> list[list[str]]:
    lines = (VECTORS / name).read_text().splitlines()
    return [[*line.split("\t"), ""][:3] for line in lines if line and not line.startswith("#")]


def without_garbage(octets: bytes) -> bytes:
    """ipsec-tools leaves the last four octets of each 16-octet request as they were."""
    clean = bytearray(octets)
    at = 16
    while at < len(clean):
        clean[at + 12 : at + 16] = bytes(4)
        at += int.from_bytes(clean[at : at + 2], "little")
    return bytes(clean)


@pytest.mark.covers("R20", "R29", "R51")
@pytest.mark.parametrize(("text", "octets", "dumped"), [row for row in rows("linux.tsv") if not row[1].startswith("error")])
def test_linux_buffers_and_texts(text: str, octets: str, dumped: str) -> None:
    policy = parse(text, PRIORITY_DEFAULT)
    assert write(describe(policy), dialect.LINUX) == without_garbage(bytes.fromhex(octets))
    again = agree(read(bytes.fromhex(octets), dialect.LINUX), dialect.LINUX)
    assert again == policy
    assert show(again, with_priority=True) == dumped
    assert parse(dumped, PRIORITY_DEFAULT) == policy


@pytest.mark.covers("R20", "R29", "R51")
@pytest.mark.parametrize(("text", "octets", "_"), [row for row in rows("freebsd-derived.tsv") if not row[1].startswith("error")])
def test_freebsd_buffers(text: str, octets: str, _: str) -> None:
    policy = parse(text)
    assert write(describe(policy), dialect.FREEBSD).hex() == octets
    assert agree(read(bytes.fromhex(octets), dialect.FREEBSD), dialect.FREEBSD) == policy


@pytest.mark.parametrize(
    ("text", "error"), [row[:2] for row in rows("linux.tsv") + rows("freebsd-derived.tsv") if row[1].startswith("error")]
)
def test_what_libipsec_refuses_is_refused_with_its_error(text: str, error: str) -> None:
    with pytest.raises(PolicySyntax) as fault:
        parse(text)
    assert fault.value.code == CODES[error.removeprefix("error: ")]
    assert fault.value.hint


@pytest.mark.covers("R22", "R28")
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("in discard", "in discard"),
        ("out", "out discard"),
        ("out ipsec esp/transport", "out ipsec esp/transport//default"),
        ("out ipsec esp/transport/", "out ipsec esp/transport//default"),
        ("out ipsec esp/transport/ ah/transport/, esp/transport;", "out ipsec" + " {}/transport//default" * 3),
        ("out ipsec esp/tunnel/10.0.0.1-10.0.0.2/", "out ipsec esp/tunnel/10.0.0.1-10.0.0.2/default"),
        ("out\nipsec\n\tesp / tunnel / 10.0.0.1 - 10.0.0.2 / use", "out ipsec esp/tunnel/10.0.0.1-10.0.0.2/use"),
        ("out ipsec esp/transport/me-any/require", "out ipsec esp/transport//require"),
        ("in ipsec esp/transport/any-me/require", "in ipsec esp/transport//require"),
        ("in ipsec esp/tunnel/2001:DB8::1-2001:db8::0:2/unique:77", "in ipsec esp/tunnel/2001:db8::1-2001:db8::2/unique:77"),
        ("in ipsec esp/transport//unique:16384", "in ipsec esp/transport//unique#16384"),
        ("in ipsec esp/transport//unique#5", "in ipsec esp/transport//unique:5"),
        ("in ipsec esp/transport//require:5", "in ipsec esp/transport//require:5"),
        ("in ipsec tcp/transport//require", "in ipsec tcp/transport//require"),
        ("out ipsec esp/tunnel/10.0.0.1[4500]-10.0.0.2[1025]/require", "out ipsec esp/tunnel/10.0.0.1[4500]-10.0.0.2[1025]/require"),
    ],
)
def test_every_shape_of_a_request(text: str, shown: str) -> None:
    policy = parse(text)
    shown = shown.format("esp", "ah", "esp")
    assert show(policy, with_ports=True) == shown
    assert parse(shown) == policy


def test_ports_are_hidden_unless_asked_for_and_the_delimiter_is_the_callers() -> None:
    policy = parse("out ipsec esp/tunnel/10.0.0.1[4500]-10.0.0.2[1025]/require ah/transport//use")
    assert policy.requirements[0] == Requirement(
        Protocol.ESP, Mode.TUNNEL, Level.REQUIRE, 0, packed("10.0.0.1"), packed("10.0.0.2"), 4500, 1025
    )
    assert show(policy, "\n\t") == "out ipsec\n\tesp/tunnel/10.0.0.1-10.0.0.2/require\n\tah/transport//use"


@pytest.mark.parametrize(
    ("text", "priority", "shown"),
    [
        ("out prio high none", 0x40000000, "high"),
        ("out priority def none", 0x80000000, "def"),
        ("out prio low none", 0xC0000000, "low"),
        ("out prio high + 5 none", 0x3FFFFFFB, "high + 5"),
        ("out prio low - 5 none", 0xC0000005, "low - 5"),
        ("out prio - 7 none", 0x80000007, "def - 7"),
        ("out prio -7 none", 0x80000007, "def - 7"),
        ("out prio low - 1073741823 none", 0xFFFFFFFF, "low - 1073741823"),
        ("out prio 2147483647 none", 1, "high + 1073741823"),
        ("out prio -2147483647 none", 0xFFFFFFFF, "low - 1073741823"),
    ],
)
def test_priority_words_put_high_first(text: str, priority: int, shown: str) -> None:
    policy = parse(text)
    assert policy.priority == priority
    assert show(policy, with_priority=True) == f"out prio {shown} none"
    assert parse(show(policy, with_priority=True)) == policy
    assert parse("out none").priority == PRIORITY_UNSET


@pytest.mark.parametrize(
    ("text", "column", "code", "why"),
    [
        ("", 1, 2, "begins with its direction"),
        ("  sideways none", 3, 2, "begins with its direction"),
        ("any none", 1, 2, "begins with its direction"),
        ("in maybe", 4, 2, "no such action: maybe"),
        ("in none esp/transport//use", 9, 2, "nothing may follow none"),
        ("in ipsec esp", 10, 25, "esp needs a mode"),
        ("in ipsec esp/", 14, 25, "esp needs a mode"),
        ("in ipsec esp/mixed//use", 14, 25, "no such mode: mixed"),
        ("in ipsec gre/transport//use", 10, 2, "no such protocol: gre"),
        ("in ipsec esp/transport//perhaps", 25, 2, "no such level: perhaps"),
        ("in ipsec esp/transport//unique:", 25, 2, "no request id"),
        ("in ipsec esp/transport//unique:4294967296", 25, 2, "no request id"),
        ("in ipsec esp/transport//unique:-1", 25, 2, "no request id"),
        ("in ipsec esp/tunnel//use", 10, 6, "a tunnel needs its endpoints"),
        ("out ipsec esp/tunnel/me-any/use", 11, 6, "a tunnel needs its endpoints"),
        ("in ipsec esp/transport/me-any/use", 24, 17, "me-any does not fit in"),
        ("out ipsec esp/transport/any-me/use", 25, 17, "any-me does not fit out"),
        ("out ipsec esp/transport/any-any/use", 25, 2, "an endpoint is missing"),
        ("in ipsec esp/tunnel/10.0.0.1/use", 29, 2, "an endpoint is missing"),
        ("in ipsec esp/tunnel/10.0.0.1-/use", 30, 2, "is no address"),
        ("in ipsec esp/tunnel/-10.0.0.1/use", 21, 6, "is no address"),
        ("in ipsec esp/transport/require", 24, 2, "is no address"),
        ("in ipsec esp/tunnel/10.0.0.1[7]-10.0.0.2/use", 21, 2, "only one endpoint has a port"),
        ("in ipsec esp/transport//", 25, 2, "a level is missing"),
        ("in ipsec esp/transport// ah/transport//use", 26, 2, "a level is missing"),
        ("in prio 5", 10, 2, "an action is missing"),
        ("in prio 2147483649 none", 9, 2, "too large"),
        ("in ipsec esp/tunnel/10.0.0.1-::1/use", 21, 24, "two families"),
        ("in ipsec esp/tunnel/fe80::1%em0-fe80::2/use", 21, 6, "with a zone"),
        ("in ipsec esp/tunnel/10.0.0.1[x]-10.0.0.2/use", 30, 2, "a number is missing"),
        ("in ipsec esp/tunnel/10.0.0.1[70000]-10.0.0.2/use", 30, 2, "too large"),
        ("in ipsec esp/tunnel/10.0.0.1[7-10.0.0.2/use", 31, 2, "a bracket is missing"),
        ("in prio base none", 9, 2, "a number is missing"),
        ("in prio high + none", 16, 2, "a number is missing"),
        ("in prio low - 1073741824 none", 9, 2, "out of range"),
        ("in ipsec" + " esp/transport//use" * 5, 86, 2, "more than 4"),
        ("in ipsec esp/transport//use/", 28, 2, "no such protocol: /"),
        ("in ipsec esp/transport//use; in none", 30, 2, "no such protocol: in"),
    ],
)
def test_a_fault_says_where_and_what_to_type(text: str, column: int, code: int, why: str) -> None:
    with pytest.raises(PolicySyntax) as raised:
        parse(text)
    fault = raised.value
    assert why in fault.why
    assert (fault.column, fault.code) == (column, code)
    assert fault.start < fault.end


@pytest.mark.parametrize("seed", range(4))
def test_any_text_is_a_policy_or_a_fault(seed: int) -> None:
    dice = random.Random(seed)
    words = ["in", "out", "fwd", "ipsec", "none", "esp", "ah", "/", "/", "/", "transport", "tunnel", "me", "any", "-", "[", "]", "1.2.3.4",
             "::1", "unique:7", "use", "prio", "high", "+", "9", " ", "\n", ",", "#", ":", "%", "\u0663", "é"]  # fmt: skip
    for _ in range(4000):
        text = "".join(dice.choice(words) + dice.choice(("", " ")) for _ in range(dice.randrange(12)))
        try:
            policy = parse(text, PRIORITY_DEFAULT)
        except PolicySyntax as fault:
            assert 0 <= fault.start < fault.end <= len(text) + 1, text
        else:
            assert parse(show(policy, with_priority=True, with_ports=True)) == policy


def test_no_priority_is_shown_as_nothing() -> None:
    """As libipsec has it: a direction alone, and a priority so high that the field is 0."""
    for text, shown in (("out", "out discard"), ("out prio high + 1073741824 none", "out none"), ("out prio 2147483648 none", "out none")):
        policy = parse(text, PRIORITY_DEFAULT)
        assert policy.priority == PRIORITY_UNSET
        assert show(policy, with_priority=True) == shown


def test_the_directions_and_actions() -> None:
    assert parse("fwd none").direction is Direction.FORWARD
    assert parse("in bypass").action is Action.BYPASS
    assert parse("out entrust").action is Action.ENTRUST
