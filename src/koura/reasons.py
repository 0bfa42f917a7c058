"""Every way a packet can end, declared once.

A row is a name, how grave it is, a sentence for a person, and the twins of other systems: the RFC clause, the BSD counter
(`netstat -s`), Linux's XfrmIn*/XfrmOut*, VPP's error. Counters, the netstat report, the fast path's constants and the list
of tests all come from here. A reason has one cause: a second cause is a second row.
"""

from dataclasses import dataclass
from enum import Enum


class Severity(Enum):
    """How a person should take it."""

    NORMAL = "normal"  # what was meant to happen
    POLICY = "policy"  # the operator's own rules say so
    PEER = "peer"  # the peer or the path is wrong or out of step
    ATTACK = "attack"  # what an attacker would cause (a broken peer can, too)
    LOCAL = "local"  # our configuration, a limit of ours, or a missing resource


@dataclass(frozen=True, slots=True)
class Ending:
    """One way a packet ends. `bsd` is the counter's field name, '' where BSD has none, two with a space between."""

    name: str
    severity: Severity
    sentence: str
    rfc: str = ""
    bsd: str = ""
    xfrm: str = ""
    vpp: str = ""

    def __str__(self) -> str:
        return self.name


class Discarded(Exception):
    """A packet's end, raised by `xform`, `enc` and `traffic` only and caught once per direction.

    `association`: the SA it happened to, None where no SA was found. Typed object: rank 0 imports nothing.
    """

    def __init__(self, reason: Ending, association: object | None = None) -> None:
        super().__init__(reason.name)
        self.reason = reason
        self.association = association


_N, _POL, _PEER, _ATT, _LOC = Severity.NORMAL, Severity.POLICY, Severity.PEER, Severity.ATTACK, Severity.LOCAL

# -- ends that are no discard -------------------------------------------------------------------------------------------
FORWARDED = Ending("ok.forwarded", _N, "protected and sent on")
DELIVERED = Ending("ok.delivered", _N, "accepted and delivered")
BYPASSED = Ending("ok.bypassed", _N, "passed in clear, as policy allows", rfc="RFC 4301 §4.4.1")
PUNTED_IKE = Ending("punt.ike", _N, "IKE on an encapsulation port, handed to its socket", rfc="RFC 3948 §2.2")
HELD_FRAGMENT = Ending("held.fragment", _N, "a fragment, held until the rest arrives", rfc="RFC 791 §3.2")
HELD_ACQUIRE = Ending("held.acquire", _N, "held until the SA that policy demands exists", rfc="RFC 4301 §5.1")
HELD_LARVAL = Ending("held.larval", _N, "held briefly: its SPI is known, its keys are on their way", rfc="RFC 4301 §4.4.2.1")
HELD_GRANT = Ending("held.grant", _N, "held until the ledger grants the SA its next block of numbers")

# -- the IP packet itself -----------------------------------------------------------------------------------------------
IP_MALFORMED = Ending("ip.malformed", _PEER, "not a well-formed IP packet", rfc="RFC 791, RFC 8200", xfrm="XfrmInHdrError")
IP_CHECKSUM = Ending("ip.checksum", _PEER, "IPv4 header checksum is wrong", rfc="RFC 791 §3.1")
FRAG_TIMEOUT = Ending("frag.timeout", _PEER, "the other fragments did not come in time", rfc="RFC 791 §3.2, RFC 8200 §4.5")
FRAG_OVERLAP = Ending("frag.overlap", _ATT, "fragments overlap", rfc="RFC 5722 §4, RFC 8200 §4.5")
FRAG_TOO_BIG = Ending("frag.toobig", _ATT, "fragments add up to more than 65535 octets", rfc="RFC 8200 §4.5")
FRAG_MALFORMED = Ending("frag.malformed", _ATT, "a fragment's length or offset is impossible", rfc="RFC 8200 §4.5")
FRAG_ECN = Ending("frag.ecn", _PEER, "some fragments of a datagram mark congestion, others say they cannot", rfc="RFC 3168 §5.3")
FRAG_LIMIT = Ending("frag.limit", _LOC, "too many fragments are waiting")

# -- policy -------------------------------------------------------------------------------------------------------------
POLICY_OUT_DISCARD = Ending("policy.out.discard", _POL, "outbound policy says discard", rfc="RFC 4301 §5.1",
                            bsd="ips_out_polvio", xfrm="XfrmOutPolBlock")
