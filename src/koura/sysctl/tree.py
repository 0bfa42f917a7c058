"""The tree of tunables as sysctl(8) knows it: names and numbers to values, text in and out. R16, R18, M29.

A value is read out of a Settings; setting one makes a new Settings, and the old one is as it was. Counters are not in Settings:
whoever has them is asked (`Counters`). Who may set anything is the control socket's business; when a change takes effect, the stack's.
"""

import dataclasses
import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from koura.errors import Errno, Refused
from koura.settings import Settings
from koura.sysctl.node import Kind, Node, Rule
from koura.sysctl.nodes import NODES, OPTIONS

BY_NAME: dict[str, Node] = {name: node for node in NODES for name in (node.name, *node.aliases)}
BY_MIB: dict[tuple[int, ...], Node] = {node.mib: node for node in NODES if node.mib}


class Counters(Protocol):
    """Whoever keeps the counters; `protocol` is ipsec, ipsec6, esp, ah or ipcomp."""

    def read(self, protocol: str) -> dict[str, int]:
        """Every counter, by the name of netstat's field, in its order."""
        ...

    def clear(self, protocol: str) -> None:
        """Begin anew at zero."""
        ...

    def state(self, name: str) -> str:
        """A word about how the stack runs: `fast`."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """What setting a name did. remark: a sentence where the value was not taken as it came (R25), else ''."""

    settings: Settings
    names: tuple[str, ...]
    old: str
    new: str
    remark: str = ""

    def show(self) -> str:
        """sysctl(8)'s answer to `name=value`."""
        return "\n".join(f"{name}: {self.old} -> {self.new}" for name in self.names)


def find(name: str) -> Node:
    """The node of a name, an alias, or a dotted integer name. Raises Refused(ENOENT) with what was probably meant."""
    node = BY_NAME.get(name)
    if node is None and name and all(part.isascii() and part.isdigit() for part in name.split(".")):
        node = BY_MIB.get(tuple(int(part) for part in name.split(".")))
    if node is not None:
        return node
    if any(known.startswith(f"{name}.") for known in BY_NAME):
        raise Refused(Errno.EINVAL, f"{name} is a branch; it has values below it and none of its own")
    raise Refused(Errno.ENOENT, f"unknown oid '{name}'{_meant(name)}")


def find_option(name: str) -> Node:
    """The node behind a name, a kernel option's name included. Raises Refused(ENOENT)."""
    return _node(name)


def _meant(name: str) -> str:
    leaf = name.rpartition(".")[2]
    close = [known for known in BY_NAME if leaf and known.endswith(f".{leaf}")]
    close += difflib.get_close_matches(name, [*BY_NAME, *OPTIONS], 3, 0.7)
    close = list(dict.fromkeys(close))[:3]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def subtree(prefix: str = "") -> tuple[Node, ...]:
    """Every node below a name, or the node of that name, by name; '' is everything. Raises Refused(ENOENT)."""
    found = tuple(node for node in NODES if not prefix or node.name == prefix or node.name.startswith(f"{prefix}."))
    return found or (find(prefix),)


def read(settings: Settings, name: str, counters: Counters | None = None) -> str:
    """The value of a name, as text: a decimal integer, or for counters `field=value` in netstat's order. Raises Refused(ENOENT)."""
    return value(settings, _node(name), counters)


def value(settings: Settings, node: Node, counters: Counters | None = None) -> str:
    """The value of a node, as text."""
    if node.kind is Kind.FIXED:
        return str(node.value)
    if node.kind is Kind.STATE:
        return counters.state(node.where[0]) if counters is not None else ""
    if node.kind is Kind.COUNTERS:
        return " ".join(f"{field}={count}" for field, count in counters.read(node.where[0]).items()) if counters is not None else ""
    return str(_get(settings, node))


def show(settings: Settings, prefix: str = "", counters: Counters | None = None) -> str:
    """`name: value`, one line for each node below `prefix`: what `sysctl prefix` and `sysctl -a` print. Raises Refused(ENOENT)."""
    if prefix in BY_NAME:
        return f"{prefix}: {value(settings, BY_NAME[prefix], counters)}"
    if prefix in OPTIONS:
        return f"{prefix}: {read(settings, prefix, counters)}"
    return "\n".join(f"{node.name}: {value(settings, node, counters)}" for node in subtree(prefix))


