"""What PF_KEY owes beyond the recordings: errors, registration, proposals, large messages, small buffers, TCP-MD5, offload."""

import pytest

from koura.errors import Errno
from koura.notices import KeySocketOpened
from koura.pfkey import extensions as x
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.pfkey.offers import Proposal
from koura.pfkey.sockaddr import Sockaddr
from koura.setkey.faults import BadScript
from koura.setkey.parse import parse
from koura.setkey.run import messages
from tests.unit.pfkey.harness import World
from tests.unit.stack.kit import GCM, SOCKET, Host
from tests.unit.traffic.kit import A, B, datagram

ENDS = tuple(x.Address(ext, Sockaddr(address, 0), 255, 32) for ext, address in ((Ext.ADDRESS_SRC, A), (Ext.ADDRESS_DST, B)))
SA = f"add 192.0.2.1 192.0.2.2 esp 0x1000 {GCM};"


def only(script: str) -> Message:
    """The one message of a script with one command."""
    ((_, (message,)),) = messages(parse(script))
    return message


def errno(host: Host, message: Message) -> Errno | None:
    refused = host.ask(message)
    return refused.errno if refused is not None else None


@pytest.mark.covers("S15", "S14")
def test_a_malformed_extension_is_an_errno_of_send_and_no_message() -> None:
    host = Host()
    octets = bytearray(only(SA).write(FREEBSD))
    octets[16:18] = b"\0\0"  # the length of the first extension
    answer = host.stack.control(SOCKET, bytes(octets), host.at)
    assert answer.errno == Errno.EINVAL.bsd
    assert not answer.events
    assert len(host.stack.sadb) == 0


@pytest.mark.covers("S16")
@pytest.mark.parametrize("everyone", [0, 1])
def test_acquires_go_to_those_who_registered_for_the_satype(everyone: int) -> None:
    host = Host("spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require;")
    host.tune("net.koura.register_all", everyone)
    for socket, satype in ((2, SaType.AH), (3, SaType.ESP)):
        host.stack.notice(KeySocketOpened(socket, "freebsd", 0, True), host.at)
        host.stack.control(socket, Message(Type.REGISTER, satype, 1).write(FREEBSD), host.at)
    results = host.stack.outbound([datagram(A, B)], host.at)
    assert sorted(event.socket for event in results.events) == ([1, 2, 3] if everyone else [1, 3])  # type: ignore[union-attr]


@pytest.mark.covers("S19", "S44")
@pytest.mark.parametrize("esp_auth", [0, 1])
@pytest.mark.parametrize("kind", ["esp", "ah", "ipcomp"])
def test_proposals_have_the_lifetimes_that_were_meant_and_never_null(kind: str, esp_auth: int) -> None:
    host = Host(f"spdadd 192.0.2.1 192.0.2.2 any -P out ipsec {kind}/transport//require;")
    host.tune("net.key.esp_auth", esp_auth)
    host.tune("net.key.esp_keymin", 0)
    host.send(datagram(A, B))
    (acquire,) = host.hear(Type.ACQUIRE)
    proposal = acquire.find(Proposal, Ext.PROPOSAL)
    assert proposal is not None
    assert proposal.combinations
    for combination in proposal.combinations:
        assert (combination.soft.add_s, combination.hard.add_s) == (69120, 86400)
        assert (combination.soft.use_s, combination.hard.use_s) == (28800, 36000)
        assert combination.encrypt != 11, "11 is NULL"
        assert combination.auth not in (249, 250, 251), "nor keyed hashes, nor no integrity"


@pytest.mark.covers("S24")
def test_requests_of_up_to_64_kib_are_taken() -> None:
    host = Host()
    identity = x.Ident(Ext.IDENTITY_SRC, 2, 0, b"a" * 30_000 + b"\0")
    other = x.Ident(Ext.IDENTITY_DST, 2, 0, b"b" * 30_000 + b"\0")
    message = only(SA)
    large = Message(message.type, message.satype, message.seq, extensions=(*message.extensions, identity, other))
    assert 60_000 < len(large.write(FREEBSD)) <= 65_536
    assert errno(host, large) is None
    (sa,) = host.stack.sadb
    assert sa.agreement.identity_src is not None
    assert sa.agreement.identity_src.text.startswith(b"a" * 30_000)
    host.tune("net.koura.limits.message_octets", 60_000)
    answer = host.stack.control(SOCKET, large.write(FREEBSD), host.at)
    assert answer.errno == Errno.ENOBUFS.bsd
    assert not answer.events


