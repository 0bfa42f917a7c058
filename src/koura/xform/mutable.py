"""The packet as AH's ICV covers it: what routers may change counts as zero. RFC 4302 §3.3.3.1, Appendix A.

IPv4: TOS (unless ah_cleartos is 0), flags and offset (but for ah_offsetmask), TTL, checksum; of the options the immutable ones
stay, the others count as zeros. IPv6: class, flow label, hop limit; of options whose data may change only the data (S40).
A source route counts as it will be at the end: the final destination in the header, on output and on input alike.
"""

from koura.errors import Malformed
from koura.settings import Settings
from koura.wire import ipv4, ipv6

# RFC 4302 Appendix A1: what is not listed is mutable, as unknown options are.
IMMUTABLE_OPTIONS = frozenset((0x00, 0x01, 0x82, 0x85, 0x86, 0x94, 0x95))
LSRR, SSRR = 0x83, 0x89


def ipv4_head(head: bytes, settings: Settings, *, is_output: bool) -> bytes:
    """An IPv4 header (all its octets) with the mutable parts zero. Raises Malformed for options that make no sense."""
    out = bytearray(head)
    if settings.ah_cleartos:
        out[1] = 0
    masked = int.from_bytes(head[6:8], "big") & settings.ah_offsetmask
    out[6:8] = masked.to_bytes(2, "big")
    out[8] = 0
    out[10:12] = bytes(2)
    options = head[ipv4.FIXED_OCTETS :]
    for option in ipv4.read_options(options):
        if option.kind in IMMUTABLE_OPTIONS:
            continue
        start = ipv4.FIXED_OCTETS + option.offset
        out[start : start + 2 + len(option.data)] = bytes(2 + len(option.data))
        if is_output and option.kind in (LSRR, SSRR) and _has_hops_left(option.data):
            out[16:20] = option.data[-4:]
    return bytes(out)


def ipv6_head(packet: bytes, before: bytes, *, is_output: bool) -> bytes:
    """A fixed IPv6 header and the extension headers in front of AH with the mutable parts zero. Raises Malformed.

    packet: begins with the fixed header; before: the extension headers' octets.
    """
    out = bytearray(packet[: ipv6.FIXED_OCTETS])
    out[0:4] = b"\x60\0\0\0"
    out[7] = 0
    extensions = ipv6.read_chain(packet[6], before + bytes(8)).extensions if before else ()
    done = bytearray()
    for extension in extensions:
        if len(done) >= len(before):
            break
        if extension.kind in (ipv6.HOP_BY_HOP, ipv6.DESTINATION):
            done += _options_zeroed(extension.octets)
        elif extension.kind == ipv6.ROUTING:
            header, final = _routing_at_the_end(extension.octets, bytes(out[24:40]))
            done += header if is_output else extension.octets
            if is_output:
                out[24:40] = final
        elif extension.kind == ipv6.FRAGMENT:
            raise Malformed("AH", "a fragment: AH is applied to whole packets")
        else:
            raise Malformed("AH", f"extension header {extension.kind} in front")
    return bytes(out + done)


def _has_hops_left(data: bytes) -> bool:
    """Whether a source route's pointer stands before its end. RFC 791 §3.1: the pointer counts from the type octet, from 4 on."""
    return len(data) >= 5 and 4 <= data[0] <= len(data) + 2 - 3


def _options_zeroed(header: bytes) -> bytes:
    out = bytearray(header)
    for option in ipv6.read_options(header):
        if option.may_change:
            start = option.offset + 2
            out[start : start + len(option.data)] = bytes(len(option.data))
    return bytes(out)


def _routing_at_the_end(header: bytes, dst: bytes) -> tuple[bytes, bytes]:
    """A routing header, and the destination, as the last node sees them. RFC 4302 §3.3.3.1.2.1; types RFC 8200, 6275, 6554, 8754."""
    kind, left = header[2], header[3]
    if left == 0:
        return header, dst
    if kind == 3:
        return _source_routed(header, dst)
    addresses = [header[place : place + 16] for place in range(8, len(header) - 15, 16)]
    if kind == 4:  # RFC 8754 §2: the list is in reverse and nodes do not change it but for segments left.
        if not addresses:
            raise Malformed("AH", "a segment routing header without segments")
        return header[:3] + b"\0" + header[4:], addresses[0]
    if kind not in (0, 2) or left > len(addresses):
        raise Malformed("AH", f"routing header type {kind} with {left} segments left")
    visited = len(addresses) - left
    route = [*addresses[:visited], dst, *addresses[visited:-1]]
    return header[:3] + b"\0" + header[4:8] + b"".join(route), addresses[-1]


def _source_routed(header: bytes, dst: bytes) -> tuple[bytes, bytes]:
    """RPL's source route: addresses without the octets that they share with the destination. RFC 6554 §3, §4.2.

    Each node of the route exchanges its own address, less those octets, with the next one of the list.
    """
    common, common_last, pad = header[4] >> 4, header[4] & 0xF, header[5] >> 4
    room = len(header) - 8 - pad - (16 - common_last)
    if room < 0 or room % (16 - common):
        raise Malformed("AH", "an RPL source route of an impossible length")
    count = room // (16 - common) + 1
    if header[3] > count:
        raise Malformed("AH", f"an RPL source route with {header[3]} segments left, {count} addresses")
    out = bytearray(header)
    out[3] = 0
    for number in range(count - header[3], count):
        start = 8 + number * (16 - common)
        shared = common if number < count - 1 else common_last
        end = start + 16 - shared
        following = dst[:shared] + bytes(out[start:end])
        out[start:end] = dst[shared:]
        dst = following
    return bytes(out), dst
