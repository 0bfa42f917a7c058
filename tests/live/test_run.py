"""`koura run` with the real daemon: a private engine, one that runs, one that is restarted; as root and as an ordinary user."""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from koura.client.control import Control
from koura.daemon.launch import Running
from koura.moment import Moment
from koura.notices import KeySocketOpened
from koura.pfkey.dialect import LINUX
from koura.pfkey.extensions import Sa
from koura.pfkey.message import Message
from koura.pfkey.numbers import Ext, SaType, Type
from koura.sim.entropy import Seeded
from koura.stack import Stack
from koura.traffic.outcome import Deliver, Forward
from tests.live.kit import namespaces
from tests.live.kit.ike import with_etc
from tests.live.kit.programs import PATIENCE_S, command, ended, python, why_not
from tests.live.kit.users import NOBODY, why_no_dropping, why_no_others
from tests.live.test_openiked import IKED, Case, end, packet

pytestmark = pytest.mark.live


def private(*program: str, options: tuple[str, ...] = (), before: tuple[str, ...] = (), **more: str) -> "subprocess.CompletedProcess[str]":
    """`koura run` without an engine to find."""
    words = [*before, sys.executable, "-m", "koura", "run", *options, "--", *program]
    return ended(words, XDG_RUNTIME_DIR="/nonexistent", KOURA_SOCKET="", **more)


ASK = """
s = key(); u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.setsockopt(*IP, policy(1)); u.setsockopt(*UDP, 2)
print(len(ask(s, request(7))) > 100, u.getsockopt(*UDP), os.getuid(), os.environ["KOURA_SOCKET"])
"""


@pytest.fixture(autouse=True)
def _possible() -> None:
    if why := why_not():
        pytest.skip(why)


def test_where_no_engine_runs_it_has_a_private_one() -> None:
    program = private(*python(ASK))
    assert program.returncode == 0, program.stderr
    answer, encapsulation, _, directory = program.stdout.split()
    assert (answer, encapsulation) == ("True", "2")
    assert directory in program.stderr and program.stderr.count("\n") == 1
    assert not Path(directory).exists()


@pytest.mark.skipif(bool(why_no_others()), reason=why_no_others())
def test_an_ordinary_user_has_all_of_it_with_an_engine_of_his_own() -> None:
    """No capability, no new privileges; the engine is his, so he may do in it what he likes."""
    # The one capability lets him read this Python, which may lie in root's home; it is none that koura run or the engine asks for.
    reads = "-all,+dac_read_search"
    before = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", f"--inh-caps={reads}", f"--ambient-caps={reads}")
    program = private(*python(ASK + "print(open('/proc/self/status').read().split('NoNewPrivs:')[1].split()[0])"), before=before)
    assert program.returncode == 0, program.stderr
    assert program.stdout.split()[:3] == ["True", "2", str(NOBODY)]
    assert program.stdout.split()[-1] == "1"


def test_a_long_place_for_temporary_files_does_no_harm(tmp_path: Path) -> None:
    place = tmp_path / ("x" * 100)
    place.mkdir()
    assert private("true", TMPDIR=str(place)).returncode == 0


def test_a_private_engine_ends_with_a_supervisor_that_was_killed() -> None:
    words = [sys.executable, "-m", "koura", "run", "--", *python("step(os.environ['KOURA_SOCKET']); sys.exit(0)")]
    environment = os.environ | {"XDG_RUNTIME_DIR": "/nonexistent", "KOURA_SOCKET": ""}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True) as ran:
        assert ran.stdout is not None
        directory = Path(ran.stdout.readline().strip())
        keeper = os.pidfd_open(int((directory / "lock").read_text()))
        ran.kill()
        ended_in_time, _, _ = select.select([keeper], [], [], PATIENCE_S)
        os.close(keeper)
        assert ended_in_time
        shutil.rmtree(directory.parent)  # which nobody was left to do


def test_options_of_the_private_engine(tmp_path: Path) -> None:
    script = tmp_path / "setkey.conf"
    script.write_text("spdadd 10.1.0.0/16 10.2.0.0/16 any -P out ipsec esp/tunnel/10.0.0.1-10.0.0.2/require;\n")
    dump = "s = key(); print(ask(s, request(18, 0))[1])"
    program = private(*python(dump), options=("-f", str(script), "-o", "net.koura.weak_crypto=1"))
    assert (program.returncode, program.stdout) == (0, "18\n"), program.stderr
    script.write_text("spdadd nonsense;\n")
    program = private("true", options=("-f", str(script)))
    assert program.returncode == 65
    assert str(script) in program.stderr and "Traceback" not in program.stderr


def test_a_named_engine_must_be_there(tmp_path: Path) -> None:
    program = ended(command(tmp_path, "true"))
    assert program.returncode == 1
    assert "koura up" in program.stderr and program.stderr.count("\n") == 1


