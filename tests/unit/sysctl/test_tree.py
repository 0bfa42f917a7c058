"""The tree of tunables: names, defaults, checks, text, integer names, counters."""

import dataclasses

import pytest

from koura.errors import Errno, Refused
from koura.settings import Settings
from koura.sysctl import tree
from koura.sysctl.node import Kind, Rule
from koura.sysctl.nodes import NODES

START = Settings()

# Every variable of FreeBSD 13 to 15 and its default; the last column says where ours differs on purpose.
FREEBSD = {
    "net.inet.ipsec.def_policy": 1,
    "net.inet.ipsec.esp_trans_deflev": 1,
    "net.inet.ipsec.esp_net_deflev": 1,
    "net.inet.ipsec.ah_trans_deflev": 1,
    "net.inet.ipsec.ah_net_deflev": 1,
    "net.inet.ipsec.ah_cleartos": 1,
    "net.inet.ah.ah_cleartos": 1,
    "net.inet.ipsec.ah_offsetmask": 0,
    "net.inet.ipsec.dfbit": 0,
    "net.inet.ipsec.ecn": 0,
    "net.inet.ipsec.min_pmtu": 576,
    "net.inet.ipsec.debug": 0,
    "net.inet.ipsec.crypto_support": 0,
    "net.inet.ipsec.async_crypto": 0,
    "net.inet.ipsec.check_policy_history": 1,  # FreeBSD 0; R52 needs it
    "net.inet.ipsec.natt_cksum_policy": 0,
    "net.inet.ipsec.filtertunnel": 0,
    "net.inet.ipsec.random_id": 0,
    "net.inet.ipsec.test_replay": 0,
    "net.inet.ipsec.test_integrity": 0,
    "net.inet.ipsec.offload.verbose": 0,
    "net.inet6.ipsec6.def_policy": 1,
    "net.inet6.ipsec6.esp_trans_deflev": 1,
    "net.inet6.ipsec6.esp_net_deflev": 1,
    "net.inet6.ipsec6.ah_trans_deflev": 1,
    "net.inet6.ipsec6.ah_net_deflev": 1,
    "net.inet6.ipsec6.ecn": 0,
    "net.inet6.ipsec6.debug": 0,
    "net.inet6.ipsec6.filtertunnel": 0,
    "net.inet.esp.esp_enable": 1,
    "net.inet.esp.ctr_compatibility": 1,
    "net.inet.ah.ah_enable": 1,
    "net.inet.ipcomp.ipcomp_enable": 1,
    "net.key.debug": 0,
    "net.key.spi_trycnt": 1000,
    "net.key.spi_minval": 0x100,
    "net.key.spi_maxval": 0x0FFFFFFF,
    "net.key.int_random": 60,
    "net.key.larval_lifetime": 30,
    "net.key.blockacq_count": 10,
    "net.key.blockacq_lifetime": 20,
    "net.key.esp_auth": 0,
    "net.key.esp_keymin": 256,
    "net.key.ah_keymin": 128,
    "net.key.preferred_oldsa": 1,
    "net.key.prefered_oldsa": 1,
    "net.key.sendspace": 8192,
    "net.key.recvspace": 8192,
    "net.key.spdcache.maxentries": 0,
    "net.key.spdcache.threshold": 32,
    "net.enc.in.ipsec_filter_mask": 1,
    "net.enc.in.ipsec_bpf_mask": 1,
    "net.enc.out.ipsec_filter_mask": 1,
    "net.enc.out.ipsec_bpf_mask": 3,
    "kern.features.ipsec": 1,
    "kern.features.ipsec_natt": 1,
}


class FakeCounters:
    """Two fields for each protocol."""

    def __init__(self) -> None:
        self.counts = {"esp": {"esps_input": 5, "esps_hdrops": 1}}

    def read(self, protocol: str) -> dict[str, int]:
        return self.counts[protocol]

    def clear(self, protocol: str) -> None:
        self.counts[protocol] = dict.fromkeys(self.counts[protocol], 0)


def refusal(name: str, text: str) -> Refused:
    with pytest.raises(Refused) as refused:
        tree.set_value(START, name, text)
    return refused.value


