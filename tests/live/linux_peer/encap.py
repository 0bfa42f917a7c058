"""Run in the peer: UDP sockets that take ESP in UDP on port 4500, of both families, for as long as it lives. RFC 3948, udp(7)."""

import signal
import socket

PORT = 4500
UDP_ENCAP, UDP_ENCAP_ESPINUDP = 100, 2


def main() -> None:
    kept = []
    for family in (socket.AF_INET, socket.AF_INET6):
        end = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        end.bind(("", PORT))
        end.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, UDP_ENCAP_ESPINUDP)
        kept.append(end)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
