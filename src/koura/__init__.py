"""Koura: IPsec without the kernel. ESP, AH and IPComp, RFC 4301, in user space."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from koura.stack import Stack

__version__ = "0.1.0"

__all__ = ["Stack", "__version__"]


def __getattr__(name: str) -> object:
    """`Stack` is imported when somebody asks for it: most commands only speak to one, and start three times as fast without."""
    if name == "Stack":
        from koura.stack import Stack

        return Stack
    raise AttributeError(f"module 'koura' has no attribute {name!r}")
