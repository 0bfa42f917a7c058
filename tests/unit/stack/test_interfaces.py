"""Policies of interfaces: announced to every key socket, dumped by scope, owned by the interface. M8, M37."""

import pytest

from koura.errors import Errno, Refused
from koura.notices import InterfacePolicies, KeySocketOpened
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, Type
from koura.pfkey.policy import PolicyExtension
from koura.saindex import Direction, Protocol
from koura.setkey import show_policy
from koura.setkey.show import View
from koura.spd.policy import Scope
from koura.traffic.outcome import ToKeySocket
from tests.unit.stack.kit import Host
from tests.unit.traffic.kit import A, B, policy, selector, tunnel

OUT = policy(selector(Direction.OUTBOUND, "0.0.0.0/0", "0.0.0.0/0"), tunnel(Protocol.ESP, A, B, reqid=100))
IN = policy(selector(Direction.INBOUND, "0.0.0.0/0", "0.0.0.0/0"), tunnel(Protocol.ESP, B, A, reqid=100))


def heard(host: Host, notice: InterfacePolicies) -> list[tuple[int, int, int]]:
    """(socket, message, scope) of what every key socket was told."""
    found = []
    for event in host.stack.notice(notice, host.at):
        assert isinstance(event, ToKeySocket)
        message = Message.read(event.octets, FREEBSD)
        extension = message.find(PolicyExtension, Ext.X_POLICY)
        assert extension is not None
        found.append((event.socket, message.type, extension.scope))
    return found


@pytest.mark.covers("M8", "M37")
def test_what_comes_and_goes_is_told_to_all() -> None:
    host = Host()
    host.stack.notice(KeySocketOpened(9, "freebsd", 0, False), host.at)
    ours = Scope.INTERFACE
    assert heard(host, InterfacePolicies("ipsec0", 7, (OUT, IN))) == [(s, Type.X_SPDADD, ours) for _ in range(2) for s in (1, 2, 9)]
    again = heard(host, InterfacePolicies("ipsec0", 7, (OUT,)))
    assert [kind for _, kind, _ in again] == [Type.X_SPDDELETE] * 6 + [Type.X_SPDADD] * 3
    assert heard(host, InterfacePolicies("ipsec1", 8, (OUT,))) == [(s, Type.X_SPDADD, ours) for s in (1, 2, 9)]
    host.setkey("spdflush;")
    assert [entry.policy.interface for entry in host.stack.spd.entries()] == ["ipsec0", "ipsec1"]
    assert heard(host, InterfacePolicies("ipsec0", 7)) == [(s, Type.X_SPDDELETE, ours) for s in (1, 2, 9)]
    assert len(host.stack.spd) == 1


def test_they_are_dumped_by_scope_with_their_interface() -> None:
    host = Host("spdadd 10.0.0.0/8 10.0.0.0/8 any -P in none;")
    host.stack.notice(InterfacePolicies("ipsec0", 7, (OUT,)), host.at)
    host.ask(Message(Type.X_SPDDUMP, FREEBSD.satypes.ours(Scope.INTERFACE), 3, 4))
    (octets,) = host.stack.pull(1, 1 << 16, host.at)
    text = show_policy.whole(Message.read(octets, FREEBSD), View(0, interface=lambda index: f"ipsec{index - 7}"))
    assert "scope=ifnet ifname=ipsec0\n" in text
    assert text.startswith("0.0.0.0/0[any] 0.0.0.0/0[any] any\n\tout ipsec\n\tesp/tunnel/192.0.2.1-192.0.2.2/require:100\n")


def test_a_bad_one_changes_nothing() -> None:
    host = Host()
    host.stack.notice(InterfacePolicies("ipsec0", 7, (OUT, IN)), host.at)
    before = host.stack.spd.entries()
    for policies, errno in (((OUT, OUT), Errno.EEXIST), ((policy(OUT.selector, action=OUT.action),), Errno.EINVAL)):  # type: ignore[arg-type]
        with pytest.raises(Refused) as refused:
            host.stack.notice(InterfacePolicies("ipsec0", 7, policies), host.at)
        assert refused.value.errno is errno
        assert host.stack.spd.entries() == before
    (number,) = {entry.id for entry in before if entry.direction is Direction.INBOUND}
    refused_id = host.ask(Message(Type.X_SPDDELETE2, extensions=(PolicyExtension(0, 1, number),)))
    assert refused_id is not None
    assert refused_id.errno is Errno.EACCES
