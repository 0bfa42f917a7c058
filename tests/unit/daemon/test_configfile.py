"""koura.toml as a whole: every fault at once with its place and hint; what holds between tables; what the machine must have."""

import dataclasses
import tomllib
from pathlib import Path

import pytest

from koura.daemon import configfile, tables
from koura.daemon.config import BadConfig, Config

BAD = """\
fiel = "x"
[daemon]
file = "/there/is/nothing.conf"
[host]
mtu = "1500"
adresses = ["10.0.0.1/24"]
addresses = ["10.0.0.1/33", 7]
ports = [0]
guard = 1
[sysctl]
"net.inet.ipsec.dfbti" = 2
net.key.blockacq_count = -1
[limits]
association = 5
[colour]
"""
SAID = """\
koura.toml:1:1: no table [fiel]
    fiel = "x"
    ^^^^
    hint: there are: {TABLES}
koura.toml:5:7: host.mtu is a number of 576 to 65535, not text
    mtu = "1500"
          ^^^^^^
    hint: write mtu = 1500
koura.toml:6:1: [host] has no adresses
    adresses = ["10.0.0.1/24"]
    ^^^^^^^^
    hint: did you mean addresses?
koura.toml:7:14: host.addresses: '10.0.0.1/33' is no address
    addresses = ["10.0.0.1/33", 7]
                 ^^^^^^^^^^^^^
    hint: write it as "10.0.0.1/24"
koura.toml:7:29: host.addresses is an address with the length of its prefix, not a number
    addresses = ["10.0.0.1/33", 7]
                                ^
    hint: write addresses = ["10.0.0.1/24"]
koura.toml:8:10: host.ports: 0: a port is a number of 1 to 65535
    ports = [0]
             ^
    hint: ESP in UDP has 4500
koura.toml:9:9: host.guard is true or false, not a number
    guard = 1
            ^
    hint: write guard = true
koura.toml:11:1: unknown oid 'net.inet.ipsec.dfbti'
    "net.inet.ipsec.dfbti" = 2
    ^^^^^^^^^^^^^^^^^^^^^^
    hint: did you mean net.inet.ipsec.dfbit or net.inet.ipsec.debug or net.inet6.ipsec6.debug?
koura.toml:12:26: net.key.blockacq_count does not take -1; it takes 0 to 1073741824 (packets)
    net.key.blockacq_count = -1
                             ^^
    hint: koura sysctl -d net.key.blockacq_count says what it is
koura.toml:14:1: [limits] has no association
    association = 5
    ^^^^^^^^^^^
    hint: did you mean associations?
koura.toml:15:2: no table [colour]
    [colour]
     ^^^^^^
    hint: there are: {TABLES}"""
TUNNEL = '[[tunnel]]\nname = "{}"\nreqid = {}\nlocal = "192.0.2.1"\nremote = "192.0.2.{}"\n'


def _read(text: str) -> Config:
    return configfile.read(Path("/run/koura"), text, "koura.toml")


def _refused(text: str) -> str:
    with pytest.raises(BadConfig) as caught:
        _read(text)
    return str(caught.value)


def test_everything_that_is_wrong_is_told_at_once() -> None:
    known = ", ".join((*(table.name for table in tables.TABLES), "sysctl", "limits"))
    assert _refused(BAD) == SAID.replace("{TABLES}", known)


