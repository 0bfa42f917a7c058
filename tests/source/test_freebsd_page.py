"""docs/freebsd.md: every page that ipsec(4) refers to is there, and all that it says is here exists."""

import importlib
import re

import pytest

from koura.cli.main import COMMANDS
from koura.sysctl import tree
from tools.conformance import ROOT

TEXT = (ROOT / "docs" / "freebsd.md").read_text()
REFERRED_TO = "ioctl(2) socket(2) ipsec_set_policy(3) crypto(4) enc(4) icmp6(4) intro(4) ip6(4) setkey(8) sysctl(8)".split()


@pytest.mark.covers("R47", "R58")
def test_every_page_has_its_equivalent() -> None:
    rows = [line.split("|")[1:3] for line in TEXT.splitlines() if line.startswith("| ")]
    places = {page: place.strip() for pages, place in rows for page in re.findall(r"[a-z0-9_]+\([1-9]\)", pages)}
    assert [page for page in REFERRED_TO if not places.get(page)] == []


def test_every_link_leads_somewhere() -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#]*)(#([a-z]+))?\)", TEXT):
        page = ROOT / "docs" / target
        assert page.exists(), target
        assert not anchor or f"## {anchor}" in page.read_text().lower(), anchor


@pytest.mark.covers("R48", "R49")
def test_every_name_exists() -> None:
    """KAME's words and the parts of fast_ipsec: by their names."""
    words = " ".join(re.findall(r"`([^`\n]+)`", TEXT))
    for command in re.findall(r"koura ([a-z]+)", words):
        assert command in COMMANDS, command
    for module, name in re.findall(r"\b(koura(?:\.[a-z]+)+)\.([a-z_]+)\b", words):
        assert hasattr(importlib.import_module(module), name), name
    constants = set(re.findall(r"\b(?:SADB|IPSEC_(?:LEVEL|DIR)|EIPSEC|IP|IPV6|FREEBSD|UDP)_[A-Z0-9_]+\b", words))
    assert {name for name in constants if not hasattr(importlib.import_module("koura.ipsec"), name)} == set()
    for variable in re.findall(r"\b(?:net\.inet|kern)\.[a-z_.]+[a-z]", words):
        assert tree.find(variable), variable
    for option in ("IPSEC_FILTERTUNNEL", "IPSEC_FILTERGIF"):
        assert option in words and tree.find_option(option)
