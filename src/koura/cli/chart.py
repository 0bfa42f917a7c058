"""Bar charts as SVG, written by hand: no library is worth it for rectangles."""

from html import escape
from pathlib import Path
from typing import Any

_WIDTH, _ROW, _LEFT, _TOP = 760, 22, 250, 46
_COLOURS = {"out": "#2b6cb0", "in": "#dd6b20"}


def draw(values: dict[str, Any], directory: Path) -> list[Path]:
    """Two charts of a run: the ratio to the limit, and Gb/s."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = values["figures"]
    charts = {
        "fast-ratio.svg": bars("Share of the crypto's own speed (1: nothing is lost)", rows, "ratio", 1.0),
        "fast-gbits.svg": bars("Gb/s of clear packets, one core", rows, "gbits", max((row["gbits"] for row in rows), default=1.0)),
    }
    for name, text in charts.items():
        (directory / name).write_text(text)
    return [directory / name for name in charts]


def bars(title: str, rows: list[dict[str, Any]], field: str, full: float) -> str:
    """One bar a figure, in the order of the run; `full` is the whole width."""
    height = _TOP + _ROW * len(rows) + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for number, row in enumerate(rows):
        y = _TOP + _ROW * number
        wide = max(1.0, (_WIDTH - _LEFT - 70) * min(row[field] / full, 1.0))
        label = f"{row['suite']}, {row['size']}, {row['direction']}, {row['sas']:,} SA{'s' * (row['sas'] > 1)}"
        parts += [
            f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{wide:.1f}" height="{_ROW - 6}" fill="{_COLOURS.get(row["direction"], "#718096")}"/>',
            f'<text x="{_LEFT + wide + 6:.1f}" y="{y + 13}">{row[field]:.2f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
