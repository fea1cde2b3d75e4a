"""Populations of galaxies and lenses, against brute force and published relations."""

import dataclasses

import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM
from lenstronomy.Cosmo.lens_cosmo import LensCosmo

from darklens.errors import PresetError
from darklens.simulation import Simulator, load_preset
from darklens.simulation.columns import select
from darklens.simulation.library import resolve_preset
from darklens.simulation.scenes import sky as module
from darklens.simulation.scenes.presets import Rules
from darklens.simulation.scenes.sky import Sky, ellipticities, extended_magnification
from darklens.simulation.scenes.sky_draws import PROPOSALS, draw_pairs
from darklens.simulation.scenes.sky_tables import (
    ALPHA,
    BETA,
    BRIGHTEST,
    SLOWEST,
    VELOCITY_STAR,
    background_of_depth,
    from_table,
)


@pytest.fixture(scope="module")
def sky():
    return Sky(load_preset("finding-hsc"))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_distances_are_those_of_astropy(sky):
    cosmology = FlatLambdaCDM(H0=sky.preset.cosmology.H0, Om0=sky.preset.cosmology.Om0)
    z = np.array([0.05, 0.3, 1.234, 4.9])
    assert sky.comoving_distance(z) == pytest.approx(cosmology.comoving_distance(z).value, rel=1e-4)
    assert sky.distance_modulus(z) == pytest.approx(cosmology.distmod(z).value, abs=1e-3)
    assert sky.arcsec(np.array([5.0] * 4), z) == pytest.approx(
        5 / cosmology.kpc_proper_per_arcmin(z).value * 60, rel=1e-3
    )


def test_einstein_radii_are_those_of_lenstronomy(sky):
    cosmology = FlatLambdaCDM(H0=sky.preset.cosmology.H0, Om0=sky.preset.cosmology.Om0)
    for sigma, z_lens, z_source in ((250.0, 0.3, 1.0), (180.0, 0.7, 3.0)):
        theirs = LensCosmo(z_lens, z_source, cosmology).sis_sigma_v2theta_E(sigma)
        ours = sky.einstein_radius(np.array([sigma]), np.array([z_lens]), np.array([z_source]))[0]
        assert ours == pytest.approx(theirs, rel=1e-3)
    assert sky.einstein_radius(np.array([200.0]), np.array([1.0]), np.array([0.5]))[0] == 0


def test_counts_double_by_their_slope(sky):
    i = sky.counted(rng(), 100_000, 20, 26)
    reference = i.magnitudes[:, 2]  # HSC's i, close to the counts' own
    ratio = (reference < 25).sum() / (reference < 24).sum()
    assert ratio == pytest.approx(10**0.31, rel=0.05)


def test_a_field_holds_the_published_number_of_galaxies(sky):
    image, _ = sky.neighbours(rng(1), 20_000)
    area = (64 * 0.168 / 60) ** 2
    assert len(image) / 20_000 == pytest.approx(46 * 10 ** (0.31 * 0.5) * area, rel=0.02)


def test_faint_galaxies_are_farther_and_smaller(sky):
    bright, faint = sky.counted(rng(), 4000, 20, 21), sky.counted(rng(), 4000, 25, 26)
    assert np.median(faint.z) > 1.5 * np.median(bright.z)
    assert np.median(faint.R_sersic) < 0.6 * np.median(bright.R_sersic)
    # The median of a gamma distribution of order 3 is 2.674 scales.
    assert np.median(bright.z) == pytest.approx(2.674 * (0.0417 * 20.6 - 0.744), rel=0.1)


def test_early_types_follow_hyde_and_bernardi(sky):
    sigma, z = np.full(4000, 240.0), np.full(4000, 0.3)
    found = sky.early_types(rng(), sigma, z)
    r = found.magnitudes[:, 1] - sky.distance_modulus(z)
    corrected = r - sky.photometry.corrections(found.spectrum, z)[:, 1]
    assert np.median(found.spectrum) == pytest.approx(0.3, abs=0.02)
    # -2.97 - 0.37 M - 0.006 M² = log10(240)
    absolute = np.roots([-0.006, -0.37, -2.97 - np.log10(240)]).max()
    assert np.median(corrected) == pytest.approx(absolute, abs=0.01)
    kpc = found.R_sersic / sky.arcsec(np.ones(4000), z)
    assert np.median(kpc) == pytest.approx(10 ** (2.46 - 2.79 * np.log10(240) + 0.84 * np.log10(240) ** 2), rel=0.02)
    assert np.std(np.log10(kpc)) == pytest.approx(0.11, rel=0.1)


