"""What `pip install` does besides copying: it compiles `keras_spectral/compiled`.

The compiler is Zig's, which pip installs for the build: none has to be there.
"""

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "keras_spectral/compiled"
LIBRARY = f"{FOLDER}/compiled.so"
GLIBC = "2.17"
"""The oldest that a wheel for Linux runs with: manylinux2014."""

OPTIONS = [
    "-mcpu=baseline",  # what this processor has more is found when it runs: others may lack it
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fPIC",
    "-shared",
    "-s",
    "-Wall",
]


class CompileC(BuildHookInterface):
    """Hatchling's build hook."""

    def initialize(self, version, build_data):
        """Compile, and tell Hatchling that the wheel belongs to this platform.

        Where there is no compiler, or it fails, the package is built without: NumPy does the same.

        Args:
            version: Of the kind of wheel.
            build_data: Dictionary that describes the wheel.
        """
        del version
        library = Path(self.root, LIBRARY)
        try:
            compiled = _compiled(Path(self.root, FOLDER))
        except (OSError, subprocess.CalledProcessError) as error:
            library.unlink(missing_ok=True)
            self.app.display_warning(
                f"keras_spectral is installed without its compiled functions ({error}). Spectra "
                "are the same; small networks and convolutions take longer to record."
            )
            return
        library.unlink(missing_ok=True)  # some process may have it open
        library.write_bytes(compiled)
        build_data["artifacts"].append(LIBRARY)
        build_data.update(pure_python=False, tag=f"py3-none-{_platform_tag()}")


def _compiled(folder):
    """Return the bytes of the library.

    Args:
        folder: Folder with the sources.
    """
    with tempfile.TemporaryDirectory() as cache:
        places = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        target = ["-target", f"{_machine()}-linux-gnu.{GLIBC}"] if _is_linux() else []
        library = Path(cache, "compiled.so")
        command = [sys.executable, "-m", "ziglang", "cc", *target, *OPTIONS, "-o", library]
        command += sorted(folder.glob("*.c"))
        subprocess.run(command, check=True, env={**os.environ, **places})
        return library.read_bytes()


def _platform_tag():
    if _is_linux():
        return f"manylinux_{GLIBC.replace('.', '_')}_{_machine()}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _is_linux():
    return sys.platform == "linux" and platform.libc_ver()[0] == "glibc"


def _machine():
    return platform.machine()
