"""Targets for text and for the admin protocol: setkey scripts, policy strings, sysctl assignments, control messages."""

from koura import control
from koura.errors import Malformed, Refused
from koura.pfkey.dialect import FREEBSD
from koura.setkey import parse as setkey
from koura.setkey.faults import BadScript
from koura.setkey.run import messages
from koura.settings import Settings
from koura.spd import language
from koura.sysctl import tree
from koura.sysctl.nodes import NODES
from tests.fuzz.target import stateless
from tests.unit.pfkey.recordings import VECTORS


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "replace")


def _setkey(octets: bytes) -> None:
    script = setkey.check(_text(octets))
    for fault in (*script.faults, *script.warnings):
        assert fault.line >= 1
        assert fault.column >= 1
        assert str(fault.why)
    if script.faults:
        return
    try:
        for _, said in messages(script):
            for message in said:
                message.write(FREEBSD)
    except BadScript as bad:
        assert bad.faults


def scripts() -> list[bytes]:
    whole = (VECTORS / "setkey-all.conf").read_bytes()
    return [whole[:4000], *(line + b"\n" for line in whole.splitlines() if line.strip())]


def _policy(octets: bytes) -> None:
    text = _text(octets)
    try:
        policy = language.parse(text)
    except language.PolicySyntax as error:
        assert 0 <= error.start <= error.end
        return
    shown = language.show(policy, with_priority=policy.priority != 0, with_ports=True)
    assert language.parse(shown) == policy, shown


def policies() -> list[bytes]:
    texts = (
        "out ipsec esp/tunnel/192.0.2.1-192.0.2.2/unique:7 ah/transport//require", "in discard", "out entrust", "in bypass",
        "out prio high + 10 none", "in ipsec ipcomp/transport//use esp/transport/2001:db8::1-2001:db8::2/default",
        "out ipsec esp/tunnel/192.0.2.1[4500]-192.0.2.2[4501]/require",
    )  # fmt: skip
    return [text.encode() for text in texts]


def _sysctl(octets: bytes) -> None:
    text = _text(octets)
    try:
        change = tree.assign(Settings(), text)
        assert tree.read(change.settings, change.names[0]) == change.new
    except Refused as refused:
        assert refused.why
    try:
        tree.show(Settings(), text.partition("=")[0])
    except Refused as refused:
        assert refused.why


def assignments() -> list[bytes]:
    found = [b"IPSEC_FILTERGIF=1", b"net.inet.ipsec = 3"]
    return found + [f"{node.name}={value}".encode() for node in NODES[::4] for value in (0, 1, "0x10")]


def _control(octets: bytes) -> None:
    try:
        verb, arguments = control.request(octets)
    except (Malformed, Refused):
        return
    assert control.request(control.write({"do": verb.name, **arguments})) == (verb, arguments)


def requests() -> list[bytes]:
    samples = {str: "net.inet.ipsec.dfbit", int: 7, bool: True, list: ["192.0.2.1", 500]}
    return [
        control.write({"do": verb.name, **{key: samples[kind] for key, kind in {**verb.required, **verb.optional}.items()}})  # type: ignore[misc]
        for verb in control.VERBS.values()
    ]


TARGETS = [
    stateless("setkey", _setkey, scripts), stateless("policy-string", _policy, policies), stateless("sysctl", _sysctl, assignments),
    stateless("control", _control, requests),
]  # fmt: skip
