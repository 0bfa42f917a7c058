"""Who listens on enc0, by the kernel's list of packet sockets."""

import pytest

from koura.host.enc import is_listened_to

HEAD = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"
ROW = "0000000000000000 3      3    {:04x}   {:<5} 1 0      0      22384\n"


@pytest.mark.parametrize(
    ("rows", "is_seen"),
    [
        ([], False),
        ([(0, 7)], False),  # the engine's own
        ([(3, 7)], True),
        ([(0x0800, 7)], True),
        ([(3, 0)], False),  # on all interfaces
        ([(3, 70), (3, 17)], False),
        ([(0, 7), (3, 7)], True),
    ],
)
def test_who_receives_on_this_interface_looks(rows: list[tuple[int, int]], is_seen: bool) -> None:
    assert is_listened_to(7, HEAD + "".join(ROW.format(*row) for row in rows)) is is_seen


def test_an_empty_list_is_nobody() -> None:
    assert not is_listened_to(1, "")
