"""strongSwan's charon with its user-space ESP (kernel-libipsec) against stock iked under `koura run`: keys, traffic, rekeys, delete."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.live.kit import gateways, ike, namespaces
from tests.live.kit.gateways import Row, run
from tests.live.kit.programs import PATIENCE_S, why_not

pytestmark = pytest.mark.live
CHARON = "/usr/lib/ipsec/charon"
LIBIPSEC = "/usr/lib/ipsec/plugins/libstrongswan-kernel-libipsec.so"
SWANCTL = "/usr/sbin/swanctl"
STRONGSWAN = """charon {{
  load = random nonce openssl aes sha1 sha2 hmac kdf gcm curve25519 kernel-libipsec kernel-netlink socket-default vici updown
  plugins {{ vici {{ socket = unix://{home}/vici }}
    kernel-libipsec {{ load = yes }} }}
}}
"""
CONNECTION = """connections {{ t {{
  version = 2
  local_addrs = 192.0.2.2
  remote_addrs = 192.0.2.1
  proposals = aes128-sha256-curve25519
  dpd_delay = 1s
  local {{ auth = psk
    id = g2.test }}
  remote {{ auth = psk
    id = g1.test }}
  children {{ net {{
    local_ts = 10.77.2.0/24
    remote_ts = 10.77.1.0/24
    esp_proposals = aes128-sha1
    rekey_time = 3s
    rand_time = 0s
    life_time = 30s }} }} }} }}
secrets {{ ike-1 {{ id-a = g1.test
  id-b = g2.test
  secret = for-this-test-only }} }}
"""
IKED = (
    'ikev2 "row" passive esp from 10.77.1.0/24 to 10.77.2.0/24 local 192.0.2.1 peer 192.0.2.2 '
    "ikesa enc aes-128 auth hmac-sha2-256 prf hmac-sha2-256 group curve25519 childsa enc aes-128 auth hmac-sha1 "
    'srcid g1.test dstid g2.test lifetime 3600 psk "for-this-test-only"\n'
)


@pytest.fixture
def hosts() -> Iterator[Row]:
    for file in (ike.IKED, CHARON, LIBIPSEC, SWANCTL):
        if not os.path.exists(file):
            pytest.skip(f"no {file} here (Debian: openiked, strongswan-charon, libcharon-extra-plugins, strongswan-swanctl)")
    if why := why_not() or namespaces.why_not():
        pytest.skip(why)
    if subprocess.run(["unshare", "-nm", "mount", "-t", "tmpfs", "none", "/run"], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a /run of charon's own")
    with gateways.row("ks") as made:
        yield made


@contextmanager
def charon(gateway: str, home: Path) -> Iterator[Callable[..., str]]:
    """charon in a gateway; what is yielded is its swanctl."""
    home.mkdir()
    (home / "strongswan.conf").write_text(STRONGSWAN.format(home=home))
    (home / "swanctl.conf").write_text(CONNECTION.format())
    environment = os.environ | {"STRONGSWAN_CONF": str(home / "strongswan.conf")}
    words = ["ip", "netns", "exec", gateway, "sh", "-c", f"mount -t tmpfs none /run && exec {CHARON}"]

    def swanctl(*asked: str) -> str:
        words = [SWANCTL, *asked, "--uri", f"unix://{home}/vici"]
        return subprocess.run(words, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout

    with (home / "log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        try:
            until((home / "vici").exists)
            swanctl("--load-all", "--noprompt", "--file", str(home / "swanctl.conf"))
            yield swanctl
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _connects(swanctl: Callable[..., str]) -> bool:
    """charon's first words may come before iked listens."""
    try:
        swanctl("--initiate", "--child", "net", "--timeout", "10")
    except subprocess.CalledProcessError:
        return False
    return True


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.covers("M12")
def test_charon_and_iked_connect_rekey_under_load_and_part(hosts: Row, tmp_path: Path) -> None:
    with (
        ike.daemon(hosts.gateway_a, tmp_path / "1") as ours,
        charon(hosts.gateway_b, tmp_path / "2") as swanctl,
        ike.iked(hosts.gateway_a, tmp_path / "1", IKED) as log,
    ):
        until(lambda: _connects(swanctl))
        ike.answers(hosts.host_a, "10.77.2.2", log.read_text)
        said = run(hosts.host_a, "ping", "-q", "-i", "0.01", "-w", "8", "10.77.2.2")
        sent, received = map(int, re.findall(r"(\d+) packets transmitted, (\d+) received", said)[0])
        counted = ike.esp_counters(ours)
        assert sent - received <= counted["notdb"] + 1, said
        assert (counted["replay"], counted["badauth"]) == (0, 0)
        assert counted["input"] >= received
        assert len(re.findall("loaded SPIs", log.read_text())) >= 3, "it was rekeyed meanwhile"
        swanctl("--terminate", "--ike", "t", "--timeout", "20")
        sas = ["ip", "netns", "exec", hosts.host_a, "ping", "-c", "1", "-W", "1", "10.77.2.2"]
        assert subprocess.run(sas, capture_output=True, check=False).returncode, "its SAs are gone, and nothing goes in clear"
