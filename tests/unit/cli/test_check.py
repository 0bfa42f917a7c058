"""`koura up --check`: koura.toml and all scripts judged, nothing touched."""

from pathlib import Path

import pytest

from koura.cli.main import koura_command, run

SA = "add 192.0.2.1 192.0.2.2 esp 0x1001 -m tunnel -E aes-gcm-16 0x00112233445566778899aabbccddeeff00112233;\n"
OUT = "spdadd 10.0.0.0/24 10.1.0.0/24 any -P out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require;\n"
IN = "spdadd 10.1.0.0/24 10.0.0.0/24 any -P in ipsec esp/tunnel/192.0.2.2-192.0.2.1/require;\n"
BACK = SA.replace("192.0.2.1 192.0.2.2", "192.0.2.2 192.0.2.1").replace("0x1001", "0x1002").replace("aabb", "bbaa")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "koura.toml").write_text('[daemon]\nfile = ["sas.conf", "policies.conf"]\n[host]\n')
    (tmp_path / "sas.conf").write_text(SA + BACK)
    (tmp_path / "policies.conf").write_text(OUT + IN)
    return tmp_path


def _check(*words: str) -> int:
    return run(koura_command, "koura", ["up", "--check", *words])


def test_a_good_site_is_good(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _check("-c", str(site / "koura.toml")) == 0
    said = capsys.readouterr()
    assert "good; 2 SAs, 2 policies" in said.out and said.err == ""
    assert _check("-q", "-c", str(site / "koura.toml")) == 0
    assert capsys.readouterr().out == ""


def test_findings_across_files_have_the_place_in_their_own(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "policies.conf").write_text("# a line more\n" + OUT + OUT.replace("10.0.0.0/24", "10.0.0.0/25") + IN)
    assert _check("-c", str(site / "koura.toml")) == 0
    assert f"warning: {site}/policies.conf:3:1: " in (out := capsys.readouterr().out)
    assert "[shadowed-policy]" in out


def test_what_an_engine_would_refuse_is_65(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weak = "add 192.0.2.3 192.0.2.4 esp 0x1003 -E 3des-cbc 0x0123456789abcdeffedcba98765432100123456789abcdef;\n"
    (site / "policies.conf").write_text(SA + OUT + weak + IN)
    assert _check("-c", str(site / "koura.toml")) == 65
    err = capsys.readouterr().err
    assert f"error: {site}/policies.conf:1:1: an engine refuses this" in err, "the same SA as in the first file"
    assert f"error: {site}/policies.conf:3:1: an engine refuses this" in err, "weak algorithms are off in the daemon"
    assert _check("-f", str(site / "sas.conf"), "-o", "net.koura.weak_crypto=1") == 0


def test_faults_of_all_files_are_told(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "sas.conf").write_text("add nonsense;\n")
    (site / "policies.conf").write_text("spdadd;\n")
    assert _check("-c", str(site / "koura.toml"), "-q") == 65
    err = capsys.readouterr().err
    assert f"{site}/sas.conf:1:" in err and f"{site}/policies.conf:1:" in err
    assert err.splitlines()[-1].startswith("koura: ") and "2 faults" in err.splitlines()[-1]
    (site / "koura.toml").write_text("[hots]\n")
    assert _check("-c", str(site / "koura.toml")) == 65
    err = capsys.readouterr().err
    assert "did you mean host?" in err and err.endswith("koura.toml: 1 fault\n")
    assert _check("-c", str(site / "none.toml")) == 65
    assert _check("-f", str(site / "none.conf")) == 65
