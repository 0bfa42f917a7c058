"""What the engine does for control connections: tunables, counters, socket policies, the configuration file."""

import json
import syslog
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from koura import address, control
from koura.control import Value
from koura.daemon import netstat
from koura.daemon.filters import Filters
from koura.daemon.journal import Journal
from koura.daemon.records import Kind, Record
from koura.daemon.site import Site
from koura.errors import Errno, Malformed, Refused
from koura.moment import Moment
from koura.notices import EncapsulationPort, SocketAccepted, SocketBound, SocketGone, SocketPolicy
from koura.pfkey import dialect as dialects
from koura.pfkey import policy as policies
from koura.pfkey.dialect import Dialect
from koura.saindex import Direction
from koura.slices import Slices, whole
from koura.spd.policy import Action, Policy
from koura.stack import Answer, Stack
from koura.sysctl import tree
from koura.sysctl.node import Kind as NodeKind
from koura.traffic.outcome import Event

Arguments = Mapping[str, Any]  # checked against control.VERBS
Replies = Iterable[Mapping[str, Value]]
LEVELS = {0: "IPPROTO_IP", 41: "IPPROTO_IPV6"}
ENCAPSULATION_ESP = 2  # UDP_ENCAP_ESPINUDP
DEBUG_KEY = 16  # net.key.debug: the area of PF_KEY itself
DEFAULT_DIALECT = "linux"
LOAD = "load"


