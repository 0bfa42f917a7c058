"""netstat's fields count every end that is theirs, once. processing.md §11; S45."""

import pytest

from koura.reasons import ENDINGS, Ending
from koura.stats.counters import Counters
from koura.stats.report import FIELDS, Report

_STRUCTS = {"esps": "esp", "ahs": "ah", "ipcomps": "ipcomp"}
_COUNTED = [(row, field) for row in ENDINGS for field in row.bsd.split() if field.split("_")[0] in _STRUCTS]


@pytest.mark.covers("S45")
@pytest.mark.parametrize(("row", "field"), _COUNTED, ids=str)
def test_an_end_counts_once_under_its_field(row: Ending, field: str) -> None:
    struct, name = field.split("_", 1)
    counters = Counters()
    counters.count(row)
    read = Report(counters).read(_STRUCTS[struct])
    assert read[name] == 1
    assert {other for other, count in read.items() if count} == {other.split("_", 1)[1] for other in row.bsd.split()}


def test_every_field_of_an_end_is_one_of_the_report() -> None:
    for row, field in _COUNTED:
        struct, name = field.split("_", 1)
        assert name in [listed for listed, _, _ in FIELDS[_STRUCTS[struct]]], row.name
