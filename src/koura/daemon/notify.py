"""sd_notify(3): what the service manager is told. Without NOTIFY_SOCKET it is told nothing."""

import os
import socket
import time

VARIABLE, WATCHDOG = "NOTIFY_SOCKET", "WATCHDOG_USEC"


class Notifier:
    """The line to the service manager; its variables are taken out of the environment."""

    def __init__(self) -> None:
        address = os.environ.pop(VARIABLE, "")
        self._socket: socket.socket | None = None
        is_ours = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        interval_us = os.environ.pop(WATCHDOG, "0")
        self.watchdog_s = int(interval_us) / 2e6 if is_ours and interval_us.isdigit() else 0
        if address:
            end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
            try:
                end.connect("\0" + address[1:] if address.startswith("@") else address)
                self._socket = end
            except OSError:
                end.close()

    def tell(self, *lines: str) -> None:
        """Lines like READY=1. A manager that does not listen is not waited for."""
        if self._socket is None:
            return
        try:
            self._socket.send("\n".join(lines).encode())
        except OSError:
            return

    def reloading(self) -> None:
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
