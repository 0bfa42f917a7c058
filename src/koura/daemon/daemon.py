"""The daemon as a whole: directory, listeners, signals, the configuration file, the service manager; around one keeper.

Start: lock, bind, fork the engine, load the file; only then it listens and says READY. A file that is refused ends the start.
HUP, `koura` reload: the file again; what it refuses changes nothing. TERM, INT, `koura down`: the engine is stopped, the sockets go.
"""

import os
import signal
import socket
import sys
import syslog
from collections.abc import Callable, Mapping
from functools import partial

from pyroute2 import NetlinkError

import koura
from koura import control
from koura.client import place
from koura.control import Value
from koura.daemon import admin, clients, closed, harden, house, ledger, reload, scripts
from koura.daemon.admin import Admin, Asked
from koura.daemon.bumps import Bumps
from koura.daemon.clients import Client, Opened
from koura.daemon.closed import NotKept
from koura.daemon.config import STATUS_GROUP, BadConfig, Config, TunnelConfig
from koura.daemon.encface import EncFace
from koura.daemon.handover import is_pair, own
from koura.daemon.house import Door, House
from koura.daemon.keeper import Keeper, log
from koura.daemon.network import Network, NoNetwork
from koura.daemon.notify import Notifier
from koura.daemon.peer import Credentials, Peer
from koura.daemon.reload import Fresh
from koura.daemon.rootless import Rootless
from koura.daemon.tenant import Tenant
from koura.daemon.tunnels import Tunnels
from koura.errors import Errno, Refused
from koura.host.loop import Loop
from koura.pfkey import dialect as dialects

MOST_CLIENTS = 4096
MOST_ADMINS = 256
MOST_DESCRIPTORS = 8192
ACCEPT_AGAIN_S = 0.5
BAD_FILE, FAILED = 65, 1


