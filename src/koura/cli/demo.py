"""`koura demo`: protected traffic, told as a story, on whatever this machine and this user allow."""

import signal
import textwrap
from collections.abc import Callable

import click
from rich.console import Console
from rich.text import Text

from koura.cli import demo_live, demo_rootless, demo_sim, story
from koura.cli.demo_parts import CannotShow
from koura.cli.main import DONE, Failed
from koura.sim.demo import Act

_Play = Callable[[Callable[[Act], None], Callable[[], None]], None]


@click.command("demo")
@click.option("--sim", "is_simulated", is_flag=True, help="The simulator: four machines in virtual time, more to see, files to look into.")
@click.option("--rootless", is_flag=True, help="What an ordinary user gets, as root too.")
@click.option("--output", "directory", metavar="DIR", default="demo-output", show_default=True, help="where the simulator's files go")
def command(is_simulated: bool, rootless: bool, directory: str) -> int:
    """Protected traffic between two hosts, what the wire sees of it, and what a stranger gets refused for.

    Who may make network namespaces sees real ones, with ping and tcpdump; an ordinary user rootless mode; and where neither can be, the
    simulator plays. A line says which, and why. Nothing of this machine's own network is touched.
    """
    console = story.console()
    console.print(Text("koura demo", style="bold"), end=" ")
    if not is_simulated:
        end = _End()
        why: list[str] = []
        plays: list[tuple[str, str, _Play]] = [
            ("on two network namespaces of this machine, with real ping", demo_live.MAP, demo_live.play),
            ("rootless: two programs in namespaces of their own", demo_rootless.MAP, demo_rootless.play),
        ]
        for where, shape, play in plays[rootless:]:
            try:
                return _live(console, (where, shape), play, end, why)
            except CannotShow as error:
                why.append(str(error))
        console.print(Text(f"- in the simulator, because {'; and '.join(why)}", style=""), soft_wrap=True)
    demo_sim.play_simulated(console, directory)
    return DONE


class _End:
    """SIGINT and SIGTERM end it between two steps: an exception out of the handler may be lost, if Python just forks."""

    def __init__(self) -> None:
        self._is_wanted = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)

    def _signalled(self, _number: int, _frame: object) -> None:
        self._is_wanted = True

    def look(self) -> None:
        """Raises KeyboardInterrupt if it is to end."""
        if self._is_wanted:
            raise KeyboardInterrupt


def _live(console: Console, head: tuple[str, str], play: _Play, end: _End, why: list[str]) -> int:
    """One that is played for real. Raises CannotShow, if nothing was shown yet."""
    acts: list[Act] = []

    def curtain(act: Act) -> None:
        if not acts:
            because = f" (not as root: {why[0]})" if why else ""
            console.print(Text(f"- {head[0]}{because}"), soft_wrap=True)
            console.print(f"\n{textwrap.indent(head[1], '  ')}\n")
        acts.append(act)
        story.tell(console, len(acts), act)

    try:
        play(curtain, end.look)
    except CannotShow as error:
        if not acts:
            raise
        raise Failed(f"{error}; koura demo --sim shows more") from error
    console.print("All of it is gone again. koura demo --sim shows AH, IPComp and bundles,")
    console.print("and writes captures to look into.")
    if not all(row.is_good for act in acts for row in act.rows):
        raise Failed("something above is not as it must be; please report it")
    return DONE
