"""Call numbers of the machines we know, native and 32-bit (asm/unistd.h, linux/audit.h), and what an intercepted call means.

The numbers differ from ABI to ABI; `Calls` is one ABI's, `Machine` says which ABIs a kernel for it runs. x32 shares x86-64's audit
number and marks its calls with bit 30; almost no kernel has it, and the filter refuses all of it, so that nothing slips by.
"""

import platform
from dataclasses import dataclass
from enum import Enum

X32_BIT = 0x4000_0000

AF_KEY = 15
IPPROTO_IP, IPPROTO_UDP, IPPROTO_IPV6 = 0, 17, 41
IP_IPSEC_POLICY, UDP_ENCAP, IPV6_IPSEC_POLICY = 16, 100, 34
SOL_SOCKET, SO_TYPE, SO_PROTOCOL, SO_DOMAIN = 1, 3, 38, 39
OPTIONS: dict[int, tuple[int, ...]] = {
    IPPROTO_IP: (IP_IPSEC_POLICY,), IPPROTO_IPV6: (IPV6_IPSEC_POLICY,), IPPROTO_UDP: (UDP_ENCAP,),
    SOL_SOCKET: (SO_TYPE, SO_PROTOCOL, SO_DOMAIN),
}  # fmt: skip


class Call(Enum):
    """What a program asked for; the value is its number among i386's socketcall(2)s, 0 where it has none."""

    SOCKET = 1
    SETSOCKOPT = 14
    GETSOCKOPT = 15
    POLL = 0


SOCKETCALLS = {call.value: call for call in (Call.SOCKET, Call.SETSOCKOPT, Call.GETSOCKOPT)}


@dataclass(frozen=True, slots=True)
class Calls:
    """One ABI. None: it has no such call. pointer_octets: of its pointers and longs."""

    audit: int
    socket: int
    setsockopt: int
    getsockopt: int
    poll: int | None
    ppoll: int | None = None
    socketcall: int | None = None
    io_uring_setup: int = 425
    pointer_octets: int = 8

    def call_of(self, number: int) -> Call | None:
        """What a notified call number is; None: a socketcall, whose kind is in its first argument."""
        named = {self.socket: Call.SOCKET, self.setsockopt: Call.SETSOCKOPT, self.getsockopt: Call.GETSOCKOPT,
                 self.poll: Call.POLL, self.ppoll: Call.POLL}  # fmt: skip
        return named.get(number)


@dataclass(frozen=True, slots=True)
class Machine:
    """A kernel's ABIs, and the numbers of the calls that we make ourselves."""

    native: Calls
    compat: Calls | None
    has_x32: bool
    seccomp: int
    pidfd_open: int = 434
    pidfd_getfd: int = 438

    def abi(self, audit: int) -> Calls | None:
        """The ABI with this audit number."""
        return next((calls for calls in (self.native, self.compat) if calls is not None and calls.audit == audit), None)


_X86_64 = Calls(0xC000_003E, 41, 54, 55, poll=7)
_I386 = Calls(0x4000_0003, 359, 366, 365, poll=168, socketcall=102, pointer_octets=4)
# There is no poll(2) here: the C library's poll is a ppoll with a timespec.
_AARCH64 = Calls(0xC000_00B7, 198, 208, 209, poll=None, ppoll=73)
_ARM = Calls(0x4000_0028, 281, 294, 295, poll=168, pointer_octets=4)
_RISCV64 = Calls(0xC000_00F3, 198, 208, 209, poll=None, ppoll=73)

MACHINES = {
    "x86_64": Machine(_X86_64, _I386, has_x32=True, seccomp=317),
    "aarch64": Machine(_AARCH64, _ARM, has_x32=False, seccomp=277),
    "riscv64": Machine(_RISCV64, None, has_x32=False, seccomp=277),
}


def machine() -> Machine | None:
    """This machine, or None where we do not know its call numbers."""
    return MACHINES.get(platform.machine())
