"""FreeBSD 13.0's own behaviour, case by case: same packets, verdicts, PF_KEY messages and counters, or a row of deviations.toml.

The cases are split into chunks so that they can run side by side; each chunk is a few tenths of a second.
"""

import pytest

from koura.settings import Settings
from koura.sysctl import tree
from tests.parity.deviations import Row, explain, rows, settings
from tests.parity.difference import Difference
from tests.parity.observed import Observed, same
from tests.parity.recordings import Recording, Sent, group, groups
from tests.parity.rules import RULES
from tests.parity.run import FREEBSD_DEFAULTS, Run

CHUNK = 24
ROWS = rows()
CHUNKS = [(name, start) for name in groups() for start in range(0, len(group(name)), CHUNK)]


def told(difference: Difference) -> str:
    """A difference that nothing explains, for a reader."""
    lines = [f"{difference.recording.id} {dict(difference.recording.tunables)}", f"  event {difference.number}: {difference.what}"]
    for field in ("packets", "told", "delivered", "counters", "errno", "sad"):
        theirs, ours = getattr(difference.theirs, field), getattr(difference.ours, field)
        if theirs != ours:
            lines += [f"    {field} there {_shown(theirs)}", f"    {field} here  {_shown(ours)}"]
    if isinstance(difference.event, Sent):
        lines += [f"    received there: {words}" for words in difference.event.words]
    return "\n".join([*lines, f"    our stack said {', '.join(difference.ours.ends)}"])


def _shown(value: object) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], bytes):
        return str([one.hex() for one in value])
    return str(value)


def unexplained(recording: Recording) -> list[Difference]:
    left = [explain(difference, ROWS)[0] for difference in Run(recording).differences()]
    return [difference for difference in left if not same(difference.theirs, difference.ours)]


@pytest.mark.parametrize(("name", "start"), CHUNKS)
@pytest.mark.covers(
    "R3", "R4", "R5", "R6", "R7", "R21", "R22", "R23", "R24", "R25", "R26", "R28", "R29", "R30", "R31", "R32", "R33", "R34", "R36",
    "R37", "R39", "R52", "R57", "M4", "M9", "M12", "M13", "M14", "M15", "M26", "S5", "S12", "S25", "S28", "S43",
)  # fmt: skip
def test_what_happened_there_happens_here_except_where_we_say_so(name: str, start: int) -> None:
    left = [difference for recording in group(name)[start : start + CHUNK] for difference in unexplained(recording)]
    assert not left, "differs, and no row of deviations.toml explains it:\n" + "\n".join(map(told, left))


@pytest.mark.parametrize("row", [row for row in ROWS if row.witness], ids=lambda row: row.rule)
def test_every_row_still_differs_where_it_says(row: Row) -> None:
    assert any(row.rule in used for used in _at_witness(row)), f"{row.rule}: nothing differs so at {row.witness!r}, {row.event!r}"


def _at_witness(row: Row) -> list[tuple[str, ...]]:
    wanted = [recording for name in groups() for recording in group(name) if recording.case == row.witness]
    assert wanted, f"{row.rule}: there is no case {row.witness!r}"
    found = [difference for recording in wanted for difference in Run(recording).differences()]
    at = [one for one in found if one.what == row.event or (row.event.endswith("*") and one.what.startswith(row.event[:-1]))]
    return [explain(difference, ROWS)[1] for difference in at]


def test_rows_and_rules_belong_together() -> None:
    assert [row.rule for row in ROWS] == list(dict.fromkeys(row.rule for row in ROWS)), "a rule has two rows"
    assert {row.rule for row in ROWS} == RULES.keys()
    assert all(row.number and row.reason and row.ours and row.freebsd for row in ROWS)


def test_the_comparison_runs_with_their_defaults() -> None:
    assert {row.name: row.freebsd for row in settings()} == FREEBSD_DEFAULTS
    for row in settings():
        assert tree.read(Settings(), row.name) == row.ours != row.freebsd


@pytest.mark.parametrize(
    "change",
    [
        {"packets": (b"E" + bytes(40),)}, {"told": ((0, "x"),)}, {"delivered": (b"x",)}, {"counters": (("esp.notdb", 1),)}, {"errno": 1},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_the_comparison_sees_each_kind_of_difference(change: dict[str, object]) -> None:
    """A canary: a packet more, a message more, a counter more in the first case would not pass."""
    recording = group("modes")[0]
    seen = Run(recording)
    seen.alter = lambda observed: Observed(**{**observed.__dict__, **change})  # type: ignore[arg-type]
    left = [explain(difference, ROWS)[0] for difference in seen.differences()]
    assert any(not same(difference.theirs, difference.ours) for difference in left)
