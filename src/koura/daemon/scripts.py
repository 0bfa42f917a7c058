"""The setkey scripts of a daemon as files: their text, and what is wrong or dubious about them, found without an engine.

What `koura up --check` says of them is what `setkey -n` says, with two differences: the scripts are judged as they are loaded, one
behind the other, and under the daemon's tunables.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from koura.errors import Errno, Refused
from koura.setkey import lint, parse
from koura.setkey.finding import Grade
from koura.settings import Settings


@dataclass(slots=True)
class Judged:
    """faults: what refuses the scripts. remarks: what is dubious. Both as they are shown, with their places."""

    faults: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    sas: int = 0
    policies: int = 0


def text(file: Path) -> str:
    """Raises Refused."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise Refused(Errno.EINVAL, f"{file}: {reason}") from error


def judge(files: Iterable[Path], settings: Settings) -> Judged:
    """Every fault and every finding of all of them."""
    found = Judged()
    read = []
    for file in files:
        try:
            read.append(parse.check(text(file), str(file)))
        except Refused as error:
            found.faults.append(error.why)
    found.faults += [str(fault) for script in read for fault in script.faults]
    if found.faults:
        return found
    judged = lint.judge(read, settings)
    for script, finding in judged.findings:
        shown = f"{finding.grade.value}: {lint.fault(finding, script)}"
        (found.faults if finding.grade is Grade.ERROR else found.remarks).append(shown)
    found.sas, found.policies = judged.sas, judged.policies
    return found
