"""Run inside a namespace, by its path: echoes, sized probes and streams, with nothing but the standard library. Answers are lines of JSON.

    serve                          TCP and UDP echo on port 7 of both families; prints "ready"
    sizes SRC DST SIZE:DF...       an ICMP echo of so many octets, IP header included, until it is answered or refused with a smaller MTU
    tcp SRC DST MSS...             64 KiB there and back in segments of at most so many octets
    flows SRC=DST...               a UDP datagram there and back for each pair, sent again until it is answered
    stream SRC DST                 numbered UDP datagrams every 5 ms until standard input ends; which never came back
"""

import errno
import itertools
import json
import os
import select
import socket
import struct
import sys
import time

PORT = 7
PATIENCE_S = 30.0
IP_PKTINFO, IP_MTU_DISCOVER, IP_MTU, IPV6_MTU_DISCOVER, IPV6_MTU, IPV6_DONTFRAG = 8, 10, 14, 23, 24, 62
DONT, DO = 0, 2
LAST_WORD_S = 5.0
NUMBERS = itertools.count(1)  # no two echoes are alike: each socket hears the answers to all


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def say(answer: "dict[str, object]") -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def checksum(octets: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(octets) + 1) // 2}H", octets + bytes(len(octets) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Probe:
    """ICMP echoes between two addresses, with DF or without."""

    def __init__(self, src: str, dst: str, is_df: bool) -> None:
        self.is_ipv4 = family_of(dst) is socket.AF_INET
        self.end = socket.socket(family_of(dst), socket.SOCK_RAW, socket.IPPROTO_ICMP if self.is_ipv4 else socket.IPPROTO_ICMPV6)
        self.level = socket.IPPROTO_IP if self.is_ipv4 else socket.IPPROTO_IPV6
        how = DO if is_df else DONT
        self.end.setsockopt(self.level, IP_MTU_DISCOVER if self.is_ipv4 else IPV6_MTU_DISCOVER, how)
        if not self.is_ipv4:
            self.end.setsockopt(self.level, IPV6_DONTFRAG, int(is_df))
        self.end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.end.bind((src, 0))
        self.end.connect((dst, 0))

    def echo(self, octets: int) -> bytes:
        body = bytes(i % 251 for i in range(octets - (28 if self.is_ipv4 else 48)))
        number = next(NUMBERS) & 0xFFFF
        head = struct.pack("!BBHHH", 8 if self.is_ipv4 else 128, 0, 0, os.getpid() & 0xFFFF, number)
        if self.is_ipv4:
            head = head[:2] + struct.pack("!H", checksum(head + body)) + head[4:]
        return head + body

    def mtu(self) -> int:
        return self.end.getsockopt(self.level, IP_MTU if self.is_ipv4 else IPV6_MTU)

    def try_once(self, octets: int, wait_s: float) -> "tuple[str, int]":
        """(answered | refused | silent, the MTU)."""
        sent = self.echo(octets)
        until = time.monotonic() + wait_s
        try:
            self.end.send(sent)
            while (left := until - time.monotonic()) > 0:
                if not select.select([self.end], [], [], left)[0]:
                    break
                came = self.end.recv(70000)
                came = came[(came[0] & 0xF) * 4 :] if self.is_ipv4 else came
                if came[0] == (0 if self.is_ipv4 else 129) and came[4:] == sent[4:]:
                    return "answered", 0
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                return "silent", 0
            return "refused", self.mtu()
        return "silent", 0

    def ask(self, octets: int) -> "dict[str, object]":
        until = time.monotonic() + PATIENCE_S
        wait_s = 0.1
        tries = 0
        while time.monotonic() < until:
            tries += 1
            end, mtu = self.try_once(octets, wait_s)
            if end == "answered" or (end == "refused" and mtu < octets):
                return {"octets": octets, "end": end, "mtu": mtu, "tries": tries}
            wait_s = min(2.0, wait_s * 2)
        return {"octets": octets, "end": "silent", "mtu": 0, "tries": tries}


def sizes(src: str, dst: str, *asked: str) -> None:
    probes = {is_df: Probe(src, dst, is_df) for is_df in (False, True)}
    for one in asked:
        octets, _, df = one.partition(":")
        answer = probes[df == "1"].ask(int(octets))
        say({**answer, "df": df == "1"})


