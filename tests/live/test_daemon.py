"""The daemon as it runs: processes, sockets, signals. Every daemon is the test's own, in its own directory, as the test's user."""

import grp
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.daemon.launch import DidNotStart, Running
from koura.errors import Refused
from koura.pfkey import policy as policies
from koura.pfkey.dialect import FREEBSD, LINUX
from koura.pfkey.message import Message
from koura.pfkey.numbers import SaType, Type
from koura.saindex import Direction
from koura.spd.policy import Action, Policy
from tests.live.kit.users import why_no_others

pytestmark = pytest.mark.live
needs_users = pytest.mark.skipif(bool(why_no_others()), reason=why_no_others())

CONF = """
flush; spdflush;
add 10.0.0.1 10.0.0.2 esp 0x1000 -m tunnel -E aes-gcm-16 0x000102030405060708090a0b0c0d0e0f10111213;
add 10.0.0.2 10.0.0.1 esp 0x1001 -r 8 -E aes-gcm-16 0x100102030405060708090a0b0c0d0e0f10111213;
spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/10.0.0.1-10.0.0.2/unique;
spdadd 10.2.0.0/16 10.1.0.0/16 any -P in ipsec esp/tunnel/10.0.0.2-10.0.0.1/require;
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    path = tmp_path / "setkey.conf"
    path.write_text(CONF)
    return path


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="koura-") as place:
        os.chmod(place, 0o755)
        yield Path(place)


@pytest.fixture
def daemon(tmp_path: Path, conf: Path) -> Iterator[Running]:
    with Running(tmp_path / "koura", "-f", str(conf)) as running:
        yield running


class Key:
    """A plain PF_KEY client."""

    def __init__(self, directory: Path, hello: str = "") -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(20)
        self.socket.connect(str(directory / "pfkey.sock"))
        if hello:
            self.socket.send(b"\0koura " + hello.encode())
            assert self.socket.recv(200) == b"\0koura ok"

    def send(self, kind: Type, satype: SaType = SaType.UNSPEC, seq: int = 7) -> None:
        self.socket.send(Message(kind, satype, seq, os.getpid()).write(FREEBSD))

    def receive(self) -> Message:
        return Message.read(self.socket.recv(1 << 16), FREEBSD)

    def ask(self, kind: Type, satype: SaType = SaType.UNSPEC) -> Message:
        self.send(kind, satype)
        return self.receive()

    def dump(self, kind: Type) -> list[Message]:
        """Its messages; what else comes is not of interest."""
        self.send(kind)
        found: list[Message] = []
        while not found or (found[-1].seq and not found[-1].errno):
            message = self.receive()
            if message.type == kind:
                found.append(message)
        return found


def engine_of(daemon: Running) -> int:
    with Control(daemon.directory) as control:
        return int(str(control.ask("version")["engine"]))


def kill_engine(daemon: Running) -> None:
    """And wait until another one serves."""
    before = engine_of(daemon)
    os.kill(before, signal.SIGKILL)
    with Control(daemon.directory) as control:
        control.ask("sysctl", name="net.inet.ipsec.dfbit")  # answered by an engine, whichever
        while control.ask("version")["engine"] in (0, before):
            pass


def test_it_serves_what_the_file_says(daemon: Running) -> None:
    key = Key(daemon.directory)
    assert [message.satype for message in key.dump(Type.DUMP)] == [SaType.ESP, SaType.ESP]
    assert len(key.dump(Type.X_SPDDUMP)) == 2


def test_kill_9_of_the_engine_costs_no_client_its_socket_and_no_policy_its_place(daemon: Running) -> None:
    key = Key(daemon.directory)
    assert key.ask(Type.REGISTER, SaType.ESP).errno == 0
    sas, policies = key.dump(Type.DUMP), key.dump(Type.X_SPDDUMP)
    kill_engine(daemon)
    assert key.dump(Type.DUMP) == sas
    assert key.dump(Type.X_SPDDUMP) == policies
    assert key.ask(Type.REGISTER, SaType.ESP).errno == 17, "it is registered still: EEXIST"


def test_a_bad_file_ends_the_start_with_65_and_says_where(tmp_path: Path) -> None:
    path = tmp_path / "bad.conf"
    path.write_text("spdadd 10.0.0.0/8 10.0.0.0/8 any -P out none;\nadd 10.0.0.1 10.0.0.2 esp 0x1000 -E aes-gcm-16 0x00;\n")
    with pytest.raises(DidNotStart) as caught, Running(tmp_path / "koura", "-f", str(path)):
        pass
    assert caught.value.status == 65
    assert f"{path}:2:" in caught.value.said and "Traceback" not in caught.value.said
    assert not (tmp_path / "koura" / "pfkey.sock").exists()


def test_a_short_message_is_answered_with_its_errno(daemon: Running) -> None:
    plain = Key(daemon.directory)
    plain.socket.send(b"\2\7")
    assert plain.socket.recv(100) == struct.pack("<BBBBHHII", 2, 7, 22, 0, 2, 0, 0, 0)
    acked = Key(daemon.directory, "dialect=linux acks=1")
    acked.socket.send(b"\2\7")
    head = acked.socket.recv(200)
    assert struct.unpack(">BBHI", head[:8]) == (0, 1, 0, 90), "EMSGSIZE in Linux's numbers"


def test_two_daemons_side_by_side_and_not_two_in_one_directory(tmp_path: Path, daemon: Running) -> None:
    with Running(tmp_path / "other") as other:
        assert Key(other.directory).ask(Type.DUMP).errno == 2, "no SAs: ENOENT"
        assert len(Key(daemon.directory).dump(Type.DUMP)) == 2
    with pytest.raises(DidNotStart) as caught, Running(daemon.directory):
        pass
    assert caught.value.status == 1
    assert f"pid {daemon.pid}" in caught.value.said
    assert len(Key(daemon.directory).dump(Type.DUMP)) == 2


def load(daemon: Running, text: str) -> None:
    """As a file that comes as a descriptor: it may be larger than a message."""
    descriptor = os.memfd_create("setkey")
    try:
        os.write(descriptor, text.encode())
        with Control(daemon.directory) as control:
            control.ask("load", descriptor, file="test")
    finally:
        os.close(descriptor)


def many(count: int) -> str:
    return "".join(f"spdadd 10.{n >> 16}.{n >> 8 & 255}.{n & 255} 10.200.0.1 any -P out none;\n" for n in range(count))


@pytest.mark.covers("R55", "S23")
@pytest.mark.parametrize("count", [2_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_slow_reader_gets_each_entry_once_while_others_are_served(tmp_path: Path, count: int) -> None:
    with Running(tmp_path / "koura", "-q") as daemon:
        load(daemon, many(count))
        slow, other = Key(daemon.directory), Key(daemon.directory)
        slow.socket.settimeout(300)
        slow.send(Type.X_SPDDUMP, seq=3)
        seqs = []
        for n in range(count):
            if n % (count // 20) == 0:
                assert other.ask(Type.GET).errno != 0, "served, and refused for what it is"
                other.send(Type.X_SPDGET)
                assert other.receive().type == Type.X_SPDGET
            message = slow.receive()
            assert message.type == Type.X_SPDDUMP
            seqs.append(message.seq)
        assert seqs == list(range(count - 1, -1, -1))
        assert slow.ask(Type.REGISTER, SaType.AH).type == Type.REGISTER, "nothing of the dump is left"


def test_a_dump_that_lost_its_engine_ends_with_an_error(tmp_path: Path) -> None:
    with Running(tmp_path / "koura", "-q") as daemon:
        load(daemon, many(2_000))
        key = Key(daemon.directory)
        key.send(Type.X_SPDDUMP)
        first = key.receive()
        kill_engine(daemon)
        found = [first]
        while not found[-1].errno:
            found.append(key.receive())
        assert found[-1].errno == 4 and found[-1].type == Type.X_SPDDUMP and len(found) < 2_001
        assert len(key.dump(Type.X_SPDDUMP)) == 2_000


def test_a_request_that_waits_when_the_engine_dies_is_done_once(daemon: Running) -> None:
    """The engine is stopped, so that it has the request and no answer; then it is killed."""
    key = Key(daemon.directory)
    assert key.ask(Type.REGISTER, SaType.ESP).errno == 0
    engine = engine_of(daemon)
    os.kill(engine, signal.SIGSTOP)
    key.send(Type.FLUSH)
    os.kill(engine, signal.SIGKILL)
    assert key.receive().type == Type.FLUSH
    assert key.ask(Type.DUMP).errno == 2, "all are gone"
    key.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        key.receive()


def test_more_connections_than_descriptors_are_waited_for(tmp_path: Path) -> None:
    with Running(tmp_path / "koura", "-q", prefix=("prlimit", "--nofile=32:32")) as daemon:
        many = []
        for _ in range(50):
            end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            end.connect(str(daemon.directory / "pfkey.sock"))
            many.append(end)
        first = Key.__new__(Key)
        first.socket = many[0]
        first.socket.settimeout(20)
        assert first.ask(Type.DUMP).errno == 2, "who is in is served"
        for end in many[1:40]:
            end.close()
        last = Key.__new__(Key)
        last.socket = many[-1]
        last.socket.settimeout(20)
        assert last.ask(Type.DUMP).errno == 2, "who waited is let in"
        for end in many:
            end.close()


def test_the_keepers_end_is_the_end_for_all(tmp_path: Path, conf: Path) -> None:
    daemon = Running(tmp_path / "koura", "-f", str(conf))
    daemon.start()
    key = Key(daemon.directory)
    watched = os.pidfd_open(engine_of(daemon))
    daemon.signal(signal.SIGKILL)
    assert key.socket.recv(100) == b"", "clients notice"
    assert select.select([watched], [], [], 20)[0], "the engine goes, too"
    os.close(watched)
    daemon.stop()
    with Running(tmp_path / "koura", "-f", str(conf)) as again:
        assert len(Key(again.directory).dump(Type.DUMP)) == 2, "what it left behind is in nobody's way"


def test_hup_changes_what_differs_and_a_bad_file_changes_nothing(daemon: Running, conf: Path) -> None:
    key = Key(daemon.directory)
    before = key.dump(Type.DUMP), key.dump(Type.X_SPDDUMP)
    conf.write_text("nonsense;")
    reload(daemon)
    assert (key.dump(Type.DUMP), key.dump(Type.X_SPDDUMP)) == before
    assert "reload refused, nothing has changed" in daemon.said and f"{conf}:1:1:" in daemon.said
    conf.write_text(CONF.replace("0x1001", "0x1002") + "spdadd 10.9.0.0/16 10.1.0.0/16 any -P in none;\n")
    reload(daemon)
    assert "- SA 10.0.0.2 10.0.0.1 esp 0x1001" in daemon.said
    assert "+ SA 10.0.0.2 10.0.0.1 esp 0x1002" in daemon.said
    assert f"{conf}: 2 added, 1 removed, 3 unchanged" in daemon.said
    assert (len(key.dump(Type.DUMP)), len(key.dump(Type.X_SPDDUMP))) == (2, 3)


def test_others_are_served_while_a_big_file_is_read(daemon: Running, conf: Path) -> None:
    line = "add 10.0.0.1 10.0.0.2 esp {} -E aes-gcm-16 0x{:040x};\n"
    conf.write_text(CONF + "".join(line.format(0x10000 + n, n) for n in range(2000)))
    ended = threading.Event()

    def load() -> None:
        with Control(daemon.directory) as control:
            assert control.ask("reload")["added"] == 2000
        ended.set()

    thread = threading.Thread(target=load)
    thread.start()
    key, served = Key(daemon.directory), 0
    while not ended.is_set() and thread.is_alive():
        key.ask(Type.REGISTER)
        served += not ended.is_set()
    thread.join()
    assert ended.is_set(), "it was loaded"
    assert served > 10, "a slice is short, and there are many"
    assert len(key.dump(Type.DUMP)) == 2002


def test_reload_says_what_it_changed_and_what_needs_a_restart(tmp_path: Path, conf: Path) -> None:
    toml, other = tmp_path / "koura.toml", tmp_path / "other.conf"
    toml.write_text('[daemon]\nfile = "setkey.conf"\n')
    other.write_text(CONF + "spdadd 10.9.0.0/16 10.1.0.0/16 any -P in none;\n")

    def koura(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "koura", *words, "--socket", str(tmp_path / "koura")]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    with Running(tmp_path / "koura", "-q", "-c", str(toml)) as daemon:
        tunables = '[sysctl]\n"net.inet.ipsec.dfbit" = 2\n[limits]\npolicies = 100\n'
        toml.write_text(f'[daemon]\nfile = "other.conf"\nstate = "elsewhere"\n{tunables}')
        done = koura("reload")
        assert (done.returncode, "1 added, 0 removed, 4 unchanged" in done.stdout) == (0, True), done
        assert "~ net.inet.ipsec.dfbit: 0 -> 2" in done.stdout
        assert done.stderr == "koura reload: koura.toml has changed where only a restart applies it: daemon.state\n"
        assert "only a restart applies it: daemon.state" in daemon.said
        assert koura("sysctl", "-n", "net.inet.ipsec.dfbit").stdout == "2\n"
        kill_engine(daemon)
        assert koura("sysctl", "-n", "net.koura.limits.policies").stdout == "100\n"
        toml.write_text('[daemon]\nfile = "other.conf"\n[limits]\npolicies = 1\n')
        done = koura("reload")
        assert done.returncode == 1
        assert "other.conf:6:1: 1 policies are the limit" in done.stderr
        assert koura("sysctl", "-n", "net.inet.ipsec.dfbit").stdout == "2\n", "all of it or nothing"


def reload(daemon: Running) -> None:
    """SIGHUP, and wait until what it does is done: another load in the same queue, which changes nothing, comes after it."""
    daemon.signal(signal.SIGHUP)
    with Control(daemon.directory) as control:
        try:
            control.ask("reload")
        except Refused:
            return


@needs_users
def test_who_is_not_privileged_is_told_so(open_path: Path, conf: Path) -> None:
    with Running(open_path / "koura", "-f", str(conf), "--pfkey-mode", "0666", "--pfkey-group", "nogroup") as daemon:
        script = (
            "import os, socket, struct, sys\n"
            "os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(54321)\n"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1] + '/pfkey.sock')\n"
            "s.send(struct.pack('<BBBBHHII', 2, 10, 0, 0, 2, 0, 7, 1)); print(s.recv(9999)[2])\n"
            "try:\n    socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(sys.argv[1] + '/control.sock')\n"
            "except PermissionError: print('closed')\n"
        )
        for gid, errno in ((54321, 1), (grp.getgrnam("nogroup").gr_gid, 0)):
            said = subprocess.run(
                [sys.executable, "-c", script, str(daemon.directory), str(gid)], capture_output=True, text=True, check=True, timeout=60,
            ).stdout  # fmt: skip
            assert said.split() == [str(errno), "closed"]


@needs_users
def test_an_ordinary_user_has_a_daemon_of_his_own(open_path: Path) -> None:
    """A process that becomes that user before it starts the daemon: its Python may lie where the user cannot reach."""
    mine = open_path / "mine"
    mine.mkdir()
    os.chown(mine, 54321, 54321)
    script = (
        "import os, sys\nfrom koura.cli import main, up\n"
        "os.setgroups([]); os.setgid(54321); os.setuid(54321)\n"
        "sys.exit(main.run(up.command, 'koura up', ['-q', '--socket', sys.argv[1]]))\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(open_path / "notify"))
        os.chmod(open_path / "notify", 0o666)
        environment = os.environ | {"NOTIFY_SOCKET": str(open_path / "notify")}
        started = subprocess.Popen([sys.executable, "-c", script, str(mine / "koura")], env=environment)
        try:
            notices.settimeout(60)
            assert b"READY=1" in notices.recv(4096).split(b"\n")
            with Control(mine / "koura") as control:
                assert control.ask("sysctl", name="net.inet.ipsec.dfbit", value="1")["value"] == "1"
            assert {path.stat().st_uid for path in (mine / "koura").iterdir()} == {54321}
            assert Key(mine / "koura").ask(Type.DUMP).errno == 2
        finally:
            started.terminate()
            assert started.wait(30) == 0


def koura(daemon: Running, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "koura", arguments[0], "--socket", str(daemon.directory), *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_commands(daemon: Running) -> None:
    assert koura(daemon, "sysctl", "net.inet.ipsec.dfbit").stdout == "net.inet.ipsec.dfbit: 0\n"
    assert koura(daemon, "sysctl", "net.inet.ipsec.dfbit=2").stdout == "net.inet.ipsec.dfbit: 0 -> 2\n"
    assert koura(daemon, "sysctl", "-n", "net.inet.ipsec.dfbit").stdout == "2\n"
    bad = koura(daemon, "sysctl", "net.inet.ipsec.dfbti")
    assert (bad.returncode, bad.stdout) == (1, "") and "did you mean net.inet.ipsec.dfbit" in bad.stderr
    assert koura(daemon, "stat", "-p", "esp").stdout.startswith("esp:\n\t0 packets shorter than header shows\n")
    assert json.loads(koura(daemon, "stat", "--json", "-p", "pfkey").stdout)["pfkey"]["out_total"] == 0
    down = koura(daemon, "down")
    assert (down.returncode, down.stdout, down.stderr) == (0, "", "")
    assert daemon.stop() == 0
    gone = koura(daemon, "sysctl", "net.inet.ipsec.dfbit")
    assert gone.returncode == 1 and "no engine runs there" in gone.stderr


def test_a_supervisor_brings_key_sockets_and_its_sockets_end_with_it(daemon: Running) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    bypass = policies.write(policies.describe(Policy(Direction.INBOUND, Action.BYPASS)), LINUX).hex()
    with Control(daemon.directory) as control:
        with theirs:
            control.ask("adopt", theirs.fileno(), pid=4242, uid=7, dialect="linux", command="iked", is_privileged=True)
        clients = control.ask("clients")["clients"]
        assert isinstance(clients, list) and isinstance(clients[0], dict)
        assert (clients[0]["pid"], clients[0]["dialect"], clients[0]["command"]) == (4242, "linux", "iked")
        ours.send(Message(Type.REGISTER, SaType.ESP, 1, 4242).write(LINUX))
        assert Message.read(ours.recv(9999), LINUX).errno == 0
        control.ask("socket-policy", socket=77, level=0, policy=bypass, pid=4242, is_privileged=True)
        kill_engine(daemon)
        shown = control.ask("socket-policy-get", socket=77, level=0, direction=1)["policy"]
        assert policies.read(bytes.fromhex(str(shown)), LINUX).type == Action.BYPASS
        with pytest.raises(Refused, match="no descriptor"):
            control.ask("adopt", pid=1, uid=1, dialect="linux")
    with Control(daemon.directory) as control:
        shown = control.ask("socket-policy-get", socket=77, level=0, direction=1)["policy"]
        assert policies.read(bytes.fromhex(str(shown)), LINUX).type == Action.ENTRUST, "who set it has gone"
    ours.close()


def test_the_status_socket_only_reads(daemon: Running) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as end:
        end.connect(str(daemon.directory / "status.sock"))
        for request, is_ok in (
            ({"do": "sysctl", "name": "net.inet.ipsec.dfbit"}, True), ({"do": "stat"}, True), ({"do": "clients"}, True),
            ({"do": "sysctl", "name": "net.inet.ipsec.dfbit", "value": "1"}, False), ({"do": "down"}, False), ({"do": "reload"}, False),
        ):  # fmt: skip
            end.send(json.dumps(request).encode())
            reply = json.loads(end.recv(1 << 16))
            assert reply["ok"] is is_ok and (is_ok or reply["errno"] == "EPERM")
        end.send(b"no JSON")
        assert json.loads(end.recv(1 << 16))["errno"] == "EINVAL"


def test_what_holds_keys_cannot_be_looked_into(daemon: Running) -> None:
    for pid in (daemon.pid, engine_of(daemon)):
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        if pid != daemon.pid:
            assert int(status["CapEff"], 16) == 0, "the engine has no capability"


def test_the_service_manager_hears_of_everything(tmp_path: Path, conf: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        command = [sys.executable, "-m", "koura", "up", "-q", "--socket", str(tmp_path / "koura"), "-f", str(conf)]
        daemon = subprocess.Popen(command, env=environment)

        def hear(wanted: bytes) -> list[bytes]:
            """Until that line comes; what came before."""
            heard: list[bytes] = []
            while wanted not in heard:
                heard += manager.recv(4096).split(b"\n")
            return heard

        try:
            assert hear(b"READY=1")[0] == b"READY=1"
            hear(b"WATCHDOG=1")
            daemon.send_signal(signal.SIGHUP)
            hear(b"RELOADING=1")
            hear(b"READY=1")
            os.kill(daemon.pid, signal.SIGTERM)
            hear(b"STOPPING=1")
            assert daemon.wait(30) == 0
        finally:
            daemon.kill()
            daemon.wait()
