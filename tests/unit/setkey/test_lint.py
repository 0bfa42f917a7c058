"""`setkey -n`: every finding, and files that have none."""

import pytest

from koura.setkey import lint
from koura.setkey.finding import Finding, Grade
from koura.setkey.parse import parse

A = "-E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213"
B = "-E aes-gcm-16 0x100102030405060708090a0b0c0d0e0f10111213"
GOOD = f"""
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -r 128 {A};
add 192.0.2.2 192.0.2.1 esp 0x1002 -m tunnel -r 128 {B};
spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;
spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/require;
"""
AGAIN = """spddelete 10.1.0.0/16 10.2.0.0/16 any -P out; {}
spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;"""


def found(text: str) -> list[Finding]:
    return list(lint.lint(parse(text)))


def names(text: str) -> list[tuple[str, int]]:
    return [(one.name, one.span.line) for one in found(text)]


def test_a_good_file_has_nothing() -> None:
    assert names(GOOD) == []
    assert names("") == []
    assert names("flush; spdflush; dump; spddump; spddelete 1.2.3.4 5.6.7.8 any -P in; delete 1.2.3.4 5.6.7.8 esp 999;") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"add 192.0.2.1 192.0.2.3 esp 0x1003 -r 8 -m tunnel {A[:-2]}99;", [("unused-sa", 6)]),
        ("add 192.0.2.1 192.0.2.3 tcp 0x1000 -A tcp-md5 \"x\";", []),
        (f"add 192.0.2.2 192.0.2.1 esp 0x1003 -r 8 -m tunnel {A};", [("shared-key", 6)]),
        (f"add 192.0.2.2 192.0.2.1 esp 0x1003 -m tunnel {A[:-2]}99;", [("window-0", 6)]),
        (f"add 192.0.2.1 192.0.2.2 esp 0x1003 -m tunnel {A[:-2]}99;", []),  # outbound: nothing to check
        ("add 192.0.2.2 192.0.2.1 esp 0x1003 -r 8 -m any -E 3des-cbc 0x" + "ab" * 24 + ' -A hmac-md5 "1234567890123456";',
         [("weak-algorithm", 6), ("weak-algorithm", 6)]),
        ("add 192.0.2.2 192.0.2.1 esp 0x1003 -r 8 -m any -E aes-cbc 0x" + "ab" * 16 + ";", [("no-integrity", 6)]),
        ("spdadd 10.1.3.0/24 10.2.0.0/16[80] tcp -P out none;", [("shadowed-policy", 6)]),
        (AGAIN.format("spdadd 10.1.3.0/24 10.2.0.0/16 tcp -P out none;"), [("clear-by-policy", 7)]),
        (AGAIN.format("spdadd 10.1.3.0/24 10.2.0.0/16[500] udp -P out none;"), []),
        ("spdadd 10.9.0.0/16 10.8.0.0/16 any -P out none;", []),
        ("spdadd 10.9.0.0/16 10.8.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;", [("one-way", 6)]),
        ("spdadd 10.9.0.0/16 10.8.0.0/16 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/require;", [("one-way", 6)]),
        ("spdadd 10.9.0.0/16 10.8.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/use;", [("clear-if-no-sa", 6), ("one-way", 6)]),
        ("spdadd 10.9.0.0/16 10.8.0.0/16 any -P out ipsec ipcomp/tunnel/192.0.2.1-192.0.2.2/use;",
         [("only-compressed", 6), ("unsatisfied-policy", 6)]),
        ("add h.example 192.0.2.1 esp 0x1003 -E null;", [("name", 6)]),
        ("spdadd h.example/33 192.0.2.1 any -P in none;", [("name", 6)]),
        ("spdadd 192.0.2.1/33 192.0.2.1 any -P out none;", [("address", 6)]),
        ("spdadd 192.0.2.1 2001:db8::1 any -P out none;", [("address", 6)]),
        ("add 192.0.2.1 ::1 esp 0x1003 -E null;", [("address", 6)]),
        ("add -6 192.0.2.1 192.0.2.2 esp 0x1003 -E null;", [("address", 6)]),
        (f"add 192.0.2.1 192.0.2.2 esp 0x1001 -r 8 {A[:-2]}98;", [("refused", 6)]),
        ("spdupdate 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:7;",
         [("unused-sa", 2), ("unsatisfied-policy", 6)]),
    ],
)  # fmt: skip
def test_each_finding(text: str, expected: list[tuple[str, int]]) -> None:
    assert names(GOOD + text) == expected


def test_transport_requests_find_their_sas_by_the_selector_or_by_the_tunnel_before() -> None:
    text = f"""
add 10.1.0.1 10.2.0.1 esp 0x1001 -m transport -r 8 {A};
add 192.0.2.1 192.0.2.2 ah 0x1002 -r 8 -A hmac-sha2-256 0x{"11" * 32};
spdadd 10.1.0.0/24 10.2.0.0/24 udp -P out ipsec esp/transport//require;
spdadd 10.2.0.0/24 10.1.0.0/24 udp -P in discard;
spdadd 10.3.0.0/24 10.4.0.0/24 udp -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/use ah/transport//require;
"""
    assert [one for one in names(text) if one[0] in ("unused-sa", "unsatisfied-policy")] == [("unsatisfied-policy", 6)]


def test_a_script_without_sas_leaves_them_to_a_key_manager() -> None:
    policies = GOOD[GOOD.index("spdadd") :]
    assert names(policies) == []


def test_a_fault_has_its_caret_and_no_key() -> None:
    script = parse(GOOD + f"add 192.0.2.2 192.0.2.1 esp 0x1003 -r 8 -m tunnel {A};", "file")
    (one,) = lint.lint(script)
    assert one.grade is Grade.WARNING
    text = str(lint.fault(one, script))
    assert text.startswith("file:6:1: the aes-gcm-16 key is that of another SA, too (esp 0x1001 to 192.0.2.2);")
    assert text.endswith("[shared-key]\n" + text.split("\n", 1)[1])
    assert "\n    ^^^" in text
    assert "000102" not in text


def test_many_policies_are_judged_in_time() -> None:
    text = "".join(f"spdadd 10.{n >> 8}.{n & 255}.0/24 10.200.0.0/16 any -P out none;\n" for n in range(1200))
    assert names(text) == []
    sas = "".join(f"add 10.{n >> 8}.{n & 255}.1 10.0.0.1 tcp 0x1000 -A tcp-md5 0x{n:08x};\n" for n in range(400))
    assert names(sas) == []
    assert names(text + "spdadd 10.3.7.0/25 10.200.1.0/24 tcp -P out discard;") == [("shadowed-policy", 1201)]
