import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch.utils._python_dispatch import TorchDispatchMode

from darklens.errors import DataError, PresetError
from darklens.simulation import BLOCK, Simulator
from darklens.simulation import noise as simulation_noise
from darklens.simulation.library import resolve_preset


def test_blocks_are_the_rendered_catalog():
    simulator = Simulator("model-3-noisy", seed=4)
    images = torch.cat([images for images, _ in simulator.blocks(100, threads=2)])
    assert_array_equal(images, simulator.render(simulator.catalog(100)))


def test_images_do_not_depend_on_threads_or_start():
    simulator = Simulator("model-1", seed=4)
    serial = torch.cat([images for images, _ in simulator.blocks(3 * BLOCK, threads=1)])
    threaded = torch.cat([images for images, _ in simulator.blocks(2 * BLOCK, start=BLOCK, threads=2)])
    assert_array_equal(serial[BLOCK:], threaded)


def test_other_seeds_render_other_images():
    """And the same rows the same image without noise, whatever the seed."""
    first, second = (Simulator("model-3-noisy", seed) for seed in (1, 2))
    rows = first.catalog(3)
    flux = first.render(rows, noise=False)
    assert torch.equal(flux, second.render(rows, noise=False))
    sigma = first.noise_sigma(rows, flux[:, 0])
    other = second.render(second.catalog(3), noise=False)
    assert (((flux - other)[:, 0] / sigma).abs().amax((1, 2)) > 10).all()


def test_threads_of_the_caller_are_left_as_they_were():
    before = torch.get_num_threads()
    list(Simulator("model-3").blocks(BLOCK))
    assert torch.get_num_threads() == before


def test_rows_of_another_preset_are_refused():
    rows = Simulator("model-1").catalog(3)
    with pytest.raises(DataError, match="no column"):
        Simulator("model-1").render(rows.drop("theta_E"))
    classes = {"no_sub": {}, "cdm": resolve_preset("model-1")["classes"]["cdm"]}
    simulator = Simulator(resolve_preset("model-1") | {"classes": classes})
    with pytest.raises(DataError, match="'axion' is not a class"):
        simulator.render(rows)


def test_unusable_psf_is_refused(tmp_path):
    np.save(tmp_path / "even.npy", np.ones((4, 4)))
    preset = tmp_path / "psf.yaml"
    preset.write_text("extends: fair-hst\ninstrument: {psf_file: even.npy}\n")
    with pytest.raises(PresetError, match=r"even\.npy: a PSF needs two odd sides"):
        Simulator(preset)


class Operations(TorchDispatchMode):
    """Note the names of the operations on tensors."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def preset_of(name, tmp_path):
    """A preset of the package, or one with what these do not use: a power law, and images for source and PSF."""
    if name != "images":
        return resolve_preset(name)
    np.save(tmp_path / "galaxies.npy", np.random.default_rng(0).random((3, 20, 20)))
    np.save(tmp_path / "psf.npy", np.random.default_rng(0).random((5, 7)))
    content = resolve_preset("fair-hst")
    content["source"] = {"profile": "image", "images": str(tmp_path / "galaxies.npy"), "magnitude": 22}
    content["deflector"] = content["deflector"] | {"profile": "epl", "gamma": 2.1}
    content["instrument"] = content["instrument"] | {"psf_file": str(tmp_path / "psf.npy")}
    return content


@pytest.mark.parametrize("name", ["model-1", "model-2", "model-3-noisy", "fair-hst", "images"])
def test_a_device_never_waits_for_the_host_within_a_batch(name, tmp_path):
    """On the device "meta" there are no numbers that could be copied to the host: the attempt is an error."""
    simulator = Simulator(preset_of(name, tmp_path), device="meta")
    images, _ = simulator.block(0)
    assert images.device.type == "meta"
    expected = simulator.render(simulator.catalog(7), noise=False)
    assert simulator.noise_sigma(simulator.catalog(7), expected[:, 0]).device.type == "meta"


@pytest.mark.parametrize("name", ["model-1", "model-3-noisy", "fair-hst", "images"])
def test_a_device_does_all_images_of_a_batch_at_once(name, tmp_path):
    """As many operations for 64 images as for 12."""
    simulator = Simulator(preset_of(name, tmp_path), device="meta")
    counts = []
    for number in (12, 64):
        rows = simulator.catalog(number)
        with Operations() as operations:
            simulator.render(rows)
        counts.append(len(operations.names))
    assert counts[0] == counts[1]
    assert not any("_local_scalar_dense" in name for name in operations.names)


@pytest.mark.parametrize("name", ["model-1", "model-3-noisy"])
def test_noise_of_another_device_is_that_of_the_image_wherever_it_is_rendered(name, monkeypatch):
    monkeypatch.setattr(simulation_noise, "ONE_BY_ONE", set())
    simulator = Simulator(name, seed=4)
    images, _ = simulator.block(1)
    again = simulator.render(simulator.catalog(3, start=BLOCK + 20))
    assert_array_equal(images[20:23], again)
    assert (images[20:23] != Simulator(name, seed=5).render(simulator.catalog(3, start=BLOCK + 20))).any()
