import numpy as np
import polars as pl
import pytest
import torch
from astropy.io import fits
from numpy.testing import assert_allclose, assert_array_equal
from torch.utils._python_dispatch import TorchDispatchMode

from darklens.errors import DataError, PresetError
from darklens.simulation import BLOCK, Simulator, load_preset
from darklens.simulation import noise as simulation_noise
from darklens.simulation.columns import from_frame
from darklens.simulation.draw import draw_block
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
    simulator.render(simulator.catalog(2))  # fills the caches of distances
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


def small(**changes):
    """The fair preset with few pixels."""
    return load_preset(resolve_preset("fair-hst") | {"name": "small", "pixels": 20, "conserve_mass": False} | changes)


def test_rows_of_a_catalog_are_numbered_from_its_start():
    simulator = Simulator(small(), seed=3)
    assert simulator.catalog(4, start=62)["id"].to_list() == [62, 63, 64, 65]
    assert simulator.catalog(64, start=64)["id"].to_list() == list(range(64, 128))
    none = simulator.catalog(0)
    assert (len(none), none.columns) == (0, simulator.catalog(1).columns)
    assert len(simulator.catalog(0, start=70)) == 0


def test_seed_is_zero_unless_it_is_given():
    expected = draw_block(small(), 0, 0)["source_x"]
    assert_array_equal(Simulator(small()).catalog(5)["source_x"], expected[:5])
    assert_array_equal(Simulator(small(), 1).catalog(5)["source_x"], draw_block(small(), 1, 0)["source_x"][:5])


def test_blocks_have_their_rows_and_the_last_is_short():
    simulator = Simulator(load_preset(resolve_preset("model-3-noisy") | {"pixels": 20}), seed=3)
    found = list(simulator.blocks(70, start=64, noise=False, threads=1))
    assert [rows["id"].tolist() for _, rows in found] == [list(range(64, 128)), list(range(128, 134))]
    assert [(len(images), images.dtype) for images, _ in found] == [(64, torch.float32), (6, torch.float32)]
    flux = simulator.render(simulator.catalog(6, start=128), noise=False)
    assert_array_equal(found[1][0], flux)
    images, rows = simulator.block(2, noise=False)
    assert rows["id"].tolist() == list(range(128, 192))
    assert_array_equal(images[:6], flux)
    assert not torch.equal(simulator.block(2)[0][:6], flux)
    assert_array_equal(simulator.block(2)[0][:6], next(iter(simulator.blocks(6, start=128)))[0])
    with pytest.raises(ValueError, match="start must be a multiple of 64; got 65"):
        next(simulator.blocks(3, start=65))
    assert list(simulator.blocks(0)) == []


@pytest.mark.parametrize("chosen", [range(32), range(32, 64), [5], [40, 3, 17]], ids=str)
@pytest.mark.parametrize("noise", [False, True])
def test_chosen_images_of_a_block_are_those_of_the_whole_to_the_bit(chosen, noise):
    """Also where an image outside the choice has the most subhalos: with others, sums would round otherwise."""
    simulator, places = Simulator(small(), seed=4), np.array(chosen)
    images, rows = simulator.block(1, noise)
    some, truths = simulator.block(1, noise, chosen=places)
    assert_array_equal(some, images[places])
    assert_array_equal(truths["id"], 64 + places)
    assert list(truths) == list(rows)


def test_images_without_substructure_are_those_of_the_class_that_has_none():
    simulator = Simulator(small(), seed=3)
    rows = simulator.catalog(9)
    smooth = simulator.without_substructure(rows)
    assert (smooth.dtype, smooth.shape) == (torch.float64, (9, 20, 20))
    images = simulator.render(rows, noise=False, dtype=torch.float64)[:, 0]
    plain = torch.tensor([label == "no_sub" for label in rows["label"]])
    assert_allclose(smooth[plain], images[plain], rtol=1e-12)
    assert ((smooth - images)[~plain].abs().amax((1, 2)) > 1e-4).all()
    assert_array_equal(simulator.without_substructure(from_frame(rows)), smooth)
    assert simulator.without_substructure(rows, torch.float32).dtype == torch.float32


