"""What AH covers of the headers in front of it, octet by octet from RFC 4302 Appendix A. Walks octets; uses no decoder of ours."""

# Appendix A1, the table's "immutable" rows by their whole type octet; every other option counts as zeros.
IMMUTABLE4 = {0: "end of options", 1: "no operation", 130: "security", 133: "extended security", 134: "commercial security",
              148: "router alert", 149: "sender directed multi-destination delivery"}  # fmt: skip
SOURCE_ROUTES = {131: "loose source route", 137: "strict source route"}


def blank4(head: bytes, *, covers_tos: bool = False, offset_mask: int = 0) -> bytes:
    """An IPv4 header with its options as the ICV sees it; a source route with hops left gives its last address as destination."""
    out = bytearray(head)
    out[1] = head[1] if covers_tos else 0
    out[6] &= offset_mask >> 8
    out[7] &= offset_mask & 0xFF
    out[8] = out[10] = out[11] = 0
    place = 20
    while place < len(head):
        kind = head[place]
        if kind == 0:
            break
        length = 1 if kind == 1 else head[place + 1]
        if kind not in IMMUTABLE4:
            out[place : place + length] = bytes(length)
        if kind in SOURCE_ROUTES and head[place + 2] < length:
            out[16:20] = head[place + length - 4 : place + length]
        place += length
    return bytes(out)


def blank6(fixed: bytes) -> bytes:
    """A fixed IPv6 header: class, flow label and hop limit are zero."""
    return bytes((0x60, 0, 0, 0)) + fixed[4:7] + b"\0" + fixed[8:40]


def blank_options6(header: bytes) -> bytes:
    """A hop-by-hop or destination options header: the data of options whose type has the bit 0x20 are zero."""
    out = bytearray(header)
    place = 2
    while place < len(header):
        if header[place] == 0:
            place += 1
            continue
        length = header[place + 1]
        if header[place] & 0x20:
            out[place + 2 : place + 2 + length] = bytes(length)
        place += 2 + length
    return bytes(out)


def arrived(routing: bytes, destination: bytes) -> tuple[bytes, bytes]:
    """A type 0 routing header and the destination after every hop has exchanged them. RFC 2460 §4.4, hop by hop."""
    header, dst = bytearray(routing), destination
    count = header[1] // 2
    while header[3]:
        number = count - header[3]
        at = 8 + 16 * number
        following = bytes(header[at : at + 16])
        header[at : at + 16] = dst
        dst = following
        header[3] -= 1
    return bytes(header), dst