POLICY_IN_DISCARD = Ending("policy.in.discard", _POL, "inbound policy says discard", rfc="RFC 4301 §5.2",
                           bsd="ips_in_polvio", xfrm="XfrmInPolBlock")
POLICY_IN_CLEAR = Ending("policy.in.clear", _ATT, "came in clear where inbound policy demands protection",
                         rfc="RFC 4301 §5.2", bsd="ips_in_polvio", xfrm="XfrmInNoPols")
POLICY_IN_MISSING = Ending("policy.in.missing", _PEER, "a protection that inbound policy demands is not on the packet",
                           rfc="RFC 4301 §5.2", bsd="ips_in_polvio", xfrm="XfrmInTmplMismatch")
POLICY_IN_ORDER = Ending("policy.in.order", _PEER, "protections came in another order than inbound policy demands",
                         rfc="RFC 4301 §5.2", bsd="ips_in_polvio", xfrm="XfrmInTmplMismatch")
POLICY_IN_EXTRA = Ending("policy.in.extra", _PEER, "a protection on the packet that no request of its inbound policy accounts for",
                         rfc="RFC 4301 §5.2", bsd="ips_in_polvio", xfrm="XfrmInTmplMismatch")
POLICY_IN_SELECTOR = Ending("policy.in.selector", _ATT, "came through an SA that may not carry such a packet",
                            rfc="RFC 4301 §5.2", bsd="ips_in_polvio", xfrm="XfrmInStateMismatch", vpp="POLICY_MISMATCH")
SA_NONE_OUT = Ending("sa.none.out", _LOC, "outbound policy requires an SA and there is none", rfc="RFC 4301 §5.1",
                     bsd="ips_out_inval", xfrm="XfrmOutNoStates")
SA_ACQUIRE_LIMIT = Ending("sa.acquire.limit", _LOC, "too many packets wait for an SA already", rfc="RFC 4301 §5.1",
                          bsd="ips_out_nosa")
SA_ACQUIRE_TIMEOUT = Ending("sa.acquire.timeout", _PEER, "waited for an SA that key management did not bring", rfc="RFC 4301 §5.1",
                            bsd="ips_out_nosa")
SA_ENDPOINTS = Ending("sa.endpoints", _LOC, "tunnel endpoints are unspecified or of two families", bsd="ips_out_inval")
SA_UNGRANTED = Ending("sa.ungranted", _LOC, "the ledger has granted this SA no more numbers, so sealing could repeat a nonce")
SA_LARVAL_LIMIT = Ending("sa.larval.limit", _LOC, "too many packets wait for the keys of a larval SA")
SA_LARVAL_TIMEOUT = Ending("sa.larval.timeout", _PEER, "the keys of the larval SA did not come in time")
SA_NESTING = Ending("sa.nesting", _ATT, "more IPsec headers inside one another than any policy can ask for")

# -- ESP ----------------------------------------------------------------------------------------------------------------
ESP_DISABLED_IN = Ending("esp.disabled.in", _POL, "ESP is switched off", bsd="esps_pdrops")
ESP_DISABLED_OUT = Ending("esp.disabled.out", _POL, "ESP is switched off", bsd="esps_pdrops")
ESP_SHORT = Ending("esp.short", _PEER, "shorter than an ESP header", rfc="RFC 4303 §2", bsd="esps_hdrops",
                   xfrm="XfrmInHdrError", vpp="RUNT")
ESP_NO_SA = Ending("esp.nosa", _PEER, "no SA for this destination and SPI", rfc="RFC 4303 §3.4.2", bsd="esps_notdb",
                   xfrm="XfrmInNoStates", vpp="NO_SA")
ESP_PORT = Ending("esp.port", _PEER, "the SA exists, but not for these UDP encapsulation ports", rfc="RFC 3948 §2.1",
                  bsd="esps_notdb", xfrm="XfrmInStateMismatch")
ESP_LENGTH = Ending("esp.length", _PEER, "ciphertext is empty or not whole blocks", rfc="RFC 4303 §2.4", bsd="esps_badilen",
                    xfrm="XfrmInStateProtoError", vpp="NO_TAIL_SPACE")
ESP_REPLAY = Ending("esp.replay", _ATT, "sequence number was accepted before", rfc="RFC 4303 §3.4.3", bsd="esps_replay",
                    xfrm="XfrmInStateSeqError", vpp="REPLAY")
