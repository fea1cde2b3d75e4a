import os
import subprocess
import sys

import pytest

from darklens.simulation import BLOCK, Simulator


def test_compiled_kernels_agree_with_eager_ones():
    for name in ("model-1", "fair-hst"):
        eager, compiled = Simulator(name, seed=2), Simulator(name, seed=2, compile=True)
        a, b = (next(iter(s.blocks(BLOCK, noise=False)))[0] for s in (eager, compiled))
        assert (a - b).abs().max() < 3e-4 * a.max(), name


@pytest.mark.parametrize(("name", "value"), [("CXX", "false"), ("PATH", "")])
def test_without_a_working_compiler_images_are_made_all_the_same(name, value, tmp_path):
    code = (
        "from darklens.simulation import Simulator\n"
        "from darklens.simulation.library import resolve_preset\n"
        "small = resolve_preset('model-3') | {'pixels': 20}\n"
        "fast, slow = Simulator(small, compile=True), Simulator(small)\n"
        "a, b = (next(iter(s.blocks(64)))[0] for s in (fast, slow))\n"
        "assert (a == b).all()\n"
    )
    environment = os.environ | {name: value, "XDG_CACHE_HOME": str(tmp_path), "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "simulating without compiled kernels" in done.stderr
