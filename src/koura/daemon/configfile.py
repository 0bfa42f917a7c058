"""koura.toml: its text into a Config, or everything that is wrong with it, each fault with line, column, caret and hint.

    toml         what the text says, and where
    schema       each table held against its rows (tables), and the tables against one another
    tunables     [sysctl] and [limits]
    machine      files and groups that must be there; only where a file is read, not for a mere text

Paths in a file are seen from the directory it lies in.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from koura.daemon import house, schema, tables, toml, tunables
from koura.daemon.config import BadConfig, Config, DaemonConfig, PfkeyConfig, RootlessConfig, StatusConfig, TunnelConfig
from koura.daemon.schema import Bad, Wrong
from koura.daemon.toml import Document
from koura.settings import Settings


@dataclass(slots=True)
class _Read:
    """A text as far as it could be read."""

    document: Document
    made: dict[str, Any]
    settings: Settings
    wrongs: list[Wrong]


def read(directory: Path, text: str = "", name: str = "", more: tuple[str, ...] = ()) -> Config:
    """The configuration in a TOML text, and `name=value` from the command line behind it. Raises BadConfig."""
    found = _read(text, name)
    _refuse(found)
    return _config(directory, found, more)


def read_file(directory: Path, path: Path, more: tuple[str, ...] = (), *, has_scripts: bool = False) -> Config:
    """That of a file, held against this machine as well. has_scripts: others than the file's are used. Raises BadConfig."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: {error.strerror if isinstance(error, OSError) else 'not text'}") from error
    found = _read(text, str(path))
    _place(found.made, path.parent)
    found.wrongs += _machine(found, has_scripts=has_scripts)
    _refuse(found)
    written = replace(_config(directory, found, more), source=path, options=more)
    return replace(written, written=written)


def tunnel(said: Mapping[str, Any]) -> TunnelConfig:
    """One tunnel that did not come from a file. Raises BadConfig."""
    wrongs: list[Wrong] = []
    made = schema.make(tables.TUNNEL, dict(said), (), wrongs)
    if wrongs:
        raise BadConfig("; ".join(wrong.why for wrong in wrongs))
    assert isinstance(made, TunnelConfig)
    return made


def mode(text: str, where: str) -> int:
    """An octal mode. Raises BadConfig."""
    try:
        return tables.octal(text)
    except Bad as bad:
        raise BadConfig(f"{where}: {bad}; {bad.hint}") from bad


def _read(text: str, name: str) -> _Read:
    document = toml.read(text, name)
    wrongs: list[Wrong] = []
    rows = {table.name: table for table in tables.TABLES}
    made: dict[str, Any] = {}
    for table_name, said in document.values.items():
        table = rows.get(table_name)
        if table is None:
            if table_name not in (tunables.SYSCTL, tunables.LIMITS):
                wrongs.append(_unknown(table_name, said))
        elif table.is_many and not isinstance(said, list):
            wrongs.append(Wrong((table_name,), f"write [[{table_name}]], in two pairs of brackets: there may be many", is_key=True))
        elif table.is_many:
            made[table_name] = [schema.make(table, one, (table_name, number), wrongs) for number, one in enumerate(said)]
        else:
            made[table_name] = schema.make(table, said, (table_name,), wrongs)
        if table is not None and table.needs and table.needs not in document.values:
            why = f"{schema.brackets(table)} is for [{table.needs}], which is not here"
            wrongs.append(Wrong((table_name,), why, f"write [{table.needs}] as well", is_key=True))
    wrongs += tables.clashes(made)
    return _Read(document, made, tunables.read(document.values, wrongs), wrongs)


def _unknown(name: str, said: object) -> Wrong:
    """No such table; or a key that stands in front of all tables."""
    known = (*(table.name for table in tables.TABLES), tunables.SYSCTL, tunables.LIMITS)
    owners = [table.name for table in tables.TABLES if any(key.name == name for key in table.keys)]
    if not isinstance(said, dict | list) and owners:
        return Wrong((name,), f"{name} stands in no table", f"it belongs below [{'] or ['.join(owners)}]", is_key=True)
    hint = schema.meant(name, known) or f"there are: {', '.join(known)}"
    return Wrong((name,), f"no table [{name}]", hint, is_key=True)


def _place(made: dict[str, Any], base: Path) -> None:
    """Paths from where the file lies."""
    daemon, pfkey = made.get("daemon"), made.get("pfkey")
    if isinstance(daemon, DaemonConfig):
        files = tuple(base / each for each in daemon.files)
        made["daemon"] = DaemonConfig(files, None if daemon.state is None else base / daemon.state)
    if isinstance(pfkey, PfkeyConfig) and pfkey.path is not None:
        made["pfkey"] = replace(pfkey, path=base / pfkey.path)


def _machine(found: _Read, *, has_scripts: bool) -> Iterator[Wrong]:
    """What must be there: scripts and groups."""
    daemon = found.made.get("daemon")
    if isinstance(daemon, DaemonConfig) and not has_scripts:
        is_list = ("daemon", "file", 0) in found.document.places
        for number, each in enumerate(daemon.files):
            why = _unreadable(each)
            if why:
                path: toml.Path = ("daemon", "file", number) if is_list else ("daemon", "file")
                yield Wrong(path, f"daemon.file: {each}: {why}", "a setkey script; its path is seen from the directory of this file")
    for table in ("pfkey", "status"):
        group = getattr(found.made.get(table), "group", "")
        if group and not house.has_group(group):
            yield Wrong((table, "group"), f"{table}.group: there is no group {group}", f"groupadd {group} makes it")


def _unreadable(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _refuse(found: _Read) -> None:
    """Raises BadConfig if anything is wrong: everything, in the order of the text."""
    document = found.document
    faults = document.faults + [document.fault(wrong.path, wrong.why, wrong.hint, is_key=wrong.is_key) for wrong in found.wrongs]
    if not faults:
        return
    faults.sort(key=lambda fault: (fault.line, fault.column))
    daemon = found.made.get("daemon")
    state = daemon.state if isinstance(daemon, DaemonConfig) else None
    raise BadConfig("\n".join(str(fault) for fault in faults), faults, state)


def _config(directory: Path, found: _Read, more: tuple[str, ...]) -> Config:
    made = found.made
    daemon, pfkey = made.get("daemon", DaemonConfig()), made.get("pfkey", PfkeyConfig())
    return Config(
        directory,
        daemon.files,
        pfkey.path,
        pfkey.mode,
        pfkey.group,
        made.get("status", StatusConfig()).group,
        tunables.command_line(found.settings, more),
        made.get("host"),
        made.get("rootless", RootlessConfig()),
        made.get("enc"),
        daemon.state,
        tunnels=tuple(made.get("tunnel", ())),
        bumps=tuple(made.get("bump", ())),
    )
