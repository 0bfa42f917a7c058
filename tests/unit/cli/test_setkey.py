"""setkey's command line: options, messages, exit statuses. setkey.md §1."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.cli import setkey
from koura.cli.main import run
from koura.pfkey.dialect import FREEBSD
from koura.pfkey.numbers import SaType
from tests.unit.client.engine import Engine

FILE = """\
flush; spdflush;
add 192.0.2.1 192.0.2.2 esp 0x10001 -m tunnel -r 4 -E aes-cbc 0x000102030405060708090a0b0c0d0e0f
	-A hmac-sha1 0x000102030405060708090a0b0c0d0e0f10111213;
spdadd 10.1.0.0/16 10.2.0.0/16[443] tcp -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;
"""


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("KOURA_SOCKET", str(tmp_path))
    with Engine(tmp_path):
        yield tmp_path


class Ran:
    """One run: its exit status and what it wrote."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        self.status = run(setkey.command, "setkey", list(arguments))
        captured = capsys.readouterr()
        self.out, self.err = captured.out, captured.err


def loaded(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory / "file").write_text(FILE)
    ran = Ran(capsys, "-f", str(directory / "file"))
    assert (ran.status, ran.out, ran.err) == (0, "", "")


def test_a_script_then_dumps_then_flushes(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(directory, capsys)
    sas = Ran(capsys, "-D")
    assert sas.status == 0
    assert sas.out.startswith("192.0.2.1 192.0.2.2\n\tesp mode=tunnel spi=65537(0x00010001) reqid=0(0x00000000)\n\tE: aes-cbc  00010203 ")
    assert re.search(r"\tcreated: [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\tcurrent: ", sas.out)
    policies = Ran(capsys, "-PD")
    assert policies.out.splitlines()[:3] == [
        "10.1.0.0/16[any] 10.2.0.0/16[443] tcp", "\tout ipsec", "\tesp/tunnel/192.0.2.1-192.0.2.2/require",
    ]  # fmt: skip
    for arguments, empty in ((["-F"], ["-D"]), (["-FP"], ["-DP"])):
        assert Ran(capsys, *arguments).out == ""
        ran = Ran(capsys, *empty)
        assert (ran.status, ran.out) == (0, "No SPD entries.\n" if "-DP" in empty else "No SAD entries.\n")


def test_refusals_in_freebsds_words_and_in_ours(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(directory, capsys)
    again = "\n" + FILE.replace("flush; spdflush;", "") + "delete 192.0.2.9 192.0.2.2 esp 7; get 192.0.2.9 192.0.2.2 esp 777; dump ah;\n"
    ran = Ran(capsys, "-e", again)
    assert ran.status == 0
    assert ran.out.splitlines() == [
        "The result of line 4: File exists.", "The result of line 5: File exists.", "The result of line 6: No such process.",
        "The result of line 6: No such process.", "The result of line 6: No SAD entries.",
    ]  # fmt: skip
    assert "-e:3:1: there is an SA with SPI 0x10001 to this destination already" in ran.err
    assert "^^^^" in ran.err
    assert "0x000102030405060708090a0b0c0d0e0f" not in ran.err
    assert Ran(capsys, "--strict", "-e", again).status == 2
    assert Ran(capsys, "--strict", "-D").status == 0


def test_a_script_with_a_fault_sends_nothing(directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Ran(capsys, "-e", FILE + "add 10.0.0.1 10.0.0.2 esp;\nspdadd 1.2.3.4/40 5.6.7.8 any -P in none;\n")
    assert ran.status == 1
    assert ran.out == "line 5: the SPI is missing at [;]\nparse failed, line 5.\n"
    assert ran.err.startswith("-e:5:")
    assert Ran(capsys, "-D").out == "No SAD entries.\n"
    hosts = Ran(capsys, "-e", "flush;\nadd -n no.such.host 10.0.0.2 esp 300 -E null;")
    assert (hosts.status, hosts.out.splitlines()[-1]) == (1, "parse failed, line 2.")
    missing = Ran(capsys, "-f", str(directory / "nothing"))
    assert (missing.status, missing.out) == (1, "")
    assert "No such file" in missing.err


def test_json_script_and_hidden_keys(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(directory, capsys)
    rows = json.loads(Ran(capsys, "-D", "--json").out)
    assert [(row["type"], row["spi"], row["encryption"], row["window_packets"]) for row in rows] == [("esp", 65537, "aes-cbc", 32)]
    assert json.loads(Ran(capsys, "-DP", "--json").out)[0]["text"] == "out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require"
    script = Ran(capsys, "-D", "--script").out + Ran(capsys, "-DP", "--script").out
    before = [line for line in Ran(capsys, "-D").out.splitlines() if "created" not in line and "diff" not in line]
    assert Ran(capsys, "-e", f"flush; spdflush; {script}").out == ""
    assert [line for line in Ran(capsys, "-D").out.splitlines() if "created" not in line and "diff" not in line] == before
    hidden = Ran(capsys, "-D", "--hide-keys").out
    assert "\tE: aes-cbc  ******** ******** ******** ********\n" in hidden
    assert "00010203" not in hidden
    Ran(capsys, "-F")
    assert Ran(capsys, "-D", "--json").out == "[]\n"
    assert Ran(capsys, "-D", "--script").out == ""


@pytest.mark.covers("M30")
def test_scopes_verbose_octets_and_the_rest_of_the_options(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded(directory, capsys)
    assert Ran(capsys, "-DP", "-g").out == Ran(capsys, "-DPgt").out
    assert Ran(capsys, "-DP", "-t").out == "No SPD entries.\n"
    assert Ran(capsys, "-DPN").out.endswith("(0 per-socket policies hidden)\n")
    verbose = Ran(capsys, "-vD").out
    assert verbose.startswith("sadb_msg{ version=2 type=10(DUMP) errno=0 satype=0\n  len=2 reserved=0 seq=0 pid=0\n\nsadb_msg{ ")
    octets = Ran(capsys, "-hF").out
    assert octets == "00000000: 02 09 00 00 02 00 00 00 00 00 00 00 00 00 00 00 \n"
    assert Ran(capsys, "-H", "-F").out == octets
    assert Ran(capsys, "-a", "-k", "-r", "-d", "-D", "-p").status == 0


def test_without_an_engine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = Ran(capsys, "-D", "--socket", str(tmp_path))
    assert (nobody.status, nobody.out) == (1, "")
    assert "no engine runs there" in nobody.err
    for arguments in ([], ["-P"], ["-z"], ["-v"], ["-n", "-D"], ["-D", "file"], ["-c", "-f", "x"], ["-D", "--script", "--hide-keys"]):
        ran = Ran(capsys, *arguments)
        assert ran.status == 1, arguments
        assert ran.out.startswith("usage: setkey [-v] -c\n"), arguments
    assert Ran(capsys, "-V").out.startswith("setkey (koura) ")
    assert "--hide-keys" in Ran(capsys, "-?").out
    (tmp_path / "file").write_text(FILE)
    shown = Ran(capsys, str(tmp_path / "file"))
    assert shown.status == 0
    assert "\tesp mode=tunnel spi=65537" in shown.out
    assert "\tout ipsec\n" in shown.out


def test_a_dry_run_judges_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text(FILE)
    arguments = ["-n", "-f", str(tmp_path / "file")]
    ran = Ran(capsys, *arguments)
    assert ran.status == 0
    assert ran.out.count("[one-way]") == 1
    assert Ran(capsys, "--strict", *arguments).status == 2
    rows = json.loads(Ran(capsys, "--json", *arguments).out)
    assert [(row["name"], row["line"]) for row in rows] == [("one-way", 4)]
    wrong = Ran(capsys, "-n", "-e", "add 10.0.0.1 10.0.0.2 esp 300 -E null; add 10.0.0.1 10.0.0.2 esp 300 -E null;")
    assert wrong.status == 1
    assert "error: -e:1:40: an engine refuses this: there is an SA with SPI 0x12c to this destination already [refused]" in wrong.out


def test_the_monitor_shows_what_everybody_gets(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from koura.client.keysocket import KeySocket
    from koura.client.setkey import Setkey, Shape
    from koura.pfkey.message import Message
    from koura.pfkey.numbers import Type

    said: list[str] = []
    with KeySocket.connect(directory) as watcher, KeySocket.connect(directory) as other:
        monitor = Setkey(watcher, Shape(has_octets=True), said.append, said.append)
        watcher.ask(Message(Type.X_PROMISC, FREEBSD.satypes.ours(1)))
        other.ask(Message(Type.REGISTER, SaType.AH))
        monitor.monitor(most=2)
    text = "".join(said)
    assert re.match(r"\d\d:\d\d:\d\d\.\d{6} \n00000000: 02 0b ", text)
    assert "sadb_msg{ version=2 type=7(REGISTER) errno=0 satype=2\n" in text
    assert "sadb_sup{\n" in text
    assert text.endswith("}\n\n")
