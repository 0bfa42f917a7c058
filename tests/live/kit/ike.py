"""Gateways of a row with Koura in host mode and an IKE daemon under `koura run`; what they counted afterwards."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from koura.daemon.launch import Running
from tests.live.kit.certificates import authority
from tests.live.kit.gateways import Row, run
from tests.live.kit.programs import PATIENCE_S, command, descendants

IKED = shutil.which("iked") or "/usr/sbin/iked"
KEY = "/etc/iked/private/local.key"
AGAIN_S = 10.0
TOML = '[host]\nports = []\n[sysctl]\n"net.koura.mss_clamp" = 1\n'


def daemon(gateway: str, home: Path, toml: str = TOML, environment: str = "A=") -> Running:
    """A daemon in host mode in `gateway`; its sockets are in `home`/koura."""
    home.mkdir(exist_ok=True)
    (home / "koura.toml").write_text(toml)
    return Running(home / "koura", "-c", str(home / "koura.toml"), prefix=("ip", "netns", "exec", gateway, "env", environment))


@dataclass(frozen=True)
class Iked:
    """One that runs under `koura run`."""

    log: Path
    process: "subprocess.Popen[bytes]"

    def said(self, what: str) -> int:
        """How often its log has this (a regular expression)."""
        return len(re.findall(what, self.log.read_text()))

    def stop(self) -> None:
        """It says goodbye to its peers."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)

    def die(self) -> None:
        """All its processes at once, without a word."""
        for pid in descendants(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)


def with_etc(words: list[str], home: Path, etc: Path | None = None) -> list[str]:
    """Words for `ip netns exec`, so that iked finds its directory: `etc`, or one of its own where it cannot read the machine's."""
    if etc is None:
        if os.access(KEY, os.R_OK):
            return words
        etc = home / "etc-iked"
        for folder in ("ca", "certs", "crls", "private", "pubkeys"):
            (etc / folder).mkdir(parents=True)
        _, issue = authority("nobody asks it")
        (etc / "private" / "local.key").write_bytes(issue("here.test").key)
        (etc / "private" / "local.key").chmod(0o600)
    return ["sh", "-c", 'mount --bind "$0" /etc/iked && exec "$@"', str(etc), *words]  # in the mount namespace that is made there


@contextmanager
def iked(gateway: str, home: Path, conf: str, *options: str) -> Iterator[Path]:
    """iked under `koura run`; its log."""
    with started(gateway, home, conf, *options) as (_, log):
        yield log


@contextmanager
def started(
    gateway: str, home: Path, conf: str, *options: str, etc: Path | None = None
) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """iked under `koura run`: its process, and its log. etc: what stands in the place of /etc/iked for it."""
    (home / "iked.conf").write_text(conf)
    (home / "iked.conf").chmod(0o600)
    words = command(home / "koura", IKED, "-d", "-v", "-f", str(home / "iked.conf"), "-s", str(home / "iked.sock"), *options)
    words = with_etc(words, home, etc)
    with (home / "log").open("wb") as log:
        running = Iked(home / "log", subprocess.Popen(["ip", "netns", "exec", gateway, *words], stdout=log, stderr=log, cwd=home))
        try:
            yield running.process, running.log
        finally:
            running.stop()


def establish(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until the one who begins has its IKE SA. A peer that was about to start may have dropped a half-made one: then it begins anew."""
    deadline = time.monotonic() + PATIENCE_S
    again = time.monotonic() + AGAIN_S
    while "established peer" not in log.read_text():
        now = time.monotonic()
        assert now < deadline, log.read_text()
        if now > again and "initiating" in log.read_text():
            process.send_signal(signal.SIGHUP)
            again = now + AGAIN_S
        time.sleep(0.05)


@contextmanager
def two_iked(hosts: Row, home: Path, lifetime_s: int, environment: str = "A=") -> Iterator[tuple[Running, Running]]:
    """Both gateways connected. The first rekeys; the second leaves it to it, so that they do not do so at the same moment."""
    with ExitStack() as stack:
        made = [daemon(gateway, home / str(n), environment=environment) for n, gateway in enumerate(hosts.gateways, 1)]
        daemons = [stack.enter_context(one) for one in made]
        for here, there, mode, life in ((2, 1, "passive", 3600), (1, 2, "active", lifetime_s)):
            conf = (
                f'ikev2 "row" {mode} esp from 10.77.{here}.0/24 to 10.77.{there}.0/24 local 192.0.2.{here} peer 192.0.2.{there} '
                f'childsa enc aes-128-ctr auth hmac-sha1 srcid g{here}.test dstid g{there}.test lifetime {life} psk "for-this-test-only"\n'
            )
            process, log = stack.enter_context(started(hosts.gateways[here - 1], home / str(here), conf))
        establish(process, log)
        answers(hosts.host_a, "10.77.2.2", (home / "1" / "log").read_text)
        yield daemons[0], daemons[1]


def answers(host: str, target: str, what_happened: object, *options: str) -> None:
    """Until the other side answers a ping. Raises AssertionError with the log after a minute."""
    deadline = time.monotonic() + PATIENCE_S
    line = ["ip", "netns", "exec", host, "ping", "-c", "1", "-W", "1", *options, target]
    while subprocess.run(line, capture_output=True, check=False).returncode:
        assert time.monotonic() < deadline, what_happened() if callable(what_happened) else what_happened


def esp_counters(of: Running) -> dict[str, int]:
    """netstat -s of ESP."""
    words = [sys.executable, "-m", "koura", "stat", "-p", "esp", "--json", "--socket", str(of.directory)]
    found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)["esp"]
    return {name: int(value) for name, value in found.items()}


def counters(of: Running) -> dict[str, dict[str, int]]:
    """`koura stat`: netstat's sections, `reasons`, and of `attachments` what each lost, by its name."""
    words = [sys.executable, "-m", "koura", "stat", "--json", "--socket", str(of.directory)]
    found: dict[str, dict[str, int]] = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    moved = found.pop("attachments").items()
    found.pop("drivers", None)
    found["lost"] = {
        f"{name} {what}": count for name, counts in moved for what, count in counts.items()  # type: ignore[attr-defined]
        if count and what not in ("received", "sent", "taken", "delivered")
    }  # fmt: skip
    return found


def dropped_at_sockets(gateway: str) -> int:
    """Packets from the wire that no raw socket had room for."""
    return sum(int(line.split()[-1]) for line in run(gateway, "cat", "/proc/net/raw").splitlines()[1:])


def dropped_anywhere(gateway: str) -> int:
    """Packets that a gateway's own kernel ended: no room at a UDP socket, or in the queue of a link."""
    links = json.loads(run(gateway, "ip", "-s", "-j", "link", "show"))
    at_links = sum(link["stats64"][way]["dropped"] for link in links for way in ("tx", "rx"))
    sockets = [line for family in ("udp", "udp6") for line in run(gateway, "cat", f"/proc/net/{family}").splitlines()[1:]]
    return at_links + sum(int(line.split()[-1]) for line in sockets)


def dropped_at_the_tun(gateway: str) -> int:
    """Packets that its queue had no room for, before they were sealed or after they were opened."""
    link = json.loads(run(gateway, "ip", "-s", "-j", "link", "show", "dev", "koura0"))[0]["stats64"]
    return int(link["tx"]["dropped"]) + int(link["rx"]["dropped"])
