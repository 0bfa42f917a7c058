"""`koura replay` as a person or a program meets it: files and pipes, words and JSON, and what it says to bad input."""

import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from koura.cli.main import BAD_DATA, FAILED, USAGE, koura_command, run
from koura.traffic.fragments import split
from koura.wire import capture, ipv4, udp
from tests.vectors.linux import convert
from tests.vectors.linux.load import HERE, Case, cases

CASE: Case = next(case for case in cases() if case.name == "esp-gcm-256-128-transport6")
CAPTURE = HERE / f"{CASE.name}.pcap"
RECORD_OCTETS = 16
CLEAR = ipv4.write(ipv4.Header(bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2)), 17), udp.write(udp.Header(7, 7), b"in clear"))


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run said and left."""

    status: int
    out: str
    err: str
    packets: list[bytes]
    times_ns: list[int]


class Desk:
    """Runs the command in this process, in a directory of its own."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._capsys = path, capsys
        self.target = path / "out.pcap"

    def file(self, name: str, content: str | bytes) -> str:
        path = self.path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    def replay(self, script: str, source: str | bytes, *options: str, target: str = "") -> Ran:
        """script: its text; source: a path or a file's octets."""
        conf = self.file("peer.conf", script)
        source = self.file("in.pcap", source) if isinstance(source, bytes) else source
        self._capsys.readouterr()
        status = run(koura_command, "koura", ["replay", "-f", conf, *options, source, target or str(self.target)])
        said = self._capsys.readouterr()
        packets, times = [], []
        if not target and self.target.exists():
            with self.target.open("rb") as file:
                for record in capture.read(file):
                    packets.append(record.octets)
                    times.append(record.at_ns)
        return Ran(status, said.out, said.err, packets, times)


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def pcap(*frames: tuple[int, bytes], linktype: int = 101, original: int = 0) -> bytes:
    """A pcap file by hand: (seconds, frame). original: what a record says its packet had, if more than there is."""
    octets = struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, linktype)
    for seconds, frame in frames:
        octets += struct.pack(">IIII", seconds, 0, len(frame), max(original, len(frame))) + frame
    return octets


def pcapng(packet: bytes, ticks: int) -> bytes:
    """One RAW packet with a time in nanoseconds."""

    def block(kind: int, body: bytes) -> bytes:
        length = struct.pack("<I", len(body) + 12)
        return struct.pack("<I", kind) + length + body + length

    section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    interface = block(1, struct.pack("<HHI", 101, 0, 0) + struct.pack("<HHB3x", 9, 1, 9) + bytes(4))
    padded = packet + bytes(-len(packet) % 4)
    return section + interface + block(6, struct.pack("<IIIII", 0, ticks >> 32, ticks & 0xFFFF_FFFF, len(packet), len(packet)) + padded)


# -- what it says --------------------------------------------------------------------------------------------------------


@pytest.mark.reason("esp.replay", "ok.delivered")
def test_the_summary_counts_by_outcome_and_reason(desk: Desk) -> None:
    ran = desk.replay(convert.script(CASE.entry), CAPTURE.read_bytes() + CAPTURE.read_bytes()[24:], "--in")
    assert ran.status == 0
    assert ran.out.splitlines() == [
        "32 frames, 32 packets in, 16 packets out",
        "  delivered  16  ok.delivered  accepted and delivered",
        "  refused    16  esp.replay    sequence number was accepted before (RFC 4303 §3.4.3)",
    ]
    assert ran.packets == CASE.plain()


def test_json_has_the_same_counts(desk: Desk) -> None:
    arp = bytes(12) + b"\x08\x06" + bytes(28)
    frames = CAPTURE.read_bytes() + struct.pack("<IIII", 1 << 31, 0, len(arp), len(arp)) + arp
    ran = desk.replay(convert.script(CASE.entry), frames, "--in", "--json")
    assert json.loads(ran.out) == {
        "direction": "in", "frames": 17, "packets": 16, "written": 16,
        "outcomes": {"forward": 0, "deliver": 16, "bypass": 0, "punt": 0, "held": 0, "discard": 0},
        "reasons": {"ok.delivered": 16}, "left_out": {"not-ip": 1, "link": 0, "cut": 0}, "fault": "",
    }  # fmt: skip


