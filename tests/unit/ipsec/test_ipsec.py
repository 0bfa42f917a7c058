"""koura.ipsec: libipsec's names. Policy buffers octet for octet, an error for each bad text, the senders against a server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import koura.ipsec as lib
from koura.pfkey import extensions as x
from koura.pfkey.dialect import FREEBSD, LINUX
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.pfkey.policy import PolicyExtension
from koura.sadb.agreement import Limits
from tests.unit.client.engine import Engine
from tests.unit.spd.test_language import CODES, rows, without_garbage

LINUX_ROWS, FREEBSD_ROWS = rows("linux.tsv"), rows("freebsd-derived.tsv")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path) as running:
        yield running


@pytest.mark.covers("R12", "R29", "R51")
@pytest.mark.parametrize(("text", "octets", "dumped"), [row for row in LINUX_ROWS if not row[1].startswith("error")])
def test_linux_buffers(text: str, octets: str, dumped: str) -> None:
    buffer = lib.ipsec_set_policy(text, len(text))
    assert buffer == without_garbage(bytes.fromhex(octets))
    assert lib.ipsec_set_policy(text.encode() + b"\0ignored") == buffer
    assert lib.ipsec_get_policylen(buffer) == len(buffer)
    assert lib.ipsec_dump_policy(buffer) == dumped
    assert lib.ipsec_dump_policy(bytes.fromhex(octets) + b"more", None) == dumped
    assert lib.ipsec_strerror() == "Success"


@pytest.mark.parametrize(("text", "octets", "_"), [row for row in FREEBSD_ROWS if not row[1].startswith("error")])
def test_freebsd_buffers(text: str, octets: str, _: str) -> None:
    buffer = lib.ipsec_set_policy(text, dialect="freebsd")
    assert buffer.hex() == octets
    assert lib.ipsec_set_policy(lib.ipsec_dump_policy(buffer, "\n\t", FREEBSD), dialect=FREEBSD) == buffer


@pytest.mark.parametrize(("text", "error"), [row[:2] for row in LINUX_ROWS + FREEBSD_ROWS if row[1].startswith("error")])
@pytest.mark.parametrize("dialect", ["linux", "freebsd"])
def test_bad_texts_have_their_error(text: str, error: str, dialect: str) -> None:
    with pytest.raises(lib.IpsecError) as raised:
        lib.ipsec_set_policy(text, dialect=dialect)
    assert raised.value.code == CODES[error.removeprefix("error: ")]
    if raised.value.code != lib.EIPSEC_SYSTEM_ERROR:
        assert lib.ipsec_strerror() == error.removeprefix("error: ")


def test_bad_buffers_and_dialects() -> None:
    short, unknown = lib.ipsec_set_policy("out ipsec esp/transport//use")[:-8], b"\x02\0\x12\0\x09\0\x01\0" + bytes(8)
    for octets in (b"", bytes(15), bytes(16), short, unknown):
        with pytest.raises(lib.IpsecError) as raised:
            lib.ipsec_dump_policy(octets)
        assert raised.value.code == lib.EIPSEC_INVAL_POLICY
    with pytest.raises(ValueError, match="no dialect plan9"):
        lib.ipsec_set_policy("in none", dialect="plan9")


@pytest.mark.covers("R12")
def test_the_names_of_the_headers() -> None:
    assert (lib.IPSEC_DIR_OUTBOUND, lib.IPSEC_POLICY_BYPASS, lib.IPSEC_LEVEL_UNIQUE, lib.IPSEC_MODE_TUNNEL) == (2, 4, 3, 2)
    assert (lib.IP_IPSEC_POLICY, lib.IPV6_IPSEC_POLICY, lib.FREEBSD_IP_IPSEC_POLICY, lib.FREEBSD_IPV6_IPSEC_POLICY) == (16, 34, 21, 28)
    for kind, prefix in ((Type, "SADB_"), (Ext, "SADB_EXT_"), (Ext, "SADB_X_EXT_")):
        for one in kind:
            value = getattr(lib, prefix + one.name.removeprefix("X_" if "X_EXT" in prefix else ""), None)
            assert value is None or value == one, one
    assert {name for name in lib.__all__ if not hasattr(lib, name)} == set()
    for call in """pfkey_open pfkey_close pfkey_recv pfkey_send pfkey_align pfkey_check pfkey_set_supported pfkey_recv_register pfkey_sadump
        pfkey_spdump ipsec_check_keylen ipsec_check_keylen2 ipsec_get_keylen pfkey_set_softrate pfkey_get_softrate pfkey_send_getspi
        pfkey_send_update pfkey_send_add pfkey_send_delete pfkey_send_delete_all pfkey_send_get pfkey_send_register pfkey_send_flush
        pfkey_send_dump pfkey_send_promisc_toggle pfkey_send_spdadd pfkey_send_spdadd2 pfkey_send_spdupdate pfkey_send_spdupdate2
        pfkey_send_spddelete pfkey_send_spddelete2 pfkey_send_spdget pfkey_send_spdsetidx pfkey_send_spdflush pfkey_send_spddump""".split():
        assert call in lib.__all__


@pytest.mark.parametrize("dialect", ["freebsd", "linux"])
def test_a_life_of_an_sa_by_the_senders(engine: Engine, tmp_path: Path, dialect: str, capsys: pytest.CaptureFixture[str]) -> None:
    with lib.pfkey_open(tmp_path, dialect) as so:
        so.end.settimeout(5)
        src, dst = "192.0.2.1", ("192.0.2.2", 0)

        def reply() -> Message:
            got = lib.pfkey_align(lib.pfkey_recv(so), dialect)
            lib.pfkey_check(got)
            head = got[0]
            assert isinstance(head, Message)
            return head

        assert lib.pfkey_send_register(so, lib.SADB_SATYPE_ESP) == 16
        lib.pfkey_recv_register(so)
        assert lib.ipsec_get_keylen(lib.SADB_EXT_SUPPORTED_ENCRYPT, lib.SADB_X_EALG_AESCBC) == (128, 256)
        lib.ipsec_check_keylen2(lib.SADB_SATYPE_AH, lib.SADB_AALG_SHA1HMAC, 160)
        for bits in (136, 64, 512):
            with pytest.raises(lib.IpsecError) as raised:
                lib.ipsec_check_keylen(lib.SADB_EXT_SUPPORTED_ENCRYPT, lib.SADB_X_EALG_AESCBC, bits)
            assert raised.value.code == lib.EIPSEC_INVAL_KEYLEN
        lib.pfkey_send_getspi(so, lib.SADB_SATYPE_ESP, lib.IPSEC_MODE_TUNNEL, src, dst, 0x1000, 0x1000, 5, 9)
        sa = reply().find(x.Sa, Ext.SA)
        assert sa is not None
        flags = 0 if dialect == "linux" else lib.SADB_X_EXT_CYCSEQ
        lib.pfkey_send_update(
            so, lib.SADB_SATYPE_ESP, lib.IPSEC_MODE_TUNNEL, src, dst, sa.spi, 5, 4, bytes(36), lib.SADB_X_EALG_AESCBC, 16,
            lib.SADB_AALG_SHA1HMAC, 20, flags, 0, 1000, 3600, 0, 9,
        )  # fmt: skip
        assert reply().errno == 0
        (made,) = list(engine.world.sad)
        assert (made.agreement.hard, made.agreement.soft) == (Limits(0, 1000, 3600, 0), Limits(0, 800, 2880, 0))
        assert made.agreement.window_packets == 32
        assert made.agreement.pid == os.getpid()
        lib.pfkey_send_get(so, lib.SADB_SATYPE_ESP, 0, src, dst, sa.spi)
        text = lib.pfkey_sadump(lib.pfkey_recv(so), dialect)
        assert text.startswith("192.0.2.1 192.0.2.2\n\tesp mode=tunnel spi=4096(0x00001000) reqid=5(0x00000005)\n\tE: aes-cbc  ")
        assert capsys.readouterr().out == text
        lib.pfkey_send_add(so, lib.SADB_SATYPE_AH, 1, src, dst, 0x2000, 0, 300, bytes(20), 0, 0, lib.SADB_AALG_SHA1HMAC, 20, 0)
        assert reply().find(x.Sa, Ext.SA) is not None
        lib.pfkey_send_dump(so, 0)
        assert len([reply(), reply()]) == 2
        lib.pfkey_send_delete(so, lib.SADB_SATYPE_ESP, 0, src, dst, sa.spi)
        assert reply().type == Type.DELETE
        lib.pfkey_send_delete_all(so, lib.SADB_SATYPE_AH, 0, src, dst)
        assert reply().satype == SaType.AH
        lib.pfkey_send_flush(so, 0)
        assert reply().type == Type.FLUSH
        assert len(engine.world.sad) == 0


@pytest.mark.parametrize("dialect", ["freebsd", "linux"])
def test_a_life_of_a_policy_by_the_senders(engine: Engine, tmp_path: Path, dialect: str, capsys: pytest.CaptureFixture[str]) -> None:
    with lib.pfkey_open(tmp_path, dialect) as so:
        so.end.settimeout(5)
        speaker = LINUX if dialect == "linux" else FREEBSD

        def reply() -> tuple[Message, PolicyExtension]:
            message = Message.read(lib.pfkey_recv(so), speaker)
            policy = message.find(PolicyExtension, Ext.X_POLICY)
            assert policy is not None
            assert message.errno == 0
            return message, policy

        buffer = lib.ipsec_set_policy("out ipsec esp/transport//require", dialect=dialect)
        where = (("10.0.0.0", 0), 8, ("10.1.0.0", 443), 16, 6)
        lib.pfkey_send_spdadd(so, *where, buffer, len(buffer), 3)
        number = reply()[1].id
        lib.pfkey_send_spdget(so, number)
        text = lib.pfkey_spdump(lib.pfkey_recv(so), dialect)
        assert text.startswith("10.0.0.0/8[any] 10.1.0.0/16[443] tcp\n\tout ipsec\n\tesp/transport//require\n")
        capsys.readouterr()
        lib.pfkey_send_spdupdate2(so, *where, 600, 60, buffer)
        number = reply()[1].id
        (entry,) = engine.world.spd.entries()
        assert (entry.policy.lifetime_s, entry.policy.valid_s) == (600, 60)
        lib.pfkey_send_spddelete2(so, number)
        reply()
        lib.pfkey_send_spdsetidx(so, *where, buffer)
        reply()
        lib.pfkey_send_spdupdate(so, *where, buffer)
        reply()
        lib.pfkey_send_spddelete(so, *where, buffer)
        reply()
        lib.pfkey_send_spdadd2(so, *where, 1, 0, buffer)
        reply()
        lib.pfkey_send_spddump(so)
        reply()
        lib.pfkey_send_spdflush(so)
        assert Message.read(lib.pfkey_recv(so), speaker).type == Type.X_SPDFLUSH
        lib.pfkey_send_promisc_toggle(so, 1)
        assert lib.pfkey_recv(so)[16:] == lib.pfkey_recv(so)[:16]  # a promiscuous socket's copy, and its own
        assert len(engine.world.spd) == 0


def test_what_the_senders_refuse(engine: Engine, tmp_path: Path) -> None:
    add = (lib.SADB_SATYPE_ESP, 0, "10.0.0.1", "10.0.0.2", 300, 0, 0)
    with lib.pfkey_open(tmp_path) as so:
        for call, code in (
            (lambda: lib.pfkey_send_getspi(so, 3, 0, "::1", "::2", 9, 8), lib.EIPSEC_INVAL_SPI),
            (lambda: lib.pfkey_send_getspi(so, 3, 0, "::1", "10.0.0.1", 0, 0), lib.EIPSEC_FAMILY_MISMATCH),
            (lambda: lib.pfkey_send_getspi(so, 7, 0, "::1", "::2", 0, 0), lib.EIPSEC_INVAL_SATYPE),
            (lambda: lib.pfkey_send_add(so, *add, bytes(8), 12, 16, 0, 0, 0), lib.EIPSEC_INVAL_KEYLEN),
            (lambda: lib.pfkey_send_add(so, *add, bytes(8), 0, 0, 0, 0, 0), lib.EIPSEC_NO_ALGS),
            (lambda: lib.pfkey_send_add(so, *add, bytes(16), 12, 16, 0, 0, 0x10000), lib.EIPSEC_INVAL_ARGUMENT),
            (lambda: lib.pfkey_send_get(so, 3, 0, "example", "::2", 300), lib.EIPSEC_INVAL_ADDRESS),
            (lambda: lib.pfkey_send_get(so, 3, 0, ("::1", 70000), "::2", 300), lib.EIPSEC_INVAL_ADDRESS),
            (lambda: lib.pfkey_send_spdadd(so, "::1", 129, "::2", 0, 6, bytes(16)), lib.EIPSEC_INVAL_PREFIXLEN),
            (lambda: lib.pfkey_send_spdadd(so, "::1", 128, "::2", 0, 6, bytes(16)), lib.EIPSEC_INVAL_POLICY),
            (lambda: lib.pfkey_send_promisc_toggle(so, 2), lib.EIPSEC_INVAL_ARGUMENT),
            (lambda: lib.pfkey_set_softrate(4, 50), lib.EIPSEC_INVAL_ARGUMENT),
            (lambda: lib.pfkey_align(bytes(16)), lib.EIPSEC_INVAL_SADBMSG),
            (lambda: lib.ipsec_check_keylen2(9, 2, 0), lib.EIPSEC_INVAL_SATYPE),
        ):
            with pytest.raises(lib.IpsecError) as raised:
                call()
            assert raised.value.code == code, raised.value
    with pytest.raises(lib.IpsecError, match="no engine runs there"):
        lib.pfkey_open(tmp_path / "nowhere")
    lib.pfkey_set_softrate(1, 0)
    assert lib.pfkey_get_softrate(1) == 100
    lib.pfkey_set_softrate(1, 80)


def test_what_only_dumps_show_is_no_text_of_libipsec() -> None:
    with pytest.raises(lib.IpsecError) as raised:
        lib.ipsec_set_policy("out ipsec esp/transport//require:5")
    assert raised.value.code == 2
    with pytest.raises(lib.IpsecError):
        lib.ipsec_set_policy("out ipsec esp/tunnel/gate.example-192.0.2.1/require")
    assert lib.ipsec_strerror() == "Name or service not known"
