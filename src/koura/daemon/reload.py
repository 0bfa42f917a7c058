"""koura.toml read again by a daemon that runs: what of it is made so now, and what waits for the next start.

    scripts, tunnels, tunables       now, at one moment; options of the command line win, as at the start
    everything else                  needs a restart, and is named in the log and in the answer, as long as it differs from what runs
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from koura import control
from koura.control import Value
from koura.daemon import configfile, tables
from koura.daemon.config import Config, DaemonConfig, PfkeyConfig, StatusConfig
from koura.daemon.schema import Table
from koura.sysctl import tree
from koura.sysctl.node import Kind
from koura.sysctl.nodes import NODES

_LIVE = ("daemon.file", "tunnel")  # what a reload applies


@dataclass(frozen=True, slots=True)
class Fresh:
    """The file as it is now. config: what runs when the load is done; restart: keys that wait, as a person writes them."""

    config: Config
    tunables: tuple[tuple[str, str], ...] = ()
    restart: tuple[str, ...] = ()


def read(running: Config) -> Fresh:
    """Raises BadConfig."""
    before = running.written
    if before is None or running.source is None:
        return Fresh(running)
    has_scripts = running.files != before.files
    now = configfile.read_file(running.directory, running.source, running.options, has_scripts=has_scripts)
    tunables, fixed = _tunables(before, now)
    changes = tree.set_values(before.settings, tunables)
    written = replace(before, files=now.files, tunnels=now.tunnels, settings=changes[-1].settings if changes else before.settings)
    config = replace(running, files=running.files if has_scripts else now.files, tunnels=now.tunnels, written=written)
    return Fresh(config, tunables, (*_keys(before, now), *fixed))


def _tunables(before: Config, now: Config) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Those that the file gives another value, and the names of those that are set at a start only."""
    changed = [node for node in NODES if node.kind is Kind.TUNABLE and tree.value(before.settings, node) != tree.value(now.settings, node)]
    live = tuple((node.name, tree.value(now.settings, node)) for node in changed if not node.is_boot_time)
    return live, tuple(node.name for node in changed if node.is_boot_time)


def _keys(before: Config, now: Config) -> Iterator[str]:
    """Keys that say something else: `host.mtu`; of a table that came or went its name: `[host]`."""
    for table in tables.TABLES:
        one, other = _made(before, table), _made(now, table)
        if one == other or table.name in _LIVE:
            continue
        if table.is_many or one is None or other is None:
            yield f"[[{table.name}]]" if table.is_many else f"[{table.name}]"
            continue
        for key in table.keys:
            name, field = f"{table.name}.{key.name}", key.field or key.name
            if name not in _LIVE and getattr(one, field) != getattr(other, field):
                yield name


def _made(config: Config, table: Table) -> Any:
    """What a table came to."""
    made = {
        "daemon": DaemonConfig(config.files, config.state),
        "pfkey": PfkeyConfig(config.pfkey_path, config.pfkey_mode, config.pfkey_group),
        "status": StatusConfig(config.status_group),
        "tunnel": config.tunnels,
        "bump": config.bumps,
    }
    return made[table.name] if table.name in made else getattr(config, table.name)


def sentence(restart: tuple[str, ...]) -> str:
    """For the log and for a person."""
    return f"koura.toml has changed where only a restart applies it: {', '.join(restart)}"


def parted(reply: Mapping[str, Value]) -> list[Mapping[str, Value]]:
    """A reply as several, if its diff is long; the opposite of `whole`."""
    diff = reply.get("diff")
    if not isinstance(diff, list):
        return [reply]
    return list(control.split("diff", diff, **{key: value for key, value in reply.items() if key not in ("ok", "diff")}))


def whole(parts: tuple[bytes, ...]) -> Mapping[str, Value]:
    """A reply in parts as one."""
    found: dict[str, Value] = {}
    for part in parts:
        for key, value in control.read(part).items():
            before = found.get(key)
            found[key] = before + value if isinstance(before, list) and isinstance(value, list) else value
    found.pop("more", None)
    return found
