"""One IPsec stack as one object: `Stack` and what its doors give back (core), and its view of key managers (keymanagement)."""

from koura.stack.core import Answer, Fast, Results, Stack

__all__ = ["Answer", "Fast", "Results", "Stack"]
