"""What the engine does for control connections."""

import json
import syslog
from typing import Any

import pytest

from koura.daemon import keeper
from koura.daemon.records import Kind
from koura.daemon.verbs import Verbs
from koura.pfkey import policy as policies
from koura.pfkey.dialect import FREEBSD, LINUX
from koura.pfkey.message import Message
from koura.pfkey.numbers import Type
from koura.reasons import IP_MALFORMED
from koura.saindex import Direction
from koura.spd import language
from koura.spd.policy import Action
from tests.unit.daemon.kit import Engine


class Asking:
    """An engine and its verbs."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.verbs = Verbs(self.engine.stack, self.engine.book)

    def __call__(self, verb: str, **arguments: Any) -> dict[str, Any]:
        (reply,) = self.verbs.do({"do": verb, **arguments}, self.engine.at)[0]
        self.engine.keep()
        found = json.loads(reply)
        assert isinstance(found, dict)
        return found

    def debug(self, octets: bytes) -> list[str]:
        """The lines for the log that a request makes."""
        records = self.verbs.debug_request(octets, self.engine.stack.control(1, octets, self.engine.at))
        assert all(record.kind == Kind.LOG for record in records)
        return [record.body.decode() for record in records]


@pytest.fixture
def ask() -> Asking:
    return Asking()


def policy(text: str) -> str:
    return policies.write(policies.describe(language.parse(text)), LINUX).hex()


def test_sysctl_reads_and_sets(ask: Asking) -> None:
    assert ask("sysctl", name="net.inet.ipsec.dfbit")["value"] == "0"
    assert ask("sysctl", name="net.inet.ipsec.dfbit", value="2") | {"ok": True} == {
        "ok": True, "names": ["net.inet.ipsec.dfbit"], "old": "0", "value": "2", "remark": "",
    }  # fmt: skip
    assert ask("sysctl", name="net.inet.ipsec.dfbit")["value"] == "2"
    assert ask("sysctl", name="net.nothing")["errno"] == "ENOENT"
    rows = ask("sysctl-list", prefix="net.enc")["nodes"]
    assert [row[0] for row in rows] == [f"net.enc.{side}.ipsec_{what}_mask" for side in ("in", "out") for what in ("bpf", "filter")]
    assert len(ask("sysctl-list")["nodes"]) > 80


@pytest.mark.covers("M38")
def test_stat_shows_netstats_sections(ask: Asking) -> None:
    ask.engine.simple(Type.DUMP)
    text = ask("stat", protocol="pfkey")["text"]
    head = ("pfkey:", "\t1 request sent from userland", "\t16 bytes sent from userland", "\thistogram by message type:", "\t\tdump: 1")
    assert tuple(text.split("\n")[:5]) == head
    assert "ah:" in ask("stat")["text"] and "esp:" in ask("stat")["text"]
    assert "\tfast path: " in str(ask("stat")["text"]) and "\treference: openssl OpenSSL " in str(ask("stat")["text"])
    assert set(ask("stat", json=True)["crypto"]) == {"fast path", "reference"}
    counters = ask("stat", json=True)["counters"]
    assert counters["pfkey"]["out_total"] == 1 and counters["reasons"] == {}
    assert set(counters) == {"ipsec", "ipsec6", "ah", "esp", "ipcomp", "natt", "pfkey", "attachments", "reasons"}
    assert ask("stat", protocol="esp", nonzero=True)["text"] == "esp:"
    assert ask("stat", protocol="udp")["errno"] == "EINVAL"


def test_stat_shows_every_end_by_its_reason(ask: Asking) -> None:
    assert "reasons:" not in ask("stat")["text"]
    ask.engine.stack.inbound([b"\x45"], ask.engine.at)
    assert ask("stat")["text"].endswith(f"reasons:\n\t1 ip.malformed: {IP_MALFORMED.sentence}")
    assert ask("stat", json=True)["counters"]["reasons"] == {"ip.malformed": 1}


def test_stat_shows_what_attachments_moved_and_lost(ask: Asking) -> None:
    assert "attachments:" not in ask("stat")["text"]
    ask.verbs.attachments = lambda: {"koura0": {"received": 0, "sent": 5, "ENOBUFS": 2}, "raw4/50": {"received": 0, "sent": 0}}
    assert ask("stat")["text"].endswith("attachments:\n\tkoura0: 5 sent, 2 ENOBUFS")
    assert ask("stat", json=True)["counters"]["attachments"]["koura0"] == {"received": 0, "sent": 5, "ENOBUFS": 2}
    assert "attachments" not in ask("stat", protocol="esp")["text"]


def test_stat_shows_the_driver_of_each_attachment(ask: Asking) -> None:
    assert "drivers:" not in ask("stat")["text"]
    ask.verbs.drivers = lambda: {"koura0": "native, super packets, 4 queues", "raw4/51": "packet by packet"}
    assert ask("stat")["text"].endswith("drivers:\n\tkoura0: native, super packets, 4 queues\n\traw4/51: packet by packet")
    assert ask("stat", json=True)["drivers"]["raw4/51"] == "packet by packet"
    assert "drivers" not in ask("stat", protocol="esp")["text"]


@pytest.mark.covers("M33")
def test_a_sockets_policy_is_set_shown_and_ends(ask: Asking) -> None:
    asked = policy("out ipsec esp/transport//require")
    assert ask("socket-policy", socket=9, level=0, policy=asked)["ok"]
    shown = policies.read(bytes.fromhex(ask("socket-policy-get", socket=9, level=0, direction=2)["policy"]), LINUX)
    assert language.show(policies.agree(shown, LINUX)) == "out ipsec esp/transport//require"
    inbound = policies.read(bytes.fromhex(ask("socket-policy-get", socket=9, level=0, direction=1)["policy"]), LINUX)
    assert inbound.type == Action.ENTRUST
    assert ask("socket-gone", socket=9)["ok"]
    assert ask.engine.stack.spd.socket_policy(9, Direction.OUTBOUND) is None
    assert len([key for key in ask.engine.kept if key.startswith(b"policy/")]) == 0


@pytest.mark.covers("M31")
@pytest.mark.parametrize(
    ("arguments", "errno"),
    [
        ({"level": 6}, "EINVAL"), ({"policy": "zz"}, "EINVAL"), ({"policy": "00"}, "EINVAL"), ({"dialect": "plan9"}, "EINVAL"),
        ({"policy": policy("out bypass"), "is_privileged": False}, "EACCES"),
    ],
)  # fmt: skip
def test_a_bad_socket_policy_changes_nothing(ask: Asking, arguments: dict[str, Any], errno: str) -> None:
    good = {"socket": 9, "level": 0, "policy": policy("in bypass")}
    assert ask("socket-policy", **(good | arguments))["errno"] == errno
    assert len(ask.engine.stack.spd) == 0


@pytest.mark.covers("M32")
def test_where_a_socket_is_and_what_it_inherits(ask: Asking) -> None:
    ask("socket-policy", socket=9, level=0, policy=policy("in ipsec esp/transport//require"))
    assert ask("socket-where", socket=10, protocol=6, local=["10.0.0.1", 80], remote=["10.0.0.2", 5000], listener=9)["ok"]
    assert ask.engine.stack.spd.socket_policy(10, Direction.INBOUND) is not None
    assert ask("socket-where", socket=11, protocol=17, local=["", 500])["ok"]
    for place in (["10.0.0.300", 1], ["10.0.0.1"], [1, 2], ["10.0.0.1", 70000]):
        assert ask("socket-where", socket=12, protocol=17, local=place)["errno"] == "EINVAL"


def test_ports_of_esp_in_udp_come_and_go_with_their_sockets(ask: Asking) -> None:
    assert ask("encapsulation", socket=9, kind=2, port=4501)["ok"]
    assert ask("encapsulation", socket=10, kind=2, port=4501)["ok"]
    ask("socket-gone", socket=9)
    assert ask.engine.book.has_port(4501)
    ask("encapsulation", socket=10, kind=0, port=4501)
    assert not ask.engine.book.has_port(4501)
    assert ask("encapsulation", socket=9, kind=7)["errno"] == "EOPNOTSUPP"


def test_a_file_is_loaded_and_its_diff_is_told(ask: Asking) -> None:
    reply = ask("load", text="spdadd 10.0.0.0/8 10.0.0.0/8 any -P out none;", file="x")
    assert (reply["added"], reply["diff"]) == (1, ["+ policy 10.0.0.0/8[any] 10.0.0.0/8[any] any out none"])
    bad = ask("load", text="nonsense;", file="x")
    assert bad["errno"] == "EINVAL" and bad["why"].startswith("x:1:1:")


@pytest.mark.covers("R38")
@pytest.mark.parametrize("name", ["net.inet.ipsec.debug", "net.inet6.ipsec6.debug"])
def test_debug_says_why_requests_were_refused(ask: Asking, name: str) -> None:
    refused, done = (Message(kind, 0, 1, 2).write(FREEBSD) for kind in (Type.DUMP, Type.FLUSH))
    assert ask.debug(refused) == []
    ask("sysctl", name=name, value="1")
    assert ask.debug(refused) == ["key: dump: refused: ENOENT, no SAs"]
    assert ask.debug(done) == []


def test_key_debug_says_what_became_of_every_request(ask: Asking) -> None:
    ask("sysctl", name="net.key.debug", value="16")
    assert ask.debug(Message(Type.FLUSH, 0, 1, 2).write(FREEBSD)) == ["key: flush: done"]
    assert ask.debug(b"\2") == ["key: a short message: refused: EINVAL, shorter than a base header"]


@pytest.mark.covers("R38")
def test_diagnostics_go_to_syslog(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, line: heard.append((priority, line)))
    keeper.log(syslog.LOG_DEBUG, "key: dump: done")
    keeper.log(syslog.LOG_ERR, "something is wrong")
    assert heard == [(syslog.LOG_DEBUG, "key: dump: done"), (syslog.LOG_ERR, "something is wrong")]
    assert "koura: something is wrong\n" in capsys.readouterr().err