def test_verbose_has_a_line_for_each_frame(desk: Desk) -> None:
    ran = desk.replay("", pcap((1, CLEAR), (2, b"\0" * 40)), "--in", "--verbose")
    assert ran.out.splitlines()[:2] == [
        "     1 1970-01-01T00:00:01.000000Z  192.0.2.1[7] > 192.0.2.2[7] udp 36 octets: delivered",
        "     2 1970-01-01T00:00:02.000000Z  no IP packet in the frame: left out",
    ]


def test_verbose_says_what_came_off(desk: Desk) -> None:
    ran = desk.replay(convert.script(CASE.entry), str(CAPTURE), "--in", "--verbose")
    spi = CASE.entry["sas"][0]["spi"]
    assert f"out of esp transport {spi}: " in ran.out.splitlines()[0]
    assert len(ran.out.splitlines()) == 16 + 2


def test_verbose_json_is_an_object_for_each_frame_then_the_summary(desk: Desk) -> None:
    ran = desk.replay(convert.script(CASE.entry), str(CAPTURE), "--in", "--verbose", "--json")
    *frames, summary = [json.loads(line) for line in ran.out.splitlines()]
    assert [frame["frame"] for frame in frames] == list(range(1, 17))
    assert {frame["outcome"] for frame in frames} == {"deliver"}
    assert summary["frames"] == 16


def test_no_key_is_ever_told(desk: Desk) -> None:
    script = convert.script(CASE.entry)
    for options in (("--in", "--verbose"), ("--in", "--json")):
        ran = desk.replay(script + script, str(CAPTURE), *options)
        assert CASE.entry["sas"][0]["aead"]["key"] not in ran.out + ran.err


# -- what is left out ----------------------------------------------------------------------------------------------------


@pytest.mark.covers("S41")
@pytest.mark.reason("natt.keepalive", "punt.ike")
def test_keepalives_ike_and_dummies_are_counted_and_left_out(desk: Desk) -> None:
    def datagram(payload: bytes) -> bytes:
        return ipv4.write(ipv4.Header(CLEAR[12:16], CLEAR[16:20], 17), udp.write(udp.Header(4500, 4500), payload))

    ran = desk.replay("", pcap((1, datagram(b"\xff")), (2, datagram(bytes(4) + b"IKE" * 9)), (3, CLEAR)), "--in", "--json")
    assert json.loads(ran.out)["reasons"] == {"natt.keepalive": 1, "punt.ike": 1, "ok.delivered": 1}
    assert ran.packets == [CLEAR]


def test_a_packet_that_the_capture_cut_is_left_out(desk: Desk) -> None:
    ran = desk.replay("", pcap((1, CLEAR[:30]), original=len(CLEAR)), "--in", "--json")
    assert json.loads(ran.out)["left_out"] == {"not-ip": 0, "link": 0, "cut": 1}


def test_a_link_type_that_is_not_known_is_named_as_such(desk: Desk) -> None:
    ran = desk.replay("", pcap((1, CLEAR), linktype=147), "--in", "--json")
    assert json.loads(ran.out)["left_out"] == {"not-ip": 0, "link": 1, "cut": 0}


def test_a_links_padding_is_no_part_of_the_packet(desk: Desk) -> None:
    ran = desk.replay("", pcap((1, bytes(12) + b"\x08\0" + CLEAR + bytes(10)), linktype=1), "--in")
    assert ran.packets == [CLEAR]


# -- out -----------------------------------------------------------------------------------------------------------------

TUNNEL = (
    f"add 192.0.2.1 192.0.2.2 esp 0x1000 -m tunnel -E aes-gcm-16 0x{'3c' * 20};\n"
    "spdadd 10.0.0.0/8 10.0.0.0/8 udp -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;\n"
    "spdadd 10.0.0.0/8 10.0.0.0/8 tcp -P out discard;\n"
)


def inside(octets: int, protocol: int = 17) -> bytes:
    """A packet of the protected nets."""
    src, dst = bytes((10, 1, 0, 1)), bytes((10, 2, 0, 1))
    return ipv4.write(ipv4.Header(src, dst, protocol, identification=octets), udp.write_checked(src, dst, 7, 7, bytes(octets)))


