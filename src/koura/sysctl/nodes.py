"""THE table of tunables: every sysctl name, its range, its integer name, and where in Settings it lives. system.md §3.3, §4.

Names, defaults and senses are FreeBSD's (R23-R39, M1, M6, M13, M20, M23, M26-M29, M40) where FreeBSD has them; `net.koura` is
ours. Where FreeBSD takes any integer so do we, except where a value could only harm. Defaults stand in `settings` alone.
"""

from collections.abc import Iterator

from koura.sysctl.node import UINT_MOST, Kind, Node, Rule

# Integer names: CTL_NET 4; then the protocol families 2, 28 and key's 27; then net.inet.ipsec's 253 and net.inet6.ipsec6's 50.
_INET = (4, 2, 253)
_INET6 = (4, 28, 50)
_KEY = (4, 27)
_ON = "0 off, others on"
_ENC_MASK = "bit 1 before, 2 after, added up"
_CAPTURE_MASK = "bit 1 before, 2 after, 4 again after the filter, added up"


def _of_family(prefix: str, half: str, mib: tuple[int, ...]) -> Iterator[Node]:
    """What net.inet.ipsec and net.inet6.ipsec6 each hold (R39); they are independent (S7)."""

    def node(name: str, number: int | None, sentence: str, **more: object) -> Node:
        return Node(f"{prefix}.{name}", sentence, (half, name), mib=(*mib, number) if number else (), **more)  # type: ignore[arg-type]

    yield node("def_policy", 2, "what happens where no policy matches", least=0, most=1, words="0 discard, 1 none")
    level = {"rule": Rule.DEFLEV, "words": "1 use, 2 require, 3 unique; others become 2"}
    yield node("esp_trans_deflev", 3, "level `default` of ESP in transport mode", **level)
    yield node("esp_net_deflev", 4, "level `default` of ESP in tunnel mode", **level)
    yield node("ah_trans_deflev", 5, "level `default` of AH in transport mode", **level)
    yield node("ah_net_deflev", 6, "level `default` of AH in tunnel mode", **level)
    yield node("ecn", 11, "congestion marks on tunnels", words="1 allowed, 0 forbidden, -1 not considered, 2 RFC 6040")
    yield node("debug", 12, "diagnostic messages", words=_ON)
    yield node("filtertunnel", None, "packets out of tunnels pass the firewall, too", words=_ON)


def _ipsec() -> Iterator[Node]:
    """net.inet.ipsec beyond what both families have."""
    for name, number, words, sentence in (
        ("ah_cleartos", 8, _ON, "AH takes TOS as zero (RFC 4302); 0 for RFC 1826 peers"),
        ("dfbit", 10, "0 clear, 1 set, 2 copy from inside", "DF of the outer IPv4 header"),
        ("crypto_support", None, "1 hardware, -1 software, 0 any", "which crypto drivers new SAs use"),
        ("async_crypto", None, _ON, "hand crypto requests to worker queues"),
        ("check_policy_history", None, _ON, "inbound policy is held against what was taken off, in order"),
        ("natt_cksum_policy", None, "0 by the original addresses, others always anew", "checksums inside transport mode through a NAT"),
        ("random_id", None, _ON, "random IP identification outside"),
        ("test_replay", None, _ON, "test: every packet with the same sequence number"),
        ("test_integrity", None, _ON, "test: an ICV of zeros"),
    ):
        alias = ("net.inet.ah.ah_cleartos",) if name == "ah_cleartos" else ()
        yield Node(f"net.inet.ipsec.{name}", sentence, (name,), words=words, mib=(*_INET, number) if number else (), aliases=alias)
    yield Node("net.inet.ipsec.offload.verbose", "say what is offloaded", ("offload_verbose",), words=_ON)
    yield Node("net.inet.ipsec.ah_offsetmask", "what AH keeps of flags and fragment offset (RFC 1826)", ("ah_offsetmask",), least=0,
               most=0xFFFF, words="0 for RFC 4302", mib=(*_INET, 9))  # fmt: skip
    yield Node("net.inet.ipsec.min_pmtu", "smaller path MTUs in ICMP are not believed", ("min_pmtu",), least=0, most=65535,
               words="octets", mib=(*_INET, 14))  # fmt: skip


