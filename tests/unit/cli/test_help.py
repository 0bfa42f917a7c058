"""`koura --help` and each command's own: what a newcomer reads first."""

import pytest

from koura.cli.main import COMMANDS, koura_command, run


def test_the_list_has_every_command_with_its_whole_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(koura_command, "koura", ["--help"]) == 0
    said = capsys.readouterr().out
    listed = said.partition("Commands:")[2]
    assert "..." not in listed
    assert [name for name in COMMANDS if f"\n  {name} " not in listed] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_says_what_it_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(koura_command, "koura", [name, "--help"])
    told = capsys.readouterr()
    said = told.out + told.err
    assert "sage: " in said
    assert len(said.splitlines()) > 4
