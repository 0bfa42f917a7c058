"""Whether the fast path can be used, and what is said where not."""

import pytest

from koura.fast import drivers

needs_extension = pytest.mark.skipif("not built" in drivers.why_not(), reason=f"no fast path here: {drivers.why_not()}")


@needs_extension
@pytest.mark.parametrize(
    ("built", "written", "is_stale"), [(0.0, 0.0, False), (100.0, 99.0, False), (100.0, 130.0, False), (100.0, 161.0, True)]
)
def test_an_extension_of_older_sources_is_not_used(monkeypatch: pytest.MonkeyPatch, built: float, written: float, is_stale: bool) -> None:
    """Else a checkout that was updated and not built again would end with a fault of its own."""
    monkeypatch.setattr(drivers, "_times", lambda: (built, written))
    assert ("older than its sources" in drivers.why_not()) == is_stale


@needs_extension
def test_the_times_are_those_of_the_files() -> None:
    built, written = drivers._times()
    assert built > 0 and written > 0
