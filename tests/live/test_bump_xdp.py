"""Bumps whose protected frames leave by AF_XDP: the same as by packet sockets, and by those where it cannot be.

What leaves by AF_XDP is seen by captures at the other end of the wire only.
"""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.host import xdp
from koura.wire import capture
from tests.live.kit.capture import Capture
from tests.live.kit.namespaces import ip
from tests.live.kit.wire import TOML, Line, line, run
from tests.live.test_bump import CASES, clear, furnish, is_fast, script, send_tagged
from tests.live.test_bump import pytestmark as _needs
from tests.live.test_stream import digest_through, sent


def no_xdp() -> str:
    """Why this machine cannot; '' where it can."""
    if not is_fast():
        return "the fast path was not built here"
    try:
        socket.socket(xdp.AF_XDP, socket.SOCK_RAW).close()
    except OSError as error:
        return f"no AF_XDP: {error.strerror}"
    return ""


pytestmark = [*_needs, pytest.mark.skipif(bool(no_xdp()), reason=no_xdp())]
BY_XDP = "native, 64 frames a call, protected ones leave by AF_XDP"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Line]:
    """Two bumps with everything that their hosts need."""
    with line("kl", tmp_path) as found:
        furnish(found)
        for number in (1, 2):
            found.start(number, script(number - 1).replace("-r 32 ", "-r 128 "), TOML + "xdp = true\n")
        yield found


def driver(made: Line, number: int = 1) -> str:
    """How the outside of a bump is served."""
    with Control(made.folder / str(number)) as control:
        return str(control.ask("stat", protocol="", nonzero=False, json=True)["drivers"]["out"])


def test_everything_passes_protected_and_with_its_tags(made: Line, tmp_path: Path) -> None:
    assert (driver(made), driver(made, 2)) == (BY_XDP, BY_XDP), made.told()
    files = [tmp_path / f"{number}.pcap" for number in (0, 1)]
    with Capture(made.bumps[0], "out", files[0]), Capture(made.bumps[1], "out", files[1]):
        for case in CASES:
            for size in (56, 1472, 4000):
                made.answers(case.pair[1], "-I", case.pair[0], "-s", str(size))
    for file in files:
        assert clear(file) == []
        with file.open("rb") as opened:
            assert len(list(capture.read(opened))) > len(CASES)
    send_tagged(made, tmp_path, end=1)
    octets = 6_000_000  # twice round the ring
    for near, far in (CASES[0].pair, CASES[6].pair):
        assert digest_through(made.hosts, near, far, octets, 7) == sent(octets, 7), made.told()


def test_the_next_engine_and_the_next_daemon_go_on_with_it(made: Line, tmp_path: Path) -> None:
    """Engine killed, keeper killed: nothing passes in clear, nothing without a daemon, and the queue is free for the next."""
    near, far = CASES[0].pair
    with Capture(made.bumps[1], "out", tmp_path / "wire.pcap"):
        assert digest_through(made.hosts, near, far, 1_000_000, 7) == sent(1_000_000, 7), made.told()
        with Control(made.folder / "1") as control:
            os.kill(int(str(control.ask("version")["engine"])), signal.SIGKILL)
        made.answers(far, "-I", near)
        assert driver(made) == BY_XDP
        assert digest_through(made.hosts, near, far, 1_000_000, 8) == sent(1_000_000, 8), made.told()
        made.daemons[1].signal(signal.SIGKILL)
        made.daemons[1].stop()
        assert " 0 received" in run(made.a, "ping", "-n", "-c", "1", "-W", "1", "-I", near, far, check=False)
        made.start(1, script(0).replace("-r 32 ", ""), TOML + "xdp = true\n")
        made.answers(far, "-I", near)
        assert driver(made) == BY_XDP
    assert clear(tmp_path / "wire.pcap") == []


def test_frames_that_it_does_not_hold_and_an_interface_that_went_are_a_packet_socket_s(made: Line) -> None:
    near, far = CASES[0].pair
    for mtu, said in ((9000, "native, 64 frames a call; not by AF_XDP: an MTU of 9000 is more than a frame of 4096 holds"), (1500, BY_XDP)):
        for host, links in ((made.a, ("v0",)), (made.b, ("v0",)), *((bump, ("in", "out")) for bump in made.bumps)):
            for link in links:
                ip("-n", host, "link", "set", link, "mtu", str(mtu))
        made.until(lambda said=said: driver(made) == driver(made, 2) == said, said)  # type: ignore[misc]
        made.answers(far, "-I", near, "-s", "8000")
    ip("-n", made.bumps[0], "link", "del", "out")
    made.until(lambda: "there is no interface out" in made.daemons[1].said, "it is missed")
    ip("-n", made.bumps[0], "link", "add", "out", "type", "veth", "peer", "name", "out", "netns", made.bumps[1])

    def is_by_packet_socket() -> bool:
        made.answers(far, "-I", near)  # a frame that would leave finds that the old interface has gone
        return driver(made) == "native, 64 frames a call; not by AF_XDP: its interface has gone since the start"

    made.until(is_by_packet_socket, "frames are the packet socket's")
    with Control(made.daemons[1].directory) as control:
        os.kill(int(str(control.ask("version")["engine"])), signal.SIGKILL)
    made.until(lambda: driver(made) == "native, 64 frames a call", "the next engine does without the old interface")
    made.answers(far, "-I", near)
