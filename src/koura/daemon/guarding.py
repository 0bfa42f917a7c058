"""The guard, kept as policies and ports are: nft(8) works beside the keeper, which never waits for it while it serves.

Many changes are one table. The first is loaded GUARD_S after it was asked for; a table of thousands of rules takes nft a while, and the
next one waits REST times as long, so that a key manager that sets up ten thousand tunnels does not keep the machine busy with their rules.
"""

import syslog
import time
from collections.abc import Callable

from koura.daemon.closed import is_general
from koura.daemon.config import HostConfig
from koura.daemon.journal import Written
from koura.host import guard
from koura.host.guard import Loading, NoGuard
from koura.host.loop import Loop, Timer
from koura.notices import SocketBound
from koura.saindex import Direction
from koura.settings import Settings
from koura.spd.policy import Action

GUARD_S = 0.02
REST = 3


class Guarding:
    """What the guard is made from, and when it is made. `log(priority, line)`."""

    def __init__(self, loop: Loop, config: HostConfig, settings: Settings, log: Callable[[int, str], None]) -> None:
        self._loop, self._config, self._settings, self._log = loop, config, settings, log
        self._policies: dict[bytes, Written] = {}
        self._rules: dict[bytes, tuple[str, ...]] = {}
        self._open: dict[bytes, int] = {}  # sockets that speak in clear, by the policies that say so
        self._bound: dict[bytes, SocketBound] = {}
        self._ports: tuple[int, ...] = ()
        self._tunnels: tuple[str, ...] = ()
        self._timer: Timer | None = None
        self._loading: Loading | None = None
        self._is_stale = False
        self._began = 0.0

    # -- what it is made from: whether anything of it changed ----------------------------------------------------------

    def put(self, key: bytes, written: Written | None) -> bool:
        """A policy, or that it is no more."""
        policy = written.policy if written is not None else None
        had = (self._policies.pop(key, None), self._open.pop(key, None)) != (None, None)
        self._rules.pop(key, None)
        if written is None or policy is None:
            return had
        is_inbound = policy.direction is Direction.INBOUND
        if is_general(written) and (is_inbound or policy.direction is Direction.OUTBOUND):
            self._policies[key] = written
        elif written.socket is not None and is_inbound and policy.action is Action.BYPASS:
            self._open[key] = written.socket
        else:
            return had
        return True

    def bind(self, key: bytes, bound: SocketBound | None) -> bool:
        """Where a socket is bound."""
        self._bound.pop(key, None)
        if bound is not None:
            self._bound[key] = bound
        return True

    def tune(self, settings: Settings) -> bool:
        """Every rule is made anew."""
        self._settings = settings
        self._rules.clear()
        return True

    def listen(self, ports: set[int]) -> bool:
        """Ports of ESP in UDP that others hold."""
        is_new, self._ports = self._ports != (standing := tuple(sorted(ports))), standing
        return is_new

    def trust(self, tunnels: tuple[str, ...]) -> None:
        """Interfaces whose packets came protected."""
        self._tunnels = tunnels

    def text(self) -> str:
        """The whole table."""
        for key in self._policies.keys() - self._rules.keys():
            one = self._policies[key]
            self._rules[key] = tuple(guard.rules_of(one.policy, one.id, self._settings))
        keys = sorted(self._policies, key=lambda key: self._policies[key].order)
        inbound = [key for key in keys if self._policies[key].policy.direction is Direction.INBOUND]
        leaving = [key for key in keys if self._policies[key].policy.direction is not Direction.INBOUND]
        speaking = set(self._open.values())
        bypass = {(one.protocol, one.port) for one in self._bound.values() if one.socket in speaking and one.port}
        return guard.compile_rules(guard.Said(
            tuple(line for key in inbound for line in self._rules[key]), self._settings, (self._config.interface, *self._tunnels),
            tuple(sorted({*self._config.ports, *self._ports})), tuple(sorted(bypass)),
            tuple(line for key in leaving for line in self._rules[key]), self._config.passes_control,
        ))  # fmt: skip

    # -- when it is made -----------------------------------------------------------------------------------------------

    def due(self) -> None:
        """Soon; together with whatever changes until then."""
        if not self._config.has_guard or self._timer is not None:
            return
        if self._loading is not None:
            self._is_stale = True
        else:
            self._timer = self._loop.after_s(GUARD_S, self._start)

    def now(self) -> None:
        """When this returns it stands. Raises NoGuard."""
        if not self._config.has_guard:
            return
        self.rest()
        guard.load(self.text())

    def rest(self) -> None:
        """Nothing is under way when this returns."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loading is not None:
            self._is_stale = False
            self._finish(0)

    def _start(self) -> None:
        self._timer = None
        self._began = time.monotonic()
        try:
            self._loading = Loading(self.text())
        except NoGuard as error:
            self._log(syslog.LOG_ERR, str(error))
            return
        self._loop.watch(self._loading.fileno(), self._finish)

    def _finish(self, _events: int) -> None:
        loading, self._loading = self._loading, None
        assert loading is not None
        self._loop.forget(loading.fileno())
        try:
            loading.finish()
        except NoGuard as error:
            self._log(syslog.LOG_ERR, str(error))
        if self._is_stale:
            self._is_stale = False
            self._timer = self._loop.after_s(max(GUARD_S, REST * (time.monotonic() - self._began)), self._start)
