"""python -m koura.cli.forward PEER: a TUN (tun0) and UDP port 4501 of the peer, what one brings goes out by the other. Nothing else.

The same loop as the daemon's, on the attachments that it has without native I/O: what a packet costs without IPsec.
"""

import socket
import sys

from koura.host import tun
from koura.host.loop import Loop

PORT = 4501


def main(peer: str) -> None:
    device = tun.Tun("tun0", tun.create("tun0"))
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    end.bind(("", PORT))
    loop = Loop()

    def leave(_events: int) -> None:
        for packet in device.receive():
            end.sendto(packet, (peer, PORT))

    def arrive(_events: int) -> None:
        for _ in range(64):
            try:
                device.send([end.recv(65535)])
            except BlockingIOError:
                return

    loop.watch(device.fileno(), leave)
    loop.watch(end.fileno(), arrive)
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1])
