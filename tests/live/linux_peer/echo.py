"""UDP with headers that few programs send: both ends of it, for the peer and for our host. RFC 791 §3.1, RFC 3542, ip(7), ipv6(7).

    echo.py serve PORT              answers every datagram with what its headers were, and with the same headers
    echo.py ask PORT US THEM        one trial a line of standard input, JSON; for each a line: what the peer saw, and what we see

A trial and a sight have: "options" (IPv4's, hex), "hop", "routing", "destination" (IPv6's headers, hex), "tos". No more than the standard
library, for this file runs alone.
"""

import json
import select
import socket
import struct
import sys

PATIENCE_S = 20.0
TUN = "koura0"
HEADERS = {"hop": (54, 53), "routing": (57, 56), "destination": (59, 58)}  # IPV6_*, IPV6_RECV*
IPV6_TCLASS, IPV6_RECVTCLASS = 67, 66
IP_OPTIONS, IP_RECVOPTS, IP_RECVTOS = 4, 6, 13


def end(family: int, address: str = "", port: int = 0) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for option in (*(receives for _, receives in HEADERS.values()), IPV6_RECVTCLASS):
            made.setsockopt(socket.IPPROTO_IPV6, option, 1)
    else:
        made.setsockopt(socket.IPPROTO_IP, IP_RECVOPTS, 1)
        made.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
    made.bind((address, port))
    return made


def dress(one: socket.socket, trial: dict[str, object]) -> None:
    """Send with these headers from now on; none where the trial says nothing."""
    tos = int(str(trial.get("tos", 0)))
    if one.family == socket.AF_INET:
        one.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, bytes.fromhex(str(trial.get("options", ""))))
        one.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, tos)
        return
    for name, (sends, _) in HEADERS.items():
        one.setsockopt(socket.IPPROTO_IPV6, sends, bytes.fromhex(str(trial.get(name, ""))))
    one.setsockopt(socket.IPPROTO_IPV6, IPV6_TCLASS, tos)


def see(one: socket.socket) -> tuple[bytes, dict[str, object], tuple[object, ...]]:
    octets, ancillary, _, source = one.recvmsg(65536, 4096)
    sight: dict[str, object] = {}
    for level, kind, value in ancillary:
        if level == socket.IPPROTO_IP and kind == IP_RECVOPTS:
            sight["options"] = value.hex()
        elif (level == socket.IPPROTO_IP and kind == socket.IP_TOS) or (level == socket.IPPROTO_IPV6 and kind == IPV6_TCLASS):
            sight["tos"] = value[0]
        elif level == socket.IPPROTO_IPV6:
            sight |= {name: value.hex() for name, (sends, _) in HEADERS.items() if kind == sends}
    return octets, sight, source


def tell(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def send_bare(one: socket.socket, octets: bytes, to: tuple[str, int]) -> None:
    """From this socket's address and port, as a packet with ID 0 and without DF, put into the TUN behind the kernel's back."""
    us, port = one.getsockname()
    body = struct.pack("!HHHH", port, to[1], 8 + len(octets), 0) + octets
    addresses = socket.inet_aton(us) + socket.inet_aton(to[0])
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))) + head[12:]
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as tun:
        tun.sendto(head + body, (TUN, 0x0800))


def serve(port: int) -> None:
    ends = [end(family, "", port) for family in (socket.AF_INET, socket.AF_INET6)]
    while True:
        for one in select.select(ends, [], [])[0]:
            octets, sight, source = see(one)
            trial = json.loads(octets)
            dress(one, trial | trial.get("back", {}))
            one.sendto(json.dumps(sight).encode(), source)  # type: ignore[arg-type]


def ask(port: int, us: str, them: str) -> None:
    one = end(socket.AF_INET6 if ":" in us else socket.AF_INET, us)
    for line in sys.stdin:
        trial = json.loads(line)
        try:
            dress(one, trial)
            if trial.get("is_bare"):
                send_bare(one, line.encode(), (them, port))
            else:
                one.sendto(line.encode(), (them, port))
        except OSError as error:
            tell({"refused": str(error)})
            continue
        if not select.select([one], [], [], trial.get("patience", PATIENCE_S))[0]:
            tell({"silence": True})
            continue
        octets, sight, _ = see(one)
        tell({"peer": json.loads(octets), "us": sight})


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        ask(int(sys.argv[2]), *sys.argv[3:5])
