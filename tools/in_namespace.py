"""in_namespace.py PROGRAM ...: runs it in namespaces that were just made (unshare -Urnm), so that it finds a machine there.

- The loopback is up; /run is its own, where ip(8) keeps the names of network namespaces.
- The one user of the namespace is root, and programs that give up root for a user of theirs (tcpdump, iked, charon) would end: the kernel
  refuses setgroups(2) and knows no other user. Here these calls do nothing and say that all is well (seccomp(2)). It is for tests alone:
  who did not give up a right has it still. Tests that are about other users ask the namespace itself (tests/live/kit/users.py) and skip.
"""

import ctypes
import os
import platform
import struct
import subprocess
import sys

PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
ALLOW, DO_NOTHING = 0x7FFF_0000, 0x0005_0000
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
NUMBER_AT, ARCHITECTURE_AT = 0, 4

# setuid setgid setreuid setregid setgroups setresuid setresgid
CALLS = {
    "x86_64": (0xC000_003E, (105, 106, 113, 114, 116, 117, 119)),
    "aarch64": (0xC000_00B7, (146, 144, 145, 143, 159, 147, 149)),
}


def program(architecture: int, numbers: tuple[int, ...]) -> bytes:
    """Classic BPF over struct seccomp_data: these calls succeed without being done."""
    steps = [(LOAD, 0, 0, ARCHITECTURE_AT), (JUMP_IF_EQUAL, 0, len(numbers) + 1, architecture), (LOAD, 0, 0, NUMBER_AT)]
    steps += [(JUMP_IF_EQUAL, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    steps += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DO_NOTHING)]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


def stay_who_we_are() -> None:
    """Install it for this process and all that come of it. Without seccomp, nothing: some tests will say what they lack."""
    if platform.machine() not in CALLS:
        return
    octets = program(*CALLS[platform.machine()])
    held = ctypes.create_string_buffer(octets, len(octets))
    whole = ctypes.create_string_buffer(struct.pack("@HP", len(octets) // 8, ctypes.addressof(held)))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, whole, 0, 0)


def main() -> None:
    """Set the place up and become the program."""
    for words in (["ip", "link", "set", "lo", "up"], ["mount", "-t", "tmpfs", "tmpfs", "/run"]):
        subprocess.run(words, stderr=subprocess.DEVNULL, check=False)
    stay_who_we_are()
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
