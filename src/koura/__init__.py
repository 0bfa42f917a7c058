"""Koura: IPsec without the kernel. ESP, AH and IPComp, RFC 4301, in user space."""

__version__ = "0.1.0"

from koura.stack import Stack

__all__ = ["Stack", "__version__"]
