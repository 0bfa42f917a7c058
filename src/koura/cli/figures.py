"""A table of measurements: as text for a terminal, and as a section of a page between its own two markers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """name: of the benchmark; said: what was measured and how, in a sentence or two."""

    name: str
    title: str
    said: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Columns lined up."""
        grid = [self.columns, *self.rows]
        widths = [max(len(row[i]) for row in grid) for i in range(len(self.columns))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in grid]
        return "\n".join([self.title, self.said, "", *lines, ""])

    def markdown(self) -> str:
        """The section, markers included."""
        lines = ["| " + " | ".join(row) + " |" for row in (self.columns, ("---",) * len(self.columns), *self.rows)]
        begin, end = markers(self.name)
        return "\n".join([begin, f"## {self.title}", "", self.said, "", *lines, end])


def markers(name: str) -> tuple[str, str]:
    """The lines around a section."""
    return f"<!-- bench {name} -->", f"<!-- end {name} -->"


def percentile(ordered: list[float], share: float) -> float:
    """The value below which this share of them lies; they are in order. 0 of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
