"""What programs send out of an interface that they name themselves passes our routes by: the guard stops it, and lets the link live."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from koura.daemon.launch import Running
from tests.live.kit.capture import Capture
from tests.live.kit.namespaces import are_answered, pair, pings, why_not

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(shutil.which("nft") is None, reason="no nft(8) here (Debian: nftables)"),
]

GCM = "-E aes-gcm-16 0x0102030405060708090a0b0c0d0e0f1011121314"
CONF = f"""
add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -u 1 {GCM};
add 192.0.2.2 192.0.2.1 esp 0x1002 -m tunnel -u 1 {GCM};
"""
WIDE = """
spdadd 192.0.2.0/24 192.0.2.0/24[7777] udp -P {way} none;
spdadd 0.0.0.0/0 0.0.0.0/0 any -P {way} ipsec esp/tunnel/192.0.2.{one}-192.0.2.{other}/require;
spdadd ::/0 ::/0 any -P {way} ipsec esp/tunnel/192.0.2.{one}-192.0.2.{other}/require;
"""
SECRET = b"in clear past the engine"
SEND = f"""
import socket
SECRET = {SECRET!r}
index = socket.if_nametoindex("v0")
UNICAST_IF, PKTINFO = 50, 8

def bound(family, place):
    end = socket.socket(family, socket.SOCK_DGRAM)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v0")
    end.sendto(SECRET, place)

def told():
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.sendmsg([SECRET], [(0, PKTINFO, index.to_bytes(4, "little") + bytes(8))], 0, ("192.0.2.2", 9))

def preferred():
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end.setsockopt(0, UNICAST_IF, index.to_bytes(4, "big"))
    end.sendto(SECRET, ("192.0.2.2", 9))

WAYS = {{
    "bound": lambda: bound(socket.AF_INET, ("192.0.2.2", 9)), "bound6": lambda: bound(socket.AF_INET6, ("2001:db8:0:1::2", 9)),
    "told": told, "preferred": preferred,
}}
for name, send in WAYS.items():
    try:
        send()
        print(name, "sent")
    except PermissionError:
        print(name, "refused")
"""
HEAR = """
import select, socket, struct
index = socket.if_nametoindex("v0")
ends = {}
for name, port in (("mdns", 5353), ("dhcp", 68), ("allowed", 7777)):
    end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ends[end] = name
    end.bind(("", port))
    if name == "mdns":
        end.setsockopt(0, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.0.0.251") + socket.inet_aton("192.0.2.1"))
end = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
end.bind(("::", 5354))
end.setsockopt(41, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, "ff02::fb") + struct.pack("@I", index))
ends[end] = "mdns6"
print("ready", flush=True)
heard = set()
while len(heard) < len(ends):
    ready = select.select(list(ends), [], [], 30)[0]
    if not ready:
        break
    for end in ready:
        end.recv(100)
        if ends[end] not in heard:
            heard.add(ends[end])
            print(ends[end], flush=True)
"""
SPEAK = """
import socket
group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
group.setsockopt(0, socket.IP_MULTICAST_IF, socket.inet_aton("192.0.2.2"))
group.sendto(b"hello", ("224.0.0.251", 5353))
all_ = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
all_.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
all_.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v0")
all_.bind(("", 67))
all_.sendto(b"offer", ("255.255.255.255", 68))
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"v0")
one.sendto(b"as policy says", ("192.0.2.1", 7777))
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.sendto(b"hello", ("ff02::fb%v0", 5354))
"""


@dataclass(frozen=True, slots=True)
class Two:
    """Both hosts protect everything. daemon: the first one's."""

    hosts: tuple[str, str]
    daemon: Running

    def words(self, number: int, program: str) -> list[str]:
        return ["ip", "netns", "exec", self.hosts[number], sys.executable, "-c", program]

    def run(self, number: int, program: str) -> list[str]:
        done = subprocess.run(self.words(number, program), check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.splitlines()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    with ExitStack() as stack:
        hosts = stack.enter_context(pair("kpe"))
        running = []
        for number, host in enumerate(hosts, 1):
            conf, toml = tmp_path / f"{number}.conf", tmp_path / f"{number}.toml"
            ways = (("out", number, 3 - number), ("in", 3 - number, number))
            conf.write_text(CONF + "".join(WIDE.format(way=way, one=one, other=other) for way, one, other in ways))
            toml.write_text("[host]\n")
            arguments = ("-q", "-f", str(conf), "-c", str(toml))
            running.append(stack.enter_context(Running(tmp_path / str(number), *arguments, prefix=("ip", "netns", "exec", host))))
        yield Two(hosts, running[0])


def test_nothing_leaves_by_an_interface_that_a_program_names_and_the_link_lives(two: Two, tmp_path: Path) -> None:
    refused = [f"{name} refused" for name in ("bound", "bound6", "told", "preferred")]
    with Capture(two.hosts[1], "v0", tmp_path / "wire.pcap"):
        assert two.run(0, SEND) == refused
        command = ["ip", "netns", "exec", two.hosts[0], "ping", *pings(), "192.0.2.2"]
        assert are_answered(subprocess.run(command, check=False, capture_output=True, text=True, timeout=60).stdout)
        with subprocess.Popen(two.words(0, HEAR), stdout=subprocess.PIPE, text=True) as hearing:
            assert hearing.stdout is not None and hearing.stdout.readline() == "ready\n"
            try:
                two.run(1, SPEAK)
                heard = {hearing.stdout.readline().strip() for _ in range(4)}
            finally:
                hearing.kill()
        two.daemon.signal(signal.SIGKILL)
        two.daemon.stop()
        assert two.run(0, SEND) == refused, "whoever dies"
    assert heard == {"mdns", "dhcp", "allowed", "mdns6"}
    assert SECRET not in (tmp_path / "wire.pcap").read_bytes()