def _protocols() -> Iterator[Node]:
    yield Node("net.inet.esp.esp_enable", "ESP, both directions and families", ("esp_enable",), words=_ON)
    yield Node("net.inet.esp.ctr_compatibility", "pad AES-CTR to 16 octets", ("ctr_compatibility",), words=_ON)
    yield Node("net.inet.ah.ah_enable", "AH, both directions and families", ("ah_enable",), words=_ON)
    yield Node("net.inet.ipcomp.ipcomp_enable", "IPComp, both directions and families", ("ipcomp_enable",), words=_ON)
    yield Node("net.inet.ip.ttl", "TTL of outer headers", ("ttl",), least=1, most=255)
    yield Node("net.inet6.ip6.hlim", "hop limit of outer headers", ("hop_limit",), least=1, most=255)
    for name, protocol, mib in (
        ("net.inet.ipsec.ipsecstats", "ipsec", (*_INET, 1)),
        ("net.inet6.ipsec6.ipsecstats", "ipsec6", (*_INET6, 1)),
        ("net.inet.esp.stats", "esp", ()),
        ("net.inet.ah.stats", "ah", ()),
        ("net.inet.ipcomp.stats", "ipcomp", ()),
    ):
        yield Node(name, f"counters of {protocol}; writing 0 clears them", (protocol,), Kind.COUNTERS, 0, 0, mib=mib)


def _key() -> Iterator[Node]:
    """net.key."""
    rows: tuple[tuple[str, str, int | None, int, int, str, str], ...] = (
        ("debug", "debug", 1, 0, UINT_MOST, "bits", "which messages: detail 1, 2, 4 and area 16, 32, 64"),
        ("spi_trycnt", "spi_trycnt", 2, 1, 1_000_000, "", "draws of an SPI before GETSPI gives up"),
        ("spi_minval", "spi_minval", 3, 1, UINT_MOST, "", "least SPI that is given without a range"),
        ("spi_maxval", "spi_maxval", 4, 1, UINT_MOST, "", "largest SPI that is given without a range"),
        ("int_random", "int_random", 5, 0, 1 << 30, "seconds", "reseeding; nothing here needs it"),
        ("larval_lifetime", "larval_lifetime_s", 6, 1, 1 << 30, "seconds", "life of an SA without keys"),
        ("blockacq_count", "blockacq_count", 7, 0, 1 << 30, "packets", "packets between two ACQUIREs"),
        ("blockacq_lifetime", "blockacq_lifetime_s", 8, 0, 1 << 30, "seconds", "how long ACQUIREs are held back"),
        ("esp_keymin", "esp_keymin_bits", 9, 0, 65535, "bits", "shortest ESP key that is proposed"),
        ("esp_auth", "esp_auth", 10, -(1 << 31), (1 << 31) - 1, _ON, "ESP proposals with authentication"),
        ("ah_keymin", "ah_keymin_bits", 11, 0, 65535, "bits", "shortest AH key that is proposed"),
        ("preferred_oldsa", "preferred_oldsa", 12, -(1 << 31), (1 << 31) - 1, "0 newest, others oldest", "which of several SAs sends"),
        ("sendspace", "sendspace_octets", None, 1024, 1 << 24, "octets", "send buffer of a key socket"),
        ("recvspace", "recvspace_octets", None, 1024, 1 << 24, "octets", "receive buffer of a key socket"),
        ("spdcache.maxentries", "spdcache_maxentries", None, 0, 1 << 20, "0 off", "answers of the SPD that are kept"),
        ("spdcache.threshold", "spdcache_threshold", None, 0, 1 << 20, "policies", "from how many policies on they are kept"),
    )
    for name, field, number, least, most, words, sentence in rows:
        yield Node(
            f"net.key.{name}",
            sentence,
            ("key", field),
            least=least,
            most=most,
            words=words,
            rule=Rule.SPI_RANGE if name in ("spi_minval", "spi_maxval") else Rule.NONE,
            mib=(*_KEY, number) if number else (),
            aliases=("net.key.prefered_oldsa",) if name == "preferred_oldsa" else (),
            is_boot_time=name.startswith("spdcache."),
        )


def _enc() -> Iterator[Node]:
    for side in ("in", "out"):
        yield Node(f"net.enc.{side}.ipsec_filter_mask", f"where the filter sees packets, {side}bound", ("enc", f"{side}_filter_mask"),
                   least=0, most=3, words=_ENC_MASK)  # fmt: skip
        yield Node(f"net.enc.{side}.ipsec_bpf_mask", f"where captures see packets, {side}bound", ("enc", f"{side}_bpf_mask"),
                   least=0, most=7, words=_CAPTURE_MASK)  # fmt: skip


