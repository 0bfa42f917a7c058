"""What an IKE daemon's socket gets while ESP in UDP goes by its port: IKE, all of it, and nothing else. RFC 3948 §2.2, §2.3."""

import socket

import pytest

from koura.host import udpcopy
from tests.live.kit.users import why_no_loopback

pytestmark = pytest.mark.skipif(bool(why_no_loopback()), reason=why_no_loopback())
IKE = (b"\0\0\0\0" + b"an IKE header", b"\0\0\0\0", b"", b"\xfe", b"\xff\xff", bytes(9), b"\1\2\3\4\5\6\7\x08")
OURS = (b"\xff", b"\1\2\3\4\5\6\7\x08\x09", b"\0\0\0\1" + bytes(60), b"\xff" * 1400)


@pytest.mark.covers("M12", "S41")
@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_esp_and_keepalives_do_not_reach_the_daemons_socket(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as daemon, socket.socket(family, socket.SOCK_DGRAM) as peer:
        daemon.bind((address, 0))
        daemon.settimeout(5)
        udpcopy.hide(daemon, is_on=True)
        for payload in (*OURS, *IKE, *OURS, b"\0\0\0\0last"):
            peer.sendto(payload, daemon.getsockname())
        assert [daemon.recv(2000) for _ in range(len(IKE) + 1)] == [*IKE, b"\0\0\0\0last"]
        udpcopy.hide(daemon, is_on=False)
        peer.sendto(OURS[1], daemon.getsockname())
        assert daemon.recv(2000) == OURS[1], "who no longer asks for encapsulation gets everything"
