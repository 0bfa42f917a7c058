"""strongSwan's charon with its own user-space ESP (kernel-libipsec) in a gateway of a row, spoken to by swanctl.

It does ESP in UDP alone, so NAT traversal is on whatever lies between. Everything it reads and writes is in a directory of the test.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.live.kit import ike
from tests.live.kit.certificates import authority
from tests.live.kit.programs import PATIENCE_S, until

CHARON = "/usr/lib/ipsec/charon"
LIBIPSEC = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so"
SWANCTL = "/usr/sbin/swanctl"
NAMES = ("g1.test", "g2.test")
SECRET = "for-this-test-only"
_STRONGSWAN = """charon {{
  load = {plugins}
  retransmit_timeout = 0.5
  retransmit_base = 1.2
  retransmit_tries = 4
  plugins {{ vici {{ socket = unix://{home}/vici }}
    kernel-libipsec {{ load = yes }} }}
  filelog {{ log {{ path = {home}/log
    default = 1
    flush_line = yes }} }}
}}
"""
_LOST = (
    "inbound ESP packet does not belong to an installed SA", "discarding inbound IP packet",
    "no matching outbound IPsec policy", "could not find an outbound IPsec SA",
)  # fmt: skip
_PLUGINS = (
    "random nonce openssl aes sha1 sha2 hmac kdf gcm ctr curve25519 pem x509 pkcs1 pkcs8 pubkey kernel-libipsec kernel-netlink "
    "socket-default vici updown"
)
_CONNECTION = """connections {{ t {{
  version = 2
  local_addrs = {local}
  remote_addrs = {remote}
  proposals = aes128-sha256-curve25519
  dpd_delay = 1s
  local {{ {local_auth}
    id = g2.test }}
  remote {{ {remote_auth}
    id = g1.test }}
  children {{ net {{
    local_ts = {local_net}
    remote_ts = {remote_net}
    esp_proposals = {esp}
    rekey_time = {rekey_s}s
    rand_time = 0s
    dpd_action = clear
    life_time = 3600s }} }} }} }}
secrets {{ ike-1 {{ id-a = g1.test
  id-b = g2.test
  secret = {secret} }} }}
"""


class Failed(Exception):
    """swanctl did not do it; with what it said."""


@dataclass(frozen=True)
class Connection:
    """What both ends are told: iked on gateway a (g1.test), which waits, and charon on gateway b (g2.test).

    esp, childsa: the same suite in either's words. child_s: iked's lifetime of a child SA; rekey_s: when charon rekeys it, 0 never.
    """

    esp: str = "aes128-sha1"
    childsa: str = "enc aes-128 auth hmac-sha1"
    has_certificates: bool = False
    is_v6: bool = False
    outer: tuple[str, str] = ("192.0.2.1", "192.0.2.2")
    rekey_s: int = 0
    child_s: int = 3600

    @property
    def nets(self) -> tuple[str, str]:
        return ("2001:db8:a::/64", "2001:db8:b::/64") if self.is_v6 else ("10.77.1.0/24", "10.77.2.0/24")

    @property
    def target(self) -> str:
        """The host behind charon."""
        return "2001:db8:b::2" if self.is_v6 else "10.77.2.2"

    def iked(self) -> str:
        auth = "" if self.has_certificates else f'psk "{SECRET}"'
        return (
            f'ikev2 "row" passive esp from {self.nets[0]} to {self.nets[1]} local {self.outer[0]} peer {self.outer[1]} '
            f"ikesa enc aes-128 auth hmac-sha2-256 prf hmac-sha2-256 group curve25519 childsa {self.childsa} "
            f"srcid g1.test dstid g2.test lifetime {self.child_s} {auth}\n"
        )

    def charon(self) -> str:
        by_key = ("auth = pubkey\n    certs = g2.pem", "auth = pubkey\n    cacerts = ca.pem")
        local, remote = by_key if self.has_certificates else ("auth = psk", "auth = psk")
        return _CONNECTION.format(
            local=self.outer[1], remote=self.outer[0], local_auth=local, remote_auth=remote, local_net=self.nets[1],
            remote_net=self.nets[0], esp=self.esp, rekey_s=self.rekey_s, secret=SECRET,
        )  # fmt: skip


@dataclass
class Ends:
    """Both, connected. charon, iked: their processes; swanctl(*words) -> what it says."""

    swanctl: Callable[..., str]
    charon: "subprocess.Popen[bytes]"
    iked: ike.Iked
    charon_log: Path

    def lost(self) -> int:
        """Packets that charon ended, as its log says: the other side used an SA before charon installed it, or after it deleted it."""
        said = self.charon_log.read_text()
        return sum(said.count(words) for words in _LOST)

    def logs(self) -> str:
        return f"iked: {self.iked.log.read_text()[-4000:]}\ncharon: {self.charon_log.read_text()[-4000:]}"


def certify(home: Path) -> tuple[Path, Path]:
    """Directories as iked's /etc/iked and as swanctl's, for g1.test and g2.test, of one CA."""
    root, issue = authority("a CA of this test only")
    ours, theirs = issue(NAMES[0]), issue(NAMES[1])
    etc, swanctl = home / "etc-iked", home / "swanctl"
    files = {
        etc / "ca" / "ca.crt": root, etc / "certs" / "g1.test.crt": ours.certificate, etc / "private" / "local.key": ours.key,
        swanctl / "x509ca" / "ca.pem": root, swanctl / "x509" / "g2.pem": theirs.certificate, swanctl / "private" / "g2.pem": theirs.key,
    }  # fmt: skip
    for folder in (etc / "crls", etc / "pubkeys"):
        folder.mkdir(parents=True)
    for path, octets in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(octets)
        path.chmod(0o600 if path.parent.name == "private" else 0o644)  # iked reads certificates as a user of its own
    return etc, swanctl


@contextmanager
def charon(gateway: str, home: Path, connection: Connection) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[..., str]]]:
    """charon in a gateway, its connection loaded; and its swanctl."""
    home.mkdir(exist_ok=True)
    (home / "swanctl").mkdir(exist_ok=True)
    (home / "strongswan.conf").write_text(_STRONGSWAN.format(home=home, plugins=_PLUGINS))
    (home / "swanctl" / "swanctl.conf").write_text(connection.charon())
    environment = os.environ | {"STRONGSWAN_CONF": str(home / "strongswan.conf")}
    words = ["ip", "netns", "exec", gateway, "sh", "-c", f"mount -t tmpfs none /run && exec {CHARON}"]

    def swanctl(*asked: str) -> str:
        words = [SWANCTL, *asked, "--uri", f"unix://{home}/vici"]
        done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)
        if done.returncode:
            raise Failed(f"swanctl {asked[0]}: {done.stderr}{done.stdout}")
        return done.stdout

    with (home / "output").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        try:
            until((home / "vici").exists, (home / "output").read_text)
            swanctl("--load-all", "--noprompt", "--file", str(home / "swanctl" / "swanctl.conf"))
            yield process, swanctl
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(PATIENCE_S)


@contextmanager
def connected(gateways: tuple[str, str], home: Path, connection: Connection) -> Iterator[Ends]:
    """iked under `koura run` in the first gateway, whose daemon stands; charon in the second, which begins."""
    etc, swanctl_dir = certify(home) if connection.has_certificates else (None, None)
    theirs = home / "charon"
    theirs.mkdir()
    if swanctl_dir is not None:
        swanctl_dir.rename(theirs / "swanctl")
    with (
        charon(gateways[1], theirs, connection) as (process, swanctl),
        ike.started(gateways[0], home / "1", connection.iked(), etc=etc) as (daemon, log),
    ):
        ends = Ends(swanctl, process, ike.Iked(log, daemon), theirs / "log")
        until(lambda: _connects(swanctl), ends.logs)
        yield ends


def _connects(swanctl: Callable[..., str]) -> bool:
    """charon's first words may come before iked listens."""
    try:
        swanctl("--initiate", "--child", "net", "--timeout", "10")
    except Failed:
        return False
    return True
