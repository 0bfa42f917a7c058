"""`koura demo`: what it shows is true, fits a terminal of 80 columns, and its files can be looked into."""

import time
from pathlib import Path

import pytest

from koura.cli.main import koura_command, run
from koura.sim import demo
from koura.sim.demo import Act, Row
from koura.wire import capture


@pytest.fixture(scope="module")
def acts() -> list[Act]:
    shown: list[Act] = []
    assert demo.play(shown.append)
    return shown


def row(act: Act, begins: str) -> Row:
    return next(row for row in act.rows if row.what.startswith(begins))


@pytest.mark.covers("R5", "R7", "R41")
def test_a_ping_a_transfer_and_a_large_datagram_cross_a_tunnel(acts: list[Act]) -> None:
    assert [row.result for row in acts[0].rows[:3]] == [
        "3 answers after 12 ms", "arrived unchanged, in 44 segments", "arrived whole, from 14 fragments",
    ]  # fmt: skip
    assert row(acts[0], "between").detail == "IP | ESP: nothing of it readable"


@pytest.mark.covers("R3", "R4", "R6", "R57")
def test_ah_over_esp_over_ipcomp_is_shorter_than_what_was_put_in(acts: list[Act]) -> None:
    on_the_wire = row(acts[1], "between")
    assert on_the_wire.detail == "IP | AH | ESP: nothing of it readable"
    octets = sum(len(packet) for _, packet in acts[1].captures["2-bundle-wire.pcap"])
    assert octets < demo.PAYLOAD_OCTETS // 4


@pytest.mark.covers("R52", "R53", "R54", "S12")
def test_the_policy_of_the_manual_page_takes_good_packets(acts: list[Act]) -> None:
    assert "-P in ipsec\n    esp/tunnel/198.51.100.1-203.0.113.1/use\n    ah/transport/198.51.100.1-203.0.113.1/require" in acts[2].excerpt
    assert all(row.is_good for row in acts[2].rows)
    assert row(acts[2], "history").result == "ah/transport then esp/tunnel"


@pytest.mark.reason("esp.replay", "esp.icv", "esp.nosa", "policy.in.clear")
def test_strangers_are_refused_with_their_reasons_and_counted(acts: list[Act]) -> None:
    refused = [row.result.removeprefix("refused: ") for row in acts[3].rows[:-1]]
    assert refused == ["esp.replay", "esp.icv", "esp.icv", "esp.nosa", "policy.in.clear"]
    assert acts[3].rows[-1].detail == "policy.in.clear 1, esp.nosa 1, esp.replay 1, esp.icv 2"


def test_a_row_that_is_not_right_is_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The demonstration cannot show what did not happen."""
    monkeypatch.setattr(demo.Stage, "strike", lambda *_: "")
    monkeypatch.chdir(tmp_path)
    assert run(koura_command, "koura", ["demo", "--sim"]) == 1
    said = capsys.readouterr()
    assert "ACCEPTED" in said.out
    assert "not as it must be" in said.err


def test_it_fits_80_columns_without_colours_and_takes_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.process_time()
    assert run(koura_command, "koura", ["demo", "--sim", "--output", str(tmp_path / "seen")]) == 0
    assert time.process_time() - began < 10
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-8])) <= 80
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)
    assert lines[0].startswith("koura demo")


def test_its_captures_open_with_its_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the last lines of the demonstration say works: koura replay gives back what was on the inside."""
    assert run(koura_command, "koura", ["demo", "--sim", "--output", str(tmp_path)]) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "1-a.conf", "1-b.conf", "1-esp-tunnel-inside.pcap", "1-esp-tunnel-wire.pcap", "2-bundle-inside.pcap", "2-bundle-wire.pcap",
        "2-h.conf", "2-k.conf", "3-a.conf", "3-b.conf", "3-manual-page-inside.pcap", "3-manual-page-wire.pcap", "4-strangers-wire.pcap",
    ]  # fmt: skip
    for act, end in (("1-esp-tunnel", "1-b"), ("3-manual-page", "3-b")):
        opened = tmp_path / "opened.pcap"
        arguments = ["replay", "-f", f"{tmp_path}/{end}.conf", "--in", f"{tmp_path}/{act}-wire.pcap", str(opened)]
        assert run(koura_command, "koura", arguments) == 0
        with opened.open("rb") as file, (tmp_path / f"{act}-inside.pcap").open("rb") as inside:
            clear = [record.octets[20:] for record in capture.read(file)]
            put_in = {record.octets[20:] for record in capture.read(inside)}
        assert len(clear) > 50
        assert sum(octets in put_in for octets in clear) >= len(clear) - 1, "all but the datagram, which was put together"
    capsys.readouterr()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run(koura_command, "koura", ["demo", "--sim", "--output", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err == f"koura: {tmp_path}/file: file exists; choose another place with --output\n"
