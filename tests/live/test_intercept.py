"""`koura run`: what a program sees of its key sockets, options and polls, and what the engine is told. Every intercepted call."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.host.sockdiag import Place
from koura.saindex import Direction
from koura.spd.policy import Action
from tests.live.kit.engine import Engine
from tests.live.kit.programs import Stepped, output, python, run, why_not
from tests.live.kit.users import why_no_loopback

pytestmark = pytest.mark.live
LOCALHOST, LOCALHOST6 = bytes((127, 0, 0, 1)), bytes(15) + b"\1"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    if why := why_not() or why_no_loopback():
        pytest.skip(why)
    with Engine(tmp_path) as made:
        yield made


# -- key sockets -----------------------------------------------------------------------------------------------------------


def test_a_key_socket_is_a_pf_key_socket_and_other_sockets_are_the_kernels(engine: Engine) -> None:
    lines = output(engine, """
s = key(socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
print(fcntl.fcntl(s, fcntl.F_GETFD), bool(fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK))
print(refused(s.recv, 100))
t = os.fdopen(libc.socket(AF_KEY, 3, 2), "rb", buffering=0)
print(fcntl.fcntl(t, fcntl.F_GETFD), bool(fcntl.fcntl(t, fcntl.F_GETFL) & os.O_NONBLOCK))
reply = ask(s, request(7))
print(reply[:4].hex(), len(reply) == 8 * struct.unpack_from("<H", reply, 4)[0])
print(refused(socket.socket, AF_KEY, socket.SOCK_DGRAM, 2), refused(socket.socket, AF_KEY, socket.SOCK_RAW, 1))
print(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).getsockopt(1, 39), refused(socket.socket, 14, 3, 2))
""")
    assert lines == ["1 True", "EAGAIN", "0 False", "02070003 True", "ESOCKTNOSUPPORT EPROTONOSUPPORT", "2 EAFNOSUPPORT"]
    assert [told["is_privileged"] for told in engine.adopted] == [True, True]
    assert engine.adopted[0]["dialect"] == "linux"


def test_a_key_socket_says_what_it_is(engine: Engine) -> None:
    """Also a duplicate, in whatever room there is; sockets of the kernel are asked of the kernel."""
    lines = output(engine, """
s = key(); t = socket.socket(fileno=os.dup(s.fileno())); k = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
print([s.getsockopt(1, name) for name in (39, 3, 38)], int(t.type), t.proto)
print([k.getsockopt(1, name) for name in (39, 3, 38)], s.getsockopt(1, 39, 2).hex(), refused(s.setsockopt, 1, 3, 1))
""")
    assert lines == ["[15, 3, 2] 3 2", "[10, 2, 17] 0f00 ENOPROTOOPT"]


def test_a_reply_is_there_within_the_millisecond_however_slow_the_engine(engine: Engine) -> None:
    engine.delay_s = 0.05
    lines = output(engine, """
s = key()
for seq in range(20):
    assert struct.unpack_from("<I", ask(s, request(7, seq=seq)), 8)[0] == seq
print("all", 20)
""")
    assert lines == ["all 20"]


def test_a_short_poll_without_a_request_times_out_at_once_and_others_are_the_kernels(engine: Engine) -> None:
    lines = output(engine, """
s = key(); a, b = socket.socketpair(); u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
def poll(fd):
    p = select.poll(); p.register(fd, select.POLLIN); return p.poll(1)
begin = time.monotonic()
print(poll(s.fileno()), poll(a.fileno()), poll(u.fileno()), poll(998), poll(999)[0][1] == select.POLLNVAL)
b.send(b"x"); print(len(poll(a.fileno())), time.monotonic() - begin < 1)
class pollfd(ctypes.Structure): _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))
print(libc.poll(ctypes.c_void_p(8), 1, 1), errno.errorcode[ctypes.get_errno()])
""")
    assert lines == ["[] [] [] [(998, 32)] True", "1 True", "-1 EFAULT"]


def test_a_request_that_gets_no_reply_is_waited_for_only_until_it_was_taken(engine: Engine) -> None:
    engine.delay_s = 0.2
    lines = output(engine, """
s = key(); os.write(s.fileno(), b"no PF_KEY")
p = select.poll(); p.register(s.fileno(), select.POLLIN)
begin = time.monotonic(); print(p.poll(1), time.monotonic() - begin < 5)
""")
    assert lines == ["[] True"]
    assert engine.sent == [b"no PF_KEY"]


def test_a_program_goes_on_when_the_engine_hangs_up(engine: Engine) -> None:
    engine.delay_s = 0.05
    lines = output(engine, """