@pytest.mark.covers("R16", "R18", "R23", "R24", "R26", "R30", "R31", "R32", "R34", "R35", "R36", "R37", "R38", "R39", "M1", "M2", "M29")
@pytest.mark.parametrize(("name", "default"), FREEBSD.items())
def test_every_variable_is_there_with_its_default(name: str, default: int) -> None:
    assert tree.read(START, name) == str(default)
    assert tree.show(START, name) == f"{name}: {default}"


@pytest.mark.covers("M29")
def test_every_field_of_the_settings_has_exactly_one_node_and_can_be_changed() -> None:
    fields: set[tuple[str, ...]] = set()
    for field in dataclasses.fields(Settings):
        value = getattr(START, field.name)
        if dataclasses.is_dataclass(value):
            fields |= {(field.name, inner.name) for inner in dataclasses.fields(value)}
        else:
            fields.add((field.name,))
    tunables = [node for node in NODES if node.kind is Kind.TUNABLE]
    assert {node.where for node in tunables} == fields
    assert len(tunables) == len(fields)
    for node in tunables:
        old = int(tree.read(START, node.name))
        assert node.least <= old <= node.most, node.name
        wanted = old + 1 if old < node.most else old - 1
        wanted = 3 if node.rule is Rule.DEFLEV else wanted
        change = tree.set_value(START, node.name, str(wanted), is_boot=True)
        assert tree.read(change.settings, node.name) == str(wanted) == change.new
        changed = [other.name for other in tunables if tree.read(change.settings, other.name) != tree.read(START, other.name)]
        assert changed == [node.name], "one name, one value"
        for alias in node.aliases:
            assert tree.read(change.settings, alias) == str(wanted)


@pytest.mark.covers("S7")
def test_the_families_are_independent_and_a_change_is_a_new_value() -> None:
    change = tree.assign(START, "net.inet.ipsec.def_policy=0")
    assert change.settings.v4.def_policy == 0 and change.settings.v6.def_policy == 1
    assert START.v4.def_policy == 1
    assert change.show() == "net.inet.ipsec.def_policy: 1 -> 0"


@pytest.mark.covers("R25")
def test_a_level_variable_keeps_1_2_3_and_makes_2_of_the_rest() -> None:
    for wanted, stored in ((1, 1), (2, 2), (3, 3), (0, 2), (4, 2), (-1, 2)):
        change = tree.set_value(START, "net.inet6.ipsec6.ah_net_deflev", str(wanted))
        assert change.settings.v6.ah_net_deflev == stored and change.new == str(stored)
        assert bool(change.remark) == (stored != wanted)


@pytest.mark.covers("R11", "M1")
@pytest.mark.parametrize("option", ["IPSEC_FILTERTUNNEL", "IPSEC_FILTERGIF"])
def test_the_options_set_both_families(option: str) -> None:
    change = tree.assign(START, f"{option}=1")
    assert change.settings.v4.filtertunnel == change.settings.v6.filtertunnel == 1
    assert tree.read(change.settings, option) == "1"
    assert change.show().splitlines() == ["net.inet.ipsec.filtertunnel: 0 -> 1", "net.inet6.ipsec6.filtertunnel: 0 -> 1"]


@pytest.mark.parametrize(
    ("text", "stored"),
    [("0x10", 16), ("0X1f", 31), ("010", 8), ("0", 0), ("+5", 5), ("17", 17)],
)
def test_integers_are_read_as_strtoimax_does(text: str, stored: int) -> None:
    assert tree.assign(START, f" net.inet.ipsec.min_pmtu = {text} ").settings.min_pmtu == stored


@pytest.mark.parametrize("text", ["", "x", "0x", "09", "1 2", "1e3", "--1", "on", "9" * 30, "\u0663"])
def test_what_is_no_integer_is_refused(text: str) -> None:
    fault = refusal("net.inet.ipsec.dfbit", text)
    assert fault.errno is Errno.EINVAL and "net.inet.ipsec.dfbit" in fault.why