@pytest.mark.covers("R21", "R25")
@pytest.mark.reason("ok.forwarded", "ok.bypassed", "policy.out.discard")
def test_out_protects_discards_and_lets_pass(desk: Desk) -> None:
    ran = desk.replay(TUNNEL, pcap((1, inside(50)), (2, inside(50, 6)), (3, CLEAR)), "--out", "--json")
    assert json.loads(ran.out)["reasons"] == {"ok.forwarded": 1, "policy.out.discard": 1, "ok.bypassed": 1}
    assert ran.packets[1] == CLEAR
    assert ran.times_ns == [1_000_000_000, 3_000_000_000]
    back = desk.replay(TUNNEL, pcap((1, ran.packets[0])), "--in")
    assert back.packets == [inside(50)]


@pytest.mark.reason("sa.none.out")
def test_out_without_an_sa_says_so(desk: Desk) -> None:
    script = TUNNEL.partition("\n")[2]
    ran = desk.replay(script, pcap(*((second, inside(50)) for second in range(1, 101))), "--out", "--json")
    assert json.loads(ran.out)["reasons"] == {"sa.none.out": 100}


def test_out_takes_fragments_as_one_packet(desk: Desk) -> None:
    """A tunnel carries pieces of the size they came in; what stays in clear leaves as it came; nothing before the last one is there."""
    pieces = split(inside(3000), 1400, 0)
    clear = tuple(piece[:12] + bytes((192, 0, 2, 7)) + piece[16:] for piece in pieces)
    clear = tuple(ipv4.write(*ipv4.read(piece)) for piece in clear)
    frames = [(1 + number, piece) for number, piece in enumerate(pieces + clear)]
    ran = desk.replay(TUNNEL, pcap(*frames), "--out", "--json")
    assert json.loads(ran.out)["reasons"] == {"held.fragment": 4, "ok.forwarded": 1, "ok.bypassed": 1}
    assert (len(ran.packets), tuple(ran.packets[3:])) == (6, clear)
    assert ran.times_ns == [3_000_000_000] * 3 + [6_000_000_000] * 3
    back = desk.replay(TUNNEL, pcap(*((1, packet) for packet in ran.packets[:3])), "--in")
    assert back.packets == [inside(3000)]


# -- time ----------------------------------------------------------------------------------------------------------------


@pytest.mark.reason("esp.nosa")
def test_at_says_when_the_sas_were_made(desk: Desk) -> None:
    """Without --at they are as old as the first frame; with it, their lifetimes count from there."""
    script = convert.script(CASE.entry).replace(" -m transport", " -m transport -lh 3600 -ls 3000")
    assert desk.replay(script, str(CAPTURE), "--in").packets == CASE.plain()
    first_s = CASE.packets()[0][0] // 1_000_000_000
    late = desk.replay(script, str(CAPTURE), "--in", "--json", "--at", _iso(first_s - 3700))
    assert json.loads(late.out)["reasons"] == {"esp.nosa": 16}
    assert desk.replay(script, str(CAPTURE), "--in", "--at", _iso(first_s - 3500)).packets == CASE.plain()


def _iso(seconds: int) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat()


def test_a_clock_that_goes_back_is_no_trouble(desk: Desk) -> None:
    assert desk.replay("", pcap((9, CLEAR), (3, CLEAR), (7, CLEAR)), "--in").times_ns == [9_000_000_000, 3_000_000_000, 7_000_000_000]


@pytest.mark.reason("frag.timeout")
def test_fragments_that_stay_alone_end(desk: Desk) -> None:
    lone = ipv4.write(ipv4.Header(CLEAR[12:16], CLEAR[16:20], 17, is_mf=True), bytes(8))
    ran = desk.replay("", pcap((1, lone), (2, CLEAR)), "--in", "--json")
    assert json.loads(ran.out)["reasons"] == {"frag.timeout": 1, "ok.delivered": 1}


def test_nanoseconds_stay(desk: Desk) -> None:
    ran = desk.replay("", pcapng(CLEAR, 1_700_000_000_123_456_789), "--in")
    assert (ran.packets, ran.times_ns) == ([CLEAR], [1_700_000_000_123_456_789])
    assert desk.target.read_bytes()[:4] == b"\x4d\x3c\xb2\xa1"


