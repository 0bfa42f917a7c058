"""Live clients of an engine: PF_KEY (`connect`, `aio.connect`), and the control socket (`Control`). docs/client.md."""

from koura.client.control import Control, Unreachable
from koura.client.exchange import Lost
from koura.client.keys import Client, connect
from koura.client.operations import Acquire, Event, Expire, Mapped, Other, PolicyExpire
from koura.client.values import Keys, PolicyEntry, SaEntry, index, policy, sa, selector
from koura.errors import Errno, Refused

__all__ = [
    "Acquire",
    "Client",
    "Control",
    "Errno",
    "Event",
    "Expire",
    "Keys",
    "Lost",
    "Mapped",
    "Other",
    "PolicyEntry",
    "PolicyExpire",
    "Refused",
    "SaEntry",
    "Unreachable",
    "connect",
    "index",
    "policy",
    "sa",
    "selector",
]  # fmt: skip