@pytest.mark.parametrize(
    ("name", "text", "errno", "says"),
    [
        ("net.inet.ipsec.def_policy", "2", Errno.EINVAL, "0 discard, 1 none"),
        ("net.inet.ipsec.ah_offsetmask", "65536", Errno.EINVAL, "0 to 65535"),
        ("net.inet.esp.esp_enable", "2147483648", Errno.EINVAL, "2147483647"),
        ("net.key.spi_trycnt", "0", Errno.EINVAL, "1 to"),
        ("net.key.spi_minval", "0x10000000", Errno.EINVAL, "set the other one first"),
        ("net.key.spdcache.maxentries", "64", Errno.EPERM, "at start only"),
        ("kern.features.ipsec", "0", Errno.EPERM, "cannot be set"),
        ("net.inet.esp.stats", "1", Errno.EINVAL, "only 0"),
        ("net.inet.ipsec", "1", Errno.EINVAL, "branch"),
        ("net.inet.ipsec.esp_net_deflevel", "1", Errno.ENOENT, "net.inet.ipsec.esp_net_deflev"),
        ("net.inet.ipsec.esp_enable", "1", Errno.ENOENT, "net.inet.esp.esp_enable"),
        ("esp_enable", "1", Errno.ENOENT, "net.inet.esp.esp_enable"),
        ("IPSEC_FILTERGIFF", "1", Errno.ENOENT, "IPSEC_FILTERGIF"),
        ("quite.another.thing", "1", Errno.ENOENT, "unknown oid 'quite.another.thing'"),
        ("", "1", Errno.ENOENT, "unknown oid"),
        ("net.inet.ipsec.inbound_call_ike", "1", Errno.ENOENT, "unknown"),
    ],
)
def test_refusals_name_what_is_allowed_or_meant(name: str, text: str, errno: Errno, says: str) -> None:
    fault = refusal(name, text)
    assert fault.errno is errno
    assert says in fault.why


def test_an_assignment_needs_an_equals_sign() -> None:
    with pytest.raises(Refused, match="write name=value"):
        tree.assign(START, "net.inet.ipsec.dfbit 1")


@pytest.mark.covers("M6")
def test_boot_time_tunables_are_set_at_start() -> None:
    assert tree.assign(START, "net.key.spdcache.maxentries=64", is_boot=True).settings.key.spdcache_maxentries == 64


@pytest.mark.covers("R40")
@pytest.mark.parametrize(
    ("numbers", "name"),
    [
        ("4.2.253.1", "net.inet.ipsec.ipsecstats"),
        ("4.2.253.2", "net.inet.ipsec.def_policy"),
        ("4.2.253.8", "net.inet.ipsec.ah_cleartos"),
        ("4.2.253.14", "net.inet.ipsec.min_pmtu"),
        ("4.28.50.11", "net.inet6.ipsec6.ecn"),
        ("4.27.1", "net.key.debug"),
        ("4.27.12", "net.key.preferred_oldsa"),
    ],
)
def test_integer_names(numbers: str, name: str) -> None:
    assert tree.find(numbers).name == name
    assert tree.BY_MIB[tuple(int(part) for part in numbers.split("."))].name == name
    assert (4, 2, 253, 7) not in tree.BY_MIB, "reserved: inbound_call_ike is gone"


def test_a_prefix_shows_its_subtree_by_name_and_whole_words_only() -> None:
    lines = tree.show(START, "net.key").splitlines()
    assert lines == sorted(lines) and len(lines) == 16
    assert "net.key.preferred_oldsa: 1" in lines
    assert all(line.startswith("net.inet.ipsec.") for line in tree.show(START, "net.inet.ipsec").splitlines())
    assert len(tree.show(START).splitlines()) == len(NODES)
    with pytest.raises(Refused):
        tree.show(START, "net.ke")


@pytest.mark.covers("M38")
def test_counters_are_read_and_cleared_by_zero() -> None:
    counters = FakeCounters()
    assert tree.read(START, "net.inet.esp.stats", counters) == "esps_input=5 esps_hdrops=1"
    with pytest.raises(Refused):
        tree.assign(START, "net.inet.esp.stats=3", counters)
    change = tree.assign(START, "net.inet.esp.stats=0", counters)
    assert change.settings is START
    assert tree.read(START, "net.inet.esp.stats", counters) == "esps_input=0 esps_hdrops=0"


def test_units_differ_only_at_the_border() -> None:
    assert tree.read(START, "net.koura.limits.larval_hold_ms") == "1000"
    assert tree.assign(START, "net.koura.limits.larval_hold_ms=250").settings.limits.larval_hold_ns == 250_000_000