class Daemon:
    """One daemon. `run` returns its exit status."""

    def __init__(self, config: Config, *, is_quiet: bool = False, tenant: Tenant | None = None) -> None:
        """tenant: a program in a namespace of its own (rootless mode), with which the daemon ends."""
        self._tenant = tenant
        self._config = config
        self._is_quiet = is_quiet
        self._loop = Loop()
        self._house = House(config.directory)
        self._notifier = Notifier()
        self._keeper = Keeper(self._loop, config.settings, self._engine_ready, self._failed)
        self._client_calls = clients.Calls(self._keeper.request, self._keeper.reopened, self._keeper.pull, self._client_gone)
        self._admin_calls = admin.Calls(self._asked, self._admin_gone)
        self._admins: dict[Admin, None] = {}
        self._listeners: list[tuple[socket.socket, Callable[[socket.socket], None]]] = []
        self._enc: EncFace | None = None
        self._tunnels: Tunnels | None = None
        self._is_up = False
        self._status = 0

    def run(self) -> int:
        """Until it is told to end. Raises NoHouse."""
        self._house.take()
        harden.keep_secrets()
        harden.allow_descriptors(MOST_DESCRIPTORS)
        syslog.openlog("koura", syslog.LOG_PID, syslog.LOG_DAEMON)
        try:
            self._bind()
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.on_signal(number, self._down)
            self._loop.on_signal(signal.SIGHUP, lambda: self._reload(self._say))
            if self._tenant is not None:
                self._tenant.watch(self._loop)
            network = self._network()
            self._keeper.ledger = self._ledger()
            self._keeper.start()
            self._loop.run()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # it ends already
            self._notifier.tell("STOPPING=1")
            self._keeper.stop()
            if self._tenant is not None:
                self._tenant.end()
            if self._enc is not None:
                self._enc.close()
            if self._tunnels is not None:
                self._tunnels.close()
            if network is not None:
                # A start that failed leaves what an earlier daemon protected closed, not open.
                network.close(leaves_closed=self._status == FAILED or (self._status == BAD_FILE and network.is_adopted))
        finally:
            self._house.close()
        for connection in tuple(self._admins):
            connection.end()  # their end tells `koura down` that all is done
        return self._status

    def _ledger(self) -> ledger.LedgerFile:
        """What was sent with which key before. Raises NoHouse."""
        config = self._config
        found = ledger.open_file(ledger.directory(config.state, config.directory), accepts_loss=config.accepts_lost_state)
        if found.ledger.lost:
            log(syslog.LOG_WARNING, f"{found.ledger.lost}: static keys of counter modes are refused (--accept-lost-state takes them)")
        return found

    def _network(self) -> Network | None:
        """What host or rootless mode needs, opened before there is an engine. Raises NoNetwork."""
        network: Network
        if self._tenant is not None:
            network = Rootless(self._loop, self._config.rootless, self._config.settings, self._say_to_engine, log, self._tenant.made)
        elif self._config.host is not None:
            network = Network(self._loop, self._config.host, self._config.settings, self._say_to_engine, log)
        elif self._config.bumps:
            network = Bumps(self._loop, self._config.bumps, self._config.settings, self._say_to_engine, log)
        else:
            return None
        network.open()
        self._keeper.network = network
        if self._config.host is not None and self._tenant is None:
            self._tunnels = Tunnels(self._keeper.handover, network, log)
            self._sync_tunnels(self._config.tunnels)
        if self._config.enc is not None and self._config.host is not None:
            try:
                self._enc = EncFace(self._loop, self._config.enc, self._keeper.handover)
            except (OSError, NetlinkError) as error:
                raise NoNetwork(f"{self._config.enc.interface}: {error.args[-1]}") from error
        return network

    def _say_to_engine(self, asked: dict[str, object]) -> None:
        self._keeper.call(asked, lambda _: None)

    # -- start and end -------------------------------------------------------------------------------------------------

    def _bind(self) -> None:
        config = self._config
        group = config.status_group or (STATUS_GROUP if os.geteuid() == 0 and house.has_group(STATUS_GROUP) else "")
        doors: tuple[tuple[Door, Callable[[socket.socket], None]], ...] = (
            (Door(config.pfkey, config.pfkey_mode, config.pfkey_group), self._accept_client),
            (Door(config.directory / place.CONTROL), lambda end: self._accept_admin(end, is_control=True)),
            (house.status_door(config.directory, group), lambda end: self._accept_admin(end, is_control=False)),
        )
        self._listeners = [(self._house.bind(door), accept) for door, accept in doors]

    def _engine_ready(self) -> None:
        """The first engine loads the file; others find it loaded."""
        if not self._is_up:
            self._load(Fresh(self._config), self._loaded_first)

    def _load(self, fresh: Fresh, done: Callable[[Mapping[str, Value]], None]) -> None:
        if not fresh.config.files and not self._config.files and not fresh.tunables:
            done(control.accepted(diff=[], added=0, removed=0, unchanged=0))
            return
        try:
            texts = [[str(file), scripts.text(file)] for file in fresh.config.files]
        except Refused as error:
            done(control.refused(error))
            return
        asked: dict[str, object] = {"do": "load", "scripts": texts, "tunables": fresh.tunables}
        self._keeper.call(asked, lambda parts: done(reload.whole(parts)))

    def _loaded_first(self, reply: Mapping[str, Value]) -> None:
        if reply.get("ok") is not True:
            sys.stderr.write(f"{reply['why']}\nkoura up: nothing was loaded\n")
            self._status = BAD_FILE
            self._loop.stop()
            return
        self._loop.soon(lambda: self._serve(reply))  # when all that the load changed is written down

    def _serve(self, reply: Mapping[str, Value]) -> None:
        self._say(reply)
        if self._keeper.network is not None:
            self._keeper.network.settle()
        for listener, accept in self._listeners:
            listener.listen(house.BACKLOG)
            self._watch_listener(listener, accept)
        self._is_up = True
        self._remember()
        self._notifier.tell("READY=1", f"STATUS=serving {self._config.directory}", f"MAINPID={os.getpid()}")
        if not self._is_quiet:
            sys.stdout.write(f"koura {koura.__version__} serves {self._config.directory} (engine {self._keeper.engine_pid})\n")
            sys.stdout.flush()
        if self._notifier.watchdog_s:
            self._watchdog()
        if self._tenant is not None:
            self._tenant.begin(self._loop)

    def _watch_listener(self, listener: socket.socket, accept: Callable[[socket.socket], None]) -> None:
        self._loop.watch(listener.fileno(), partial(self._accept, listener, accept))

    def _accept(self, listener: socket.socket, accept: Callable[[socket.socket], None], _events: int) -> None:
        """One connection. Where descriptors are short, the next is looked for after a while; those that are open are served."""
        try:
            end, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            log(syslog.LOG_WARNING, f"a connection could not be accepted: {error.strerror}")
            self._loop.forget(listener.fileno())
            self._loop.after_s(ACCEPT_AGAIN_S, partial(self._watch_listener, listener, accept))
            return
        try:
            accept(end)
        except Refused as error:
            log(syslog.LOG_WARNING, f"a connection was refused: {error.why}")

    def _watchdog(self) -> None:
        """WATCHDOG=1 says that engine and keeper both answer."""

        def alive(_: tuple[bytes, ...]) -> None:
            self._notifier.tell("WATCHDOG=1")
            self._loop.after_s(self._notifier.watchdog_s, self._watchdog)

        self._keeper.call({"do": "sysctl", "name": "kern.features.ipsec"}, alive)

    def _down(self) -> None:
        self._loop.stop()

    def _failed(self) -> None:
        self._status = FAILED
        self._loop.stop()

    # -- reload --------------------------------------------------------------------------------------------------------

    def _reload(self, done: Callable[[Mapping[str, Value]], None]) -> None:
        if not self._is_up:
            return
        try:
            fresh = reload.read(self._config)
        except (BadConfig, Refused) as error:
            log(syslog.LOG_ERR, f"reload refused, nothing has changed: {error}")
            done(control.refused(Refused(Errno.EINVAL, str(error))))
            return
        self._notifier.reloading()

        def loaded(reply: Mapping[str, Value]) -> None:
            self._notifier.tell("READY=1")
            if reply.get("ok") is not True:
                log(syslog.LOG_ERR, f"reload refused, nothing has changed: {reply['why']}")
                done(reply)
                return
            self._config = fresh.config
            self._sync_tunnels(fresh.config.tunnels)
            self._remember()
            if fresh.restart:
                log(syslog.LOG_WARNING, reload.sentence(fresh.restart))
            done({**reply, "restart": list(fresh.restart)})

        self._load(fresh, loaded)

    def _remember(self) -> None:
        """What the file protects, for a start that will be refused."""
        if self._keeper.network is None or self._tenant is not None:
            return
        try:
            closed.remember(ledger.directory(self._config.state, self._config.directory), self._keeper.network.closed())
        except NotKept as error:
            log(syslog.LOG_WARNING, str(error))

    def _sync_tunnels(self, wanted: tuple[TunnelConfig, ...]) -> None:
        """Virtual tunnel interfaces as the configuration has them now; one that cannot be is logged."""
        try:
            if self._tunnels is not None:
                self._tunnels.sync(wanted)
        except Refused as error:
            log(syslog.LOG_ERR, f"tunnel {error.why}")

    def _say(self, reply: Mapping[str, Value]) -> None:
        """The diff, for whoever started us."""
        lines = reply.get("diff")
        if self._is_quiet or not self._config.files or not isinstance(lines, list):
            return
        names = ", ".join(str(file) for file in self._config.files)
        summary = f"{names}: {reply['added']} added, {reply['removed']} removed, {reply['unchanged']} unchanged"
        sys.stdout.write("".join(f"{line}\n" for line in (*lines, summary)))
        sys.stdout.flush()

    # -- PF_KEY clients ------------------------------------------------------------------------------------------------

    def _accept_client(self, end: socket.socket) -> None:
        who = Credentials.of(end)
        is_privileged = self._is_ours(who) or (bool(self._config.pfkey_group) and house.group_id(self._config.pfkey_group) in who.gids)
        self._open(end, Opened("freebsd", who.pid, who.uid, is_privileged))

    def _open(self, end: socket.socket, opened: Opened) -> int:
        if len(self._keeper.clients) >= MOST_CLIENTS:
            end.close()
            raise Refused(Errno.ENOBUFS, f"{MOST_CLIENTS} clients are open")
        client = Client(self._loop, end, self._keeper.next_number(), opened, self._client_calls)
        self._keeper.opened(client)
        client.begin()
        return client.number

    def _client_gone(self, peer: Peer) -> None:
        assert isinstance(peer, Client)
        self._keeper.closed(peer)

    # -- control connections -------------------------------------------------------------------------------------------

    def _accept_admin(self, end: socket.socket, *, is_control: bool) -> None:
        if len(self._admins) >= MOST_ADMINS:
            end.close()
            return
        connection = Admin(self._loop, end, is_control and self._is_ours(Credentials.of(end)), self._admin_calls)
        self._admins[connection] = None
        connection.begin()

    def _admin_gone(self, peer: Peer) -> None:
        """Policies that it set on sockets end with it."""
        assert isinstance(peer, Admin)
        self._admins.pop(peer, None)
        for number in peer.sockets:
            self._keeper.call({"do": "socket-gone", "socket": number}, lambda _: None)

    def _asked(self, connection: Admin, asked: Asked) -> None:
        """Raises Refused."""
        name, arguments = asked.verb.name, asked.arguments
        own = {"version": self._version, "clients": self._clients, "adopt": self._adopt, "capture": self._capture}.get(name)
        if own is not None:
            connection.reply([own(asked)])
        elif name.startswith("tunnel-"):
            if self._tunnels is None:
                raise Refused(Errno.EOPNOTSUPP, f"{name}: tunnels are for a daemon with [host] in koura.toml")
            connection.reply([self._tunnels.do(name, arguments)])
        elif name == "down":
            connection.reply([control.accepted(pid=os.getpid())])
            self._down()
        elif name == "reload":
            self._reload(lambda reply: connection.reply_written([control.write(part) for part in reload.parted(reply)]))
        else:
            if name in ("socket-policy", "socket-where", "encapsulation"):
                connection.sockets[int(str(arguments["socket"]))] = None
            elif name == "socket-gone":
                connection.sockets.pop(int(str(arguments["socket"])), None)
            self._keeper.call({"do": name, **arguments}, connection.reply_written)

    def _version(self, _asked: Asked) -> dict[str, Value]:
        return control.accepted(version=koura.__version__, pid=os.getpid(), engine=self._keeper.engine_pid, restarts=self._keeper.restarts)

    def _clients(self, _asked: Asked) -> dict[str, Value]:
        rows: list[Value] = [
            {"number": client.number, "pid": client.opened.pid, "uid": client.opened.uid, "dialect": client.opened.dialect,
             "is_privileged": client.opened.is_privileged, "command": client.opened.command, "queued_octets": client.queued_octets,
             "lost": client.lost_total}
            for client in self._keeper.clients
        ]  # fmt: skip
        return control.accepted(clients=rows)

    def _capture(self, asked: Asked) -> dict[str, Value]:
        """A client brings the end of a pair where it wants to see packets. Raises Refused."""
        if asked.descriptor is None or not is_pair(asked.descriptor):
            raise Refused(Errno.EPROTOTYPE, "capture: no SOCK_SEQPACKET socket came along")
        if self._keeper.network is None:
            raise Refused(Errno.EOPNOTSUPP, "capture: this engine moves no packets ([host] in koura.toml, or --rootless)")
        if not self._keeper.handover.hand({"do": "capture"}, asked.descriptor):
            raise Refused(Errno.EAGAIN, "capture: there is no engine at this moment; try again")
        return control.accepted()

    def _adopt(self, asked: Asked) -> dict[str, Value]:
        """A supervisor brings one end of a pair: the key socket of a program it runs. Raises Refused."""
        told = asked.arguments
        name = str(told["dialect"])
        if name not in dialects.DIALECTS:
            raise Refused(Errno.EINVAL, f"no dialect {name}; there are: {', '.join(dialects.DIALECTS)}")
        if asked.descriptor is None:
            raise Refused(Errno.EINVAL, "adopt: no descriptor came along")
        end = own(asked.descriptor)
        who = Opened(
            name, int(str(told["pid"])), int(str(told["uid"])), told.get("is_privileged", True) is True, str(told.get("command", "")),
        )  # fmt: skip
        return control.accepted(client=self._open(end, who))

    def _is_ours(self, who: Credentials) -> bool:
        return who.uid in (0, os.geteuid())