s = key()
engine_end = ask(s, request(7))
os.write(s.fileno(), b"close me" * 2)
p = select.poll(); p.register(s.fileno(), select.POLLIN)
print(bool(p.poll(1)[0][1] & select.POLLHUP), refused(os.read, s.fileno(), 100))
""")
    assert lines == ["True ECONNRESET"]


def test_nothing_is_left_behind_in_the_supervisor(engine: Engine) -> None:
    """Thousands of calls of every kind: the same descriptors, and hardly more memory."""
    lines = output(engine, """
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); a, b = socket.socketpair(); s = key()
def state():
    u.getsockopt(*UDP)   # answered after everything of the call before was put away
    place = "/proc/%d/" % os.getppid()
    return len(os.listdir(place + "fd")), int(open(place + "statm").read().split()[1]) * 4
def some(count):
    for _ in range(count):
        p = select.poll(); p.register(b.fileno(), select.POLLIN); a.send(b"x"); p.poll(1); b.recv(1)
        refused(a.setsockopt, *IP, policy(1)); libc.setsockopt(-1, *IP, policy(1), 16); libc.setsockopt(999, *IP, policy(1), 16)
        libc.setsockopt(0, *IP, policy(1), 16); libc.setsockopt(u.fileno(), *IP, ctypes.c_void_p(8), 16); u.getsockopt(*UDP)
        ask(s, request(5)); key().close()
some(50); before = state(); some(300); after = state()
print(before[0] == after[0], after[1] - before[1] < 512, before, after)
""")
    assert lines[0].startswith("True True"), lines


# -- policies of sockets -----------------------------------------------------------------------------------------------------


@pytest.mark.covers("R20")
@pytest.mark.parametrize(("family", "level", "local"), [("AF_INET", "IP", LOCALHOST), ("AF_INET6", "IPV6", LOCALHOST6)], ids=["v4", "v6"])
def test_a_policy_stands_before_bind_follows_its_socket_and_ends_with_it(engine: Engine, family: str, level: str, local: bytes) -> None:
    with Stepped(engine, f"""
u, here = socket.socket(socket.{family}, socket.SOCK_DGRAM), "{"::1" if len(local) == 16 else "127.0.0.1"}"
u.setsockopt(*{level}, policy(1)); u.setsockopt(*{level}, policy(2))
step(cookie(u))
u.bind((here, 0)); step(u.getsockname()[1])
u.connect((here, 9)); step("connected")
u.close(); step("closed")
""") as program:
        number = int(program.line())
        for direction in (Direction.INBOUND, Direction.OUTBOUND):
            entry = engine.stack.spd.socket_policy(number, direction)
            assert entry is not None and entry.policy.action is Action.BYPASS
        assert number not in engine.places
        port = int(program.step())
        assert engine.wait(lambda: engine.places.get(number) == Place(local, port))
        assert program.step() == "connected"
        assert engine.wait(lambda: engine.places.get(number) == Place(local, port, local, 9))
        assert program.step() == "closed"
        assert engine.wait(lambda: number not in engine.places)
        assert engine.stack.spd.socket_policy(number, Direction.INBOUND) is None
        program.step()


@pytest.mark.covers("M32")
def test_accepted_sockets_have_their_listeners_policy_and_outlive_it(engine: Engine) -> None:
    with Stepped(engine, """
