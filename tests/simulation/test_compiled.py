import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from darklens.simulation import BLOCK, Simulator, compiled, load_preset
from darklens.simulation.columns import select
from darklens.simulation.compiled import fused_light, kernels_compile
from darklens.simulation.draw import draw_block
from darklens.simulation.library import resolve_preset

compiles = pytest.mark.skipif(
    "mutants" in Path(__file__).parts,
    reason="mutmut's calls of mutants take minutes to compile; others test the fusion",
)


def apart(simulator, images, others, rows):
    """Largest difference of images in σ of their noise: kernels sample adaptively as the noise needs, others evenly."""
    return ((images - others)[:, 0].abs() / simulator.noise_sigma(rows, others[:, 0])).max()


@compiles
def test_compiled_kernels_agree_with_eager_ones():
    for name in ("model-1", "fair-hst"):
        eager, compiled = Simulator(name, seed=2), Simulator(name, seed=2, compile=True)
        (a, rows), (b, _) = (next(iter(s.blocks(BLOCK, noise=False))) for s in (eager, compiled))
        if eager.preset.adaptive:
            assert apart(eager, b, a, rows) < 0.4
        else:
            assert (a - b).abs().max() < 3e-4 * a.max(), name


@compiles
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


def preset_of(name, **changes):
    return load_preset(resolve_preset(name) | {"name": "small", "pixels": 24, "conserve_mass": False} | changes)


SERSIC = {"magnitude": 22, "R_sersic": {"uniform": [0.2, 0.4]}, "n_sersic": {"uniform": [0.8, 3]}, "e1": 0.1, "y": 0.05}
SUBHALOS = {"a": {}, "b": {"subhalos": {"profile": "sis", "mean_count": 3, "mass": 1e9}}}


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize(
    ("name", "changes"),
    [("model-1", {}), ("fair-hst", {}), ("fair-hst", {"source": SERSIC}), ("fair-hst", {"classes": SUBHALOS})],
    ids=["published", "fair", "index", "spheres"],
)
def test_fused_light_is_that_of_the_catalog(name, changes):
    """Before it is compiled: with one deflector for all images and one for each, with and without substructure."""
    preset = preset_of(name, **changes)
    images, rows = next(iter(Simulator(preset, 3, compile=True).blocks(BLOCK, noise=False, threads=1)))
    assert compiled._ready, "the kernel was used"
    plain = Simulator(preset, 3).block(0, noise=False)[0]
    if preset.adaptive:
        assert apart(Simulator(preset, 3), images, plain, rows) < 0.4
    else:
        assert (images - plain).abs().max() < 1e-4 * plain.max()
    assert len(rows["id"]) == BLOCK


@pytest.mark.usefixtures("not_compiled")
def test_what_is_not_fused_is_left_to_the_plain_way(tmp_path, monkeypatch):
    (tmp_path / "f.py").write_text("def still(x, y, x0, y0):\n    return 0 * x * x0, 0 * y * y0\n")
    own = {"a": {}, "b": {"subhalos": {"profile": f"{tmp_path}/f.py:still", "count": 1, "parameters": {}}}}
    power_law = resolve_preset("fair-hst")["deflector"] | {"profile": "epl"}
    image = {"profile": "image", "images": "g.npy", "magnitude": 20}
    x = torch.zeros(1, 2, 2)

    def fused(label, **changes):
        content = resolve_preset("fair-hst") | {"conserve_mass": False} | changes
        preset = load_preset(content, trust_code=True)
        rows = draw_block(preset, 1, 0)
        return fused_light(preset, label, select(rows, np.flatnonzero(rows["label"] == label)), x, x)

    both = {"a": {}, "b": SUBHALOS["b"] | {"vortex": resolve_preset("fair-hst")["classes"]["axion"]["vortex"]}}
    assert fused("no_sub").shape == (22, 2, 2)
    assert fused("b", classes=both) is None
    assert fused("a", classes=own).shape == (32, 2, 2)
    assert fused("b", classes=own) is None
    assert fused("no_sub", deflector=power_law) is None
    assert fused("no_sub", source=image) is None
    kernels_compile.cache_clear()
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.warns(
        UserWarning, match="^no C\\+\\+ compiler found: simulating without compiled kernels, several times sl"
    ):
        assert fused("no_sub") is None
    assert fused("no_sub") is None, "and does not warn again"


@pytest.mark.usefixtures("not_compiled")
@pytest.mark.parametrize("found", ["g++", "clang++", "/opt/own"])
def test_any_of_the_usual_compilers_will_do(found, monkeypatch):
    monkeypatch.setenv("CXX", "/opt/own")
    monkeypatch.setattr("shutil.which", lambda name: name if name == found else None)
    assert kernels_compile("cpu")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert kernels_compile("cuda"), "a GPU needs none"


@pytest.mark.usefixtures("not_compiled")
def test_kernels_that_fail_are_given_up_with_a_warning(monkeypatch):
    def fails(function, **_):
        def kernel(*arguments):
            raise torch._dynamo.exc.TorchDynamoException("no such operation\nmore of it")

        return kernel

    monkeypatch.setattr(torch, "compile", fails)
    preset = preset_of("fair-hst")
    simulator = Simulator(preset, 3, compile=True)
    with pytest.warns(UserWarning, match="^no such operation: simulating without"):
        images, rows = simulator.block(0, noise=False)
    plain = Simulator(preset, 3).block(0, noise=False)[0]
    assert apart(simulator, images, plain, rows) < 0.4
    assert not kernels_compile("cpu")
    assert not kernels_compile("cuda")