def test_ellipticities_are_rayleigh_and_end_at_a_fifth():
    e1, e2 = ellipticities(rng(), np.full(50_000, 0.3))
    e = np.hypot(e1, e2)
    q = (1 - e) / (1 + e)
    assert q.min() > 0.2
    most = 1 - np.exp(-(0.8**2) / (2 * 0.3**2))
    assert np.median(1 - q) == pytest.approx(0.3 * np.sqrt(-2 * np.log(1 - most / 2)), rel=0.02)
    assert abs(e1.mean()) < 0.01
    assert abs(np.corrcoef(e1, e2)[0, 1]) < 0.02


def test_magnification_is_exact_for_points_and_on_the_axis():
    one = np.ones(1)
    assert extended_magnification(one, 0.4 * one, 0 * one)[0] == pytest.approx(5)  # 2 θ_E / β
    # A disc on the axis of radius R < θ_E becomes a ring from θ_E - R to θ_E + R: 4 π θ_E R over π R².
    assert extended_magnification(one, 0 * one, 0.2 * one)[0] == pytest.approx(4 / 0.2)


def test_a_depth_is_five_sigma_with_a_gaussian_weight():
    # By brute force: the matched filter's signal-to-noise of a Gaussian star.
    y, x = np.mgrid[-60:61, -60:61]
    sigma = 0.7 / 2.3548 / 0.168
    psf = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    psf /= psf.sum()
    rms = background_of_depth(np.array([25.9]), np.array([0.7]), 0.168, 27.0)[0]
    flux = 10 ** (-0.4 * (25.9 - 27))
    assert flux * np.sqrt((psf**2).sum()) / rms == pytest.approx(5, rel=1e-3)


def brute_force(sky, pairs):
    """Lenses by plain rejection, from sources down to the faintest, without any likely magnitudes."""
    random, rules = rng(5), sky.preset.rules
    sigma = VELOCITY_STAR * random.gamma((ALPHA + 4) / BETA, 1, pairs) ** (1 / BETA)
    farthest = sky.comoving_distance(np.array([sky.preset.z_lens]))[0]
    grid = np.linspace(0, sky.preset.z_lens, 5000)
    z_lens = np.interp(farthest * np.cbrt(random.uniform(size=pairs)), sky.comoving_distance(grid), grid).clip(0.02)
    source = sky.counted(random, pairs, BRIGHTEST, sky.preset.faintest_source)
    ratio = (1 - sky.comoving_distance(z_lens) / sky.comoving_distance(source.z)).clip(0)
    theta_E = sky.einstein_radius(sigma, z_lens, source.z)
    beta = theta_E * np.sqrt(random.uniform(size=pairs))
    deflector = sky.early_types(random, sigma, z_lens)
    mu = extended_magnification(np.maximum(theta_E, 1e-9), beta, source.R_sersic)
    snr, contrast = sky.arc_visibility(source, deflector, theta_E, mu)
    tangential = 1 + theta_E / np.hypot(beta, source.R_sersic / 2)
    seen = random.uniform(size=pairs) < ratio**2
    seen &= (theta_E > rules.theta_E[0]) & (theta_E < rules.theta_E[1]) & (sigma > SLOWEST)
    seen &= (snr > rules.arc_snr) & (contrast > rules.arc_contrast) & (tangential > rules.tangential_magnification)
    seen &= theta_E**2 > source.R_sersic**2 + (sky.typical_fwhm / 2) ** 2
    seen &= tangential * source.R_sersic > sky.typical_fwhm
    seen &= deflector.magnitudes[:, sky.detection] < rules.magnitude
    return theta_E[seen], source.magnitudes[seen, sky.detection], beta[seen] / theta_E[seen], z_lens[seen]


def test_lenses_are_those_of_plain_rejection(sky):
    # The rules are eased, so that plain rejection finds enough.
    eased = dataclasses.replace(sky.preset, rules=dataclasses.replace(sky.preset.rules, arc_snr=8, arc_contrast=0.2))
    sky = Sky(eased)
    theirs = brute_force(sky, 1_500_000)
    drawn = sky.lenses(rng(7), 3000)
    ours = (
        drawn.theta_E, drawn.source.magnitudes[:, sky.detection],
        np.hypot(drawn.source_x, drawn.source_y) / drawn.theta_E, drawn.deflector.z,
    )  # fmt: skip
    assert len(theirs[0]) > 400
    from scipy.stats import ks_2samp

    for a, b in zip(ours, theirs, strict=True):
        assert ks_2samp(a, b).pvalue > 1e-3


def test_rules_are_kept(sky):
    drawn, rules = sky.afresh().lenses(rng(3), 500), sky.preset.rules
    assert drawn.theta_E.min() > rules.theta_E[0]
    assert drawn.theta_E.max() < rules.theta_E[1]
    assert drawn.arc_snr.min() > rules.arc_snr
    assert drawn.deflector.magnitudes[:, sky.detection].max() < rules.magnitude
    assert (drawn.source.z > drawn.deflector.z).all()
    assert drawn.theta_E == pytest.approx(
        sky.einstein_radius(drawn.sigma_v, drawn.deflector.z, drawn.source.z), rel=1e-3
    )