server = socket.create_server(("127.0.0.1", 0)); server.setsockopt(*IP, policy(1))
step(cookie(server))
client = socket.create_connection(server.getsockname()); accepted, _ = server.accept(); server.close()
step(cookie(accepted))
accepted.close(); client.close(); step("closed")
""") as program:
        listener = int(program.line())
        accepted = int(program.step())
        assert engine.wait(lambda: accepted in engine.places and listener not in engine.places)
        entry = engine.stack.spd.socket_policy(accepted, Direction.INBOUND)
        assert entry is not None and entry.policy.action is Action.BYPASS
        assert engine.stack.spd.socket_policy(listener, Direction.INBOUND) is None
        assert program.step() == "closed"
        assert engine.wait(lambda: engine.stack.spd.socket_policy(accepted, Direction.INBOUND) is None)
        program.step()


def test_the_policy_of_a_raw_socket_ends_with_it_though_the_kernel_does_not_tell(engine: Engine) -> None:
    with Stepped(engine, """
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253); raw.setsockopt(*IP, policy(2))
step(cookie(raw)); raw.close(); step("closed")
""") as program:
        number = int(program.line())
        assert engine.places[number] == Place(b"", 0)
        assert {"do": "socket-where", "socket": number, "protocol": 253, "local": ["", 0]} in engine.told
        assert program.step() == "closed"
        assert engine.wait(lambda: engine.stack.spd.socket_policy(number, Direction.OUTBOUND) is None)
        program.step()


@pytest.mark.covers("M33")
def test_getsockopt_gives_the_policy_of_the_direction_asked_for(engine: Engine) -> None:
    lines = output(engine, """
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.setsockopt(*IP, policy(2))
def get(direction, room=100, octets=16, at=None):
    buffer = ctypes.create_string_buffer(policy(direction, 0)[:octets], room); length = ctypes.c_int(room)
    if libc.getsockopt(u.fileno(), *IP, at or buffer, ctypes.byref(length)): return errno.errorcode[ctypes.get_errno()]
    return buffer.raw[:length.value].hex()
print(get(1)); print(get(2)); print(get(2, 16)); print(get(2, 15, 15)); print(get(2, at=ctypes.c_void_p(8)))
print(libc.getsockopt(u.fileno(), *IP, ctypes.create_string_buffer(16), ctypes.c_void_p(8)))
""")
    entrust, bypass = "02001200030001", "02001200040002"
    assert [line[:14] for line in lines] == [entrust, bypass, bypass, "EINVAL", "EFAULT", "-1"]
    assert len(lines[2]) == 32


@pytest.mark.covers("M31")
def test_what_the_engine_refuses_is_the_errno_of_setsockopt_and_changes_nothing(engine: Engine) -> None:
    program = run(engine, python("""
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(refused(u.setsockopt, *IP, policy(1)[:15]), refused(u.setsockopt, *IP, bytes(4097)))
print(refused(u.setsockopt, *IP, policy(1, 0)), refused(u.setsockopt, *IP, policy(9)))
print(libc.setsockopt(u.fileno(), *IP, ctypes.c_void_p(8), 16), errno.errorcode[ctypes.get_errno()])
print(refused(socket.socket(socket.AF_UNIX).setsockopt, *IP, policy(1)))
for descriptor in (-1, 999, 0): print(libc.setsockopt(descriptor, *IP, policy(1), 16), errno.errorcode[ctypes.get_errno()])
"""))
    assert program.returncode == 0, program.stderr
    expected = ["EINVAL EINVAL", "EINVAL EINVAL", "-1 EFAULT", "ENOTSUP", "-1 EBADF", "-1 EBADF", "-1 ENOTSOCK"]
    assert program.stdout.splitlines() == expected
    # Why the engine refused is said once, beside what the program makes of the errno.
    assert "koura run: pid" in program.stderr and "Traceback" not in program.stderr
    assert len(engine.stack.spd) == 0


@pytest.mark.covers("M12")
def test_udp_encap_is_ours_for_esp_and_the_kernels_otherwise(engine: Engine) -> None:
    with Stepped(engine, """
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.setsockopt(*UDP, 2); print(u.getsockopt(*UDP)); print(cookie(u)); u.bind(("127.0.0.1", 0)); step(u.getsockname()[1])
v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); v.setsockopt(*UDP, 3); print(v.getsockopt(*UDP))
print(refused(socket.socket(socket.AF_INET, socket.SOCK_STREAM).setsockopt, *UDP, 2))
u.setsockopt(*UDP, 0); print(u.getsockopt(*UDP)); step("off")
u.setsockopt(*UDP, 2); u.close(); step("closed")
""") as program:
        assert program.line() == "2"
        number, port = int(program.line()), int(program.line())
        told = {"do": "encapsulation", "socket": number, "kind": 2, "port": port}
        assert engine.wait(lambda: told in engine.told)
        assert [program.step(), program.line(), program.line(), program.line()] == ["3", "ENOPROTOOPT", "0", "off"]
        assert engine.told[-1] == {"do": "encapsulation", "socket": number, "kind": 0, "port": port}
        assert program.step() == "closed"
        assert engine.wait(lambda: {"do": "socket-gone", "socket": number} in engine.told)
        program.step()