def assign(settings: Settings, text: str, counters: Counters | None = None, is_boot: bool = False) -> Change:
    """Do what `name=value` says (blanks around both allowed, as in sysctl.conf). Raises Refused as `set_value`."""
    name, equals, wanted = text.partition("=")
    if not equals:
        raise Refused(Errno.EINVAL, f"'{text.strip()}' is no assignment; write name=value")
    return set_value(settings, name.strip(), wanted.strip(), counters, is_boot)


def set_value(settings: Settings, name: str, text: str, counters: Counters | None = None, is_boot: bool = False) -> Change:
    """Set one name from text: decimal, 0x hexadecimal or 0 octal, as sysctl(8) takes them.

    Raises Refused: ENOENT unknown name, EINVAL a value it does not take, EPERM a node that is not set, or not any more.
    """
    node = _node(name)
    number = _integer(node, text)
    if node.kind in (Kind.FIXED, Kind.STATE):
        raise Refused(Errno.EPERM, f"{node.name} cannot be set")
    if node.is_boot_time and not is_boot:
        raise Refused(Errno.EPERM, f"{node.name} is set at start only: put it into the configuration")
    old = value(settings, node, counters)
    if not node.least <= number <= node.most:
        raise Refused(Errno.EINVAL, f"{node.name} does not take {number}; it takes {node.allowed}")
    if node.kind is Kind.COUNTERS:
        if counters is not None:
            counters.clear(node.where[0])
        return Change(settings, (node.name,), old, value(settings, node, counters))
    remark = ""
    if node.rule is Rule.DEFLEV and number not in (1, 2, 3):
        remark = f"{node.name}: {number} is no level; 2 (require) stands in its place"
        number = 2
    names = OPTIONS.get(name, (node.name,))
    for each in names:
        settings = _put(settings, BY_NAME[each].where, number * node.scale)
    _check_rule(settings, node)
    return Change(settings, names, old, str(number), remark)


def set_values(settings: Settings, wanted: Iterable[tuple[str, str]]) -> tuple[Change, ...]:
    """Several names at once, in an order in which they can be set where they bound one another. Raises Refused as `set_value`."""
    left, done = list(wanted), list[Change]()
    while left:
        later: list[tuple[str, str]] = []
        refused: Refused | None = None
        for name, text in left:
            try:
                done.append(set_value(done[-1].settings if done else settings, name, text))
            except Refused as error:
                later.append((name, text))
                refused = refused or error
        if refused is not None and len(later) == len(left):
            raise refused
        left = later
    return tuple(done)


def _node(name: str) -> Node:
    return find(OPTIONS[name][0] if name in OPTIONS else name)


def _check_rule(settings: Settings, node: Node) -> None:
    if node.rule is Rule.SPI_RANGE and settings.key.spi_minval > settings.key.spi_maxval:
        low, high = settings.key.spi_minval, settings.key.spi_maxval
        raise Refused(Errno.EINVAL, f"{node.name}: spi_minval {low} would pass spi_maxval {high}; set the other one first")


def _integer(node: Node, text: str) -> int:
    """strtoimax(3) with base 0: a sign, then decimal, 0x or 0 for octal."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[:1] == "0" and len(digits) > 1 else 10
    body = digits[2:] if base == 16 else digits
    allowed = "0123456789abcdef"[:base]
    if not body or len(body) > 20 or any(digit not in allowed for digit in body.lower()):
        raise Refused(Errno.EINVAL, f"invalid integer '{text}' for {node.name}; it takes {node.allowed}")
    number = int(body, base)
    return -number if text[:1] == "-" else number


def _get(settings: Settings, node: Node) -> int:
    found: Any = settings
    for field in node.where:
        found = getattr(found, field)
    return int(found) // node.scale


def _put(settings: Settings, where: tuple[str, ...], number: int) -> Settings:
    """A copy of the settings with one number changed."""
    if len(where) == 1:
        return dataclasses.replace(settings, **{where[0]: number})  # type: ignore[arg-type]
    half = dataclasses.replace(getattr(settings, where[0]), **{where[1]: number})
    return dataclasses.replace(settings, **{where[0]: half})
