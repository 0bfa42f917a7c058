"""Secret: octets that must not end up in a message, a repr or a log."""

import hmac
from typing import Final


class Secret:
    """Key octets. `reveal()` is the one way out; repr shows only the size."""

    __slots__ = ("_octets",)

    def __init__(self, octets: bytes = b"") -> None:
        self._octets: Final[bytes] = bytes(octets)

    def reveal(self) -> bytes:
        """The octets themselves, for a cipher or a PF_KEY key extension."""
        return self._octets

    def equals(self, other: "Secret") -> bool:
        """Whether both hold the same octets, in time that does not depend on where they differ."""
        return hmac.compare_digest(self._octets, other._octets)

    @property
    def bits(self) -> int:
        """Length in bits."""
        return 8 * len(self._octets)

    def __len__(self) -> int:
        return len(self._octets)

    def __eq__(self, other: object) -> bool:
        return self.equals(other) if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash(("Secret", len(self._octets)))

    def __repr__(self) -> str:
        return f"<Secret of {len(self._octets)} octets>"

    __str__ = __repr__


NO_SECRET = Secret()