@pytest.mark.covers("S27", "S14")
def test_getspi_and_deletions_have_the_right_errors() -> None:
    host = Host(SA)
    assert errno(host, Message(Type.GETSPI, SaType.ESP, 1, extensions=(*ENDS, x.SpiRange(0x2000, 0x1FFF)))) is Errno.EINVAL
    assert errno(host, Message(Type.GETSPI, SaType.ESP, 1, extensions=(*ENDS, x.SpiRange(0x10, 0x20)))) is Errno.EINVAL
    assert errno(host, Message(Type.GETSPI, SaType.ESP, 1, extensions=(*ENDS, x.SpiRange(0x1000, 0x1000)))) is Errno.EEXIST
    assert errno(host, only("delete 192.0.2.1 192.0.2.2 esp 0x9999;")) is Errno.ESRCH
    missing = only("spddelete 192.0.2.1 192.0.2.2 any -P out;")
    assert errno(host, missing) is Errno.ENOENT
    host.tune("net.koura.compat_errno", 1)
    assert errno(host, missing) is Errno.EINVAL
    assert errno(host, only("deleteall 192.0.2.2 192.0.2.1 esp;")) is None, "as FreeBSD: nothing to delete is no error"


@pytest.mark.covers("R55", "R56", "S23")
@pytest.mark.parametrize("room_octets", [600, 4096, 1 << 20])
def test_dumps_are_complete_through_the_smallest_buffer(room_octets: int) -> None:
    script = "".join(SA.replace("0x1000", str(0x1000 + n)) for n in range(100))
    host = Host(script)
    assert host.stack.read("net.key.recvspace") == "8192"
    host.tune("net.key.recvspace", 1024)
    assert host.stack.control(SOCKET, only("dump;").write(FREEBSD), host.at).refused is None
    found = []
    while host.stack.has_dump(SOCKET):
        part = host.stack.pull(SOCKET, room_octets, host.at)
        assert part
        assert sum(map(len, part)) <= room_octets
        found += [Message.read(octets, FREEBSD) for octets in part]
    assert [message.seq for message in found] == list(range(99, -1, -1))
    spis = {sa.spi for message in found if (sa := message.find(x.Sa, Ext.SA)) is not None}
    assert spis == set(range(0x1000, 0x1000 + 100))


@pytest.mark.covers("M25")
def test_one_tcp_md5_key_for_an_address_pair() -> None:
    host = Host('add 192.0.2.1 192.0.2.2 tcp 0x1000 -A tcp-md5 "secret";')
    (sa,) = host.stack.sadb
    assert sa.agreement.integrity is not None
    assert sa.agreement.integrity.name == "tcp-md5"
    assert sa.digest is not None
    assert len(sa.digest.digest(b"segment")) == 16
    assert errno(host, only('add 192.0.2.1 192.0.2.2 tcp 0x1001 -A tcp-md5 "other";')) is Errno.EEXIST
    host.setkey('add 192.0.2.1 192.0.2.3 tcp 0x1000 -A tcp-md5 "another";')
    host.setkey("flush tcp;")
    assert len(host.stack.sadb) == 0


@pytest.mark.covers("M27", "S35")
def test_hardware_offload_is_accepted_and_reported() -> None:
    world = World()
    world.open(0)
    (reply,) = world.ask(0, only(f"add 192.0.2.1 192.0.2.2 esp 0x1000 -hwif mce0 {GCM};"))
    assert reply.errno == 0
    (reply,) = world.ask(0, only("spdadd 192.0.2.1 192.0.2.2 any -P out ipsec esp/transport//require -hwif mce0;"))
    assert reply.errno == 0
    (shown,) = world.ask(0, only("get 192.0.2.1 192.0.2.2 esp 0x1000;"))
    offload = shown.find(x.Offload, Ext.X_IF_HW_OFFL)
    assert offload is not None
    assert offload.interface == "mce0"


@pytest.mark.covers("M11")
def test_tagged_policies_are_refused_with_a_clear_message() -> None:
    with pytest.raises(BadScript) as caught:
        parse('spdadd tagged "web" -P out none;')
    (fault,) = caught.value.faults
    assert "tag" in fault.why
    assert fault.hint