# -- bad captures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, RECORD_OCTETS - 1, RECORD_OCTETS, RECORD_OCTETS + 10])
def test_a_capture_cut_off_keeps_what_was_read(desk: Desk, cut: int) -> None:
    whole = pcap((1, CLEAR))
    ran = desk.replay("", pcap((1, CLEAR), (2, CLEAR))[: len(whole) + cut], "--in")
    assert ran.status == BAD_DATA
    assert ran.packets == [CLEAR]
    assert f"in.pcap: capture: at octet {len(whole) + (RECORD_OCTETS if cut >= RECORD_OCTETS else 0)}: " in ran.err
    assert ran.err.endswith("; what came before it was kept\n")
    assert ran.out.startswith("1 frame, 1 packet in, 1 packet out")


@pytest.mark.parametrize("octets", [b"", b"\xa1", b"GIF89a and what follows", pcap()[:20], b"\x0a\x0d\x0d\x0a\x1c\0\0\0" + bytes(30)])
def test_what_is_no_capture_leaves_no_output(desk: Desk, octets: bytes) -> None:
    ran = desk.replay("", octets, "--in")
    assert ran.status == BAD_DATA
    assert ran.err.startswith("koura: ") and ran.err.count("\n") == 1
    assert not desk.target.exists()


def test_a_capture_without_frames_is_fine(desk: Desk) -> None:
    ran = desk.replay("", pcap(), "--in")
    assert (ran.status, ran.out, ran.packets) == (0, "0 frames, 0 packets in, 0 packets out\n", [])


def test_a_record_of_an_impossible_size_is_a_fault(desk: Desk) -> None:
    ran = desk.replay("", pcap((1, CLEAR)) + struct.pack(">IIII", 1, 0, 1 << 31, 1 << 31), "--in")
    assert ran.status == BAD_DATA
    assert ran.packets == [CLEAR]


# -- bad scripts ---------------------------------------------------------------------------------------------------------


def test_a_mistake_in_the_script_is_shown_where_it_is(desk: Desk) -> None:
    ran = desk.replay("# the peer\nadd 192.0.2.1 192.0.2.2 esp 0x1000 -m tunnel -E aes-gcm-16 0x" + "ab" * 16 + ";\n", str(CAPTURE), "--in")
    assert ran.status == BAD_DATA
    where, line, caret = ran.err.splitlines()[:3]
    assert where == f"{desk.path}/peer.conf:2:60: AES-GCM needs 20, 28 or 36 octets: key plus 4 of salt; this one has 16"
    assert line == "    add 192.0.2.1 192.0.2.2 esp 0x1000 -m tunnel -E aes-gcm-16 " + "*" * 34 + ";"
    assert caret == " " * 63 + "^" * 34
    assert not desk.target.exists()


def test_every_mistake_is_shown_with_its_hint(desk: Desk) -> None:
    ran = desk.replay("spdadd a b any -P in none;\nadd 192.0.2.1 192.0.2.2 esp 1 -E null;\nflsh;\n", str(CAPTURE), "--in")
    assert ran.status == BAD_DATA
    assert [line.split(":")[1] for line in ran.err.splitlines() if "peer.conf" in line] == ["2", "3"]
    assert "hint: RFC 4303 §2.1; use 256 or more" in ran.err


def test_hosts_are_numbers(desk: Desk) -> None:
    """Nothing leaves the machine for a replay: names are not looked up."""
    ran = desk.replay("add peer.example 192.0.2.2 esp 0x1000 -E null;\n", str(CAPTURE), "--in")
    assert ran.status == BAD_DATA
    assert "peer.conf:1:5: peer.example is no address that can be found" in ran.err


def test_what_the_stack_refuses_is_a_mistake_too(desk: Desk) -> None:
    sa = "add 192.0.2.1 192.0.2.2 esp 0x1000 -E null;\n"
    ran = desk.replay(sa + sa, str(CAPTURE), "--in")
    assert ran.status == BAD_DATA
    assert "peer.conf:2:1: there is an SA with SPI 0x1000 to this destination already" in ran.err
    assert not desk.target.exists()