ESP_OLD = Ending("esp.old", _PEER, "sequence number lies behind the window", rfc="RFC 4303 §3.4.3", bsd="esps_replay",
                 xfrm="XfrmInStateSeqError", vpp="REPLAY")
ESP_ZERO = Ending("esp.zero", _ATT, "sequence number 0 is never sent", rfc="RFC 4303 §3.3.3", bsd="esps_replay",
                  xfrm="XfrmInStateSeqError", vpp="REPLAY")
ESP_ICV = Ending("esp.icv", _ATT, "the ICV does not match: forged, damaged, or another key", rfc="RFC 4303 §3.4.4.1",
                 bsd="esps_badauth", xfrm="XfrmInStateProtoError", vpp="INTEG_ERROR")
ESP_PAD_LENGTH = Ending("esp.padlength", _PEER, "pad length is larger than the payload", rfc="RFC 4303 §2.5",
                        bsd="esps_badilen", xfrm="XfrmInStateProtoError")
ESP_PADDING = Ending("esp.padding", _PEER, "padding is not 1, 2, 3, ...", rfc="RFC 4303 §2.4", bsd="esps_badenc",
                     xfrm="XfrmInStateProtoError")
ESP_INNER = Ending("esp.inner", _PEER, "a tunnel's payload is not an IP packet", rfc="RFC 4303 §2.6", bsd="esps_nopf",
                   xfrm="XfrmInStateModeError")
ESP_INNER_MALFORMED = Ending("esp.inner.malformed", _PEER, "the IP packet inside is not well-formed", bsd="esps_hdrops",
                             xfrm="XfrmInHdrError")
ESP_DUMMY = Ending("esp.dummy", _N, "a dummy packet, sent to hide how much traffic there is", rfc="RFC 4303 §2.6",
                   xfrm="XfrmInStateProtoError")
ESP_SEQ_CYCLED = Ending("esp.seqcycled", _LOC, "the sequence numbers of the SA are spent: it must be rekeyed",
                        rfc="RFC 4303 §3.3.3", bsd="esps_wrap", xfrm="XfrmOutStateSeqError", vpp="SEQ_CYCLED")
ESP_SEQ_OVER = Ending("esp.seqover", _PEER, "a sequence number beyond the end of the number space", rfc="RFC 4303 §3.3.3",
                      bsd="esps_wrap esps_replay", xfrm="XfrmInStateSeqError")
ESP_TOO_BIG = Ending("esp.toobig", _LOC, "the protected packet would exceed 65535 octets", bsd="esps_toobig",
                     xfrm="XfrmOutStateProtoError")
ESP_NO_CRYPTO = Ending("esp.nocrypto", _LOC, "no cipher behind this SA", bsd="esps_noxform", xfrm="XfrmInStateInvalid")

# -- AH -----------------------------------------------------------------------------------------------------------------
AH_DISABLED_IN = Ending("ah.disabled.in", _POL, "AH is switched off", bsd="ahs_pdrops")
AH_DISABLED_OUT = Ending("ah.disabled.out", _POL, "AH is switched off", bsd="ahs_pdrops")
AH_SHORT = Ending("ah.short", _PEER, "shorter than its AH header says", rfc="RFC 4302 §2", bsd="ahs_hdrops",
                  xfrm="XfrmInHdrError", vpp="RUNT")
AH_NO_SA = Ending("ah.nosa", _PEER, "no SA for this destination and SPI", rfc="RFC 4302 §3.4.2", bsd="ahs_notdb",
                  xfrm="XfrmInNoStates", vpp="NO_SA")
AH_LENGTH = Ending("ah.length", _PEER, "AH's length is not that of the SA's ICV", rfc="RFC 4302 §2.2", bsd="ahs_badauthl",
                   xfrm="XfrmInStateProtoError")
AH_REPLAY = Ending("ah.replay", _ATT, "sequence number was accepted before", rfc="RFC 4302 §3.4.3", bsd="ahs_replay",
                   xfrm="XfrmInStateSeqError", vpp="REPLAY")
AH_OLD = Ending("ah.old", _PEER, "sequence number lies behind the window", rfc="RFC 4302 §3.4.3", bsd="ahs_replay",
                xfrm="XfrmInStateSeqError", vpp="REPLAY")
AH_ZERO = Ending("ah.zero", _ATT, "sequence number 0 is never sent", rfc="RFC 4302 §3.3.2", bsd="ahs_replay",
                 xfrm="XfrmInStateSeqError", vpp="REPLAY")
