"""`koura demo --sim`: the simulator's four machines, told on a terminal, with the files to look into."""

import shutil
import sys
import textwrap
from pathlib import Path

from rich.console import Console
from rich.text import Text

from koura.cli import story
from koura.cli.main import Failed
from koura.sim.demo import Act, play
from koura.wire import capture

_MAP = """\
    h ------- a ======= the internet ======= b ------- k
10.1.0.1  198.51.100.1                  203.0.113.1  10.2.0.1"""


def play_simulated(console: Console, directory: str) -> None:
    """The whole of it. Raises Failed."""
    folder = Path(directory)
    _write(folder)
    written: list[str] = []
    console.print("- four machines, each with a stack of its own, in virtual time")
    console.print(f"\n{textwrap.indent(_MAP, '  ')}\n")
    acts: list[Act] = []

    def curtain(act: Act) -> None:
        acts.append(act)
        story.tell(console, len(acts), act)
        written.extend(_write(folder, act))

    is_good = play(curtain)
    _close(console, folder, written)
    if not is_good:
        raise Failed("something above is not as it must be; please report it with the files")


def _write(folder: Path, act: Act | None = None) -> list[str]:
    """The folder, and an act's captures and scripts in it; their names. Raises Failed."""
    names = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if act is not None:
            for name, records in act.captures.items():
                with (folder / name).open("wb") as file:
                    writer = capture.Writer(file)
                    for at_ns, packet in records:
                        writer.write(at_ns, packet)
                names.append(name)
            for name, text in act.scripts.items():
                (folder / name).write_text(text)
                names.append(name)
    except OSError as error:
        why = (error.strerror or "cannot be written").lower()
        raise Failed(f"{error.filename or folder}: {why}; choose another place with --output") from error
    return names


def _close(console: Console, folder: Path, names: list[str]) -> None:
    captures = [name for name in names if name.endswith(".pcap")]
    console.print(Text(f"{len(captures)} captures and {len(names) - len(captures)} scripts are in {folder}/", style="bold"), soft_wrap=True)
    console.print(Text("Look at the wire, then open it with the keys:"))
    lines = (
        f"tcpdump -nr {folder}/1-esp-tunnel-wire.pcap | head",
        f"{_own_name()} replay -f {folder}/1-b.conf --in \\",
        f"    {folder}/1-esp-tunnel-wire.pcap opened.pcap",
    )
    for line in lines:
        console.print(f"   {line}", markup=False, soft_wrap=True)


def _own_name() -> str:
    """How to call this program from here: by name where that is found, else as it was called."""
    called = Path(sys.argv[0])
    return "koura" if called.name != "koura" or shutil.which("koura") else str(called)
