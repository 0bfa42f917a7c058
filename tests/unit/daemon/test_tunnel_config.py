"""[[tunnel]], [[bump]], [enc] and [rootless] in koura.toml: what is taken, and what is refused with its place."""

from pathlib import Path

import pytest

from koura.daemon import configfile, reload
from koura.daemon.config import BadConfig, BumpConfig, Config, EncConfig, RootlessConfig, TunnelConfig

TUNNEL = '[host]\n[[tunnel]]\nname = "ipsec0"\nreqid = 100\nlocal = "192.0.2.1"\nremote = "192.0.2.2"\n'
SECOND = TUNNEL.replace("[host]\n", "")


def _read(text: str) -> Config:
    return configfile.read(Path("/run/koura"), text, "koura.toml")


def test_tunnels_are_read_in_their_order() -> None:
    more = TUNNEL + 'addresses = ["10.0.0.1/30"]\nmtu = 1300\n[[tunnel]]\nname = "b"\nreqid = 1\nlocal = "fd00::1"\nremote = "fd00::2"\n'
    one, other = _read(more).tunnels
    assert one == TunnelConfig("ipsec0", 100, bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)), ((bytes((10, 0, 0, 1)), 30),), 1300)
    assert (other.name, len(other.local), other.mtu_octets) == ("b", 16, 1400)


def test_enc_and_rootless_have_usual_values() -> None:
    assert _read("[host]\n[enc]\n").enc == EncConfig("enc0", False)
    assert _read("[host]\n").enc is None
    assert _read("").rootless == RootlessConfig()
    assert _read('[rootless]\ninterface = "vpn"\nport = 0\ndevice = "veth"\n').rootless == RootlessConfig("vpn", "veth", port=0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TUNNEL.replace("[[tunnel]]", "[tunnel]"), "write [[tunnel]], in two pairs of brackets"),
        (TUNNEL.replace("[host]\n", ""), "[[tunnel]] is for [host]"),
        (TUNNEL.replace("100", "16384"), "tunnel.reqid: 16384 is not between 1 and 16383"),
        (TUNNEL.replace("100", '"100"'), "tunnel.reqid is a number of 1 to 16383, not text"),
        (TUNNEL.replace('name = "ipsec0"\n', ""), "tunnel.name is missing"),
        (TUNNEL.replace("192.0.2.2", "192.0.2.1"), "two addresses of one family"),
        (TUNNEL.replace("192.0.2.2", "fd00::1"), "two addresses of one family"),
        (TUNNEL.replace("192.0.2.2", "192.0.2.0/24"), "is a network, not an address"),
        (TUNNEL.replace("192.0.2.2", "gateway"), "tunnel.remote: 'gateway' is no address"),
        (TUNNEL + SECOND.replace("ipsec0", "ipsec1"), "tunnel[2].reqid: reqid 100 is that of tunnel[1].reqid already"),
        (TUNNEL + SECOND.replace("100", "101"), "tunnel[2].name: the interface 'ipsec0' is that of tunnel[1].name already"),
        (TUNNEL + "colour = 1\n", "[tunnel] has no colour"),
        ("[enc]\n", "[enc] is for [host]"),
        ('[host]\n[enc]\ninterface = "a/b"\n', "enc.interface: 'a/b' is no name of an interface"),
        ('[rootless]\ndevice = "tap"\n', "rootless.device: 'tap' is none of auto, tun, veth"),
        ("[rootless]\nport = 65536\n", "rootless.port: 65536: a port is a number of 1 to 65535, or 0"),
        ('[rootless]\naddresses = ["here"]\n', "rootless.addresses: 'here' is no address"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(BadConfig) as caught:
        _read(text)
    assert "koura.toml:" in str(caught.value)
    assert said in str(caught.value)


def test_the_file_is_read_again_for_its_tunnels(tmp_path: Path) -> None:
    path = tmp_path / "koura.toml"
    path.write_text(TUNNEL)
    config = configfile.read_file(tmp_path, path)
    assert [one.name for one in reload.read(config).config.tunnels] == ["ipsec0"]
    path.write_text("[host]\n")
    assert reload.read(config).config.tunnels == ()
    path.unlink()
    with pytest.raises(BadConfig):
        reload.read(config)


BUMP = '[[bump]]\ninside = "eth1"\noutside = "eth0"\n'


def test_bumps_are_read_with_what_is_usual() -> None:
    more = '[[bump]]\ninside = "a"\noutside = "b"\naddresses = ["192.0.2.9", "fd00::9"]\ncontrol = false\nguard = false\nxdp = true\n'
    own = (bytes((192, 0, 2, 9)), b"\xfd" + bytes(14) + b"\x09")
    assert _read(BUMP + more).bumps == (BumpConfig("eth1", "eth0"), BumpConfig("a", "b", own, False, False, True))
    assert _read("").bumps == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BUMP.replace("[[bump]]", "[bump]"), "write [[bump]], in two pairs of brackets"),
        ("[host]\n" + BUMP, "[host] and [[bump]] are for two daemons"),
        (BUMP.replace('inside = "eth1"\n', ""), "bump.inside is missing"),
        (BUMP.replace("eth1", "eth0"), "bump[1].outside: the interface 'eth0' is that of bump[1].inside already"),
        (BUMP + BUMP, "bump[2].inside: the interface 'eth1' is that of bump[1].inside already"),
        (BUMP + 'addresses = ["192.0.2.9", "192.0.2.9"]\n', "the address 192.0.2.9 is that of"),
        (BUMP.replace("eth1", "a name that is long"), "is no name of an interface"),
        (BUMP + 'addresses = ["192.0.2.9/24"]\n', "is a network, not an address"),
        (BUMP + 'addresses = ["nowhere"]\n', "'nowhere' is no address"),
        (BUMP + "promisc = true\n", "[bump] has no promisc"),
    ],
)
def test_a_bump_that_cannot_be_is_refused(text: str, said: str) -> None:
    with pytest.raises(BadConfig, match=r"^koura\.toml") as refused:
        _read(text)
    assert said in str(refused.value)