AH_ICV = Ending("ah.icv", _ATT, "the ICV does not match: forged, changed on the way, or another key", rfc="RFC 4302 §3.4.4",
                bsd="ahs_badauth", xfrm="XfrmInStateProtoError", vpp="INTEG_ERROR")
AH_HEADERS = Ending("ah.headers", _PEER, "options or extension headers that AH cannot be computed over", rfc="RFC 4302 §3.3.3",
                    bsd="ahs_hdrops", xfrm="XfrmInHdrError")
AH_HEADERS_OUT = Ending("ah.headers.out", _LOC, "options or extension headers that AH cannot be computed over",
                        rfc="RFC 4302 §3.3.3", bsd="ahs_hdrops", xfrm="XfrmOutStateProtoError")
AH_INNER = Ending("ah.inner", _PEER, "a tunnel's payload is not an IP packet", rfc="RFC 4302 §3.1.2", bsd="ahs_nopf",
                  xfrm="XfrmInStateModeError")
AH_INNER_MALFORMED = Ending("ah.inner.malformed", _PEER, "the IP packet inside is not well-formed", bsd="ahs_hdrops",
                            xfrm="XfrmInHdrError")
AH_SEQ_CYCLED = Ending("ah.seqcycled", _LOC, "the sequence numbers of the SA are spent: it must be rekeyed",
                       rfc="RFC 4302 §3.3.2", bsd="ahs_wrap", xfrm="XfrmOutStateSeqError", vpp="SEQ_CYCLED")
AH_SEQ_OVER = Ending("ah.seqover", _PEER, "a sequence number beyond the end of the number space", rfc="RFC 4302 §3.3.2",
                     bsd="ahs_wrap ahs_replay", xfrm="XfrmInStateSeqError")
AH_TOO_BIG = Ending("ah.toobig", _LOC, "the protected packet would exceed 65535 octets", bsd="ahs_toobig",
                    xfrm="XfrmOutStateProtoError")
AH_NO_CRYPTO = Ending("ah.nocrypto", _LOC, "no integrity algorithm behind this SA", bsd="ahs_noxform", xfrm="XfrmInStateInvalid")

# -- IPComp -------------------------------------------------------------------------------------------------------------
IPCOMP_DISABLED_IN = Ending("ipcomp.disabled.in", _POL, "IPComp is switched off", bsd="ipcomps_pdrops")
IPCOMP_DISABLED_OUT = Ending("ipcomp.disabled.out", _POL, "IPComp is switched off", bsd="ipcomps_pdrops")
IPCOMP_SHORT = Ending("ipcomp.short", _PEER, "shorter than an IPComp header", rfc="RFC 3173 §3", bsd="ipcomps_hdrops",
                      xfrm="XfrmInHdrError")
IPCOMP_NO_SA = Ending("ipcomp.nosa", _PEER, "no SA for this CPI and peer", rfc="RFC 3173 §3.3", bsd="ipcomps_notdb",
                      xfrm="XfrmInNoStates")
IPCOMP_DAMAGED = Ending("ipcomp.damaged", _PEER, "the compressed payload does not expand", rfc="RFC 3173 §2.1",
                        bsd="ipcomps_noxform", xfrm="XfrmInStateProtoError")
IPCOMP_BOMB = Ending("ipcomp.bomb", _ATT, "the payload would expand beyond 65535 octets", rfc="RFC 3173 §2.1",
                     bsd="ipcomps_crypto", xfrm="XfrmInStateProtoError")
IPCOMP_NESTED = Ending("ipcomp.nested", _PEER, "compressed inside compressed", rfc="RFC 3173 §2.1", bsd="ipcomps_pdrops",
                       xfrm="XfrmInStateProtoError")
IPCOMP_INNER = Ending("ipcomp.inner", _PEER, "a tunnel's payload is not an IP packet", bsd="ipcomps_nopf",
                      xfrm="XfrmInStateModeError")
IPCOMP_INNER_MALFORMED = Ending("ipcomp.inner.malformed", _PEER, "the IP packet inside is not well-formed",
                                bsd="ipcomps_hdrops", xfrm="XfrmInHdrError")
IPCOMP_TOO_BIG = Ending("ipcomp.toobig", _LOC, "the packet in its tunnel would exceed 65535 octets", bsd="ipcomps_toobig",
                        xfrm="XfrmOutStateProtoError")
IPCOMP_NO_CRYPTO = Ending("ipcomp.nocrypto", _LOC, "no compression algorithm behind this SA", bsd="ipcomps_noxform")