def test_what_is_left_of_a_round_is_used_and_afresh_begins_anew(sky):
    whole = sky.afresh().lenses(rng(2), 20)
    pool, random = sky.afresh(), rng(2)
    parts = [pool.lenses(random, 5).theta_E, pool.lenses(random, 15).theta_E]
    assert np.concatenate(parts) == pytest.approx(whole.theta_E)
    assert sky.afresh().lenses(rng(2), 5).theta_E == pytest.approx(whole.theta_E[:5])


@pytest.mark.parametrize("at_once", [1, 3, 16])
def test_lenses_and_what_is_drawn_after_them_do_not_depend_on_how_many_rounds_are_drawn_at_once(
    sky, monkeypatch, at_once
):
    monkeypatch.setattr(module, "MOST_AT_ONCE", at_once)
    one, random = Sky(sky.preset), rng(11)
    found = [one.lenses(random, count) for count in (7, 1, 12)]
    # Plain rejection, a round after the other, by the functions that draw and choose.
    plain, again, pool = Sky(sky.preset), rng(11), []
    while sum(len(columns[0]) for columns in pool) < 20:
        pool.append(plain._lenses_among(draw_pairs(again, plain._tables, sky.preset.rules.theta_E))[1])
    assert len(pool) > 3
    for number, column in ((15, "theta_E"), (19, "arc_snr")):
        expected = np.concatenate([columns[number] for columns in pool])[:20]
        np.testing.assert_array_equal(np.concatenate([getattr(drawn, column) for drawn in found]), expected)
    assert random.uniform() == again.uniform()


def test_rough_numbers_leave_out_no_lens(sky):
    tables, bounds = sky._tables, (0.3, 2.0)
    drawn = [draw_pairs(rng(seed), tables, bounds) for seed in range(20)]
    for seed, pairs in enumerate(drawn):
        random = rng(seed)
        sigma_v = from_table(tables.velocities, random.uniform(size=PROPOSALS))
        distance = tables.farthest * np.cbrt(random.uniform(size=PROPOSALS))
        i = from_table(tables.likely[0], random.uniform(size=PROPOSALS))
        z = random.gamma(3, (0.0417 * i - 0.744).clip(0.02)).clip(0.02, sky.preset.z_source)
        ratio = (1 - distance / sky.comoving_distance(z)).clip(0)
        theta_E = 4 * np.pi * (sigma_v / 299_792.458) ** 2 * ratio / (np.pi / 180 / 3600)
        lens = (random.uniform(size=PROPOSALS) < ratio**2) & (theta_E > bounds[0]) & (theta_E < bounds[1])
        np.testing.assert_array_equal(pairs.theta_E, theta_E[lens])
        np.testing.assert_array_equal(pairs.i, i[lens])
        np.testing.assert_array_equal(pairs.z_source, z[lens])


def test_rules_that_leave_out_all_are_named(sky, monkeypatch):
    monkeypatch.setattr(module, "MOST_ROUNDS", 3)
    none = Sky(dataclasses.replace(sky.preset, rules=Rules(arc_snr=1e6)))
    with pytest.raises(PresetError, match="0 are seen as lenses by its rules"):
        none.lenses(rng(), 10)


def test_estimated_signal_to_noise_is_that_of_rendered_arcs():
    # Without neighbours and clumps; half of the light, in the brightest pixels, against the noise there.
    content = resolve_preset("finding-hsc") | {
        "name": "arcs",
        "sky_residual": 0.0,
        "artefacts": {},
        "faintest_neighbour": 18.1,
    }
    content["classes"] = {"lens": {"objects": "lens", "options": {"clumps": 0}}}
    simulator = Simulator(load_preset(content), seed=1)
    rows = select(simulator.renderer.draw(1, 0), np.arange(48))
    whole = simulator.renderer.images(rows, 1, noise=False)
    bare = simulator.renderer.images({k: v for k, v in rows.items() if not k.startswith("source_")}, 1, noise=False)
    arcs = (whole - bare)[:, 2].flatten(1).double()
    variance = simulator.renderer.noise_sigma(rows, whole)[:, 2].flatten(1).square().double()
    order = arcs.argsort(1, descending=True)
    light, noise = arcs.gather(1, order).cumsum(1), variance.gather(1, order).cumsum(1)
    half = (light < 0.5 * light[:, -1:]).sum(1, keepdim=True)
    measured = (light.gather(1, half) / noise.gather(1, half).sqrt())[:, 0].numpy()
    ratio = measured / rows["arc_snr_estimate"]
    assert np.median(ratio) == pytest.approx(1, abs=0.35)
    assert np.corrcoef(np.log(measured), np.log(rows["arc_snr_estimate"]))[0, 1] > 0.7
