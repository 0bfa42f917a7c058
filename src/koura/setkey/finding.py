"""Finding: one dubious thing in a script, and how grave it is."""

from dataclasses import dataclass
from enum import Enum

from koura.setkey.faults import Span


class Grade(Enum):
    """How grave: an error will not work; a warning is a weakness; a note is worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """`name` is for programs and for looking up; `why` is a sentence; `hint` says what to do."""

    name: str
    grade: Grade
    span: Span
    why: str
    hint: str = ""
