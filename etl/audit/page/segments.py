"""Counting distinct segments in bounded memory."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

#: So many hashes are kept at least once not all of them are.
_KEPT: Final = 2**16
_LOWEST: Final = -(2**63)
_HASHES: Final = 2**64


@dataclass(slots=True)
class Segments:
    """Distinct segments: exact up to 131,072 of them, beyond that within about 1 %.

    Kept are the hashes under `limit`, which falls when there are too many; how far it has fallen
    says what share of all segments the kept ones are. Hashes are this process's own.
    """

    hashes: set[int] = field(default_factory=set)
    limit: int = -_LOWEST

    @property
    def count(self) -> int:
        """How many there are."""
        return round(len(self.hashes) * _HASHES / (self.limit - _LOWEST))

    def add(self, names: Iterable[str | None]) -> None:
        """Count these names; None is no name."""
        self.merge(Segments({hash(name) for name in names if name is not None}))

    def merge(self, other: "Segments") -> None:
        """Count what was counted elsewhere."""
        self.hashes |= other.hashes
        if min(self.limit, other.limit) < -_LOWEST:
            self._lower(min(self.limit, other.limit))
        if len(self.hashes) > 2 * _KEPT:
            self._lower(sorted(self.hashes)[_KEPT])

    def _lower(self, limit: int) -> None:
        self.limit = limit
        self.hashes = {value for value in self.hashes if value < limit}
