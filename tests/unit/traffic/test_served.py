"""Which addresses a bump serves: what its policies say of its own side."""

from koura.address import Prefix, parse
from koura.traffic.served import served
from tests.unit.stack.kit import Host


def _served(script: str) -> tuple[frozenset[bytes], tuple[Prefix, ...]]:
    return served(Host(script).stack.spd.entries())


def test_tunnels_serve_their_own_ends_and_no_selector() -> None:
    script = (
        "spdadd 10.0.1.0/24 10.0.2.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;"
        "spdadd 10.0.2.0/24 10.0.1.0/24 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/require ah/transport//require;"
    )
    assert _served(script) == (frozenset({parse("192.0.2.1")}), ())


def test_transport_serves_what_the_selector_names_on_the_protected_side() -> None:
    script = (
        "spdadd 10.0.1.0/24 10.0.2.7 tcp -P out ipsec esp/transport//require;"
        "spdadd 10.0.2.7 10.0.1.0/24 tcp -P in ipsec esp/transport//require;"
        "spdadd 2001:db8::2 2001:db8::1 any -P in ipsec esp/transport//require;"
        "spdadd ::/0 ::/0 any -P out discard; spdadd 10.9.0.0/16 10.8.0.0/16 any -P in none;"
    )
    assert _served(script) == (frozenset({parse("2001:db8::1")}), (Prefix(parse("10.0.1.0"), 24),))
