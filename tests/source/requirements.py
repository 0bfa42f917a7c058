"""The requirements, by number, in a line each. R: the ipsec(4) page of 2007. M: FreeBSD since. S: where Koura is better.

Tests name them with `@pytest.mark.covers(...)`; tools/conformance.py turns both into docs/conformance.md.
"""

_TEXT = """
R1 IPsec sits inside the IP layer, below every transport and application
R2 IPv4 and IPv6 are served alike
R3 three protocols: ESP, AH, IPComp
R4 AH proves origin and integrity of the packet, headers included
R5 ESP keeps the payload from outsiders, and may authenticate it
R6 IPComp shrinks the payload before it goes out
R7 transport mode between end nodes, tunnel mode for gateways
R8 all cryptography goes through one framework with pluggable providers
R9 the subsystem, its crypto and filtering of tunnels are switches of the engine
R10 packets are shown on enc0: outbound before encryption, inbound after decapsulation
R11 a firewall sees inner packets only where filtertunnel (IPSEC_FILTERTUNNEL, once IPSEC_FILTERGIF) is set
R12 the names of the public headers exist in Python
R13 two engines: key management and policy
R14 keys are bound to SAs; policy decides when SAs must come and go
R15 key management is reached by PF_KEY version 2
R16 policy is driven by PF_KEY extensions, socket options and sysctl
R17 SPD messages define policies like packet filter rules
R18 a socket option sets one socket's policy, sysctl the host's defaults
R19 no IKE inside: ACQUIRE and EXPIRE go out, IKE's own packets bypass
R20 IP_IPSEC_POLICY and IPV6_IPSEC_POLICY take and give policies per direction
R21 system-wide policy by address, port, upper protocol and direction
R22 level default defers to a variable by protocol, mode and family
R23 eight level variables, changeable at run time, default 1
R24 level 1, use: an SA is used if there is one, else the packet goes in clear
R25 level 2, require: without an SA the packet is dropped
R26 def_policy decides where no policy matches: discard or none, per family
R27 lookup order: the socket's policy, the SPD, the default
R28 four level words; unique binds a request to SAs of its reqid
R29 policy strings are those of ipsec_set_policy(3)
R30 esp_enable switches ESP
R31 ah_enable switches AH
R32 ipcomp_enable switches IPComp, on by default
R33 a disabled protocol's packets are dropped and counted
R34 ah_cleartos: TOS counts as zero in AH, or as it is
R35 ah_offsetmask: which bits of flags and offset AH covers
R36 dfbit: DF of the outer header cleared, set, or copied
R37 ecn: both halves of explicit congestion notification
R38 debug: diagnostic messages
R39 the ipsec6 variables mean the same for IPv6
R40 inbound_call_ike does not exist
R41 protocols above IP work unchanged
R42 ICMP and IPsec: selectors by type and code, errors tied to SAs
R43 PF_KEY as in RFC 2367
R44 a socket policy API
R45 AH as in RFC 2402 and 4302, HMAC-SHA-1-96 as in RFC 2404
R46 ESP as in RFC 2406 and 4303
R47 equivalents of the pages it refers to
R48 KAME's words and interfaces
R49 fast_ipsec's structure: PF_KEY, SPD, crypto(4)
R50 one implementation for both families
R51 the policy API is documented and speaks FreeBSD's and Linux's layouts
R52 AH with tunnels passes an inbound policy that requires it
R53 the history of what was taken off travels with the packet
R54 the inbound check compares that history with the policy, in order
R55 dumps of any size are complete
R56 buffer sizes can be set, and need not be
R57 IPComp works: transport, tunnel, bundles, both families, many peers
R58 the documentation is complete and reviewed
M1 filtertunnel by sysctl
M2 feature flags tell that the subsystem is there
M3 SAD keys: destination, protocol, SPI; for well-known CPIs the source too
M4 bundles of up to four requests, the same for both families
M5 SPD answers are cached under a generation number
M6 spdcache tunables
M7 engine instances share nothing
M8 policies have a scope: global, interface, socket
M9 SPD order: priority ascending, then insertion
M10 policies may expire by age or idleness
M11 tagged policies are refused with a clear message
M12 ESP in UDP
M13 natt_cksum_policy: transport checksums behind NAT
M14 extended sequence numbers for ESP and AH
M15 replay windows up to 2^32-33 packets
M16 AES-CTR, AES-GCM, AES-GMAC
M17 ChaCha20-Poly1305
M18 HMAC-SHA2 truncated to half
M19 algorithms FreeBSD removed still have their names, and work offline
M20 ctr_compatibility: pad AES-CTR to 16 or to 4
M21 IPComp peers may send packets uncompressed
M22 virtual tunnel interfaces
M23 path MTU: learned from ICMP, checked before sending
M24 addresses of an SA can change without rekeying
M25 TCP-MD5 keys live in the SAD
M26 strict inbound check with history
M27 hardware offload extensions are accepted and reported
M28 random_id: outer IPv4 IDs
M29 every variable of the table exists, with its default and checks
M30 setkey -e, -g, -t, -l, -x
M31 who may set which policy on a socket
M32 accepted sockets inherit their listener's policies
M33 getsockopt answers a socket's policy
M34 the outbound check also runs for forwarded packets
M35 no fast path around a non-empty SPD
M36 TCP's MSS allows for the protection in force
M37 policies of interfaces are announced to all listeners
M38 netstat -s -p by protocol
M39 counters can be observed
M40 crypto_support selects providers when an SA is made
S1 SPI name space per destination and protocol; IPComp by source too
S2 ESP stops at the last sequence number
S3 cyclic sequence numbers restart the window
S4 padding is verified only where the peer is expected to use it
S5 ECN survives decapsulation
S6 ah_offsetmask works
S7 def_policy per family
S8 port selectors hold for forwarded packets and fragments
S9 ICMP type 0 and code 0 can be selected
S10 IPv6: headers go where the RFCs say
S11 inner packets are compared with what their SA may carry
S12 IPv6 AH tunnels pass under require
S13 a bad SPDUPDATE leaves the old policy
S14 every error has an errno
S15 malformed extensions: an errno from send and no message
S16 registration is per satype
S17 lifetimes in packets are enforced
S18 sequence exhaustion expires softly at 80 %
S19 proposals carry the lifetimes that were meant
S20 one of soft and hard lifetime is enough
S21 UPDATE may settle a larval SA's mode and reqid
S22 no nonce comes twice, also when a key is added again
S23 dumps never lose messages
S24 PF_KEY requests up to 64 KiB
S25 IPComp's non-expansion rule counts its own header
S26 NAT-T: ports may move, IPv6 lengths are right
S27 GETSPI and DELETE have the right errors
S28 DF of IPv4 around IPv6 is defined
S29 header sizes are exact
S30 ICMPv6 packet-too-big about ESP is used
S31 packets wait for their SA
S32 ESN works with any window
S33 cache counters count
S34 AES-GMAC as in RFC 4543
S35 -hwif works in policies
S36 AES-XCBC-MAC
S37 -A null, ah-old and esp-old work
S38 ICMP about AH, IPComp and UDP-encapsulated ESP
S39 a later use request without SA loses nothing
S40 AH over IPv6 options zeroes data only
S41 keepalives are swallowed
S42 CPIs: low 16 bits out, well-known accepted
S43 the replay window advances on every path
S44 NULL encryption is never proposed
S45 every counter means something
"""

NUMBERS: dict[str, str] = dict(line.split(" ", 1) for line in _TEXT.strip().splitlines())
