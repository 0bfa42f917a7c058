"""`koura run` and processes: threads, forks, other users, passed descriptors, static and 32-bit programs, exit, signals, nesting."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.host.sockdiag import Place
from koura.saindex import Direction
from tests.live.kit import namespaces
from tests.live.kit.engine import Engine
from tests.live.kit.programs import PATIENCE_S, PRELUDE, Stepped, command, output, python, run, why_not
from tests.live.kit.users import NOBODY, why_no_others

pytestmark = pytest.mark.live
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="this needs root")
needs_users = pytest.mark.skipif(bool(why_no_others()), reason=why_no_others())


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    if why := why_not():
        pytest.skip(why)
    with Engine(tmp_path) as made:
        yield made


# -- who makes the call ------------------------------------------------------------------------------------------------------


def test_threads_children_and_what_they_become_are_covered(engine: Engine) -> None:
    lines = output(engine, """
def one(name): ask(key(), request(7)); u = socket.socket(socket.AF_INET, 2); u.setsockopt(*IP, policy(1)); print(name, flush=True)
thread = threading.Thread(target=one, args=("thread",)); thread.start(); thread.join()
if (child := os.fork()) == 0: one("fork"); os._exit(0)
os.waitpid(child, 0)
if (child := os.fork()) == 0:
    os.execv(sys.executable, [sys.executable, "-c", "import socket; socket.socket(15, 3, 2); print('exec')"])
os.waitpid(child, 0)
""")
    assert lines == ["thread", "fork", "exec"]
    assert len(engine.adopted) == 3
    assert len({told["pid"] for told in engine.adopted}) == 2 + 1


def test_threads_that_ask_at_once_each_get_their_own_answer(engine: Engine) -> None:
    engine.delay_s = 0.005
    lines = output(engine, """
wrong = []
def many(number):
    s = key()
    for seq in range(10):
        got = struct.unpack_from("<I", ask(s, request(5, seq=100 * number + seq)), 8)[0]   # refused, to the sender alone
        if got != 100 * number + seq: wrong.append((number, seq, got))