def test_what_was_to_be_away_may_be_away(desk: Desk) -> None:
    """flush and delete at the head of a script find nothing, which is what they want."""
    script = "flush; spdflush;\ndelete 192.0.2.1 192.0.2.2 esp 0x1000;\nspddelete 10.0.0.0/8 10.0.0.0/8 any -P in;\n"
    assert desk.replay(script, pcap((1, CLEAR)), "--in").packets == [CLEAR]


def test_a_weak_algorithm_has_a_warning_once(desk: Desk) -> None:
    sa = f"add 192.0.2.1 192.0.2.2 esp %s -E 3des-cbc 0x{'ab' * 24} -A hmac-sha2-256 0x{'ab' * 32};\n"
    ran = desk.replay(sa % "0x1000" + sa % "0x1001", pcap((1, CLEAR)), "--in")
    assert ran.packets == [CLEAR]
    assert "peer.conf:1:1: warning: 3des-cbc is weak: 64-bit blocks: collisions after 32 GiB (RFC 8221 §5)\n" in ran.err
    assert ran.err.count("warning") == 1


def test_a_script_of_octets_that_are_no_text(desk: Desk) -> None:
    conf = desk.file("latin.conf", b"# caf\xe9\nflush;\n\xff;\n")
    assert run(koura_command, "koura", ["replay", "-f", conf, "--in", str(CAPTURE), str(desk.target)]) == BAD_DATA


# -- usage and files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--in", "--out"), ("--in", "--at", "yesterday"), ("--in", "--at", "1969-12-31")])
def test_usage(desk: Desk, options: tuple[str, ...]) -> None:
    ran = desk.replay("", str(CAPTURE), *options)
    assert ran.status == USAGE
    assert ran.err.count("\n") == 1


def test_files_that_are_not_there(desk: Desk) -> None:
    ran = desk.replay("", str(desk.path / "none.pcap"), "--in")
    assert (ran.status, ran.err) == (FAILED, f"koura: cannot read {desk.path}/none.pcap: No such file or directory\n")
    ran = desk.replay("", str(CAPTURE), "--in", target=str(desk.path / "none" / "out.pcap"))
    assert (ran.status, ran.err) == (FAILED, f"koura: cannot write {desk.path}/none/out.pcap: No such file or directory\n")
    assert run(koura_command, "koura", ["replay", "-f", str(desk.path), "--in", str(CAPTURE), str(desk.target)]) == FAILED


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this machine")
def test_a_disk_that_is_full(desk: Desk) -> None:
    ran = desk.replay("", pcap((1, CLEAR)), "--in", target="/dev/full")
    assert (ran.status, ran.err) == (FAILED, "koura: cannot write /dev/full: No space left on device\n")


def test_the_capture_is_not_written_over(desk: Desk) -> None:
    source = desk.file("in.pcap", pcap((1, CLEAR)))
    ran = desk.replay("", source, "--in", target=source)
    assert ran.status == USAGE
    assert Path(source).read_bytes() == pcap((1, CLEAR))


def _pipe(desk: Desk, *arguments: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-m", "koura", "replay", *arguments], input=given, capture_output=True, check=False, env=environment, cwd=desk.path
    )


def test_both_ends_may_be_pipes(desk: Desk) -> None:
    """With packets on stdout, words go to stderr; the whole way as a process of its own."""
    conf = desk.file("peer.conf", convert.script(CASE.entry))
    ran = _pipe(desk, "-f", conf, "--in", "-", "-", given=CAPTURE.read_bytes())
    assert ran.returncode == 0
    desk.target.write_bytes(ran.stdout)
    with desk.target.open("rb") as file:
        assert [record.octets for record in capture.read(file)] == CASE.plain()
    assert ran.stderr.startswith(b"16 frames, 16 packets in, 16 packets out\n")


def test_the_script_may_be_a_pipe(desk: Desk) -> None:
    ran = _pipe(desk, "-f", "-", "--in", str(CAPTURE), "out.pcap", given=b"flsh;")
    assert (ran.returncode, ran.stderr.splitlines()[0]) == (BAD_DATA, b"<stdin>:1:1: `flsh` is no command")
