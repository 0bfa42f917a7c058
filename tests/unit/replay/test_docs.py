"""The pages keep their word: every `koura replay` line of README and docs/replay.md says what it is shown to say, every script parses."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from koura.cli.main import koura_command, run
from koura.moment import Moment
from koura.replay.load import load
from koura.setkey.parse import parse
from koura.sim.entropy import Seeded
from tests.source.tree import ROOT

_LINE = re.compile(r"^\$ (?:\.venv/bin/)?koura (replay .*)$")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.MULTILINE)


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of the blocks of code, fenced and indented."""
    text = (ROOT / page).read_text()
    found = [(match.group(1), match.group(2)) for match in _FENCE.finditer(text)]
    return found + [("", re.sub(r"^ {4}", "", match.group(), flags=re.MULTILINE)) for match in _INDENTED.finditer(_FENCE.sub("", text))]


def shown(page: str) -> list[tuple[str, str]]:
    """(command, what it says) of every block that starts with a command."""
    found = []
    for _, block in blocks(page):
        first, _, rest = block.partition("\n")
        if (line := _LINE.match(first)) is not None:
            found.append((line.group(1), rest))
    return found


def scripts() -> list[tuple[str, str]]:
    return [(page, text) for page in ("docs/replay.md", "docs/setkey.md") for language, text in blocks(page) if language == "setkey"]


@pytest.mark.parametrize(("page", "command", "said"), [(page, *row) for page in ("README.md", "docs/replay.md") for row in shown(page)])
def test_a_page_shows_what_is_said(
    page: str, command: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    run(koura_command, "koura", shlex.split(command))
    told = capsys.readouterr()
    assert told.out + told.err == said


def test_the_pages_show_something() -> None:
    assert [len(shown(page)) for page in ("README.md", "docs/replay.md")] == [2, 6]
    assert len(scripts()) == 6


@pytest.mark.covers("R58")
@pytest.mark.parametrize(("page", "text"), scripts())
def test_a_script_of_the_pages_runs(page: str, text: str) -> None:
    _, refused = load(parse(text, page), Seeded(1), Moment.of_s(1_800_000_000))
    assert not [refusal.fault for refusal in refused if refusal.is_lasting]


def test_the_readme_has_the_example_itself() -> None:
    script = next(text for _, text in blocks("README.md") if text.startswith("# examples/peer.conf"))
    assert script.partition("\n")[2] == (ROOT / "examples" / "peer.conf").read_text().partition("\n")[2]


@pytest.mark.reference
def test_the_captures_are_what_their_script_makes(tmp_path: Path) -> None:
    for name in ("make.py", "peer.conf", "gateway.conf"):
        (tmp_path / name).write_bytes((ROOT / "examples" / name).read_bytes())
    runpy.run_path(str(tmp_path / "make.py"), run_name="__main__")
    for name in ("esp.pcap", "plain.pcap", "cut.pcap"):
        assert (tmp_path / name).read_bytes() == (ROOT / "examples" / name).read_bytes(), name
