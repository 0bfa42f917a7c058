"""Every capture of a real Linux kernel through `koura replay --in`: exactly the packets of its plain twin, with and without policies."""

import json
from pathlib import Path

import pytest

from koura.cli.main import koura_command, run
from koura.wire import capture, natt, udp
from koura.wire.summary import summarise
from tests.vectors.linux import convert
from tests.vectors.linux.load import HERE, Case, cases

_UDP, _NO_NEXT_HEADER = 17, 59


def expected(case: Case) -> list[bytes]:
    """The plain twin without what the decoder that made it had no eye for: IKE, keepalives, dummy packets."""
    ports = {sa["encap"][end] for sa in case.entry["sas"] if "encap" in sa for end in ("sport", "dport")}
    return [packet for packet in case.plain() if not _is_for_nobody(packet, ports, case)]


def _is_for_nobody(packet: bytes, ports: set[int], case: Case) -> bool:
    found = summarise(packet)
    if found.protocol == _NO_NEXT_HEADER:
        # RFC 4303 §2.6: what transport mode ESP carries under this number is a dummy. Linux dropped these, too (XfrmInStateProtoError).
        return any(sa["proto"] == "esp" and sa["mode"] == "transport" for sa in case.entry["sas"])
    return found.protocol == _UDP and found.dport in ports and natt.demultiplex(udp.read(packet[found.offset :])[1]) is not natt.Kind.ESP


@pytest.mark.covers("R2", "R3", "R4", "R5", "R6", "R7", "R57", "M12", "M14", "S36", "S40")
@pytest.mark.parametrize("host", ["", "a", pytest.param("b", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_a_capture_gives_its_plain_packets(case: Case, host: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, inner = tmp_path / "peer.conf", tmp_path / "inner.pcap"
    script.write_text(convert.script(case.entry, host))
    source = HERE / f"{case.name}.pcap"
    assert run(koura_command, "koura", ["replay", "-f", str(script), "--in", "--json", str(source), str(inner)]) == 0
    summary = json.loads(capsys.readouterr().out)
    with inner.open("rb") as file:
        records = list(capture.read(file))
    assert [record.octets for record in records] == expected(case)
    assert {record.linktype for record in records} <= {capture.RAW}
    assert summary["outcomes"]["discard"] == summary["reasons"].get("esp.dummy", 0) + summary["reasons"].get("natt.keepalive", 0)
    assert summary["frames"] == summary["packets"] + sum(summary["left_out"].values())
    assert summary["packets"] == sum(summary["reasons"].values()) == sum(summary["outcomes"].values())


def test_every_time_is_that_of_the_frame(tmp_path: Path) -> None:
    """A packet has its frame's time, a datagram put together that of its last fragment."""
    case = next(case for case in cases() if case.name == "4in6-frag-gcm")
    script, inner = tmp_path / "peer.conf", tmp_path / "inner.pcap"
    script.write_text(convert.script(case.entry))
    assert run(koura_command, "koura", ["replay", "-f", str(script), "--in", str(HERE / f"{case.name}.pcap"), str(inner)]) == 0
    times = [at_ns for at_ns, _ in case.packets()]
    with inner.open("rb") as file:
        found = [record.at_ns for record in capture.read(file)]
    assert found and set(found) <= set(times)
    assert found[-1] == times[-1]
