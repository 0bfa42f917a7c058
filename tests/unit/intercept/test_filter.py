"""The filter, run by an interpreter of classic BPF: which calls notify, which are refused, and that all others pass."""

import struct
from functools import cache

import pytest

from koura.intercept import filter
from koura.intercept.abi import MACHINES, OPTIONS, SOCKETCALLS, X32_BIT, Call, Calls, Machine

I386, X86_64 = MACHINES["x86_64"].compat, MACHINES["x86_64"].native
assert I386 is not None
FULL_FILTER_CALLS = 600
ABIS = [(machine, calls) for machine in MACHINES.values() for calls in (machine.native, machine.compat) if calls is not None]


program = cache(filter.program)


def judge(machine: Machine, audit: int, number: int, *args: int) -> int:
    """The filter's verdict on one call."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *(args + (0,) * 6)[:6])
    code = program(machine)
    place, accumulator = 0, 0
    while True:
        operation, true, false, value = struct.unpack_from("=HBBI", code, 8 * place)
        place += 1
        if operation == filter.BPF_LD_W_ABS:
            accumulator = struct.unpack_from("=I", data, value)[0]
        elif operation == filter.BPF_JEQ:
            place += true if accumulator == value else false
        elif operation == filter.BPF_JGE:
            place += true if accumulator >= value else false
        else:
            assert operation == filter.BPF_RET
            return int(value)


@pytest.mark.parametrize(("machine", "calls"), ABIS, ids=[f"{calls.audit:#x}" for _, calls in ABIS])
def test_calls_of_ours_notify_and_their_neighbours_pass(machine: Machine, calls: Calls) -> None:
    assert judge(machine, calls.audit, calls.socket, 15) == filter.RET_USER_NOTIF
    for family in (*range(15), *range(16, 46)):
        assert judge(machine, calls.audit, calls.socket, family) == filter.RET_ALLOW
    for number in (calls.setsockopt, calls.getsockopt):
        for level in (0, 1, 6, 17, 18, 40, 41, 42, 270):
            for option in (0, 2, 3, 4, 15, 16, 17, 33, 34, 35, 37, 38, 39, 40, 99, 100, 101):
                is_ours = option in OPTIONS.get(level, ())
                assert judge(machine, calls.audit, number, 3, level, option) == (filter.RET_USER_NOTIF if is_ours else filter.RET_ALLOW)


@pytest.mark.parametrize(("machine", "calls"), ABIS, ids=[f"{calls.audit:#x}" for _, calls in ABIS])
def test_only_a_poll_of_one_descriptor_for_one_millisecond_notifies(machine: Machine, calls: Calls) -> None:
    if calls.poll is not None:
        for count, timeout in ((0, 1), (1, 0), (1, 2), (1, 0xFFFF_FFFF), (2, 1), (1, 1000)):
            assert judge(machine, calls.audit, calls.poll, 0x1000, count, timeout) == filter.RET_ALLOW
        assert judge(machine, calls.audit, calls.poll, 0x1000, 1, 1) == filter.RET_USER_NOTIF
    if calls.ppoll is not None:
        assert judge(machine, calls.audit, calls.ppoll, 0x1000, 1, 0) == filter.RET_ALLOW
        assert judge(machine, calls.audit, calls.ppoll, 0x1000, 2, 0x2000) == filter.RET_ALLOW
        assert judge(machine, calls.audit, calls.ppoll, 0x1000, 1, 0x2000) == filter.RET_USER_NOTIF


def test_i386_socketcall_notifies_for_three_of_its_twenty() -> None:
    assert I386 is not None and I386.socketcall is not None
    for number in range(21):
        expected = filter.RET_USER_NOTIF if number in SOCKETCALLS else filter.RET_ALLOW
        assert judge(MACHINES["x86_64"], I386.audit, I386.socketcall, number, 0x1000) == expected


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_an_abi_that_we_do_not_know_gets_enosys(machine: Machine) -> None:
    refused = filter.RET_ERRNO | filter.ENOSYS
    assert judge(machine, 0xC000_00FF, machine.native.socket, 15) == refused
    assert judge(machine, machine.native.audit, machine.native.io_uring_setup) == refused
    if machine.has_x32:
        for number in (0, 41, 541, 542, 1000):
            assert judge(machine, machine.native.audit, X32_BIT + number, 15) == refused


@pytest.mark.parametrize(("machine", "calls"), ABIS, ids=[f"{calls.audit:#x}" for _, calls in ABIS])
def test_every_other_call_passes_by_its_number_alone(machine: Machine, calls: Calls) -> None:
    """What the kernel's cache of always allowed calls needs: no argument is looked at."""
    looked_at = {calls.socket, calls.setsockopt, calls.getsockopt, calls.poll, calls.ppoll, calls.socketcall, calls.io_uring_setup}
    for number in range(FULL_FILTER_CALLS):
        if number not in looked_at:
            for word in (1, 15):
                assert judge(machine, calls.audit, number, word, word, word) == filter.RET_ALLOW


@pytest.mark.parametrize(("machine", "calls"), ABIS, ids=[f"{calls.audit:#x}" for _, calls in ABIS])
def test_numbers_say_what_call_it_is(machine: Machine, calls: Calls) -> None:
    assert machine.abi(calls.audit) is calls
    assert calls.call_of(calls.socket) is Call.SOCKET
    assert calls.call_of(calls.setsockopt) is Call.SETSOCKOPT
    assert calls.call_of(calls.getsockopt) is Call.GETSOCKOPT
    if calls.socketcall is not None:
        assert calls.call_of(calls.socketcall) is None
