"""The MTU of the TUN where none is given."""

import pytest

from koura.daemon.config import fitting


@pytest.mark.parametrize(
    ("link", "octets"), [(576, 1280), (1380, 1280), (1450, 1350), (1460, 1360), (1492, 1392), (1500, 1400), (9000, 1400), (65535, 1400)]
)
def test_what_is_added_has_room(link: int, octets: int) -> None:
    assert fitting(link) == octets
