"""What `pip install` does besides copying: it compiles `keras_spectral/spectra/compiled`.

The compiler is Zig's, which pip installs for the build: none has to be there.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = "keras_spectral/spectra/compiled"
LIBRARY = f"{FOLDER}/compiled.so"
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

        Args:
            version: Of the kind of wheel.
            build_data: Dictionary that describes the wheel.
        """
        del version
        library = Path(self.root, LIBRARY)
        with tempfile.TemporaryDirectory() as cache:
            places = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
            compiled = Path(cache, library.name)
            sources = sorted(Path(self.root, FOLDER).glob("*.c"))
            command = [sys.executable, "-m", "ziglang", "cc", *OPTIONS, "-o", compiled, *sources]
            subprocess.run(command, check=True, env={**os.environ, **places})
            library.unlink(missing_ok=True)  # some process may have it open
            library.write_bytes(compiled.read_bytes())
        build_data["artifacts"].append(LIBRARY)
        build_data.update(pure_python=False, infer_tag=True)
