"""pcap-filter(7) expressions, compiled and matched by libpcap. By ctypes: libpcap need not be here until somebody writes a rule.

    program = compile("tcp port 443 and net 10.1.0.0/16")
    program.matches(packet)                    a packet that begins with its IP header

Names of hosts in an expression are looked up when it is compiled: write addresses.
"""

import ctypes
import ctypes.util
from functools import cache

from koura.errors import KouraError

DLT_RAW = 12
SNAP_OCTETS = 65535
NETMASK_UNKNOWN = 0xFFFFFFFF
MAX_EXPRESSION = 4096


class NoFilter(KouraError):
    """libpcap is not here, or refuses the expression; says why."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


class _Header(ctypes.Structure):
    _fields_ = (("s", ctypes.c_long), ("us", ctypes.c_long), ("captured", ctypes.c_uint32), ("octets", ctypes.c_uint32))


@cache
def _library() -> ctypes.CDLL:
    """Raises NoFilter."""
    name = ctypes.util.find_library("pcap") or "libpcap.so.0.8"
    try:
        found = ctypes.CDLL(name)
    except OSError as error:
        raise NoFilter("filter expressions need libpcap, which is not here (Debian: libpcap0.8)") from error
    found.pcap_open_dead.restype = ctypes.c_void_p
    found.pcap_geterr.restype = ctypes.c_char_p
    found.pcap_geterr.argtypes = found.pcap_close.argtypes = (ctypes.c_void_p,)
    program = ctypes.POINTER(_Program)
    found.pcap_compile.argtypes = (ctypes.c_void_p, program, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint32)
    found.pcap_offline_filter.argtypes = (program, ctypes.POINTER(_Header), ctypes.c_char_p)
    found.pcap_freecode.argtypes = (program,)
    return found


class Expression:
    """One compiled expression."""

    def __init__(self, text: str) -> None:
        """Raises NoFilter."""
        self.text = text
        self._pcap = library = _library()
        self._program = _Program()
        self._is_compiled = False
        if len(text) > MAX_EXPRESSION or "\0" in text:
            raise NoFilter(f"an expression has {MAX_EXPRESSION} characters at the most, and no 0 among them")
        handle = library.pcap_open_dead(DLT_RAW, SNAP_OCTETS)
        try:
            if library.pcap_compile(handle, ctypes.byref(self._program), text.encode(), 1, NETMASK_UNKNOWN) != 0:
                raise NoFilter(f"{text!r}: {library.pcap_geterr(handle).decode(errors='replace')}")
            self._is_compiled = True
        finally:
            library.pcap_close(handle)

    def matches(self, packet: bytes) -> bool:
        """Whether it is true of a packet that begins with its IP header."""
        header = _Header(0, 0, len(packet), len(packet))
        return bool(self._pcap.pcap_offline_filter(ctypes.byref(self._program), ctypes.byref(header), packet))

    def __del__(self) -> None:
        if getattr(self, "_is_compiled", False):
            self._pcap.pcap_freecode(ctypes.byref(self._program))
