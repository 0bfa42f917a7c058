"""docs/performance.md: a section for each table, between its own two markers."""

from pathlib import Path

from koura.cli.figures import Table, markers

__all__ = ["PAGE", "Table", "put"]
PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def put(table: Table, page: Path = PAGE) -> None:
    """Replace the table's section on the page; a new one goes to the end."""
    text = page.read_text()
    begin, end = markers(table.name)
    before, found, rest = text.partition(begin)
    if found:
        _, _, after = rest.partition(end)
        page.write_text(before + table.markdown() + after)
    else:
        page.write_text(text.rstrip() + "\n\n" + table.markdown() + "\n")
