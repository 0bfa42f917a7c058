"""The kernel's reverse path filter (rp_filter, RFC 3704), which our routes confuse: the way back to a protected peer leads into the TUN.

    from the wire     the guard marks what is for this host, ARP too; with src_valid_mark its way back is looked up so, past our routes
    from the TUN      what was opened may come from anywhere that policy allows: the filter is loose there (2), and only there

IPv4 has it alone. Not here: who marks (host.guard); the sysctls of other interfaces are their owner's.
"""

from pathlib import Path

from koura.host import guard
from koura.host.guard import NoGuard

CONF = Path("/proc/sys/net/ipv4/conf")
STRICT, LOOSE = "1", "2"


def let_through(interface: str, *, is_marked: bool) -> str:
    """Make it so for host mode on this TUN. What stands in the way, in a sentence for the log; "" if nothing does."""
    try:
        (CONF / interface / "rp_filter").write_text(LOOSE)
        (CONF / "all" / "src_valid_mark").write_text("1")
        if is_marked:
            guard.hear_neighbours()
    except OSError as error:
        return f"{error.filename}: {error.strerror}: {_WARNING}" if _is_strict() else ""
    except NoGuard as error:
        return f"{error}: {_WARNING}" if _is_strict() else ""
    return f"without the inbound guard {_WARNING}" if not is_marked and _is_strict() else ""


_WARNING = "a strict reverse path filter (rp_filter 1) drops what protected peers send; 2 lets it in"


def _is_strict() -> bool:
    return any(one.read_text().strip() == STRICT for one in CONF.glob("*/rp_filter"))
