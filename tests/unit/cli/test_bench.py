"""koura bench: a small run, its file, comparison and charts."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from koura.cli.main import BAD_DATA, DONE, FAILED, USAGE, koura_command, run
from tests.parity.kit import needs_fast

SMALL = ["bench", "--suite", "aes-128-gcm,ah-sha256", "--size", "64,imix", "--sas", "1,40", "--seconds", "0.01"]


def _koura(*arguments: str) -> int:
    return run(koura_command, "koura", list(arguments))


@needs_fast
def test_a_run_its_file_and_its_charts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.json"
    assert _koura(*SMALL, "--json", str(file)) == DONE
    values = json.loads(file.read_text())
    assert len(values["figures"]) == 2 * 2 * 2 * 2
    assert all(0 < row["ratio"] < 3 and abs(sum(row["stages"].values()) - row["all_ns"]) < 1e-6 for row in values["figures"])
    assert {row["octets"] for row in values["figures"] if row["size"] == "64"} == {64}
    assert values["machine"]["drivers"]
    assert _koura("bench", "--plot", str(file), str(tmp_path / "plots")) == DONE
    for name in ("fast-ratio.svg", "fast-gbits.svg"):
        root = ElementTree.fromstring((tmp_path / "plots" / name).read_text())
        assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 1 + len(values["figures"])
    assert "aes-128-gcm" in capsys.readouterr().out


@needs_fast
def test_traffic_to_few_of_many(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    assert _koura(*SMALL[:2], "aes-128-gcm", "--size", "64", "--sas", "40", "--busy", "7", "--seconds", "0.01", "--json", str(file)) == DONE
    assert {(row["sas"], row["busy"]) for row in json.loads(file.read_text())["figures"]} == {(40, 7)}


def _file(path: Path, ratio: float) -> str:
    row = {"suite": "a", "size": "64", "direction": "out", "sas": 1, "ratio": ratio, "all_ns": 1.0, "gbits": 1.0}
    path.write_text(json.dumps({"figures": [row]}))
    return str(path)


def test_a_ratio_that_fell_is_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, near, worse = _file(tmp_path / "o", 0.80), _file(tmp_path / "n", 0.75), _file(tmp_path / "w", 0.70)
    assert _koura("bench", "--compare", old, near) == DONE
    assert _koura("bench", "--compare", old, worse) == FAILED
    assert "worse" in capsys.readouterr().out


def test_bad_files_and_names_get_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("[]")
    assert _koura("bench", "--compare", str(tmp_path / "x"), str(tmp_path / "x")) == BAD_DATA
    assert _koura("bench", "--compare", str(tmp_path / "none"), str(tmp_path / "x")) == FAILED
    assert _koura("bench", "--suite", "rot13") == USAGE
    assert _koura("bench", "--sas", "0") == USAGE
    assert "Traceback" not in capsys.readouterr().err
