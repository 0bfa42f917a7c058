"""Writes docs/conformance.md from the marks on the tests, so that it cannot lie. `--write` writes, without it checks.

Every requirement number with the tests that show it, every Reason with the tests that assert it, and the rows where Koura
differs from the recorded FreeBSD 13.0 (tests/vectors/deviations.toml).
"""

import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from koura.reasons import ENDINGS  # noqa: E402
from tests.source.marks import Mark, marks  # noqa: E402
from tests.source.requirements import NUMBERS  # noqa: E402

TARGET = ROOT / "docs" / "conformance.md"
DEVIATIONS = ROOT / "tests" / "vectors" / "deviations.toml"
SHOWN_TESTS = 4
_SIDES = {"freebsd": "FreeBSD 13.0", "ours": "Koura", "reason": "reason"}
DEVIATION_TABLES = (
    ("setting", "Defaults: the comparison of packets runs with FreeBSD's", {"name": "tunable", "number": "why", **_SIDES}),
    ("packet", "Packets and policy: rules, recognised by what differs (tests/parity/rules.py)",
     {"rule": "rule", "case": "cases", "number": "why", **_SIDES, "witness": "to be seen in", "event": "at"}),
    ("pfkey", "PF_KEY", {"case": "case", "number": "why", **_SIDES}),
)


def _by_argument(kind: str) -> dict[str, list[Mark]]:
    found: dict[str, list[Mark]] = defaultdict(list)
    for mark in marks(kind):
        for argument in mark.arguments:
            found[argument].append(mark)
    return found


def _places(found: list[Mark]) -> str:
    names = list(dict.fromkeys(f"`{mark.path.removeprefix('tests/')}` {mark.test}" for mark in found))
    more = f" and {len(names) - SHOWN_TESTS} more" if len(names) > SHOWN_TESTS else ""
    return "<br>".join(names[:SHOWN_TESTS]) + more


def _requirements() -> list[str]:
    covers = _by_argument("covers")
    lines = ["| number | requirement | shown by |", "|---|---|---|"]
    for number, text in NUMBERS.items():
        shown = _places(covers[number]) if number in covers else "**nothing yet**"
        lines.append(f"| {number} | {text} | {shown} |")
    return lines


def _reasons() -> list[str]:
    shown = _by_argument("reason")
    lines = ["| reason | what it says | RFC | BSD counter | asserted by |", "|---|---|---|---|---|"]
    for row in ENDINGS:
        lines.append(f"| `{row.name}` | {row.sentence} | {row.rfc} | {row.bsd} | {_places(shown.get(row.name, [])) or '**nothing yet**'} |")
    return lines


def _deviations() -> list[str]:
    if not DEVIATIONS.exists():
        return ["None recorded yet."]
    rows = tomllib.loads(DEVIATIONS.read_text())
    lines = []
    for table, title, columns in DEVIATION_TABLES:
        entries = rows.get(table, [])
        if not entries:
            continue
        lines += [f"### {title}", "", "| " + " | ".join(columns.values()) + " |", "|" + "---|" * len(columns)]
        for row in entries:
            cells = (str(row[key]).replace("|", "\\|").replace("\n", " ") for key in columns)
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def render() -> str:
    """The whole page."""
    return "\n".join(
        [
            "# Conformance",
            "",
            "Made by `make conformance` from the marks on the tests; a test checks that it is up to date. Do not edit.",
            "",
            "## Requirements",
            "",
            *_requirements(),
            "",
            "## Reasons",
            "",
            *_reasons(),
            "",
            "## Where Koura differs from FreeBSD 13.0, case by case",
            "",
            "Recorded from the real code; every other recorded case gives the same packets, verdicts, PF_KEY messages and counters.",
            "",
            *_deviations(),
            "",
        ]
    )


def main() -> int:
    page = render()
    if "--write" in sys.argv:
        TARGET.write_text(page)
        return 0
    if not TARGET.exists() or TARGET.read_text() != page:
        sys.stderr.write("docs/conformance.md is out of date: run `make conformance`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