def _ours() -> Iterator[Node]:
    """net.koura and what says that we are here."""
    rows: tuple[tuple[str, str, int, int, str, str], ...] = (
        ("weak_crypto", "weak_crypto", 0, 1, _ON, "weak algorithms may be used"),
        ("ipcomp_level", "ipcomp_level", 0, 9, "1 fast to 9 small", "how hard IPComp tries"),
        ("ipcomp_threshold", "ipcomp_threshold_octets", 0, 65535, "octets", "shorter payloads are not compressed"),
        ("pre_frag", "pre_frag", 0, 1, _ON, "fragment inner IPv4 without DF before sealing"),
        ("mss_clamp", "mss_clamp", 0, 1, _ON, "lower the MSS of TCP to what fits"),
        ("natt_roaming", "natt_roaming", 0, 1, _ON, "follow a peer's new address and port once authenticated"),
        ("natt_keepalive_s", "natt_keepalive_s", 0, 3600, "seconds, 0 none", "NAT keepalives to peers after such a silence of ours"),
        ("check_tunnel_source", "check_tunnel_source", 0, 1, _ON, "tunnel packets must come from the SA's source"),
        ("icmp_through_sa", "icmp_through_sa", 0, 1, _ON, "ICMP errors follow the packet they quote through its SA"),
        ("acquire_hold", "acquire_hold", 0, 1, _ON, "packets wait for the SA that policy demands"),
        ("compat_errno", "compat_errno", 0, 1, _ON, "FreeBSD's EINVAL where ours is ENOENT"),
        ("register_all", "register_all", 0, 1, _ON, "ACQUIRE and EXPIRE to every registered socket"),
    )
    for name, field, least, most, words, sentence in rows:
        yield Node(f"net.koura.{name}", sentence, (field,), least=least, most=most, words=words, is_ours=True)
    yield Node("net.koura.delete_grace_ms", "milliseconds that an SA deleted in a rekey still receives what was under way",
               ("delete_grace_ns",), least=0, most=60_000, scale=1_000_000, words="0 off", is_ours=True)  # fmt: skip
    limits: tuple[tuple[str, int, str], ...] = (
        ("associations", 1 << 30, "SAs"),
        ("policies", 1 << 30, "policies, sockets' included"),
        ("window_packets", (1 << 32) - 33, "one replay window"),
        ("windows_octets", 1 << 40, "all replay windows together"),
        ("acquires", 1 << 24, "requests for SAs that are remembered"),
        ("hold_packets", 65536, "packets that wait for one SA"),
        ("larval_packets", 65536, "packets that wait for the keys of one SPI"),
        ("fragments", 1 << 20, "fragments that wait"),
        ("fragment_datagrams", 1 << 20, "datagrams whose fragments wait"),
        ("fragment_timeout_s", 3600, "seconds that fragments wait"),
        ("pmtu_entries", 1 << 24, "paths whose MTU is remembered"),
        ("pmtu_timeout_s", 1 << 24, "seconds that it is remembered"),
        ("nesting", 64, "IPsec headers in one packet"),
        ("message_octets", 1 << 20, "one PF_KEY message"),
    )
    for name, most, sentence in limits:
        yield Node(f"net.koura.limits.{name}", f"limit: {sentence}", ("limits", name), least=1, most=most, is_ours=True)
    yield Node("net.koura.limits.larval_hold_ms", "limit: milliseconds that packets wait for keys", ("limits", "larval_hold_ns"), least=0,
               most=60_000, scale=1_000_000, is_ours=True)  # fmt: skip
    yield Node("net.koura.fast", "the fast path: its crypto drivers, or `off` and why", ("fast",), Kind.STATE, is_ours=True)
    yield Node("kern.features.ipsec", "IPsec is here", (), Kind.FIXED)
    yield Node("kern.features.ipsec_natt", "and NAT traversal", (), Kind.FIXED)


NODES: tuple[Node, ...] = tuple(
    sorted(
        (
            *_of_family("net.inet.ipsec", "v4", _INET),
            *_of_family("net.inet6.ipsec6", "v6", _INET6),
            *_ipsec(),
            *_protocols(),
            *_key(),
            *_enc(),
            *_ours(),
        ),
        key=lambda node: node.name,
    )
)

# Kernel options that were names of a tunable once (R11, M1): setting one sets all of these.
_FILTERTUNNEL = ("net.inet.ipsec.filtertunnel", "net.inet6.ipsec6.filtertunnel")
OPTIONS: dict[str, tuple[str, ...]] = {"IPSEC_FILTERTUNNEL": _FILTERTUNNEL, "IPSEC_FILTERGIF": _FILTERTUNNEL}
