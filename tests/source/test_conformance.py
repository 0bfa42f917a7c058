"""docs/conformance.md is what the marks on the tests say, and nothing is unshown."""

from tests.source.marks import marks
from tests.source.requirements import NUMBERS
from tools import conformance


def test_the_page_is_up_to_date() -> None:
    assert conformance.TARGET.read_text() == conformance.render(), "run `make conformance`"


def test_every_requirement_is_shown() -> None:
    shown = {number for mark in marks("covers") for number in mark.arguments}
    missing = [number for number in NUMBERS if number not in shown]
    assert not missing, f"no test carries @pytest.mark.covers for: {missing}"
