"""The interfaces of a bump's table, as nft(8) lists them."""

import pytest

from koura.host.bridge import named

LISTED = """table netdev koura-bump-out {{
\tchain shut {{
\t\ttype filter hook ingress {} priority -500; policy accept;
\t\tdrop
\t}}
}}
"""


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ('device "in"', ("in",)), ("device eth0.5", ("eth0.5",)), ("devices = { in, out }", ("in", "out")),
        ('devices = { "in", "out", "br-1" }', ("in", "out", "br-1")),
    ],
)  # fmt: skip
def test_the_interfaces_of_a_table_are_read(written: str, names: tuple[str, ...]) -> None:
    assert named(LISTED.format(written)) == names


def test_a_table_whose_interfaces_have_gone_has_none() -> None:
    assert named("table netdev koura-bump-out {\n}\n") == ()