def tcp(src: str, dst: str, *mss: str) -> None:
    data = bytes(i % 251 for i in range(65536))
    for one in mss:
        end = socket.socket(family_of(dst), socket.SOCK_STREAM)
        end.settimeout(PATIENCE_S)
        if int(one):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, int(one))
        came = bytearray()
        try:
            end.bind((src, 0))
            end.connect((dst, PORT))
            end.sendall(data)
            end.shutdown(socket.SHUT_WR)
            while more := end.recv(65536):
                came += more
            end.close()
        except OSError as error:
            say({"mss": int(one), "is_right": False, "why": str(error), "came": len(came)})
            continue
        say({"mss": int(one), "is_right": bytes(came) == data})


def serve() -> None:
    poll = select.epoll()
    ends: dict[int, socket.socket] = {}
    waiting: dict[int, bytearray] = {}
    closing: set[int] = set()

    def watch(end: socket.socket) -> None:
        end.setblocking(False)
        ends[end.fileno()] = end
        poll.register(end.fileno(), select.EPOLLIN)

    for family in (socket.AF_INET, socket.AF_INET6):
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            end = socket.socket(family, kind)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                end.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            level, option = (socket.IPPROTO_IP, IP_PKTINFO) if family == socket.AF_INET else (socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO)
            end.setsockopt(level, option, 1)
            end.bind(("", PORT))
            if kind == socket.SOCK_STREAM:
                end.listen()
            watch(end)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    listeners = set(ends)
    while True:
        for number, what in poll.poll():
            end = ends[number]
            if number in listeners:
                if end.type == socket.SOCK_STREAM:
                    watch(end.accept()[0])
                else:
                    _answer(end)
                continue
            _echo(poll, ends, waiting, closing, number, what)


def _answer(end: socket.socket) -> None:
    """A datagram goes back from the address it came to."""
    try:
        data, control, _, where = end.recvmsg(65536, 256)
        for level, kind, value in control:
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                end.sendmsg([data], [(level, kind, struct.pack("=i4s4s", 0, value[8:12], bytes(4)))], 0, where)
            elif (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
                end.sendmsg([data], [(level, kind, value[:16] + bytes(4))], 0, where)
    except OSError:
        pass  # what cannot be answered is silence


def _echo(
    poll: select.epoll, ends: "dict[int, socket.socket]", waiting: "dict[int, bytearray]", closing: "set[int]", number: int, what: int
) -> None:
    """One connection's turn: what it said is said back, and when it has no more to say, the end."""
    end, buffer = ends[number], waiting.setdefault(number, bytearray())
    try:
        if what & select.EPOLLIN:
            data = end.recv(65536)
            buffer += data
            if not data:
                closing.add(number)
        if buffer:
            del buffer[: end.send(buffer)]
    except BlockingIOError:
        pass
    except OSError:
        closing.add(number)
        buffer.clear()
    if number in closing and not buffer:
        poll.unregister(number)
        end.close()
        closing.discard(number)
        del ends[number], waiting[number]
        return
    poll.modify(number, (0 if number in closing else select.EPOLLIN) | (select.EPOLLOUT if buffer else 0))


def flows(*pairs: str) -> None:
    ends = {}
    for pair in pairs:
        src, _, dst = pair.partition("=")
        end = socket.socket(family_of(dst), socket.SOCK_DGRAM)
        end.bind((src, 0))
        end.connect((dst, PORT))
        ends[end.fileno()] = (pair, end)
    until = time.monotonic() + PATIENCE_S
    while ends and time.monotonic() < until:
        for _, end in ends.values():
            end.send(b"there and back")
        again = time.monotonic() + 1
        while ends and (left := again - time.monotonic()) > 0:
            for number in select.select(list(ends), [], [], left)[0]:
                try:
                    ends[number][1].recv(100)
                except OSError:
                    continue
                ends.pop(number)[1].close()
    say({"silent": sorted(pair for pair, _ in ends.values())})


def stream(src: str, dst: str) -> None:
    end = socket.socket(family_of(dst), socket.SOCK_DGRAM)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    end.bind((src, 0))
    end.connect((dst, PORT))
    end.setblocking(False)
    missing, number, is_over, until = set(), 0, False, 0.0
    while not is_over or (missing and time.monotonic() < until):
        if not is_over:
            missing.add(number)
            end.send(number.to_bytes(8, "big"))
            number += 1
        for ready in select.select([end, sys.stdin] if not is_over else [end], [], [], 0.005)[0]:
            if ready is sys.stdin:
                is_over, until = True, time.monotonic() + LAST_WORD_S
                continue
            try:
                while True:
                    missing.discard(int.from_bytes(end.recv(100), "big"))
            except OSError:
                continue
    say({"sent": number, "missing": sorted(missing)})


if __name__ == "__main__":
    {"serve": serve, "sizes": sizes, "tcp": tcp, "flows": flows, "stream": stream}[sys.argv[1]](*sys.argv[2:])
