"""The typed clients, sync and asyncio: every operation against a server, in the dialects that have it."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from koura.client import Acquire, Client, Expire, Keys, Other, Unreachable, aio, connect, index, policy, sa, selector
from koura.errors import Errno, Refused
from koura.pfkey.dialect import FREEBSD, LINUX, NETBSD, Dialect
from koura.pfkey.numbers import Type
from koura.pfkey.tell import Wanted
from koura.sadb.agreement import Encapsulation, Identity, Limits, SaFlags
from koura.sadb.association import State
from koura.saindex import Direction, Protocol
from koura.spd.policy import Scope
from tests.unit.client.engine import Engine

RELATION = index("192.0.2.1", "192.0.2.2", "esp", "tunnel", 7)
GCM = Keys("aes-gcm-16", bytes(range(20)))
BOTH = [FREEBSD, LINUX, NETBSD]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with Engine(tmp_path) as running:
        yield running


@pytest.fixture(params=BOTH, ids=lambda d: d.name)
def client(engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Client]:
    dialect: Dialect = request.param
    with connect(tmp_path, dialect) as made:
        yield made


def test_an_sa_comes_back_as_it_was_said(client: Client) -> None:
    said = replace(
        sa(RELATION, 0x1001, GCM, flags=SaFlags.NONE), hard=Limits(0, 1000, 60, 30), soft=Limits(0, 800, 50, 20),
        encapsulation=Encapsulation(4500, 1025), identity_src=Identity(2, 0, b"a.example"), identity_dst=Identity(2, 0, b"b.example"),
    )  # fmt: skip
    assert said.window_packets == 1024
    if client.dialect is LINUX:
        said = replace(said, window_packets=255)
    client.add(said)
    got = client.get(RELATION, 0x1001)
    assert replace(got.agreement, seq=0, pid=0) == said
    assert (got.state, got.packets, got.created_s) == (State.MATURE, 0, 1000)
    assert [entry.agreement.spi for entry in client.dump()] == [0x1001]
    assert list(client.dump(Protocol.AH)) == []
    client.delete(RELATION, 0x1001)
    with pytest.raises(Refused) as refused:
        client.get(RELATION, 0x1001)
    assert refused.value.errno is Errno.ESRCH


def test_a_larval_sa_gets_its_keys(client: Client) -> None:
    spi = client.getspi(RELATION, (0x2000, 0x2000))
    assert spi == 0x2000
    assert [entry.state for entry in client.dump()] == [State.LARVAL]
    keys = Keys("aes-cbc", bytes(16), "hmac-sha1", bytes(20))
    client.update(sa(RELATION, spi, keys, window_packets=64))
    assert [entry.state for entry in client.dump()] == [State.MATURE]
    client.update(replace(sa(RELATION, spi, keys, window_packets=64), hard=Limits(add_s=99)), with_keys=False)
    assert client.get(RELATION, spi).agreement.hard.add_s == 99
    client.delete(RELATION)
    client.flush()
    assert list(client.dump()) == []


def test_policies(client: Client) -> None:
    out = policy("10.1.0.0/16", "10.2.0.0/16", "out ipsec esp/tunnel/192.0.2.1-192.0.2.2/require", "tcp", (0, 443))
    number = client.spdadd(out)
    assert client.spdget(number).policy == out
    with pytest.raises(Refused) as refused:
        client.spdadd(out)
    assert refused.value.errno is Errno.EEXIST
    ping = policy("::/0", "2001:db8::/32", "in none", "icmp6", (128, -1))
    again = client.spdupdate(ping)
    assert [entry.policy for entry in client.spddump()] == [ping, out]
    client.spddelete(selector(Direction.OUTBOUND, "10.1.0.0/16", "10.2.0.0/16", "tcp", (0, 443)))
    client.spddelete_id(again)
    assert list(client.spddump()) == []
    client.spdadd(out)
    client.spdflush()
    assert list(client.spddump(Scope.GLOBAL)) == []


def test_events_are_values(engine: Engine, client: Client, tmp_path: Path) -> None:
    assert {supported.ext for supported in client.register(Protocol.ESP)} == {14, 15}
    with connect(tmp_path) as other:
        other.socket.pid = 77
        other.add(sa(RELATION, 0x1001, GCM))
    server = engine.world.server
    (one,) = list(engine.world.sad)
    engine.call(lambda: engine.deliver(server.tell.expire(one, is_hard=False)))
    engine.call(lambda: engine.deliver(server.tell.acquire(Wanted(RELATION, 5))))
    added, expired, acquired = (event for _, event in zip(range(3), client.events(5.0), strict=False))
    assert isinstance(added, Other)
    assert added.message.type == Type.ADD
    assert isinstance(expired, Expire)
    assert (expired.is_hard, expired.sa.agreement.spi) == (False, 0x1001)
    assert isinstance(acquired, Acquire)
    assert (acquired.relation, acquired.seq) == (RELATION, 5)
    assert acquired.proposal.combinations
    client.acquire_failed(acquired)
    client.flush()  # An answer, so that what came before was taken.
    assert engine.world.failed == [5]


def test_what_means_nothing_is_refused_before_it_is_sent() -> None:
    for make in (
        lambda: index("x", "192.0.2.1", "esp"), lambda: index("::1", "192.0.2.1", "esp"), lambda: index("::1", "::2", "gre"),
        lambda: index("::1", "::2", "esp", "beet"), lambda: sa(RELATION, 300, Keys("rot-13", b"")),
        lambda: policy("10.0.0.0/33", "10.0.0.0/8", "in none"), lambda: policy("10.0.0.0/8", "::/0", "in none"),
        lambda: policy("10.0.0.0/8", "10.0.0.0/8", "in none", "nothing"),
    ):  # fmt: skip
        with pytest.raises(Refused):
            make()


def test_asyncio(engine: Engine, tmp_path: Path) -> None:
    async def several() -> None:
        async with await aio.connect(tmp_path) as one, await aio.connect(tmp_path, "linux") as other:
            await one.register(Protocol.ESP)
            await asyncio.gather(*(one.add(sa(RELATION, spi, GCM)) for spi in range(300, 500)))
            seen = [entry.agreement.spi async for entry in other.dump()]
            assert sorted(seen) == list(range(300, 500))
            half = other.dump()
            assert (await anext(half)).agreement.spi in range(300, 500)
            await half.aclose()  # type: ignore[attr-defined]
            with pytest.raises(Refused) as refused:
                await other.add(sa(RELATION, 300, GCM))
            assert refused.value.errno is Errno.EEXIST
            number = await other.spdadd(policy("10.0.0.0/8", "10.0.0.0/8", "out none"))
            assert (await other.spdget(number)).policy.priority == 0
            assert [entry.id async for entry in other.spddump()] == [number]
            async for event in one.events():
                if isinstance(event, Other) and event.message.type == Type.X_SPDADD:
                    break
            await one.flush()
            assert [entry async for entry in one.dump()] == []

    asyncio.run(asyncio.wait_for(several(), 20))


def test_asyncio_when_the_engine_ends(tmp_path: Path) -> None:
    async def several() -> None:
        with pytest.raises(Unreachable):
            await aio.connect(tmp_path / "nowhere")
        engine = Engine(tmp_path)
        client = await aio.connect(tmp_path)
        await asyncio.get_running_loop().run_in_executor(None, engine.close)
        with pytest.raises(Unreachable):
            async for _ in client.events():
                pass
        with pytest.raises(Unreachable):
            await client.flush()
        await client.close()

    asyncio.run(asyncio.wait_for(several(), 20))
