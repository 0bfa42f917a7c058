"""The seccomp filter of an intercepted program: a few calls notify the supervisor, everything else runs untouched.

Classic BPF over `struct seccomp_data` (linux/seccomp.h); each instruction is `struct sock_filter` (linux/filter.h).

     0       4      8                      16      24      32
     | nr    | arch | instruction_pointer  | arg 0 | arg 1 | arg 2 | ...      low half of each argument first

Tested in this order: the architecture, the call number, its arguments. Linux knows since 5.11 which numbers a filter always allows
and does not run it for them: a call that is none of ours costs nothing. The 32-bit ABI of the machine has a section of its own; any
other ABI, x32 too, gets ENOSYS: a call that we do not see must not succeed.

io_uring can open sockets without a system call that a filter sees; ENOSYS for io_uring_setup closes that hole.
"""

import struct

from koura.intercept.abi import AF_KEY, OPTIONS, SOCKETCALLS, X32_BIT, Calls, Machine

BPF_LD_W_ABS = 0x20
BPF_JEQ = 0x15
BPF_JGE = 0x35
BPF_RET = 0x06

RET_ALLOW = 0x7FFF_0000
RET_ERRNO = 0x0005_0000
RET_USER_NOTIF = 0x7FC0_0000

ENOSYS = 38
NR_OFFSET, ARCH_OFFSET, ARGS_OFFSET = 0, 4, 16


def program(machine: Machine) -> bytes:
    """The filter as octets: 8 per instruction."""
    assembler = _Assembler()
    assembler.load(ARCH_OFFSET)
    if machine.compat is not None:
        assembler.jump(BPF_JEQ, machine.compat.audit, "compat")
    assembler.jump(BPF_JEQ, machine.native.audit, "", "refuse")
    assembler.load(NR_OFFSET)
    if machine.has_x32:
        assembler.jump(BPF_JGE, X32_BIT, "refuse")
    _section(assembler, machine.native, "native")
    if machine.compat is not None:
        assembler.label("compat")
        assembler.load(NR_OFFSET)
        _section(assembler, machine.compat, "32-bit")
    assembler.label("refuse")
    assembler.ret(RET_ERRNO | ENOSYS)
    assembler.label("notify")
    assembler.ret(RET_USER_NOTIF)
    return assembler.octets()


def _section(assembler: "_Assembler", calls: Calls, name: str) -> None:
    """The calls of one ABI; their number is loaded."""
    numbered = {"socket": calls.socket, "option": calls.setsockopt, "option again": calls.getsockopt, "poll": calls.poll,
                "ppoll": calls.ppoll, "socketcall": calls.socketcall}  # fmt: skip
    for label, number in numbered.items():
        if number is not None:
            assembler.jump(BPF_JEQ, number, f"{name} {label.removesuffix(' again')}")
    assembler.jump(BPF_JEQ, calls.io_uring_setup, "refuse")
    assembler.ret(RET_ALLOW)

    assembler.label(f"{name} socket")
    assembler.load_arg(0)
    assembler.jump(BPF_JEQ, AF_KEY, "notify")
    assembler.ret(RET_ALLOW)

    assembler.label(f"{name} option")
    assembler.load_arg(1)
    for level in OPTIONS:
        assembler.jump(BPF_JEQ, level, f"{name} level {level}")
    assembler.ret(RET_ALLOW)
    for level, options in OPTIONS.items():
        assembler.label(f"{name} level {level}")
        assembler.load_arg(2)
        for option in options:
            assembler.jump(BPF_JEQ, option, "notify")
        assembler.ret(RET_ALLOW)

    # iked gives each PF_KEY answer one millisecond: poll(fds, 1, 1). Such a call is held until the answer is queued.
    if calls.poll is not None:
        assembler.label(f"{name} poll")
        assembler.load_arg(1)
        assembler.jump(BPF_JEQ, 1, "", f"{name} other poll")
        assembler.load_arg(2)
        assembler.jump(BPF_JEQ, 1, "notify")
        assembler.label(f"{name} other poll")
        assembler.ret(RET_ALLOW)
    if calls.ppoll is not None:  # The timeout is behind a pointer that only the supervisor can follow.
        assembler.label(f"{name} ppoll")
        assembler.load_arg(1)
        assembler.jump(BPF_JEQ, 1, "", f"{name} other ppoll")
        assembler.load_arg(2)
        assembler.jump(BPF_JEQ, 0, "", "notify")
        assembler.label(f"{name} other ppoll")
        assembler.ret(RET_ALLOW)
    if calls.socketcall is not None:
        assembler.label(f"{name} socketcall")
        assembler.load_arg(0)
        for number in SOCKETCALLS:
            assembler.jump(BPF_JEQ, number, "notify")
        assembler.ret(RET_ALLOW)


class _Assembler:
    """Instructions with labels, resolved at the end; jumps only go forward, as the kernel demands."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str, str, int]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def load(self, offset: int) -> None:
        self._code.append((BPF_LD_W_ABS, "", "", offset))

    def load_arg(self, number: int) -> None:
        self.load(ARGS_OFFSET + 8 * number)

    def jump(self, test: int, value: int, when: str, unless: str = "") -> None:
        """To `when` if the test holds, to `unless` if not; "": to the next instruction."""
        self._code.append((test, when, unless, value))

    def ret(self, value: int) -> None:
        self._code.append((BPF_RET, "", "", value))

    def octets(self) -> bytes:
        out = bytearray()
        for place, (code, when, unless, value) in enumerate(self._code):
            jumps = [self._labels[name] - place - 1 if name else 0 for name in (when, unless)]
            assert all(0 <= jump <= 255 for jump in jumps)
            out += struct.pack("=HBBI", code, *jumps, value)
        return bytes(out)