def test_missing_columns_and_unknown_labels_are_named():
    simulator = Simulator(small(), seed=3)
    rows = simulator.catalog(3)
    with pytest.raises(
        DataError, match=r"^catalogue: no column e1, exposure_time; these are not rows of a simulated set$"
    ):
        simulator.render(rows.drop("exposure_time", "e1"))
    for name in ("id", "label", "theta_E", "e2", "lens_x", "lens_y", "gamma1", "gamma2"):
        with pytest.raises(DataError, match=f"no column {name};"):
            simulator.render(rows.drop(name))
    deflectors = {"subhalo_Rs": "cdm", "subhalo_x": "cdm", "vortex_phi": "axion", "vortex_theta_E": "axion"}
    for name in ("source_x", "source_magnitude", "source_e2", "source_R_sersic", *deflectors):
        with pytest.raises(DataError, match=f"^catalogue: no column {name};"):
            simulator.render(rows.drop(name))
        smooth = rows.filter(pl.col("label") != deflectors.get(name, "none"))
        if name in deflectors:
            assert len(simulator.render(smooth.drop(name))) == 2
            assert len(simulator.without_substructure(rows.drop(name))) == 3
        else:
            with pytest.raises(DataError, match=f"^catalogue: no column {name};"):
                simulator.without_substructure(rows.drop(name))
    halved = from_frame(rows)
    halved["subhalo_y"] = [None] * 3
    with pytest.raises(DataError, match=r"^catalogue: image 1, of class cdm, has no subhalo_y$"):
        simulator.render(halved)
    columns = from_frame(rows) | {"label": np.array(["zeta", "cdm", "beta"])}
    with pytest.raises(
        DataError, match=r"^catalogue: label 'beta' is not a class of preset small: no_sub, cdm, axion$"
    ):
        simulator.render(columns)


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("column", ["source_x", "exposure_time", "subhalo_alpha_Rs"])
def test_an_image_that_cannot_be_computed_is_named_with_its_truths(column, noise):
    simulator = Simulator(small(), seed=3)
    columns = {name: values.copy() for name, values in from_frame(simulator.catalog(9)).items()}
    columns["theta_E"][4] = 1.25
    columns[column][4] = columns[column][4] * np.nan
    with pytest.raises(DataError) as raised:
        simulator.render(columns, noise)
    subhalos = len(columns["subhalo_x"][4])
    nan = f"({subhalos} from nan to nan)" if column.startswith("subhalo") else "nan"
    message = str(raised.value)
    assert message.startswith("image 4: the flux expected of it is not finite; its truths,")
    for truth in ("label cdm", "theta_E 1.25", f"{column} {nan}", f"subhalo_x ({subhalos} from -"):
        assert truth in message
    assert "vortex" not in message
    with pytest.raises(DataError, match=r"^image 4: "):
        simulator.without_substructure(columns | {"lens_x": np.where(np.arange(9) == 4, np.nan, 0.1)})


def test_columns_of_other_profiles_are_needed_too(tmp_path):
    (tmp_path / "f.py").write_text("def own(x, y, x0, y0, b):\n    return b * (x - x0), b * (y - y0)\n")
    np.save(tmp_path / "g.npy", np.ones((2, 4, 4)))
    subhalos = {"profile": f"{tmp_path}/f.py:own", "count": 2, "parameters": {"b": 0.01}}
    deflector = resolve_preset("fair-hst")["deflector"] | {"profile": "epl", "gamma": 2.1}
    changes = {"deflector": deflector, "source": galaxies(tmp_path / "g.npy"), "classes": {"a": {"subhalos": subhalos}}}
    preset = load_preset(resolve_preset("fair-hst") | {"pixels": 20, "conserve_mass": False} | changes, trust_code=True)
    rows = Simulator(preset).catalog(2)
    for name in ("gamma", "source_phi", "source_image", "source_pixel_scale", "subhalo_b"):
        with pytest.raises(DataError, match=f"^catalogue: no column {name};"):
            Simulator(preset).render(rows.drop(name))
    published = Simulator(load_preset(resolve_preset("model-1") | {"pixels": 20}))
    for name in ("source_amp", "subhalo_theta_E"):
        with pytest.raises(DataError, match=f"^catalogue: no column {name};"):
            published.render(published.catalog(3).drop(name))


