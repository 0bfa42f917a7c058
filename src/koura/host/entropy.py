"""The operating system's dice."""

import os
import secrets


class System:
    """Entropy of getrandom(2)."""

    def octets(self, count: int) -> bytes:
        """`count` unpredictable octets."""
        return os.urandom(count)

    def below(self, limit: int) -> int:
        """A number of 0 <= n < limit."""
        return secrets.randbelow(limit)
