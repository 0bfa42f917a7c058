"""Which native pieces of the fast path are here, and an engine of them. Without any, the reference works alone."""

import importlib
from importlib import resources
from importlib.machinery import SourceFileLoader
from typing import Any

from koura.entropy import Pooled
from koura.errors import KouraError

_MODULES = {"ipsec-mb": "koura.fast._mb", "openssl": "koura.fast._crypto"}  # the preferred first
_SOURCES = (".pyx", ".pxd", ".pxi")
_SLACK_S = 60.0  # An installer writes both within seconds, in any order.
PUNT, FORWARD, BYPASS, DISCARD, DELIVER = 0, 1, 2, 3, 4  # koura.fast.flows.Kind

MOST_PORTS = 16  # koura.fast.engine's PORTS


class Absent(KouraError):
    """The fast path is not here; the text says what is missing."""


def found() -> dict[str, str]:
    """The drivers that load, with their libraries' versions."""
    versions = {}
    for name, module in _MODULES.items():
        try:
            loaded = importlib.import_module(module)
            loaded.capsule()
        except (ImportError, OSError):
            continue
        versions[name] = str(loaded.version())
    return versions


def why_not() -> str:
    """What is missing, in a sentence; '' where nothing is."""
    try:
        importlib.import_module("koura.fast._burst")
    except ImportError:
        return "the extension was not built: a C compiler and Cython were missing when Koura was installed"
    built, written = _times()
    if written > built + _SLACK_S:
        return "the extension is older than its sources: build it again (make demo, or pip install -e .)"
    if not found():
        return "no crypto driver was built: neither ipsec-mb (libipsec-mb-dev) nor OpenSSL's headers (libssl-dev) were there"
    return ""


def _times() -> tuple[float, float]:
    """When something was built here last, and a source written last; (0, 0) where nobody can say.

    A build leaves alone what needs no building, so the youngest extension tells when all were looked at.
    """
    loader = __spec__.loader
    if not isinstance(loader, SourceFileLoader):
        return 0.0, 0.0
    try:
        files = [str(file) for file in resources.files("koura.fast").iterdir()]
        written = [loader.path_stats(file)["mtime"] for file in files if file.endswith(_SOURCES)]
        built = [loader.path_stats(file)["mtime"] for file in files if file.endswith(".so")]
    except (ImportError, OSError):  # a process that became a user who may not look here
        return 0.0, 0.0
    return max(built, default=0.0), max(written, default=0.0) if built else 0.0


def hands(burst: Any, tun: int) -> Any:
    """Native I/O around an engine: a TUN with virtio headers. Raises Absent."""
    try:
        module = importlib.import_module("koura.fast._io")
    except ImportError as error:
        raise Absent("koura.fast._io was not built") from error
    return module.Io(burst, tun, True)


def bump_hands(burst: Any, inside: int, outside: int) -> Any:
    """Native I/O of a bump in the wire around an engine. Raises Absent."""
    try:
        module = importlib.import_module("koura.fast._bump")
    except ImportError as error:
        raise Absent("koura.fast._bump was not built") from error
    return module.Hands(burst, inside, outside)


def has_bump_hands() -> bool:
    """Whether those can be had."""
    try:
        importlib.import_module("koura.fast._bump")
    except ImportError:
        return False
    return not why_not()


def has_hands() -> bool:
    """Whether native I/O can be had."""
    try:
        importlib.import_module("koura.fast._io")
    except ImportError:
        return False
    return not why_not()


def engine(pool: Pooled, log2_sets: int = 17, names: tuple[str, ...] = ()) -> Any:
    """An engine over the drivers that are here (`names`: only these). Raises Absent."""
    missing = why_not()
    if missing:
        raise Absent(missing)
    chosen = [name for name in found() if not names or name in names]
    if not chosen:
        raise Absent(f"no driver {' or '.join(names)} here")
    capsules = [importlib.import_module(_MODULES[name]).capsule() for name in chosen]
    burst = importlib.import_module("koura.fast._burst")
    return burst.Burst(capsules, pool.memory, pool.cursor, pool.seed, log2_sets)
