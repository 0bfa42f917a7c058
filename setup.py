"""Builds the optional fast path: what cannot be built is left out, and said in one line. All else is in pyproject.toml."""

import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

ROOM = Path("src/koura/fast")
FLAGS = ["-O3", "-fno-strict-aliasing", "-Wno-unused-function"]
FAILURES = (BaseError, CCompilerError, OSError)
WANTED = {
    "_burst": ("", []), "_measure": ("", []), "_io": ("linux/if_tun.h", []), "_bump": ("linux/if_packet.h", []),
    "_mb": ("intel-ipsec-mb.h", ["IPSec_MB"]),
    "_crypto": ("openssl/evp.h", ["crypto"]),
}


def say(line: str) -> None:
    sys.stderr.write(f"koura: {line}\n")


class Optional(build_ext):
    """Probes each extension's header first; a compiler that fails costs the fast path and nothing else."""

    def build_extensions(self) -> None:
        self.extensions = [extension for extension in self.extensions if self._has_header(extension)]
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        try:
            super().build_extension(ext)
        except FAILURES as error:  # whatever a compiler does wrong: the reference answers then
            say(f"no {ext.name}: {str(error).splitlines()[0]}")

    def _has_header(self, ext: Extension) -> bool:
        header, _ = WANTED[ext.name.rpartition(".")[2]]
        if not header:
            return True
        with tempfile.TemporaryDirectory() as folder:
            probe = Path(folder) / "probe.c"
            probe.write_text(f"#include <{header}>\n")
            try:
                self.compiler.compile([str(probe)], output_dir=folder, include_dirs=ext.include_dirs)
            except FAILURES:  # no compiler, or no such header
                say(f"no {ext.name}: {header} is not here")
                return False
        return True


def extensions() -> list[Extension]:
    if os.environ.get("KOURA_NO_FAST") or platform.machine() not in ("x86_64", "AMD64", "aarch64"):
        return []
    if shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None:
        say("no compiler here: the reference works alone")
        return []
    try:
        from Cython.Build import cythonize
    except ImportError:
        say("no Cython here: the reference works alone")
        return []
    sanitize = ["-fsanitize=address,undefined", "-g", "-O1"] if os.environ.get("KOURA_SANITIZE") else []
    made = [
        Extension(
            f"koura.fast.{name}", [str(ROOM / f"{name}.pyx")], libraries=libraries,
            extra_compile_args=FLAGS + sanitize, extra_link_args=sanitize[:1], optional=True,
        )
        for name, (_, libraries) in WANTED.items() if (ROOM / f"{name}.pyx").exists()
    ]  # fmt: skip
    return cythonize(made, include_path=["src"], compiler_directives={"language_level": "3"}, quiet=True)


setup(ext_modules=extensions(), cmdclass={"build_ext": Optional})