def test_policies_of_sockets_survive_a_new_daemon_and_end_with_the_supervisor(tmp_path: Path) -> None:
    """The daemon is stopped and started while the program runs: the next thing it asks for brings everything back."""
    home = tmp_path / "koura"
    with ExitStack() as stack:
        first = stack.enter_context(Running(home))
        text = "u = socket.socket(2, 2); u.setsockopt(*IP, policy(1)); step(cookie(u)); u.setsockopt(*IP, policy(2)); step('again')"
        process = stack.enter_context(
            subprocess.Popen(command(home, *python(text)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        assert process.stdin is not None and process.stdout is not None
        number = int(process.stdout.readline())
        first.stop()
        stack.enter_context(Running(home))
        with Control(home) as control:

            def policy(direction: int) -> str:
                reply = control.ask("socket-policy-get", socket=number, level=0, direction=direction, dialect="linux")
                return str(reply["policy"])[8:12]

            assert policy(1) == "0300"  # entrust: nothing
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "again\n"
            assert (policy(1), policy(2)) == ("0400", "0400")
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.wait(PATIENCE_S) == 0
            assert (policy(1), policy(2)) == ("0300", "0300")


# -- iked and the daemon -------------------------------------------------------------------------------------------------------


class Dump:
    """A reader of an engine's PF_KEY socket, in Linux's dialect."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(directory / "pfkey.sock"))
        self._socket.send(b"\0koura dialect=linux")
        assert self._socket.recv(100) == b"\0koura ok"

    def __enter__(self) -> "Dump":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def wait_for(self, kind: Type, count: int) -> None:
        """Until so many of these were done by anybody: everybody hears of them."""
        while count:
            count -= Message.read(self._socket.recv(1 << 16), LINUX).type == kind

    def of(self, kind: Type) -> list[Message]:
        self._socket.send(Message(kind, SaType.UNSPEC, 1).write(LINUX))
        found: list[Message] = []
        while True:
            message = Message.read(self._socket.recv(1 << 16), LINUX)
            if message.type != kind:
                continue
            if message.errno == 0:
                found.append(message)
            if message.seq == 0 or message.errno:
                return found

    def rebuilt(self, seed: int) -> Stack:
        """A stack of this process with the same SAs and policies."""
        stack, at = Stack(Seeded(seed)), Moment.of_s(1)
        stack.notice(KeySocketOpened(1, "linux", 0, True), at)
        for dumped, made, kept in (
            (Type.DUMP, Type.ADD, (Ext.SA, Ext.X_SA2, Ext.ADDRESS_SRC, Ext.ADDRESS_DST, Ext.KEY_AUTH, Ext.KEY_ENCRYPT)),
            (Type.X_SPDDUMP, Type.X_SPDADD, (Ext.ADDRESS_SRC, Ext.ADDRESS_DST, Ext.X_POLICY)),
        ):
            for message in self.of(dumped):
                extensions = tuple(one for one in message.extensions if one.ext in kept)
                answer = stack.control(1, Message(made, message.satype, 1, extensions=extensions).write(LINUX), at)
                assert answer.refused is None, answer.refused
        return stack


_Heard = tuple[Running, Dump]


@contextmanager
def two_iked(case: Case, tmp_path: Path) -> Iterator[tuple[_Heard, _Heard, list["subprocess.Popen[bytes]"]]]:
    if not os.access(IKED, os.X_OK):
        pytest.skip("no iked here (Debian: openiked)")
    if why := why_not() or why_no_dropping() or namespaces.why_not():
        pytest.skip(why)
    with namespaces.pair("kd") as hosts, ExitStack() as stack:
        daemons: list[_Heard] = []
        processes: list[subprocess.Popen[bytes]] = []
        for number in (1, 0):
            home = tmp_path / "ab"[number]
            home.mkdir()
            conf = home / "iked.conf"
            conf.write_text(case.conf(number))
            conf.chmod(0o600)
            daemon = stack.enter_context(Running(home / "koura"))
            daemons.insert(0, (daemon, stack.enter_context(Dump(daemon.directory))))
            program = command(daemon.directory, IKED, "-d", "-f", str(conf), "-s", str(home / "iked.sock"), *case.options)
            output = stack.enter_context((home / "log").open("wb"))
            line = ["ip", "netns", "exec", hosts[number], *with_etc(program, home)]
            process = subprocess.Popen(line, stdout=output, stderr=output, cwd=home)
            stack.callback(end, process)
            processes.insert(0, process)
        yield daemons[0], daemons[1], processes


def test_two_iked_and_two_daemons_agree_and_delete_through_an_engine_that_was_killed(tmp_path: Path) -> None:
    case = Case("daemon")
    with two_iked(case, tmp_path) as ((a, dump_a), (b, dump_b), processes):
        for dump in (dump_a, dump_b):
            dump.wait_for(Type.X_SPDUPDATE, 3)
            assert (len(dump.of(Type.DUMP)), len(dump.of(Type.X_SPDDUMP))) == (2, 3)
        mine, theirs = dump_a.rebuilt(1), dump_b.rebuilt(2)
        at, clear = Moment.of_s(2), packet(case, 0)
        sealed = mine.outbound([clear], at).outcomes[0]
        assert isinstance(sealed, Forward)
        opened = theirs.inbound(sealed.packets, at).outcomes[0]
        assert isinstance(opened, Deliver) and opened.packet == clear
        for daemon in (a, b):
            engine = next(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if parent(pid) == daemon.pid)
            os.kill(engine, signal.SIGKILL)
        for process in processes:
            end(process)
            assert process.returncode == 0
        for dump in (dump_a, dump_b):
            assert (dump.of(Type.DUMP), dump.of(Type.X_SPDDUMP)) == ([], [])


@pytest.mark.slow
def test_a_daemon_that_keeps_time_makes_iked_rekey(tmp_path: Path) -> None:
    """A lifetime of seconds, by the clock: EXPIRE, two new SAs, and the old ones are deleted."""
    case = Case("rekey", extra="lifetime 8")
    with two_iked(case, tmp_path) as ((_, dump_a), (_, dump_b), _):
        for dump in (dump_a, dump_b):
            dump.wait_for(Type.X_SPDUPDATE, 3)
        before = {spi(message) for message in dump_a.of(Type.DUMP)}
        dump_a.wait_for(Type.DELETE, 2)
        after = {spi(message) for message in dump_a.of(Type.DUMP)}
        assert len(before) == 2 and len(after) >= 2 and not after & before


def spi(message: Message) -> int:
    found = next(one for one in message.extensions if one.ext == Ext.SA)
    assert isinstance(found, Sa)
    return found.spi


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0
