"""Every Reason has a test that asserts it; every requirement number in a mark exists."""

import re

from koura.reasons import BY_NAME
from tests.source.marks import marks
from tests.source.requirements import NUMBERS


def test_every_reason_has_a_test() -> None:
    shown = {name for mark in marks("reason") for name in mark.arguments}
    assert not shown - set(BY_NAME), f"marks name reasons that do not exist: {sorted(shown - set(BY_NAME))}"
    assert not set(BY_NAME) - shown, f"no test carries @pytest.mark.reason for: {sorted(set(BY_NAME) - shown)}"


def test_marks_name_requirements_that_exist() -> None:
    for mark in marks("covers"):
        for number in mark.arguments:
            assert number in NUMBERS, f"{mark.path}:{mark.line}: there is no requirement {number}"
            assert re.fullmatch(r"[RMS]\d+", number)
