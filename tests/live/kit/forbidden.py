"""Runs a program under a seccomp filter that refuses some calls with an errno, as a container's profile does.

    python -m tests.live.kit.forbidden NUMBER:ERRNO[,...] PROGRAM ...

Native calls only. A notifier of its own (NUMBER "notify") makes every later listener EBUSY.
"""

import os
import struct
import sys

from koura.intercept import kernel
from koura.intercept.abi import machine
from koura.intercept.filter import BPF_JEQ, BPF_LD_W_ABS, BPF_RET, NR_OFFSET, RET_ALLOW, RET_ERRNO

NO_FLAGS = 0


def main(rules: str, *program: str) -> None:
    here = machine()
    assert here is not None
    code = [struct.pack("=HBBI", BPF_LD_W_ABS, 0, 0, NR_OFFSET)]
    is_watched = rules == "notify"
    for rule in () if is_watched else rules.split(","):
        number, errno = map(int, rule.split(":"))
        code += [struct.pack("=HBBI", BPF_JEQ, 0, 1, number), struct.pack("=HBBI", BPF_RET, 0, 0, RET_ERRNO | errno)]
    code.append(struct.pack("=HBBI", BPF_RET, 0, 0, RET_ALLOW))
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    octets = b"".join(code)
    if is_watched:
        os.set_inheritable(kernel.install(here, octets), True)
    else:
        fprog = kernel._SockFprog(len(octets) // 8, octets)
        kernel.syscall(here.seccomp, kernel.SECCOMP_SET_MODE_FILTER, NO_FLAGS, fprog)
    os.execvp(program[0], program)


if __name__ == "__main__":
    main(*sys.argv[1:])
