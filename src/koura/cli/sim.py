"""`koura sim`: random worlds from seeds, with all checks; a seed that fails is told as a story. docs/python.md."""

from pathlib import Path

import click

from koura.cli.main import DONE, Failed
from koura.errors import Bug
from koura.sim.checks import Broken
from koura.sim.run import Report, Run
from koura.sim.story import Story
from koura.sim.world import Frame
from koura.wire import capture

_LAST_LINES = 40


@click.command("sim")
@click.option("--seed", type=click.IntRange(0), help="one seed, told as a story")
@click.option("--seeds", metavar="FROM:TO", default="0:20", show_default=True, help="run these seeds, the last one left out")
@click.option("-v", "--verbose", is_flag=True, help="with --seed: everything, not the last lines and not only what went wrong")
@click.option("-o", "--output", "target", metavar="FILE.pcap", help="with --seed: what was on the links with strangers")
def command(seed: int | None, seeds: str, verbose: bool, target: str | None) -> int:
    """Run random worlds: links that lose and damage, strangers, NATs, rekeys; every check at every step.

    A seed is a run: what a seed did once it does again, on every machine.
    """
    if seed is not None:
        return _tell(seed, verbose, target)
    if verbose or target:
        raise click.UsageError("--verbose and --output go with --seed")
    first, last = _range(seeds)
    failed = []
    for number in range(first, last):
        try:
            report = Run(number).go()
        except (Broken, Bug) as fault:
            failed.append(number)
            click.echo(f"{number:6}  FAILED  {fault}")
        else:
            click.echo(f"{number:6}  holds   {report.plan.shape.value}: {' + '.join(str(step).split()[0] for step in report.plan.steps)}")
    if failed:
        raise Failed(f"{len(failed)} of {last - first} seeds failed; see koura sim --seed {failed[0]}")
    click.echo(f"all checks hold in {last - first} seeds")
    return DONE


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise click.BadParameter(f"{text!r} is no range such as 0:20", param_hint="--seeds")
    return int(first), int(last)


def _tell(seed: int, is_full: bool, target: str | None) -> int:
    """One seed: its plan, what happened, what came of it."""
    story = Story(is_full=is_full)
    run = Run(seed, story=story)
    frames: list[Frame] = []
    if target is not None:
        run.scene.world.watch_frame.append(lambda frame: frames.append(frame) if frame.link.is_outside else None)
    click.echo(f"{run.plan}\n")
    report: Report | None = None
    fault = ""
    try:
        report = run.go()
    except (Broken, Bug) as broken:
        fault = str(broken)
    if target is not None:
        _write(target, frames)
    for at_ns, line in run.keys.log:
        story.note(at_ns, f"keys: {line}")
    for line in story.told(0 if is_full else _LAST_LINES):
        click.echo(line)
    if report is None:
        raise Failed(fault)
    click.echo(f"\n{report.steps} steps, {report.sent} packets sent, {report.arrived} arrived, {report.struck} by strangers")
    for name, count in sorted(report.ends.items()):
        click.echo(f"  {count:6}  {name}")
    click.echo("all checks hold")
    return DONE


def _write(target: str, frames: list[Frame]) -> None:
    try:
        with Path(target).open("wb") as file:
            writer = capture.Writer(file)
            for frame in frames:
                writer.write(frame.at.ns, frame.packet)
    except OSError as error:
        raise Failed(f"{target}: {(error.strerror or 'cannot be written').lower()}") from error
