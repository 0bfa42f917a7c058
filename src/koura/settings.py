"""Settings: every tunable, one frozen value. `sysctl.nodes` names them, checks them and sets them.

A change makes a new Settings and a new generation (stack.tune); nobody edits one. Defaults are those of FreeBSD's
table (reference names in the comments are the sysctl names) except where docs/conformance.md says otherwise.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class FamilySettings:
    """What net.inet.ipsec and net.inet6.ipsec6 each hold on their own. deflev: 1 use, 2 require. def_policy: 0 discard, 1 none."""

    def_policy: int = 1
    esp_trans_deflev: int = 1
    esp_net_deflev: int = 1
    ah_trans_deflev: int = 1
    ah_net_deflev: int = 1
    ecn: int = 0
    debug: int = 0
    filtertunnel: int = 0


@dataclass(frozen=True, slots=True)
class EncSettings:
    """net.enc.in and net.enc.out: bit 1 BEFORE, bit 2 AFTER, bit 4 after the filter (capture only)."""

    in_filter_mask: int = 1
    in_bpf_mask: int = 1
    out_filter_mask: int = 1
    out_bpf_mask: int = 3


@dataclass(frozen=True, slots=True)
class KeySettings:
    """net.key.*"""

    debug: int = 0
    spi_trycnt: int = 1000
    spi_minval: int = 0x100
    spi_maxval: int = 0x0FFFFFFF
    int_random: int = 60
    larval_lifetime_s: int = 30
    blockacq_count: int = 10
    blockacq_lifetime_s: int = 20
    esp_auth: int = 0
    esp_keymin_bits: int = 256
    ah_keymin_bits: int = 128
    preferred_oldsa: int = 1
    sendspace_octets: int = 8192
    recvspace_octets: int = 8192
    spdcache_maxentries: int = 0
    spdcache_threshold: int = 32


@dataclass(frozen=True, slots=True)
class Limits:
    """Ours (net.koura.*): what a peer or an operator can grow. Each is enforced with a Reason or an errno (ENOBUFS)."""

    associations: int = 1_000_000
    policies: int = 1_000_000
    window_packets: int = (1 << 32) - 33
    windows_octets: int = 1 << 30  # the memory of all replay windows together
    acquires: int = 4096
    hold_packets: int = 64  # per policy, waiting for an SA
    larval_packets: int = 1024  # per larval SPI: a rekey under load, until the keys are here
    larval_hold_ns: int = 1_000_000_000
    fragments: int = 4096  # fragments waiting, all datagrams together
    fragment_datagrams: int = 1024
    fragment_timeout_s: int = 30
    pmtu_entries: int = 4096
    pmtu_timeout_s: int = 600
    nesting: int = 16  # IPsec headers in one packet
    message_octets: int = 65536  # one PF_KEY message


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole tree at one moment."""

    v4: FamilySettings = field(default_factory=FamilySettings)
    v6: FamilySettings = field(default_factory=FamilySettings)
    enc: EncSettings = field(default_factory=EncSettings)
    key: KeySettings = field(default_factory=KeySettings)
    limits: Limits = field(default_factory=Limits)
    # net.inet.ipsec.*
    ah_cleartos: int = 1
    ah_offsetmask: int = 0
    dfbit: int = 0
    min_pmtu: int = 576
    crypto_support: int = 0
    async_crypto: int = 0
    check_policy_history: int = 1  # Deviates from FreeBSD's 0 because R52 needs it (ARCHITECTURE, Decapsulation history).
    natt_cksum_policy: int = 0
    random_id: int = 0
    test_replay: int = 0
    test_integrity: int = 0
    offload_verbose: int = 0
    # net.inet.{esp,ah,ipcomp}.*
    esp_enable: int = 1
    ctr_compatibility: int = 1
    ah_enable: int = 1
    ipcomp_enable: int = 1
    # net.inet.ip.ttl, net.inet6.ip6.hlim
    ttl: int = 64
    hop_limit: int = 64
    # Ours, net.koura.*
    weak_crypto: int = 1  # 0: weak algorithms are refused
    ipcomp_level: int = 6
    ipcomp_threshold_octets: int = 90
    pre_frag: int = 0  # 1: fragment inner IPv4 without DF before sealing
    mss_clamp: int = 0
    natt_roaming: int = 0  # 1: follow a peer's new address and port after authentication
    natt_keepalive_s: int = 0  # a NAT keepalive to each peer in UDP that nothing was sent to for so long; 0: none, IKE sends them
    check_tunnel_source: int = 0  # 1: a tunnel packet must come from the SA's source (RFC 4301 wants the selectors checked, not this)
    icmp_through_sa: int = 1
    acquire_hold: int = 1
    delete_grace_ns: int = 1_000_000_000  # an SA that a key manager deletes in a rekey receives so long
    compat_errno: int = 0  # 1: FreeBSD's EINVAL where ours says ENOENT (SPDDELETE of nothing)
    register_all: int = 0  # 1: ACQUIRE and EXPIRE to every registered socket, whatever its satype (S16)

    def of(self, version: int) -> FamilySettings:
        """The half for IP version 4 or 6."""
        return self.v4 if version == 4 else self.v6


DAEMON = Settings(weak_crypto=0, natt_roaming=1)  # what a daemon starts with
