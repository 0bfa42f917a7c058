"""Machines that do not let `koura run` intercept: it says what is missing and what to do, in one line, and ends with 77."""

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from koura.intercept import launch
from koura.intercept.abi import machine
from tests.live.kit.engine import Engine
from tests.live.kit.programs import command, ended, why_not

pytestmark = pytest.mark.live
PROCESS_VM_READV = {"x86_64": 310, "aarch64": 270, "riscv64": 270}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    if why := why_not():
        pytest.skip(why)
    with Engine(tmp_path) as made:
        yield made


def refusal(engine: Engine, rules: str) -> str:
    """The one line that it says; the program must not have run."""
    words = command(engine.directory, "sh", "-c", "echo ran")
    program = ended([sys.executable, "-m", "tests.live.kit.forbidden", rules, *words])
    assert (program.returncode, program.stdout) == (77, ""), program.stderr
    assert program.stderr.count("\n") == 1
    return program.stderr


def numbers() -> tuple[int, int, int, int]:
    here = machine()
    assert here is not None
    import platform

    return here.seccomp, here.pidfd_open, here.pidfd_getfd, PROCESS_VM_READV[platform.machine()]


def test_a_container_that_forbids_seccomp(engine: Engine) -> None:
    assert "allow seccomp" in refusal(engine, f"{numbers()[0]}:{errno.EPERM}")


def test_a_kernel_without_user_notification(engine: Engine) -> None:
    assert "Linux 5.14" in refusal(engine, f"{numbers()[0]}:{errno.ENOSYS}")


def test_a_supervisor_that_is_there_already(engine: Engine) -> None:
    assert "another supervisor" in refusal(engine, "notify")


@pytest.mark.parametrize("place", [1, 2, 3], ids=["pidfd_open", "pidfd_getfd", "process_vm_readv"])
def test_a_container_that_forbids_reading_a_child(engine: Engine, place: int) -> None:
    assert "allow ptrace" in refusal(engine, f"{numbers()[place]}:{errno.EPERM}")
    assert "lacks process_vm_readv, pidfd_open or pidfd_getfd" in refusal(engine, f"{numbers()[place]}:{errno.ENOSYS}")


@pytest.mark.parametrize(("scope", "word"), [("2", "set it to 1"), ("3", "set it to 1"), ("1", "allow ptrace"), (None, "allow ptrace")])
def test_yama_is_named_where_it_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str | None, word: str) -> None:
    setting = tmp_path / "ptrace_scope"
    if scope is not None:
        setting.write_text(scope + "\n")
    monkeypatch.setattr(launch, "YAMA", setting)
    assert word in launch._why_no_access(errno.EPERM)
