"""The search for lenses: its list against a brute-force sort of predictions, known lenses against astropy, and its page."""

import base64
import io
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest
from astropy import units
from astropy.coordinates import SkyCoord
from astropy.table import Table
from conftest import TINY, write_rings
from numpy.testing import assert_allclose
from PIL import Image

from darklens.cli import main
from darklens.data.options import DataOptions
from darklens.data.positions import nearest, read_named_positions
from darklens.errors import DarklensError, DataError, ModelError
from darklens.plots.pictures import STRETCHES, stretched_pictures
from darklens.report.mosaic import Candidate, probability_text, scale_bar, write_mosaic
from darklens.training.job import Job
from darklens.training.recipe import load_recipe
from darklens.training.train import train
from darklens.workflows.find import find_lenses, rank_candidates
from darklens.workflows.options import PredictionOptions, SearchOptions
from darklens.workflows.predict import predict_paths


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Two datasets of 90 and 40 images, of other sizes than the training images."""
    folder = tmp_path_factory.mktemp("survey")
    return [write_rings(folder / "one", 90, 7, side=30), write_rings(folder / "two", 40, 8)]


@pytest.fixture
def own_lenses(tmp_path):
    """A table of known lenses: one 1.2″ from the image o7-5, one 5″ from o7-9, and one without a position."""
    ra, dec = 150 + np.array([5, 9]) / 100, 2 + np.array([5, 9]) / 200
    table = {"name": ["Ring", "Far", "Lost"], "ra": [*ra, None], "dec": [dec[0] + 1.2 / 3600, dec[1] + 5 / 3600, 1.0]}
    pl.DataFrame(table).write_csv(tmp_path / "known.csv")
    return str(tmp_path / "known.csv")


class Page(HTMLParser):
    """Pictures, figures and links of a page."""

    def __init__(self, path):
        super().__init__()
        self.pictures, self.figures, self.outside = [], [], []
        self.text = path.read_text("utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.pictures += [found["src"]] if tag == "img" else []
        self.figures += [found] if tag == "figure" else []
        self.outside += [v for k, v in attributes if k in ("src", "href") and not v.startswith("data:image/jpeg")]


@pytest.mark.parametrize("prior", [None, 0.2])
def test_the_list_is_the_sorted_table_of_predictions(finding_run, survey, tmp_path, prior):
    predict_paths(finding_run, survey, tmp_path / "all.parquet", choices=PredictionOptions(prior=prior))
    found = find_lenses(finding_run, survey, tmp_path / "list.parquet", search=SearchOptions(prior=prior))
    predicted, ranked = (pl.read_parquet(tmp_path / name) for name in ("all.parquet", "list.parquet"))
    order = sorted(range(130), key=lambda row: (-predicted["p_lens"][row], row))
    assert ranked["rank"].to_list() == list(range(1, 131))
    for theirs, ours in [("id", "id"), ("path", "file"), ("p_lens", "probability"), ("outlier_score", "outlier_score"),
                         ("outlier", "outlier"), ("ra", "ra"), ("z_phot", "z_phot")]:  # fmt: skip
        assert ranked[ours].to_list() == [predicted[theirs][row] for row in order], ours
    assert (found.images, found.kept, found.first) == (130, 130, 130)
    assert found.expected == pytest.approx(predicted["p_lens"].sum())
    assert found.prior == (prior or 0.01)


def test_columns_come_in_their_order(finding_run, survey, own_lenses, tmp_path):
    find_lenses(finding_run, survey, tmp_path / "list.csv", search=SearchOptions(known_lenses=own_lenses))
    assert pl.read_csv(tmp_path / "list.csv").columns == [
        "rank", "id", "file", "probability", "outlier_score", "outlier", "ra", "dec", "known_lens",
        "known_lens_separation", "label", "z_phot",
    ]  # fmt: skip


def test_equal_probabilities_keep_their_order():
    table = pl.DataFrame({"id": list("abcde"), "probability": [0.5, 0.9, 0.5, 0.9, 0.5]})
    assert rank_candidates(table)["id"].to_list() == list("bdace")
    unknown = table.with_columns(probability=pl.Series([0.5, None, 0.5, 0.9, 0.5]))
    assert rank_candidates(unknown)["id"].to_list() == list("daceb")


def test_probabilities_that_contradict_the_prior_and_outliers_among_the_first_are_said(finding_run, survey, tmp_path):
    search = SearchOptions(known_lenses="false", prior=0.5)
    found = find_lenses(finding_run, [survey[1]], tmp_path / "half.csv", search=search)
    assert not any("at the prior: either" in note for note in found.notes)
    strange = pl.read_csv(tmp_path / "half.csv")["outlier"].sum()
    said = [note for note in found.notes if "unlike the training images (outlier)" in note]
    assert [note.split()[0] for note in said] == ([str(strange)] if strange else [])
    folder = shutil.copytree(survey[1], tmp_path / "bright")
    images = np.load(folder / "images.npy") * np.float32(1e4)
    np.save(folder / "images.npy", images)
    found = find_lenses(finding_run, [folder], tmp_path / "bright.csv", search=SearchOptions(known_lenses="false"))
    table = pl.read_csv(tmp_path / "bright.csv")
    assert any(
        note.startswith(f"{table['outlier'].sum()} of the first {len(table)} are unlike") for note in found.notes
    )
    too_many = table["probability"].sum() > 0.01 * len(table) + 5 * (0.01 * len(table)) ** 0.5 + 5
    assert any("at the prior: either" in note for note in found.notes) == too_many


def test_a_column_of_the_catalogue_does_not_hide_one_of_the_list(finding_run, survey, tmp_path):
    folder = shutil.copytree(survey[1], tmp_path / "named")
    catalog = pl.read_parquet(folder / "catalog.parquet")
    own = {"rank": pl.lit(7), "catalog_rank": pl.lit(9), "probability": pl.lit(2.0), "known_lens": pl.lit("x")}
    catalog.with_columns(**own).write_parquet(folder / "catalog.parquet")
    find_lenses(finding_run, [folder], tmp_path / "list.parquet", search=SearchOptions(known_lenses="false"))
    ranked = pl.read_parquet(tmp_path / "list.parquet")
    assert ranked["probability"].max() <= 1
    assert ranked.select("catalog_probability", "catalog_known_lens").row(0) == (2.0, "x")
    assert {ranked["catalog_rank"][0], ranked["catalog_catalog_rank"][0]} == {7, 9}


def test_known_lenses_are_those_within_three_arcsec(finding_run, survey, own_lenses, tmp_path):
    search = SearchOptions(known_lenses=own_lenses, mosaic=tmp_path / "page.html")
    found = find_lenses(finding_run, survey[:1], tmp_path / "list.parquet", search=search)
    marked = pl.read_parquet(tmp_path / "list.parquet").drop_nulls("known_lens")
    assert marked.select("id", "known_lens").rows() == [("o7-5", "Ring")]
    assert marked["known_lens_separation"][0] == pytest.approx(1.2, abs=1e-6)
    assert "1 of 90 objects are within 3″ of a known lens" in found.notes
    assert Page(tmp_path / "page.html").text.count("known: Ring, 1.2″") == 1
    without = find_lenses(finding_run, survey[:1], tmp_path / "b.parquet", search=SearchOptions(known_lenses="false"))
    assert "known_lens" not in pl.read_parquet(tmp_path / "b.parquet").columns
    assert not any("known" in note for note in without.notes)


def test_nearest_objects_are_those_of_astropy():
    rng = np.random.default_rng(0)
    near = np.column_stack([rng.uniform(359.99, 360.01, 300) % 360, rng.uniform(80, 80.01, 300)])
    others = np.column_stack([rng.uniform(359.99, 360.01, 50) % 360, rng.uniform(80, 80.01, 50)])
    near[3], others[7] = np.nan, np.nan
    rows, apart = nearest(near, others, 2.0)
    good = [i for i in range(300) if i != 3]
    usable = [i for i in range(50) if i != 7]
    index, distance, _ = SkyCoord(near[good] * units.deg).match_to_catalog_sky(SkyCoord(others[usable] * units.deg))
    inside = distance.arcsec < 2
    assert 5 < inside.sum() < 290
    assert rows[good].tolist() == np.where(inside, np.array(usable)[index], -1).tolist()
    assert_allclose(apart[good], np.where(inside, distance.arcsec, np.nan), atol=1e-6)
    assert (rows[3], np.isnan(apart[3])) == (-1, True)


def test_names_of_known_lenses_are_kept_with_their_positions(own_lenses, tmp_path):
    names, positions = read_named_positions(tmp_path / "known.csv")
    assert (names, len(positions)) == (["Ring", "Far"], 2)
    pl.DataFrame({"RA": [1.0, 2.0], "DEC": [3.0, 4.0]}).write_csv(tmp_path / "nameless.csv")
    assert read_named_positions(tmp_path / "nameless.csv")[0] == ["0", "1"]


def test_fits_holds_what_parquet_holds(finding_run, survey, own_lenses, tmp_path):
    for kind in ("parquet", "fits"):
        search = SearchOptions(known_lenses=own_lenses)
        find_lenses(finding_run, survey, tmp_path / f"list.{kind}", search=search)
    expected, found = pl.read_parquet(tmp_path / "list.parquet"), Table.read(tmp_path / "list.fits")
    assert found.colnames == expected.columns
    assert_allclose(found["probability"], expected["probability"])
    assert [str(text) for text in found["known_lens"].filled("")] == expected["known_lens"].fill_null("").to_list()
    assert found["outlier"].tolist() == expected["outlier"].to_list()
    predict_paths(finding_run, survey, tmp_path / "all.fits")
    assert len(Table.read(tmp_path / "all.fits")) == 130


def test_the_page_shows_the_first_and_needs_nothing_else(finding_run, survey, tmp_path):
    search = SearchOptions(top=12, mosaic=tmp_path / "page.html", known_lenses="false")
    found = find_lenses(finding_run, survey, tmp_path / "list.parquet", search=search)
    ranked = pl.read_parquet(tmp_path / "list.parquet")
    page = Page(tmp_path / "page.html")
    assert (found.images, found.kept, len(ranked), len(page.figures)) == (130, 12, 12, 12)
    assert (len(page.pictures), page.outside) == (12 * len(STRETCHES), [])
    assert not re.search(r"https?:|//cdn|@import|url\(", page.text)
    shown = re.findall(r'<span class="id" title="([^"]*)"', page.text)
    assert shown == ranked["id"].to_list()
    assert found.expected == pytest.approx(ranked["probability"].sum())


def test_pictures_of_the_page_are_of_the_images_they_stand_for(finding_run, survey, tmp_path):
    """The brightest corner of an image is in the same place of its picture, with the first row at the bottom."""
    folder = tmp_path / "marked"
    shutil.copytree(survey[1], folder)
    images = np.load(folder / "images.npy")
    images[:, :, 1:4, 2:5] += 60
    np.save(folder / "images.npy", images)
    search = SearchOptions(mosaic=tmp_path / "page.html", known_lenses="false")
    find_lenses(finding_run, [folder], tmp_path / "list.parquet", search=search)
    for address in Page(tmp_path / "page.html").pictures[:9]:
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))).astype(float)
        assert picture.shape == (24, 24, 3)
        assert picture[-4:-1, 2:5].mean() > picture[1:4, -5:-2].mean() + 60


@pytest.mark.parametrize("bands", [("VIS",), ("g", "r", "i"), ("g", "r", "i", "z", "y"), ("R", "G", "B"), ()])
def test_each_stretch_keeps_the_order_of_brightness(bands):
    y, x = np.mgrid[:16, :16] - 7.5
    images = np.repeat(100 * np.exp(-np.hypot(x, y) / 2)[None, None], max(1, len(bands)), 1).repeat(3, 0)
    drawn = stretched_pictures(images.astype(np.float32), bands)
    assert tuple(drawn) == STRETCHES
    for pictures in drawn.values():
        assert (pictures.shape, pictures.dtype) == ((3, 16, 16, 3), np.uint8)
        profile = pictures[0, 7, 7:].sum(-1).astype(int)
        assert (np.diff(profile) <= 0).all()
        assert profile[0] > profile[-1] + 100
    middle = {name: pictures[0, 7, 11].sum() / pictures[0, 7, 7].sum() for name, pictures in drawn.items()}
    assert middle["faint light"] > middle["linear"]


def test_flat_images_can_be_drawn():
    for channels, bands in ((1, ()), (3, ("g", "r", "i"))):
        drawn = stretched_pictures(np.zeros((2, channels, 8, 8), np.float32), bands)
        assert all(np.isfinite(each).all() for each in drawn.values())


def test_what_names_hold_does_not_run(tmp_path):
    image = np.eye(8, dtype=np.float32)[None]
    evil = Candidate(image, (), "", None, "<script>alert(1)</script>", 0.3, known_lens='"><b>', separation=0.1)
    write_mosaic([evil], tmp_path / "page.html", title="<i>", summary="&", notes=["<u>"], expected=[0.3])
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "<script>alert" not in text
    assert "<u>" not in text
    assert text.count("<script>") == 1


def test_figures_on_the_page_are_short_and_right():
    texts = {0.99999: "> 0.9999", 0.9987: "0.9987", 0.998: "0.998", 0.4: "0.40", 0.0321: "0.032"}
    assert {p: probability_text(p) for p in texts} == texts
    wide = Candidate(np.zeros((1, 50, 50)), (), "", 0.2, "a", 0.5)
    assert scale_bar(wide) == {"length": "2", "percent": "20.00"}
    assert scale_bar(Candidate(np.zeros((1, 50, 50)), (), "", None, "a", 0.5)) is None


@pytest.mark.parametrize("bands", [["VIS"], ["u", "g", "r", "i", "z"]])
def test_one_band_and_five_are_searched(bands, tmp_path):
    data = write_rings(tmp_path / "train", 64, 1, bands=bands)
    options = TINY | {"trainer.epochs": 1}
    run = train(Job(load_recipe("finding/demo", options), str(data)), tmp_path / "run")
    other = write_rings(tmp_path / "survey", 20, 3, bands=bands)
    search = SearchOptions(mosaic=tmp_path / "page.html")
    assert find_lenses(run, [other], tmp_path / "list.csv", search=search).images == 20
    assert len(Page(tmp_path / "page.html").figures) == 20


def test_bad_images_are_skipped_where_that_is_asked_for(finding_run, survey, tmp_path):
    folder = shutil.copytree(survey[1], tmp_path / "bad")
    images = np.load(folder / "images.npy")
    images[4] = np.nan
    np.save(folder / "images.npy", images)
    with pytest.raises(DataError, match="image o8-4 has"):
        find_lenses(finding_run, [folder], tmp_path / "list.csv")
    search = SearchOptions(skip=True, mosaic=tmp_path / "page.html")
    found = find_lenses(finding_run, [folder], tmp_path / "list.csv", search=search)
    assert (found.images, list(found.skipped)) == (39, ["o8-4"])
    options = DataOptions(mask=True)
    assert find_lenses(finding_run, [folder], tmp_path / "b.csv", options=options).images == 40


def test_models_of_other_tasks_are_refused(run, mass_run, test_set, tmp_path):
    for model, task in ((run, "classify"), (mass_run, "regress")):
        with pytest.raises(
            ModelError, match=f"its task is {task}, which ranks nothing; darklens find takes a model of"
        ):
            find_lenses(model, [test_set], tmp_path / "list.csv")


def test_options_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(DarklensError, match="--top must be at least 1; got 0"):
        SearchOptions(top=0)
    with pytest.raises(DarklensError, match=r"--mosaic is a page to draw and ends in .html; got page.png"):
        SearchOptions(mosaic=tmp_path.__class__("page.png"))
    with pytest.raises(DarklensError, match="--prior is the fraction of lenses"):
        SearchOptions(prior=2)


def test_the_verb_takes_many_paths_and_says_what_is_expected(finding_run, survey, own_lenses, tmp_path, capsys):
    line = ["find", *map(str, survey), "--model", str(finding_run), "--out", str(tmp_path / "list.csv"), "--top", "5"]
    main([*line, "--mosaic", str(tmp_path / "page.html"), "--known-lenses", own_lenses, "--prior", "0.1"])
    said = capsys.readouterr().out
    ranked = pl.read_csv(tmp_path / "list.csv")
    assert f"of the first 5, {ranked['probability'].sum():.3g} are expected to be lenses" in said
    assert "130 images ranked, the first 5 kept, 0 skipped" in said
    assert "a fraction of 0.1 are lenses" in said
    with pytest.raises(SystemExit):
        main(line)
    assert "list.csv" in capsys.readouterr().err