def galaxies(path):
    return {"profile": "image", "images": str(path), "magnitude": 22, "pixel_scale": 0.03}


def test_galaxies_are_read_from_numpy_or_fits_one_or_many(tmp_path):
    image = np.random.default_rng(0).random((12, 14))
    np.save(tmp_path / "one.npy", image)
    np.save(tmp_path / "stack.npy", image[None])
    fits.writeto(tmp_path / "one.fits", image)
    rows = Simulator(small(source=galaxies(tmp_path / "one.npy"))).catalog(2)
    found = [
        Simulator(small(source=galaxies(tmp_path / name))).render(rows, noise=False)
        for name in ("one.npy", "stack.npy", "one.fits")
    ]
    assert torch.equal(found[0], found[1])
    assert_allclose(found[0], found[2], rtol=1e-6)
    assert float(found[0].max()) > 0


def test_the_last_galaxy_is_chosen_by_numbers_that_single_precision_rounds_to_one(tmp_path):
    np.save(tmp_path / "g.npy", np.random.default_rng(0).random((3, 12, 14)))
    simulator = Simulator(small(source=galaxies(tmp_path / "g.npy")))
    rows = simulator.catalog(1)
    last, rounded = (simulator.render(rows.with_columns(source_image=v), noise=False) for v in (0.9, 1 - 1e-9))
    assert torch.equal(last, rounded)


@pytest.mark.parametrize(
    "stack",
    [np.ones((2, 3, 4, 5)), np.ones((0, 8, 8)), np.array([[1.0, np.nan]]), np.array([[[1.0, 2.0]], [[1.0, -1.0]]])],
)
def test_galaxies_that_cannot_be_used_are_refused(stack, tmp_path):
    np.save(tmp_path / "g.npy", stack)
    with pytest.raises(
        PresetError, match=r"g\.npy: expected galaxies \(N, H, W\), finite and brighter than zero in sum"
    ):
        Simulator(small(source=galaxies(tmp_path / "g.npy")))


@pytest.mark.parametrize("name", ["g.npy", "g.fits"])
def test_images_that_cannot_be_read_are_refused(name, tmp_path):
    path = tmp_path / name
    for content in (None, b"neither of both"):
        if content:
            path.write_bytes(content)
        with pytest.raises(PresetError, match=rf"{name}: cannot be read as an image \(\.npy or FITS\): "):
            Simulator(small(source=galaxies(path)))
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(PresetError, match=r"o\.npy: cannot be read as an image .*allow_pickle"):
        Simulator(small(source=galaxies(tmp_path / "o.npy")))


def test_gaussian_psf_has_the_width_of_the_instrument():
    """A far smaller source than a pixel, without a deflector to speak of, is the PSF: its variance is that of the FWHM."""
    content = resolve_preset("fair-hst")
    source = {"magnitude": 20, "R_sersic": 1e-4, "n_sersic": 1, "x": 0.025, "y": 0.025}
    deflector = {"theta_E": 1e-9}
    instrument = content["instrument"] | {"psf_fwhm": 0.25, "pixel_scale": 0.05}
    preset = load_preset(
        content | {"name": "dot", "pixels": 40, "conserve_mass": False, "source": source, "deflector": deflector}
        | {"instrument": instrument, "classes": {"no_sub": {}}}
    )  # fmt: skip
    simulator = Simulator(preset)
    image = simulator.render(simulator.catalog(1), noise=False, dtype=torch.float64)[0, 0].numpy()
    axis = (np.arange(40) - 19.5) * 0.05
    mean = (image.sum(0) * axis).sum() / image.sum()
    sigma = np.sqrt((image.sum(0) * (axis - mean) ** 2).sum() / image.sum())
    assert mean == pytest.approx(0.025, abs=1e-6)
    assert sigma * np.sqrt(8 * np.log(2)) == pytest.approx(0.25, rel=0.02)