class Verbs:
    """The verbs of one engine, on its stack."""

    def __init__(self, stack: Stack, book: Journal) -> None:
        self._stack = stack
        self._book = book
        self._site = Site(stack, book)
        self.filters = Filters(stack, book)
        self.attachments: Callable[[], netstat.Attachments] = dict
        self.drivers: Callable[[], Mapping[str, str]] = dict
        self._events: list[Event] = []
        self._at = Moment(0)
        self._verbs: dict[str, Callable[[Arguments], Replies]] = {
            "sysctl": self._sysctl, "sysctl-list": self._sysctl_list, "stat": self._stat,
            "socket-policy": self._set_policy, "socket-policy-get": self._get_policy, "socket-where": self._where,
            "socket-gone": self._gone, "encapsulation": self._encapsulation,
            "filter-add": self._filter_add, "filter-list": self._filter_list, "filter-del": self._filter_del,
            "filter-flush": lambda _asked: [control.accepted(count=self.filters.flush())],
        }  # fmt: skip

    def resume(self, kept: Mapping[bytes, bytes]) -> None:
        """What an engine before wrote down."""
        self._site.resume(kept)
        self.filters.resume(kept)

    def load(self, asked: dict[str, Any], now: Callable[[], Moment]) -> Slices[tuple[list[bytes], list[Event]]]:
        """The configuration file: like `do`, in slices."""
        scripts = asked.get("scripts") or [[asked.get("file", ""), asked.get("text", "")]]
        try:
            tunables = [(name, value) for name, value in asked.get("tunables", ())]
            named = [(name, text) for name, text in scripts]
            diff = yield from self._site.loading(named, now, tunables, is_trial=asked.get("check", False))
        except Refused as error:
            return [control.write(control.refused(error))], []
        except Malformed as error:
            return [control.write(control.refused(Refused(Errno.EINVAL, str(error))))], []
        lines: list[Value] = list(diff.lines)
        replies = control.split("diff", lines, added=diff.added, removed=diff.removed, unchanged=diff.unchanged)
        return [control.write(reply) for reply in replies], diff.events

    def do(self, asked: dict[str, Any], at: Moment) -> tuple[list[bytes], list[Event]]:
        """The replies to one call, written, and what happened besides."""
        if asked["do"] == LOAD:
            return whole(self.load(asked, lambda: at))
        self._at = at
        self._events = []
        verb = asked.pop("do")
        try:
            replies = [control.write(reply) for reply in self._verbs[verb](asked)]
        except Refused as error:
            replies = [control.write(control.refused(error))]
        except Malformed as error:
            replies = [control.write(control.refused(Refused(Errno.EINVAL, str(error))))]
        return replies, self._events

    # -- tunables and counters -----------------------------------------------------------------------------------------

    def _sysctl(self, asked: Arguments) -> Replies:
        name = asked["name"]
        if "value" not in asked:
            return [control.accepted(name=name, value=self._stack.read(name), help=tree.find_option(name).sentence)]
        change = self._stack.tune(name, asked["value"])
        return [control.accepted(names=list(change.names), old=change.old, value=change.new, remark=change.remark)]

    def _sysctl_list(self, asked: Arguments) -> Replies:
        stack = self._stack
        rows: list[Value] = [
            [node.name, tree.value(stack.settings, node, stack.report), node.sentence, node.allowed, node.kind is NodeKind.COUNTERS]
            for node in tree.subtree(asked.get("prefix", ""))
        ]
        return control.split("nodes", rows)

    def _stat(self, asked: Arguments) -> Replies:
        protocol = asked.get("protocol", "")
        if protocol and protocol not in netstat.PROTOCOLS:
            raise Refused(Errno.EINVAL, f"no protocol {protocol}; there are: {', '.join(netstat.PROTOCOLS)}")
        chosen = (protocol,) if protocol else netstat.PROTOCOLS
        if asked.get("json"):
            counters: dict[str, Value] = {name: dict(netstat.read(self._stack, name)) for name in chosen}
            if not protocol:
                counters["reasons"] = dict(netstat.reasons(self._stack))
                counters["attachments"] = {name: dict(moved) for name, moved in self.attachments().items()}
            said: dict[str, Value] = {} if protocol else dict(netstat.crypto(self._stack))
            drivers: dict[str, Value] = {} if protocol else dict(self.drivers())
            return [control.accepted(counters=counters, crypto=said, drivers=drivers)]
        shown = [netstat.show(self._stack, name, hides_zeros=asked.get("nonzero", False)) for name in chosen]
        if not protocol:
            shown.append(netstat.show_crypto(self._stack))
        ends = netstat.reasons(self._stack) if not protocol else {}
        if ends:
            shown.append(netstat.show_reasons(ends))
        if not protocol and self.drivers():
            shown.append(netstat.show_drivers(self.drivers()))
        attached = self.attachments() if not protocol else {}
        if attached:
            shown.append(netstat.show_attachments(attached))
        return [control.accepted(text="\n".join(shown))]

    def debug_request(self, request: bytes, answer: Answer) -> Iterable[Record]:
        """Lines for the log about a request: every one with net.key.debug, what was refused with either ipsec.debug (R38)."""
        settings = self._stack.settings
        is_refused_wanted = answer.refused is not None and (settings.v4.debug or settings.v6.debug)
        if not is_refused_wanted and not settings.key.debug & DEBUG_KEY:
            return []
        what = netstat.MESSAGES.get(request[1], f"message {request[1]}") if len(request) > 1 else "a short message"
        end = f"refused: {answer.refused.errno.name}, {answer.refused.why}" if answer.refused is not None else "done"
        return [Record(Kind.LOG, syslog.LOG_DEBUG, f"key: {what}: {end}".encode())]

    # -- the packet filter ---------------------------------------------------------------------------------------------

    def _filter_add(self, asked: Arguments) -> Replies:
        number = self.filters.add(
            asked.get("number", 0), asked["pass"], asked.get("way", "both"), asked.get("stage", "any"), asked.get("expression", "")
        )
        return [control.accepted(number=number)]

    def _filter_list(self, _asked: Arguments) -> Replies:
        return control.split("rules", list(self.filters.rows()))

    def _filter_del(self, asked: Arguments) -> Replies:
        self.filters.delete(asked["number"])
        return [control.accepted()]

    # -- sockets of programs -------------------------------------------------------------------------------------------

    def _set_policy(self, asked: Arguments) -> Replies:
        _check_level(asked["level"])
        dialect = _dialect(asked)
        policy = policies.agree(policies.read(_octets(asked["policy"]), dialect), dialect)
        self._events += self._stack.notice(SocketPolicy(asked["socket"], policy, asked.get("is_privileged", True)), self._at)
        return [control.accepted()]

    def _get_policy(self, asked: Arguments) -> Replies:
        _check_level(asked["level"])
        dialect = _dialect(asked)
        if asked["direction"] not in (Direction.INBOUND, Direction.OUTBOUND):
            raise Refused(Errno.EINVAL, f"a socket's policy is in (1) or out (2), not {asked['direction']}")
        direction = Direction(asked["direction"])
        entry = self._stack.spd.socket_policy(asked["socket"], direction)
        policy = entry.policy if entry is not None else Policy(direction, Action.ENTRUST)
        return [control.accepted(policy=policies.write(policies.describe(policy), dialect).hex())]

    def _where(self, asked: Arguments) -> Replies:
        socket = asked["socket"]
        local, remote = _place(asked.get("local")), _place(asked.get("remote"))
        if "listener" in asked:
            self._events += self._stack.notice(SocketAccepted(asked["listener"], socket), self._at)
        if "local" in asked or "remote" in asked:
            bound = SocketBound(socket, asked["protocol"], *local, *remote)
            self._events += self._stack.notice(bound, self._at)
            self._book.note(bound)
        return [control.accepted()]

    def _gone(self, asked: Arguments) -> Replies:
        gone = SocketGone(asked["socket"])
        self._events += self._stack.notice(gone, self._at)
        self._book.note(gone)
        for port in self._book.ports_of(asked["socket"]):
            self._encapsulate(asked["socket"], port, is_on=False)
        return [control.accepted()]

    def _encapsulation(self, asked: Arguments) -> Replies:
        kind, port = asked["kind"], asked.get("port", 0)
        if kind not in (0, ENCAPSULATION_ESP):
            raise Refused(Errno.EOPNOTSUPP, f"the one encapsulation is ESP in UDP (2), not {kind}")
        if not 0 <= port <= 0xFFFF:
            raise Refused(Errno.EINVAL, f"no port: {port}")
        if port:
            self._encapsulate(asked["socket"], port, is_on=kind == ENCAPSULATION_ESP)
        return [control.accepted()]

    def _encapsulate(self, socket: int, port: int, *, is_on: bool) -> None:
        self._book.note_port(socket, port, is_on)
        self._events += self._stack.notice(EncapsulationPort(port, self._book.has_port(port)), self._at)


def _check_level(level: int) -> None:
    if level not in LEVELS:
        raise Refused(Errno.EINVAL, f"a policy's level is 0 (IPPROTO_IP) or 41 (IPPROTO_IPV6), not {level}")


def _dialect(asked: Arguments) -> Dialect:
    name = asked.get("dialect", DEFAULT_DIALECT)
    if name not in dialects.DIALECTS:
        raise Refused(Errno.EINVAL, f"no dialect {name}; there are: {', '.join(dialects.DIALECTS)}")
    return dialects.DIALECTS[name]


def _octets(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Refused(Errno.EINVAL, "a policy is written in hex") from error


def _place(given: Any) -> tuple[bytes, int]:
    """[address, port] of a call; an empty address is every address. Raises Refused."""
    if given is None:
        return b"", 0
    if len(given) == 2 and isinstance(given[0], str) and isinstance(given[1], int) and 0 <= given[1] <= 0xFFFF:
        try:
            return (address.parse(given[0]) if given[0] else b""), given[1]
        except ValueError as error:
            raise Refused(Errno.EINVAL, f"{given[0]} is no address") from error
    raise Refused(Errno.EINVAL, f"a place is [address, port], not {json.dumps(given)}")
