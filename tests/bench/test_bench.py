"""The benchmarks themselves: each side opens what the other sealed, tables land in their place, and (slow) the ratios that are promised."""

from pathlib import Path

import pytest

from bench import reference, scale
from bench.table import Table, put


@pytest.mark.parametrize("case", reference.CASES, ids=lambda case: case.name)
def test_each_side_opens_the_others_packets(case: reference.Case) -> None:
    found = reference.measure(case, 64, 0.01)
    assert min(found.out, found.out_scapy, found.into, found.into_scapy) > 0


def test_a_small_database_is_loaded_and_carries_packets() -> None:
    load, costs = scale.run(0.01, (10, 50))
    assert load.rows == ()
    assert [row[0] for row in costs.rows] == ["10", "50"]


def test_a_section_is_replaced_and_a_new_one_goes_to_the_end(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Title\n")
    put(Table("one", "One", "said", ("a", "b"), (("1", "2"),)), page)
    put(Table("two", "Two", "said", ("a",), (("3",),)), page)
    put(Table("one", "One", "said", ("a", "b"), (("4", "5"),)), page)
    text = page.read_text()
    assert "| 1 | 2 |" not in text
    assert text.index("| 4 | 5 |") < text.index("| 3 |")
    assert text.count("<!-- bench one -->") == 1


@pytest.mark.slow
def test_ten_times_scapy_outbound_and_five_times_inbound() -> None:
    tries = [reference.measure(reference.CASES[0], 64, 1.0) for _ in range(3)]
    assert max(found.out_ratio for found in tries) >= 10
    assert max(found.into_ratio for found in tries) >= 5