threads = [threading.Thread(target=many, args=(number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(wrong)
""")
    assert lines == ["[]"]


@needs_users
@pytest.mark.covers("M31")
def test_the_privilege_is_the_callers_own(engine: Engine) -> None:
    ended = run(engine, python(f"""
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
os.setgroups([]); os.setresgid({NOBODY}, {NOBODY}, {NOBODY}); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
print(refused(key), refused(u.setsockopt, *IP, policy(1)), refused(u.setsockopt, *IP, policy(1, 3)))
"""))
    assert (ended.returncode, ended.stdout) == (0, "EPERM EACCES done\n"), ended.stderr
    assert engine.adopted == []


@needs_root
def test_a_user_namespace_of_its_own_gives_no_privilege_here(engine: Engine) -> None:
    ended = run(engine, ["unshare", "-Ur", *python("print(os.geteuid(), refused(key))")])
    if ended.returncode and "unshare" in ended.stderr:
        pytest.skip(f"no user namespaces here: {ended.stderr.strip()}")
    assert (ended.returncode, ended.stdout) == (0, "0 EPERM\n"), ended.stderr


@needs_users
def test_privilege_separation_a_passed_descriptor_serves_a_chrooted_child_of_another_user(engine: Engine, tmp_path: Path) -> None:
    """As iked does it: the parent opens PF_KEY, a child that has nothing left talks on it, and sets UDP_ENCAP late."""
    engine.delay_s = 0.02
    (tmp_path / "empty").mkdir()
    lines = output(engine, f"""
a, b = socket.socketpair()
if (child := os.fork()) == 0:
    os.chroot("{tmp_path}/empty"); os.chdir("/")
    os.setgroups([]); os.setresgid({NOBODY}, {NOBODY}, {NOBODY}); os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
    _, (descriptor,), _, _ = socket.recv_fds(b, 1, 1)
    s = socket.socket(fileno=descriptor)
    print([ask(s, request(7, seq=n))[8] for n in range(10)])
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.setsockopt(*UDP, 2); print(u.getsockopt(*UDP), flush=True)
    os._exit(0)
s = key(); socket.send_fds(a, [b"x"], [s.fileno()]); s.close()
print(os.waitpid(child, 0)[1])
""")
    assert lines == [str(list(range(10))), "2", "0"]


@needs_root
def test_a_setuid_program_keeps_its_rights_under_root(engine: Engine) -> None:
    """NO_NEW_PRIVS would take them; it is set only where the kernel insists."""
    if "NoNewPrivs:\t1" in Path("/proc/self/status").read_text():
        pytest.skip("this process may gain no privileges itself")
    ended = run(engine, ["grep", "-h", "NoNewPrivs", "/proc/self/status"])
    assert ended.stdout.split() == ["NoNewPrivs:", "0"]


def test_a_program_without_room_for_a_descriptor_is_told_so(engine: Engine) -> None:
    lines = output(engine, """
import resource
first = key()
resource.setrlimit(resource.RLIMIT_NOFILE, (first.fileno() + 1,) * 2)
print(libc.socket(AF_KEY, 3, 2), errno.errorcode[ctypes.get_errno()]); print(len(ask(first, request(7))) > 16)
""")
    assert lines == ["-1 EMFILE", "True"]


@needs_root
def test_sockets_of_another_network_namespace_are_followed_there(engine: Engine) -> None:
    if why := namespaces.why_not():
        pytest.skip(why)
    with namespaces.pair("kp") as (host, _), Stepped(engine, f"""
os.execvp("ip", ["ip", "netns", "exec", "{host}", sys.executable, "-c", INSIDE])
""".replace("INSIDE", repr(PRELUDE + """
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.setsockopt(*IP, policy(1)); step(cookie(u))
u.bind(("192.0.2.1", 4711)); step("bound")
u.close(); step("closed")
"""))) as program:
        number = int(program.line())
        assert program.step() == "bound"
        assert engine.wait(lambda: engine.places.get(number) == Place(bytes((192, 0, 2, 1)), 4711))
        assert program.step() == "closed"
        assert engine.wait(lambda: number not in engine.places)
        program.step()


# -- what kind of program ----------------------------------------------------------------------------------------------------

C_PROGRAM = r"""
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>
int main(void) {
    int s = socket(15, SOCK_RAW, 2), u = socket(AF_INET, SOCK_DGRAM, 0), two = 2, got = 0;
    unsigned char request[16] = {2, 7, 0, 3, 2, 0, 0, 0, 7}, reply[4096], bypass[16] = {2, 0, 18, 0, 4, 0, 1};
    socklen_t octets = sizeof got;
    if (s < 0 || u < 0) return 1;
    if (write(s, request, 16) != 16) return 2;
    struct pollfd one = {s, POLLIN, 0};
    if (poll(&one, 1, 1) != 1) return 3;
    if (read(s, reply, sizeof reply) < 16 || reply[8] != 7) return 4;
    if (setsockopt(u, IPPROTO_IP, 16, bypass, 16)) return 5;
    if (setsockopt(u, IPPROTO_UDP, 100, &two, 4) || getsockopt(u, IPPROTO_UDP, 100, &got, &octets) || got != 2) return 6;
    puts("static");
    return 0;
}
"""


def test_a_static_program_is_covered(engine: Engine, tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here")
    (tmp_path / "program.c").write_text(C_PROGRAM)
    built = subprocess.run([compiler, "-static", "-o", "program", "program.c"], cwd=tmp_path, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"the compiler makes no static program: {built.stderr.splitlines()[-1]}")
    engine.delay_s = 0.05
    ended = run(engine, [str(tmp_path / "program")])
    assert (ended.returncode, ended.stdout) == (0, "static\n")


# A function in machine code: int 0x80 with eax, ebx, ecx, edx, esi, edi from an array of six words; returns eax.
INT80 = "5355 8b07 8b5f04 8b4f08 8b570c 8b7710 8b7f14 cd80 5d5b c3"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the 32-bit ABI of x86")
def test_32_bit_calls_are_covered_and_x32_calls_refused(engine: Engine) -> None:
    engine.delay_s = 0.02
    lines = output(engine, f"""
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC); code.write(bytes.fromhex("{INT80}"))
call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
libc.mmap.restype = ctypes.c_void_p
low = libc.mmap(ctypes.c_void_p(0x10000000), 4096, 3, 0x32, -1, 0)   # memory that a 32-bit pointer reaches
assert low == 0x10000000
def put(offset, octets): ctypes.memmove(low + offset, octets, len(octets)); return low + offset
def i386(*words): return call(ctypes.cast((ctypes.c_uint32 * 6)(*words, *[0] * (6 - len(words))), ctypes.c_void_p).value)
words = lambda *several: struct.pack("<%dI" % len(several), *several)
s = i386(359, 15, 3, 2)
t = i386(102, 1, put(0, words(15, 3, 2)))
print(s > 2, t > 2, i386(359, 15, 2, 2) == -errno.ESOCKTNOSUPPORT, i386(102, 1, put(0, words(15, 2, 2))) == -errno.ESOCKTNOSUPPORT)
for descriptor in (s, t):
    os.write(descriptor, request(7))
    print(i386(168, put(0, struct.pack("<ihh", descriptor, 1, 0)), 1, 1), len(os.read(descriptor, 9999)) > 16)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(i386(366, u.fileno(), 0, 16, put(0, policy(1)), 16), i386(102, 14, put(64, words(u.fileno(), 0, 16, put(0, policy(2)), 16))))
print(i386(102, 15, put(64, words(u.fileno(), 0, 16, put(0, policy(2, 0)), put(32, words(16))))), ctypes.string_at(low + 4, 1))
print(i386(102, 14, 8) == -errno.EFAULT, i386(102, 3, 8) == -errno.EFAULT, i386(425, 1, 0) == -errno.ENOSYS)
for number in (41, 54, 541, 542): print(libc.syscall(0x40000000 + number, 15, 3, 2), errno.errorcode[ctypes.get_errno()])
print(libc.syscall(425, 1, 0), errno.errorcode[ctypes.get_errno()])
""")
    assert lines == ["True True True True", "1 True", "1 True", "0 0", r"0 b'\x04'", "True True True", *["-1 ENOSYS"] * 4, "-1 ENOSYS"]


# -- how it ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 7, 64, 77, 255])
def test_the_exit_status_is_the_programs(engine: Engine, status: int) -> None:
    assert run(engine, ["sh", "-c", f"exit {status}"]).returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE])
def test_a_signal_that_kills_the_program_kills_koura_run(engine: Engine, number: int) -> None:
    ended = run(engine, ["sh", "-c", f"kill -{int(number)} $$"])
    assert ended.returncode == -number
    assert ended.stderr == ""


def test_a_program_that_cannot_be_started_ends_as_in_a_shell(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a program")
    missing, data = run(engine, [str(tmp_path / "missing")]), run(engine, [str(tmp_path / "data")])
    assert (missing.returncode, data.returncode) == (127, 126)
    assert missing.stderr == f"koura: {tmp_path}/missing: No such file or directory\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGRTMIN])
def test_a_signal_that_somebody_sends_goes_on_to_the_program(engine: Engine, number: int) -> None:
    with Stepped(engine, f"""
signal.signal({int(number)}, lambda *_: (print("got it", flush=True), os._exit(5)))
print("ready", flush=True)
while True: signal.pause()
""") as program:
        assert program.line() == "ready"
        program.process.send_signal(number)
        assert program.line() == "got it"
        assert program.process.wait(PATIENCE_S) == 5


def test_signals_are_as_they_were_in_the_program(engine: Engine) -> None:
    """But for 32 and 33, which the C library keeps for itself and may have blocked in whoever started us."""
    command = ["grep", "-h", "-E", "Sig(Blk|Ign)", "/proc/self/status"]
    plain = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert _without_internal(run(engine, command).stdout) == _without_internal(plain)


def _without_internal(shown: str) -> list[int]:
    return [int(line.split()[1], 16) & ~(1 << 31 | 1 << 32) for line in shown.splitlines()]


def test_it_stays_until_the_last_descendant_has_gone(engine: Engine) -> None:
    """A daemon: the program ends at once, what it left behind is served; a signal then goes to that."""
    with Stepped(engine, """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, lambda *_: (print("daemon ends", flush=True), os._exit(0)))
        ask(key(), request(7)); step(os.getppid())
        while True: signal.pause()
    os._exit(0)
os._exit(3)
""") as program:
        assert int(program.line()) == program.process.pid
        assert program.process.poll() is None
        program.process.send_signal(signal.SIGTERM)
        assert program.line() == "daemon ends"
        assert program.process.wait(PATIENCE_S) == 3


def test_the_supervisors_end_ends_no_program(engine: Engine) -> None:
    with Stepped(engine, """
s = key(); ask(s, request(7)); step("ready")
os.write(s.fileno(), request(7)); print(os.read(s.fileno(), 16)[1], refused(key), flush=True)
""") as program:
        assert program.line() == "ready"
        program.process.kill()
        program.process.wait(PATIENCE_S)
        assert program.step() == "7 ENOSYS"


@pytest.mark.slow
def test_no_reply_comes_late_on_a_busy_machine(engine: Engine) -> None:
    """iked's way of asking, with one millisecond for each reply, beside twice as many busy processes as there are processors."""
    lines = output(engine, """
busy = []
for _ in range(2 * os.cpu_count()):
    if (pid := os.fork()) == 0:
        while True: pass
    busy.append(pid)
try:
    sockets = [key() for _ in range(4)]
    late = 0
    for seq in range(400):
        try: ask(sockets[seq % 4], request(5, seq=seq))
        except AssertionError: late += 1
    print("late:", late)
finally:
    for pid in busy: os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)
""")
    assert lines == ["late: 0"]


def test_the_end_of_a_program_ends_what_it_set(engine: Engine) -> None:
    lines = output(engine, "u = socket.socket(socket.AF_INET, 2); u.bind(('127.0.0.1', 0)); u.setsockopt(*IP, policy(1)); print(cookie(u))")
    assert engine.wait(lambda: engine.stack.spd.socket_policy(int(lines[0]), Direction.INBOUND) is None)
    assert int(lines[0]) not in engine.places


# -- nested --------------------------------------------------------------------------------------------------------------------


def test_koura_run_inside_of_koura_run_is_served_by_the_outer_one(engine: Engine) -> None:
    ended = run(engine, command(engine.directory, *command(engine.directory, *python("ask(key(), request(7)); sys.exit(9)"))))
    assert (ended.returncode, ended.stderr) == (9, "")
    assert len(engine.adopted) == 1


def test_another_engine_inside_of_koura_run_is_refused_in_one_line(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with Engine(tmp_path / "other") as other:
        ended = run(engine, command(other.directory, "true"))
    assert ended.returncode == 77
    assert ended.stderr.startswith("koura: another supervisor") and ended.stderr.count("\n") == 1


def test_without_an_engine_it_says_what_to_do(tmp_path: Path) -> None:
    ended = subprocess.run(command(tmp_path, "true"), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert ended.returncode == 1
    assert "koura up" in ended.stderr and ended.stderr.count("\n") == 1
