"""The loop: descriptors that are ready, timers that are due, signals; one thread. epoll and nothing else.

    loop.watch(descriptor, ready, READ)      ready(events) is called whenever there is something to read
    loop.change(descriptor, READ | WRITE)
    loop.forget(descriptor)                  before it is closed
    timer = loop.after_s(1, call)            once; timer.cancel()
    loop.on_signal(signal.SIGHUP, call)      in the loop, never in the middle of something
    loop.poll_by(poll)                       epoll_wait by somebody who answers some descriptors himself
    loop.run()                               until loop.stop()

What a call raises ends the loop. Attachments of packets are descriptors like others: their `ready` takes a burst.
"""

import heapq
import os
import select
import signal
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
EDGE = select.EPOLLET  # tell of each change once, not as long as it lasts
GONE = select.EPOLLHUP | select.EPOLLERR
_BURST = 64
Ready = Callable[[int], None]
Call = Callable[[], None]
Poll = Callable[[select.epoll, float | None], list[tuple[int, int]]]  # the loop's descriptor; seconds, None: for ever


class Timer:
    """A call at a time. Cancelling one that was made is fine."""

    __slots__ = ("_call", "at_ns")

    def __init__(self, at_ns: int, call: Call) -> None:
        self.at_ns = at_ns
        self._call: Call | None = call

    def cancel(self) -> None:
        self._call = None

    @property
    def is_pending(self) -> bool:
        return self._call is not None

    def fire(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call()


class Loop:
    """One process' loop."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._ready: dict[int, Ready] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._count = 0
        self._signals: dict[int, Call] = {}
        self._wake: tuple[int, int] | None = None
        self._soon: list[Call] = []
        self._is_running = False
        self._poll: Poll = lambda epoll, seconds: epoll.poll(seconds, _BURST)

    def poll_by(self, poll: Poll) -> None:
        """Wait by this from now on: it may do itself what is ready, and gives back the rest."""
        self._poll = poll

    def watch(self, descriptor: int, ready: Ready, events: int = READ) -> None:
        """Call `ready(events)` when the descriptor is so; hang-ups and errors are always told."""
        self._ready[descriptor] = ready
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        """Watch it no longer; one that is not watched is fine."""
        if self._ready.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def after_s(self, seconds: float, call: Call) -> Timer:
        """Call once, so many seconds from now."""
        self._count += 1
        timer = Timer(time.monotonic_ns() + max(0, round(seconds * 1e9)), call)
        heapq.heappush(self._timers, (timer.at_ns, self._count, timer))
        return timer

    def soon(self, call: Call) -> None:
        """Call when what is ready now has been done."""
        self._soon.append(call)

    def on_signal(self, number: int, call: Call) -> None:
        """Call when the signal came."""
        if self._wake is None:
            self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
            self.watch(self._wake[0], self._signalled)
        self._signals[number] = call
        signal.signal(number, _nothing)

    def run(self) -> None:
        """Until `stop`."""
        self._is_running = True
        while self._is_running:
            self.turn()

    def stop(self) -> None:
        """`run` returns when what is ready has been done."""
        self._is_running = False

    def turn(self) -> None:
        """Wait for something, and do what is ready."""
        for descriptor, events in self._poll(self._epoll, self._wait_s()):
            ready = self._ready.get(descriptor)  # it may have been forgotten by a call just now
            if ready is not None:
                ready(events)
        while self._timers and self._timers[0][0] <= time.monotonic_ns():
            heapq.heappop(self._timers)[2].fire()
        soon, self._soon = self._soon, []
        for call in soon:
            call()

    def close(self) -> None:
        """Give up the descriptors of its own, and the signals."""
        if self._wake is not None:
            signal.set_wakeup_fd(-1)
            for number in self._signals:
                signal.signal(number, signal.SIG_DFL)
            for descriptor in self._wake:
                os.close(descriptor)
            self._wake = None
        self._epoll.close()

    def _wait_s(self) -> float | None:
        if self._soon:
            return 0
        while self._timers and not self._timers[0][2].is_pending:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0.0, (self._timers[0][0] - time.monotonic_ns()) / 1e9)

    def _signalled(self, _events: int) -> None:
        assert self._wake is not None
        for number in os.read(self._wake[0], 4096):
            call = self._signals.get(number)
            if call is not None:
                call()


def _nothing(_number: int, _frame: object) -> None:
    return None
