"""Watching a TUN: packets are told of; an error for ever, as of one that was deleted, is told once and watched no longer."""

import os

from koura.host import tun
from koura.host.loop import Loop


def test_a_descriptor_in_error_is_told_of_once_and_let_go() -> None:
    """The end of a pipe to write to, whose other end is closed, is in error like the TUN of an interface that was deleted."""
    loop, happened = Loop(), []
    reads, writes = os.pipe()
    packets, host = os.pipe()
    tun.watch(loop, writes, lambda _events: happened.append("ready"), lambda: happened.append("gone"))
    tun.watch(loop, packets, lambda _events: happened.append(os.read(packets, 100).decode()), lambda: happened.append("other gone"))
    os.write(host, b"one")
    loop.turn()
    os.close(reads)
    for _ in range(3):
        loop.soon(lambda: None)
        loop.turn()
    os.write(host, b"two")
    loop.turn()
    assert happened == ["one", "gone", "two"]
    loop.close()
    for descriptor in (writes, packets, host):
        os.close(descriptor)
