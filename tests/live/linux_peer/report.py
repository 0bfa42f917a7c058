"""Writes docs/interop.md: the whole matrix, measured now. `make interop`; needs what the live tests need.

    python -m tests.live.linux_peer.report [FILE]
"""

import platform
import sys
import tempfile
from pathlib import Path

from koura import __version__
from tests.live.linux_peer import headers, matrix, peer, rig
from tests.live.linux_peer.matrix import Case
from tests.live.linux_peer.rig import MEASURES, Rig

HEAD = """# Interoperation with Linux

Written by `make interop`; not by hand. Koura {version} in host mode on one end of a wire, the IPsec of Linux {kernel} (user-mode-linux)
on the other. All {count} pairs of addresses stand at once, in one engine and one kernel. A pass is: three pings answered; three of
8000 octets, in fragments; TCP (iperf3, 256 KiB) and UDP (36 KiB, no datagram lost) each way. Sequence numbers of "ESN past 2^32" begin
15 below the edge.

| what | mode | family | {measures} |
|---|---|---|{rules}|
"""
HEADERS = """
## Headers that few packets have

UDP to a server in the peer, which answers with the same headers; a pass is: both kernels gave their programs the headers that were sent
(addresses and times recorded by them, of course). Source routes and segment lists lead through the peer itself.

| header | what | mode | family | result |
|---|---|---|---|---|
"""
NOTES = """
{failed} of {total} measurements failed.

## What is Linux's way

- AH over IPv4 is padded to 8 octets, where RFC 4302 §3.3.3.2.1 says 4, unless the state has `flag align4`: give our SA `-align 8`, as here.
- Neighbour discovery is protected like other ICMPv6. With policies for all protocols between neighbours a kernel cannot find its peer;
  policies in front that allow types 135 and 136 cure it. Koura lets neighbour discovery pass by itself.
- ESP in UDP in transport mode: the datagram itself must be allowed by a policy, too, and a socket with UDP_ENCAP must be there.
- IPComp leaves small payloads uncompressed, and sends them as plain IP in IP from a tunnel; its inbound templates need `level use`.
- AH inside transport mode ESP is refused on receipt (XfrmInStateProtoError); ESP inside AH, the usual order, works.
- The packets of a tunnel over IPv6 may come with a fragment header though they are whole (RFC 6946).
"""


def main(file: str = "docs/interop.md") -> int:
    why = peer.why_not()
    if why:
        sys.stderr.write(f"interop: {why}\n")
        return 1
    cases = matrix.cases()
    with tempfile.TemporaryDirectory() as folder, rig.running(Path(folder), cases) as running:
        rows = [_row(running, case) for case in cases]
        headers.prepare(running)
        others = [
            [name, case.title, case.mode, f"IPv{case.family}", wrong or "ok"]
            for case in headers.CASES for name, wrong in headers.tell(running, case).items()
        ]  # fmt: skip
        others.sort(key=lambda row: (row[3], row[0]))
        kernel = running.peer.run("uname -r").strip()
    failed = sum(cell != "ok" for row in (*(row[3:] for row in rows), *(row[4:] for row in others)) for cell in row)
    text = HEAD.format(
        version=__version__, kernel=kernel, count=len(cases), measures=" | ".join(MEASURES), rules="---|" * (len(MEASURES) - 1) + "---",
    )  # fmt: skip
    text += _table(rows) + HEADERS + _table(others) + NOTES.format(failed=failed, total=len(rows) * len(MEASURES) + len(others))
    Path(file).write_text(text)
    sys.stdout.write(f"{file}: {failed} failed, on {platform.system()} {platform.release()}\n")
    return 0 if not failed else 1


def _table(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _row(running: Rig, case: Case) -> list[str]:
    cells = []
    for what in MEASURES:
        cells.append(running.measure(case, what) or "ok")
    return [case.title, case.mode, f"IPv{case.family}", *cells]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