# -- tunnels, NAT traversal ---------------------------------------------------------------------------------------------
TUNNEL_ECN = Ending("tunnel.ecn", _PEER, "congestion was marked outside, and the packet inside cannot carry the mark",
                    rfc="RFC 6040 §4.2", bsd="ips_in_inval")
TUNNEL_SOURCE = Ending("tunnel.source", _ATT, "a tunnel packet from another address than the SA's", rfc="RFC 4301 §5.2",
                       bsd="ips_in_inval", xfrm="XfrmInStateMismatch")
NATT_KEEPALIVE = Ending("natt.keepalive", _N, "a NAT keepalive", rfc="RFC 3948 §2.3")
NATT_SHORT = Ending("natt.short", _PEER, "a datagram too short for IKE or ESP on an encapsulation port", rfc="RFC 3948 §2")
NATT_CONFLICT = Ending("natt.conflict", _PEER, "another host behind the same NAT speaks in this very flow", rfc="RFC 3948 §5.2",
                       bsd="ips_in_polvio")
NATT_AMBIGUOUS = Ending("natt.ambiguous", _LOC, "several hosts are behind one NAT, and none of them spoke in this flow",
                        rfc="RFC 3948 §5.2", bsd="ips_out_polvio")
NATT_CHECKSUM = Ending("natt.checksum", _PEER, "the checksum inside is wrong, NAT allowed for", rfc="RFC 3948 §3.1.2",
                       bsd="esps_hdrops")
NATT_UDP_CHECKSUM = Ending("natt.udp.checksum", _PEER, "the UDP header around ESP or IKE has a wrong checksum", rfc="RFC 1122 §4.1.3.4")
NATT_UDP = Ending("natt.udp", _PEER, "the UDP header around ESP is impossible", rfc="RFC 3948 §2.1", bsd="esps_hdrops")

# -- TCP-MD5 ------------------------------------------------------------------------------------------------------------
TCPMD5_MISSING = Ending("tcpmd5.missing", _ATT, "a TCP segment without signature, where the SAD has a key for its pair of addresses",
                        rfc="RFC 2385 §2.0", bsd="tcps_sig_err_nosigopt")
TCPMD5_BAD = Ending("tcpmd5.bad", _ATT, "the signature does not match: forged, changed on the way, or another key",
                    rfc="RFC 2385 §2.0", bsd="tcps_sig_rcvbadsig")
TCPMD5_OPTIONS = Ending("tcpmd5.options", _PEER, "the TCP header's options are no list with at most one signature", rfc="RFC 9293 §3.1",
                        bsd="tcps_sig_err_sigopt")
TCPMD5_ROOM = Ending("tcpmd5.room", _LOC, "a TCP segment that must be signed has no room for it", rfc="RFC 2385 §4.3",
                     bsd="tcps_sig_err_buildsig")
TCPMD5_FRAGMENT = Ending("tcpmd5.fragment", _LOC, "a fragment of a TCP segment that must be signed: only whole segments can be",
                         rfc="RFC 2385 §2.0", bsd="tcps_sig_err_buildsig")

# -- size, filters, the rest --------------------------------------------------------------------------------------------
PMTU_LOCAL = Ending("pmtu.local", _LOC, "larger than the path takes once protected, and may not be fragmented",
                    rfc="RFC 4301 §8.2", bsd="ips_out_inval", xfrm="XfrmOutError")
PMTU_FORWARDED = Ending("pmtu.forwarded", _PEER, "a packet in transit is larger than the path takes once protected; its sender was told",
                        rfc="RFC 4301 §8.2.1", bsd="ips_out_inval")
PMTU_OUTER = Ending("pmtu.outer", _LOC, "the protected packet may not be fragmented and is larger than the link takes",
                    rfc="RFC 4301 §8.1")
ENC_FILTER_IN = Ending("enc.filter.in", _POL, "the packet filter on enc0 refused it inbound", bsd="ips_in_polvio")
ENC_FILTER_OUT = Ending("enc.filter.out", _POL, "the packet filter on enc0 refused it outbound", bsd="ips_out_polvio")

ENDINGS: tuple[Ending, ...] = tuple(row for row in list(globals().values()) if isinstance(row, Ending))
BY_NAME: dict[str, Ending] = {row.name: row for row in ENDINGS}

if len(BY_NAME) != len(ENDINGS):  # pragma: no cover - a table error, seen at import
    raise ValueError("two endings share a name")
