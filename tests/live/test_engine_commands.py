"""koura sysctl and koura stat against a daemon that runs; the commands run in the test's own process."""

import json
from collections.abc import Callable, Iterator

import pytest

from koura.cli import stat, sysctl
from koura.cli.main import run
from koura.daemon.launch import Running
from koura.sysctl.nodes import NODES

pytestmark = pytest.mark.live
Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("commands") / "koura", "-q") as running:
        yield running


@pytest.fixture
def ask(daemon: Running, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    monkeypatch.setenv("KOURA_SOCKET", str(daemon.directory))

    def asked(command: str, *arguments: str) -> tuple[int, str, str]:
        status = run({"sysctl": sysctl.command, "stat": stat.command}[command], f"koura {command}", list(arguments))
        said = capsys.readouterr()
        return status, said.out, said.err

    return asked


@pytest.mark.covers("M29")
def test_the_whole_tree_is_listed_by_name(ask: Ask) -> None:
    status, out, _ = ask("sysctl", "-a")
    lines = out.splitlines()
    assert status == 0
    assert [line.partition(": ")[0] for line in lines] == [node.name for node in NODES]
    assert "net.inet.ipsec.def_policy: 1" in lines and "net.key.larval_lifetime: 30" in lines and "net.koura.weak_crypto: 0" in lines


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (("net.enc.in",), "net.enc.in.ipsec_bpf_mask: 1\nnet.enc.in.ipsec_filter_mask: 1\n"),
        (("net.enc.in.",), "net.enc.in.ipsec_bpf_mask: 1\nnet.enc.in.ipsec_filter_mask: 1\n"),
        (("-n", "net.key.spi_trycnt"), "1000\n"),
        (("-N", "net.key.spi_trycnt"), "net.key.spi_trycnt\n"),
        (("-e", "net.key.spi_trycnt"), "net.key.spi_trycnt=1000\n"),
        (("-d", "net.key.spi_trycnt"), "net.key.spi_trycnt: draws of an SPI before GETSPI gives up\n"),
        (("4.27.2",), "4.27.2: 1000\n"),
        (("-n", "net.key.spi_trycnt", "net.key.int_random"), "1000\n60\n"),
        (("-i", "net.nothing"), ""),
    ],
)
def test_names_are_shown_as_sysctl_shows_them(ask: Ask, arguments: tuple[str, ...], out: str) -> None:
    assert ask("sysctl", *arguments) == (0, out, "")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("net.nothing.dfbit", "did you mean net.inet.ipsec.dfbit"), ("net.inet.ipsec.dfbit=x", "invalid integer 'x'"),
        ("net.inet.ipsec.min_pmtu=99999", "it takes 0 to 65535"), ("net.key.spdcache.maxentries=1", "set at start only"),
        ("kern.features.ipsec=0", "cannot be set"), ("net.enc=1", "branch"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(ask: Ask, argument: str, words: str) -> None:
    status, out, err = ask("sysctl", argument)
    assert (status in (1, 77), out) == (True, "")
    assert words in err and err.count("\n") == 1


def test_setting_shows_old_and_new_and_says_what_was_not_taken_as_it_came(ask: Ask) -> None:
    assert ask("sysctl", "net.inet.ipsec.ah_trans_deflev=9") == (
        0, "net.inet.ipsec.ah_trans_deflev: 1 -> 2\n",
        "koura sysctl: net.inet.ipsec.ah_trans_deflev: 9 is no level; 2 (require) stands in its place\n",
    )  # fmt: skip
    assert json.loads(ask("sysctl", "--json", "net.inet.ipsec.ah_trans_deflev=1")[1]) == {"net.inet.ipsec.ah_trans_deflev": "1"}
    assert ask("sysctl", "net.nothing", "net.key.int_random=61")[0] == 1
    assert ask("sysctl", "-n", "net.key.int_random")[1] == "61\n", "what came behind it was done"


@pytest.mark.covers("M38")
def test_stat_is_netstat_s(ask: Ask) -> None:
    for protocol in ("esp", "ah", "ipcomp", "ipsec", "ipsec6", "pfkey"):
        status, out, _ = ask("stat", "-p", protocol)
        assert status == 0 and out.startswith(f"{protocol}:\n\t0 ") and all(line.startswith("\t") for line in out.splitlines()[1:])
        assert ask("stat", "-ss", "-p", protocol)[1] == f"{protocol}:\n"
    assert [line for line in ask("stat")[1].splitlines() if not line.startswith("\t")] == [
        "ipsec:", "ipsec6:", "ah:", "esp:", "ipcomp:", "natt:", "pfkey:", "crypto:",
    ]  # fmt: skip
    sections = {"ipsec", "ipsec6", "ah", "esp", "ipcomp", "natt", "pfkey", "attachments", "reasons", "crypto"}
    assert set(json.loads(ask("stat", "--json")[1])) == sections


def test_usage_is_64_and_an_engine_that_is_not_there_1(ask: Ask) -> None:
    assert ask("sysctl")[0] == 64
    assert ask("stat", "-p", "udp")[0] == 64
    status, _, err = ask("stat", "--socket", "/nowhere")
    assert status == 1 and "koura up" in err
