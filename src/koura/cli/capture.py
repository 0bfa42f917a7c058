"""`koura capture`: packets as enc(4) sees them, in clear and on the wire, live. docs/capture.md."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from koura.cli.engine import control, socket_option
from koura.cli.main import Failed
from koura.client import keys as keysockets
from koura.client import wireshark
from koura.client.tap import Packet, Tap
from koura.replay import describe
from koura.wire import pcapng
from koura.wire.capture import ENC, RAW

PRIVATE = 0o600


@click.command("capture")
@socket_option
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write pcapng there (-: stdout), for Wireshark and tcpdump.")
@click.option("-c", "--count", type=click.IntRange(min=1), help="End after so many packets at enc(4).")
@click.option("--wire/--no-wire", default=True, help="Show what is on the wire, too [yes].")
@click.option("--esp-sa", "esp_sa", type=click.Path(path_type=Path), help="Write Wireshark's table of SAs there; it has the keys in it.")
def command(directory: str | None, output: Path | None, count: int | None, wire: bool, esp_sa: Path | None) -> None:
    """Show protected packets in clear as they pass, with the same packet on the wire; end with SIGINT or -c.

    What is shown is said by net.enc.in.ipsec_bpf_mask and net.enc.out.ipsec_bpf_mask.
    """
    with _destination(output) as sink, control(directory) as connection:
        tap = Tap(connection)
        if esp_sa is not None:
            _write_table(esp_sa, directory)
        shown = 0
        writer = pcapng.Writer(sink) if sink is not None else None
        click.echo(f"koura capture: looking at {connection.directory}; end with ^C", err=True)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            for packet in tap.packets():
                shown += not packet.is_wire
                if wire or not packet.is_wire:
                    _show(packet, writer)
                if sink is not None:
                    sink.flush()
                if count is not None and shown >= count and (packet.is_wire or not wire or not packet.is_outbound):
                    return
        except KeyboardInterrupt:
            return
        finally:
            click.echo(f"koura capture: {shown} packets, {tap.lost} lost", err=True)
        raise Failed("the engine ended")


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _show(packet: Packet, writer: pcapng.Writer | None) -> None:
    if writer is None:
        click.echo(f"{describe.time(packet.at_ns)} #{packet.link} {packet.where:<11} {describe.packet(packet.octets)}")
        sys.stdout.flush()
        return
    comment = f"packet {packet.link}, {packet.where}, SPI 0x{packet.spi:08x}".encode()
    if packet.is_wire:
        writer.write(packet.at_ns, RAW, packet.octets, comment, interface=b"wire")
    else:
        writer.write(packet.at_ns, ENC, packet.as_enc(), comment, interface=b"enc0")


@contextmanager
def _destination(output: Path | None) -> Iterator[BinaryIO | None]:
    """Where pcapng goes. It shows what was meant to be secret: nobody else may read it."""
    if output is None:
        yield None
    elif str(output) == "-":
        yield sys.stdout.buffer
    else:
        with _private(output) as file:
            yield file


def _private(path: Path) -> BinaryIO:
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE), "wb")
    except OSError as error:
        raise Failed(f"{path}: {error.strerror}") from error


def _write_table(path: Path, directory: str | None) -> None:
    with keysockets.connect(directory) as keys:
        text, unknown = wireshark.table(entry.agreement for entry in keys.dump())
    with _private(path) as file:
        file.write(text.encode())
    for one in unknown:
        click.echo(f"koura capture: Wireshark does not know the SA {one}", err=True)


