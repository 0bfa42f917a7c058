"""An engine's key socket in a thread of the test: a PF_KEY server behind pfkey.sock, speaking as docs/daemon.md says.

Single-threaded inside: one poll loop owns the server. `Engine.call` runs a function in that loop, for tests that want an EXPIRE.
"""

import os
import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from koura.pfkey.dialect import DIALECTS
from tests.unit.pfkey.harness import World

HELLO = b"\0koura"
PULL = 1 << 14


@dataclass
class _Peer:
    end: socket.socket
    number: int
    queue: deque[bytes] = field(default_factory=deque)
    has_acks: bool = False


class Engine:
    """Serves until closed. `world` belongs to the loop; touch it by `call`."""

    def __init__(self, directory: Path, world: World | None = None) -> None:
        self.world = world or World()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(directory / "pfkey.sock"))
        self._listener.listen()
        self._wake_r, self._wake_w = os.pipe()
        self._calls: deque[Callable[[], None]] = deque()
        self._peers: dict[int, _Peer] = {}
        self._count = 0
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._is_closing = True
        os.write(self._wake_w, b"x")
        self._thread.join()
        for end in (self._listener, *(peer.end for peer in self._peers.values())):
            end.close()
        os.close(self._wake_r)
        os.close(self._wake_w)

    def call(self, what: Callable[[], None]) -> None:
        """Run it in the loop, and wait for it."""
        done = threading.Event()
        self._calls.append(lambda: (what(), done.set())[1])
        os.write(self._wake_w, b"x")
        assert done.wait(10)

    def deliver(self, deliveries: tuple[object, ...]) -> None:
        """What `server.tell` made; inside `call`."""
        for one in deliveries:
            self._of(one.socket).queue.append(one.octets)  # type: ignore[attr-defined]

    def _of(self, number: int) -> _Peer:
        return next(peer for peer in self._peers.values() if peer.number == number)

    def _run(self) -> None:
        while not self._is_closing:
            poll = select.poll()
            poll.register(self._wake_r, select.POLLIN)
            poll.register(self._listener, select.POLLIN)
            for fd, peer in self._peers.items():
                poll.register(fd, select.POLLIN | (select.POLLOUT if peer.queue else 0))
            for fd, events in poll.poll(10_000):
                if fd == self._wake_r:
                    os.read(fd, 100)
                elif fd == self._listener.fileno():
                    self._accept()
                else:
                    self._serve(fd, events)
            while self._calls:
                self._calls.popleft()()

    def _accept(self) -> None:
        end, _ = self._listener.accept()
        end.setblocking(False)
        self._count += 1
        self._peers[end.fileno()] = _Peer(end, self._count)
        self.world.open(self._count, DIALECTS["freebsd"])

    def _serve(self, fd: int, events: int) -> None:
        peer = self._peers[fd]
        if events & select.POLLOUT:
            self._flush(peer)
        if events & select.POLLIN and len(peer.queue) < 100:
            try:
                octets = peer.end.recv(1 << 20)
            except ConnectionResetError:
                octets = b""
            if octets:
                self._take(peer, octets)
                self._flush(peer)
                return
        if events & (select.POLLIN | select.POLLHUP) and not peer.queue:
            self.world.server.closed(peer.number)
            del self.world.inbox[peer.number]
            self._peers.pop(fd).end.close()

    def _take(self, peer: _Peer, octets: bytes) -> None:
        world = self.world
        if octets.startswith(HELLO):
            words = dict(word.split("=") for word in octets[len(HELLO) :].decode().split())
            peer.has_acks = words.get("acks") == "1"
            world.open(peer.number, DIALECTS[words["dialect"]])
            peer.queue.append(HELLO + b" ok")
            return
        answer = world.server.receive(peer.number, octets, world.at)
        why = answer.refused.why if answer.refused is not None else ""
        if peer.has_acks:
            peer.queue.append(struct.pack(">BBHI", 0, 1, 0, answer.errno) + why.encode())
        elif answer.errno:
            peer.queue.append(octets[:2] + bytes((answer.errno, 0, 2, 0)) + bytes(10))
        self.deliver(answer.deliveries)

    def _flush(self, peer: _Peer) -> None:
        while True:
            while peer.queue:
                try:
                    peer.end.send(peer.queue[0])
                except BlockingIOError:
                    return
                except OSError:
                    peer.queue.clear()
                    return
                peer.queue.popleft()
            peer.queue.extend(self.world.server.pull(peer.number, PULL, self.world.at))
            if not peer.queue:
                return
