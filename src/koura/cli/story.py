"""How a demonstration is told on a terminal: acts with a title, a sentence, what was seen, and rows that say what came of it."""

import textwrap

from rich.console import Console
from rich.text import Text

from koura.sim.demo import Act

WIDTH = 80


def console() -> Console:
    made = Console(highlight=False, soft_wrap=False)
    made.width = min(made.width, WIDTH)
    return made


def tell(console: Console, number: int, act: Act) -> None:
    """One act."""
    console.print(Text(f"{number}. {act.title}", style="bold cyan"))
    say(console, act.sentence, 3)
    if act.excerpt:
        console.print()
        for line in act.excerpt.splitlines():
            console.print(Text(f"     {line}".rstrip(), style="dim"), soft_wrap=True)
    console.print()
    width = max(len(row.what) for row in act.rows)
    for row in act.rows:
        told = Text("   + " if row.is_good else "   ! ", style="bold green" if row.is_good else "bold red")
        told.append(f"{row.what:<{width}}", style="not bold default")
        told.append(f"  {row.result}", style="bold default" if row.is_good else "bold red")
        console.print(told)
        if row.detail:
            say(console, row.detail, 7, "dim")
    console.print()


def say(console: Console, sentence: str, indent: int, style: str = "") -> None:
    """A sentence in lines; nothing behind their ends."""
    for line in textwrap.wrap(sentence, console.width - indent):
        console.print(Text(" " * indent + line, style=style))
