"""`koura demo`: the simulator's four machines, told on a terminal, with the files to look into."""

import shutil
import sys
import textwrap
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from koura.cli.main import DONE, Failed
from koura.sim.demo import Act, play
from koura.wire import capture

WIDTH = 80
_MAP = """\
    h ------- a ======= the internet ======= b ------- k
10.1.0.1  198.51.100.1                  203.0.113.1  10.2.0.1"""


@click.command("demo")
@click.option("--output", "directory", metavar="DIR", default="demo-output", show_default=True, help="where the files go")
def command(directory: str) -> int:
    """Two hosts and two gateways, protected traffic end to end, and what a stranger gets refused for.

    Nothing leaves this process: the machines, their links and their time are simulated, the IPsec is the real one.
    """
    console = Console(highlight=False, soft_wrap=False)
    console.width = min(console.width, WIDTH)
    folder = Path(directory)
    _write(folder)
    written: list[str] = []
    console.print(Text("koura demo", style="bold"), "- four machines, each with a stack of its own, in virtual time")
    console.print(f"\n{textwrap.indent(_MAP, '  ')}\n")
    acts: list[Act] = []

    def curtain(act: Act) -> None:
        acts.append(act)
        _tell(console, len(acts), act)
        written.extend(_write(folder, act))

    is_good = play(curtain)
    _close(console, folder, written)
    if not is_good:
        raise Failed("something above is not as it must be; please report it with the files")
    return DONE


def _tell(console: Console, number: int, act: Act) -> None:
    """One act."""
    console.print(Text(f"{number}. {act.title}", style="bold cyan"))
    _say(console, act.sentence, 3)
    if act.excerpt:
        console.print()
        for line in act.excerpt.splitlines():
            console.print(Text(" " * 5 + line, style="dim"))
    console.print()
    width = max(len(row.what) for row in act.rows)
    for row in act.rows:
        told = Text("   + " if row.is_good else "   ! ", style="bold green" if row.is_good else "bold red")
        told.append(f"{row.what:<{width}}", style="not bold default")
        told.append(f"  {row.result}", style="bold default" if row.is_good else "bold red")
        console.print(told)
        if row.detail:
            _say(console, row.detail, 7, "dim")
    console.print()


def _say(console: Console, sentence: str, indent: int, style: str = "") -> None:
    """A sentence in lines; nothing behind their ends."""
    for line in textwrap.wrap(sentence, console.width - indent):
        console.print(Text(" " * indent + line, style=style))


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
