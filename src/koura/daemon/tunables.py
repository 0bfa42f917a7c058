"""[sysctl] and [limits] of koura.toml, and -o of the command line: names and values onto the daemon's own defaults.

A name may be quoted whole or written with its dots, which TOML takes for tables. Values that bound one another (spi_minval, spi_maxval)
may come in any order. [limits] is net.koura.limits without its long names.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from koura.daemon.config import BadConfig
from koura.daemon.schema import Wrong, meant
from koura.daemon.toml import Path
from koura.errors import Errno, Refused
from koura.settings import DAEMON, Settings
from koura.sysctl import tree
from koura.sysctl.node import Kind

SYSCTL, LIMITS = "sysctl", "limits"
_LIMITS = "net.koura.limits."
Said = tuple[Path, str, Any]  # where, which name, and the value


def read(values: Mapping[str, Any], wrongs: list[Wrong]) -> Settings:
    """What both tables make of the defaults; what is wrong goes to `wrongs`."""
    said = [*_sysctl(values.get(SYSCTL, {}), wrongs), *_limits(values.get(LIMITS, {}), wrongs)]
    settings, places = DAEMON, dict[tuple[str, ...], Path]()
    wanted = []
    for path, name, value in said:
        try:
            node = tree.find_option(name)
        except Refused as error:
            why, _, hint = error.why.partition("; ")
            wrongs.append(Wrong(path, why, hint, is_key=True))
            continue
        first = places.setdefault(node.where or (name,), path)
        if first != path:
            wrongs.append(Wrong(path, f"{name} stands twice in the file", f"the other is in [{first[0]}]", is_key=True))
        elif type(value) is int or isinstance(value, str):
            wanted.append((path, name, str(value)))
        else:
            hint = f"write {int(value)}" if isinstance(value, bool) else f"it takes {node.allowed}"
            wrongs.append(Wrong(path, f"{name} is a number, not {value!r}".replace("True", "true").replace("False", "false"), hint))
    return _assign(settings, wanted, wrongs)


def _assign(settings: Settings, wanted: list[tuple[Path, str, str]], wrongs: list[Wrong]) -> Settings:
    """As many as can be; one that others stand in the way of is tried again behind them."""
    while wanted:
        left: list[tuple[Path, str, str]] = []
        refusals = []
        for path, name, text in wanted:
            try:
                settings = tree.assign(settings, f"{name}={text}", is_boot=True).settings
            except Refused as error:
                left.append((path, name, text))
                refusals.append(_refusal(path, name, error))
        if len(left) == len(wanted):
            wrongs += refusals
            break
        wanted = left
    return settings


def _refusal(path: Path, name: str, error: Refused) -> Wrong:
    is_key = error.errno is Errno.EPERM
    node = tree.find_option(name)
    return Wrong(path, error.why, f"koura sysctl -d {node.name} says what it is" if node.kind is Kind.TUNABLE else "", is_key=is_key)


def _sysctl(values: object, wrongs: list[Wrong]) -> Iterator[Said]:
    if isinstance(values, dict):
        yield from _flat((SYSCTL,), "", values)
    else:
        wrongs.append(Wrong((SYSCTL,), "sysctl is a table of assignments", 'write [sysctl], and "net.inet.ipsec.dfbit" = 2 below it'))


def _flat(path: Path, prefix: str, values: Mapping[str, Any]) -> Iterator[Said]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat((*path, key), f"{prefix}{key}.", value)
        else:
            yield (*path, key), f"{prefix}{key}", value


def _limits(values: object, wrongs: list[Wrong]) -> Iterator[Said]:
    if not isinstance(values, dict):
        wrongs.append(Wrong((LIMITS,), "limits is a table", "write [limits], and associations = 100000 below it"))
        return
    known = [name.removeprefix(_LIMITS) for name in tree.BY_NAME if name.startswith(_LIMITS)]
    for key, value in values.items():
        if key in known:
            yield (LIMITS, key), _LIMITS + key, value
        else:
            wrongs.append(Wrong((LIMITS, key), f"[limits] has no {key}", meant(key, known) or f"it has: {', '.join(known)}", is_key=True))


def command_line(settings: Settings, assignments: Iterable[str]) -> Settings:
    """`-o NAME=VALUE`, on top. Raises BadConfig with every one that is refused."""
    refused = []
    for text in assignments:
        try:
            settings = tree.assign(settings, text, is_boot=True).settings
        except Refused as error:
            refused.append(f"-o {text}: {error.why}")
    if refused:
        raise BadConfig("\n".join(refused))
    return settings
