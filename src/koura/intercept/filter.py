"""The seccomp filter of an intercepted program: a few calls notify the supervisor, everything else runs untouched.

Classic BPF over `struct seccomp_data` (linux/seccomp.h); each instruction is `struct sock_filter` (linux/filter.h).

     0       4      8                      16      24      32
     | nr    | arch | instruction_pointer  | arg 0 | arg 1 | arg 2 | ...      low half of each argument first

Tested in this order, cheapest first: the architecture (a call in another ABI, such as 32-bit x86 or x32, is allowed and not seen:
stated in the documentation), then the call number, then its arguments. A call that is none of ours costs five instructions.

io_uring can open sockets without a system call that a filter sees; `ENOSYS` for io_uring_setup closes that hole.
"""

import platform
import struct
from dataclasses import dataclass

BPF_LD_W_ABS = 0x20
BPF_JEQ = 0x15
BPF_RET = 0x06

RET_ALLOW = 0x7FFF0000
RET_ERRNO = 0x00050000
RET_USER_NOTIF = 0x7FC00000

ENOSYS = 38
NR_OFFSET, ARCH_OFFSET, ARGS_OFFSET = 0, 4, 16

AF_KEY = 15
IPPROTO_IP, IPPROTO_UDP, IPPROTO_IPV6 = 0, 17, 41
IP_IPSEC_POLICY, UDP_ENCAP, IPV6_IPSEC_POLICY = 16, 100, 34


@dataclass(frozen=True, slots=True)
class Abi:
    """One architecture's audit number and call numbers (asm/unistd.h); poll is None where only ppoll exists."""

    audit: int
    socket: int
    setsockopt: int
    getsockopt: int
    poll: int | None
    io_uring_setup: int
    seccomp: int
    pidfd_getfd: int
    pidfd_open: int


ABIS = {
    "x86_64": Abi(0xC000003E, 41, 54, 55, 7, 425, 317, 438, 434),
    "aarch64": Abi(0xC00000B7, 198, 208, 209, None, 425, 277, 438, 434),
    "riscv64": Abi(0xC00000F3, 198, 208, 209, None, 425, 277, 438, 434),
}


def abi() -> Abi | None:
    """This machine's call numbers, or None where we do not know them."""
    return ABIS.get(platform.machine())


def program(numbers: Abi) -> bytes:
    """The filter as octets: 8 per instruction."""
    assembler = _Assembler()
    assembler.load(ARCH_OFFSET)
    assembler.unless(numbers.audit, "allow")
    assembler.load(NR_OFFSET)
    assembler.when(numbers.socket, "socket")
    assembler.when(numbers.setsockopt, "option")
    assembler.when(numbers.getsockopt, "option")
    if numbers.poll is not None:
        assembler.when(numbers.poll, "poll")
    assembler.when(numbers.io_uring_setup, "refuse")
    assembler.ret("allow", RET_ALLOW)

    assembler.label("socket")
    assembler.load(ARGS_OFFSET)
    assembler.when(AF_KEY, "notify")
    assembler.ret("", RET_ALLOW)

    assembler.label("option")
    assembler.load(ARGS_OFFSET + 8)
    assembler.when(IPPROTO_IP, "option ip")
    assembler.when(IPPROTO_IPV6, "option ipv6")
    assembler.when(IPPROTO_UDP, "option udp")
    assembler.ret("", RET_ALLOW)
    for name, option in (("ip", IP_IPSEC_POLICY), ("ipv6", IPV6_IPSEC_POLICY), ("udp", UDP_ENCAP)):
        assembler.label(f"option {name}")
        assembler.load(ARGS_OFFSET + 16)
        assembler.when(option, "notify")
        assembler.ret("", RET_ALLOW)

    # iked gives each PF_KEY answer one millisecond: poll(fds, 1, 1). Held until the answer is queued.
    assembler.label("poll")
    assembler.load(ARGS_OFFSET + 8)
    assembler.unless(1, "allow here")
    assembler.load(ARGS_OFFSET + 16)
    assembler.when(1, "notify")
    assembler.ret("allow here", RET_ALLOW)

    assembler.ret("refuse", RET_ERRNO | ENOSYS)
    assembler.ret("notify", RET_USER_NOTIF)
    return assembler.octets()


class _Assembler:
    """Instructions with labels, resolved at the end; jumps only go forward, as the kernel demands."""

    def __init__(self) -> None:
        self._code: list[tuple[int, str, str, int]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        self._labels[name] = len(self._code)

    def load(self, offset: int) -> None:
        self._code.append((BPF_LD_W_ABS, "", "", offset))

    def when(self, value: int, target: str) -> None:
        self._code.append((BPF_JEQ, target, "", value))

    def unless(self, value: int, target: str) -> None:
        self._code.append((BPF_JEQ, "", target, value))

    def ret(self, label: str, value: int) -> None:
        if label:
            self.label(label)
        self._code.append((BPF_RET, "", "", value))

    def octets(self) -> bytes:
        out = bytearray()
        for place, (code, equal, unequal, value) in enumerate(self._code):
            jumps = [self._labels[name] - place - 1 if name else 0 for name in (equal, unequal)]
            assert all(0 <= jump <= 255 for jump in jumps)
            out += struct.pack("=HBBI", code, *jumps, value)
        return bytes(out)
