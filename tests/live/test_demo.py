"""`koura demo` as a stranger sees it: real namespaces, rootless, the simulator; what is missing is said; nothing is left behind."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from koura.daemon.launch import short
from tests.live.kit.namespaces import why_not
from tests.live.test_rootless import PATHS, USER, _python
from tests.live.test_rootless import _why_not as why_not_rootless

pytestmark = pytest.mark.live
PATIENCE_S = 300
ROOT_ONLY = pytest.mark.skipif(bool(why_not()), reason=why_not())
MISSING = [name for name in ("nsenter", "ping", "tcpdump", "nft") if shutil.which(name) is None]
TOOLS = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)} here")


def _demo(*words: str, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "koura", "demo", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, env=env, stdin=subprocess.DEVNULL)


def _marked(mark: str) -> list[int]:
    """Processes that have the mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            octets = path.read_bytes()
        except OSError:
            continue
        if mark.encode() in octets:
            found.append(int(path.parent.name))
    return found


def _path_without(folder: Path, *names: str) -> str:
    """A directory with everything of PATH in it but these."""
    folder.mkdir()
    for where in os.environ["PATH"].split(os.pathsep):
        for one in Path(where).iterdir() if Path(where).is_dir() else ():
            if one.name not in names and not (folder / one.name).exists():
                (folder / one.name).symlink_to(one)
    return str(folder)


@ROOT_ONLY
@TOOLS
def test_as_root_it_is_told_on_real_namespaces_with_tcpdump() -> None:
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    done = _demo()
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("on two network namespaces of this machine, with real ping", "tcpdump -lnti enc0", "ESP(spi=0x00001001,seq=0x1)",
                 "3 answers", "all ESP", "refused by the guard", "refused: esp.replay", "refused: esp.icv"):  # fmt: skip
        assert said in done.stdout, done.stdout + done.stderr
    enc, wire = (next(line for line in done.stdout.splitlines() if line.strip().startswith(f"{name}  1")) for name in ("enc0", "wire"))
    assert "ICMP echo request" in enc and wire, done.stdout
    assert " ! " not in done.stdout
    assert subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout == links


@ROOT_ONLY
@TOOLS
def test_without_tcpdump_and_nft_the_story_is_the_same_and_says_so(tmp_path: Path) -> None:
    done = _demo(env=os.environ | {"PATH": _path_without(tmp_path / "bin", "tcpdump", "nft")})
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("koura capture (tcpdump cannot be used here):", "esp 0x00001001", "icmp 8,0", "no nft here", "refused: esp.replay"):
        assert said in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(bool(why_not_rootless()), reason=why_not_rootless())
def test_an_ordinary_user_gets_rootless_mode_and_is_told_why(tmp_path: Path) -> None:
    command = [*USER, "env", f"PYTHONPATH={PATHS}", f"HOME={tmp_path}", "XDG_RUNTIME_DIR=", _python(), "-m", "koura", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False, stdin=subprocess.DEVNULL, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("two programs in namespaces of their own (not as root:", "all ESP in UDP", "refused: esp.replay", "refused: esp.icv"):
        assert said in done.stdout, done.stdout + done.stderr


def test_where_nothing_real_can_be_the_simulator_plays_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    done = _demo("--output", str(tmp_path / "out"), env=os.environ | {"PATH": str(tmp_path / "bin")})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in the simulator, because there is no nsenter here (Debian: util-linux); and there is no ping here" in done.stdout
    assert (tmp_path / "out" / "1-a.conf").exists()


@ROOT_ONLY
@TOOLS
def test_interrupted_it_leaves_no_process_and_no_file() -> None:
    mark = f"KOURA_DEMO_TEST={uuid.uuid4()}"
    name, _, value = mark.partition("=")
    command = [sys.executable, "-u", "-m", "koura", "demo"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {name: value}) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "answers" in line:  # the daemons start now
                break
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=PATIENCE_S)
    assert demo.returncode == 130, out + err
    assert "Traceback" not in err
    assert _marked(mark) == []
    assert not list(Path(short() or tempfile.gettempdir()).glob(f"koura-demo-{demo.pid}-*"))