def test_a_key_in_front_of_all_tables_is_sent_to_its_own() -> None:
    assert "it belongs below [host] or [tunnel] or [rootless]" in _refused("mtu = 1400\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[host]\ninterface = "a"\n[enc]\ninterface = "a"\n', "4:13: enc.interface: the interface 'a' is that of host.interface already"),
        ("[host]\nports = [1, 2, 1]\n", "2:16: host.ports[3]: port 1 is that of host.ports[1] already"),
        ('[host]\naddresses = ["10.0.0.1/24", "10.0.0.1/25"]\n', "the address 10.0.0.1 is that of host.addresses[1] already"),
        (
            '[host]\naddresses = ["10.0.0.1/24"]\n' + TUNNEL.format("t", 1, 2) + 'addresses = ["10.0.0.2/24"]\n',
            "8:14: tunnel[1].addresses: 10.0.0.0/24 is the network of host.addresses already",
        ),
        ("[host]\n" + TUNNEL.format("koura0", 1, 2), "3:8: tunnel[1].name: the interface 'koura0' is that of host.interface already"),
        ("[host]\n" + TUNNEL.format("a", 1, 2) + TUNNEL.format("b", 1, 3), "tunnel[2].reqid: reqid 1 is that of tunnel[1].reqid already"),
    ],
)  # fmt: skip
def test_attachments_that_clash_are_refused(text: str, said: str) -> None:
    assert said in _refused(text)


def test_what_may_stand_side_by_side_does() -> None:
    text = '[host]\naddresses = ["10.0.0.1/24", "10.0.0.2/24", "fe80::1/64"]\n' + TUNNEL.format("a", 1, 2)
    text += 'addresses = ["fe80::2/64", "10.1.0.1/32"]\n[rootless]\naddresses = ["10.0.0.1/24"]\n'
    assert len(_read(text).tunnels) == 1


def test_tunables_may_be_quoted_or_dotted_and_limits_have_short_names() -> None:
    text = '[sysctl]\nnet.inet.ipsec.dfbit = 2\n"net.key.spi_minval" = 0x20000000\n"net.key.spi_maxval" = "0x30000000"\n'
    settings = _read(text + "[limits]\nassociations = 7\n").settings
    assert (settings.dfbit, settings.key.spi_minval, settings.key.spi_maxval) == (2, 0x20000000, 0x30000000)
    assert settings.limits.associations == 7
    assert "would pass spi_maxval" in _refused('[sysctl]\n"net.key.spi_minval" = 0x20000000\n')
    assert "stands twice" in _refused('[sysctl]\nnet.koura.limits.policies = 1\n[limits]\npolicies = 2\n')
    assert "net.inet.ipsec.dfbit is a number, not true" in _refused("[sysctl]\nnet.inet.ipsec.dfbit = true\n")


def test_every_row_fills_a_field_and_its_example_is_good() -> None:
    for table in tables.TABLES:
        assert isinstance(table.makes, type) and dataclasses.is_dataclass(table.makes)
        fields = {field.name: field for field in dataclasses.fields(table.makes)}
        assert {key.field or key.name for key in table.keys} == set(fields), f"[{table.name}] and {table.makes.__name__}"
        for key in table.keys:
            assert key.is_needed == (fields[key.field or key.name].default is dataclasses.MISSING), f"{table.name}.{key.name}"
            value = tomllib.loads(f"example = {key.kind.example}")["example"]
            assert type(value) is key.kind.of
            key.kind.make(value)


def test_paths_are_seen_from_the_file_and_must_be_there(tmp_path: Path) -> None:
    path = tmp_path / "koura.toml"
    path.write_text('[daemon]\nfile = ["a.conf", "b.conf"]\nstate = "kept"\n[pfkey]\ngroup = "no-such-group-anywhere"\n')
    (tmp_path / "a.conf").write_text("")
    with pytest.raises(BadConfig) as caught:
        configfile.read_file(tmp_path, path)
    assert f"{path}:2:19: daemon.file: {tmp_path}/b.conf: No such file or directory" in str(caught.value)
    assert f"{path}:5:9: pfkey.group: there is no group no-such-group-anywhere" in str(caught.value)
    assert caught.value.state == tmp_path / "kept"
    path.write_text('[daemon]\nfile = ["a.conf", "b.conf"]\nstate = "kept"\n')
    (tmp_path / "b.conf").write_text("")
    found = configfile.read_file(tmp_path, path)
    assert (found.files, found.state, found.source) == ((tmp_path / "a.conf", tmp_path / "b.conf"), tmp_path / "kept", path)
    with pytest.raises(BadConfig, match="No such file"):
        configfile.read_file(tmp_path, tmp_path / "none.toml")
