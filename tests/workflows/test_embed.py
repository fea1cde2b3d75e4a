"""Embeddings of cutouts: the table against predictions and features by hand, neighbours, the page, and what is refused."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from conftest import write_rings
from scipy.spatial.distance import cdist

from darklens.cli import main
from darklens.data.dataset import read_dataset
from darklens.data.options import DataOptions
from darklens.data.seeds import simulation_seed
from darklens.data.seen import how_seen
from darklens.errors import DarklensError, DataError, ModelError
from darklens.evaluation.feature_space import FeatureSpace
from darklens.inference.model import ModelConfig, TrainedModel, load_model, save_model
from darklens.models.registry import build_network
from darklens.simulation import Simulator
from darklens.tasks.classify import Classify
from darklens.tasks.pretrain import Pretrain
from darklens.tasks.registry import task_content
from darklens.tasks.superresolve import Superresolve
from darklens.workflows import embed, embedding_page
from darklens.workflows.embed import embed_paths
from darklens.workflows.options import EmbeddingOptions
from darklens.workflows.predict import predict_paths

SIDE = 24


def save(out, network, options, task, name):
    torch.manual_seed(0)
    config = ModelConfig(
        task_content(task, name), {"name": network, **options}, {"stretch": "noise", "center": 0.0, "scale": 1.0}, 3, SIDE,
        outputs=list(task.output_names), classes=list(task.classes), bands=["g", "r", "i"], pixel_scale=0.168,
        recipe={"name": "mine"},
    )  # fmt: skip
    save_model(out, TrainedModel(config, build_network(network, 3, task.outputs, options), task), "card")
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained classifier."""
    options = {"widths": [4, 8], "blocks": [0, 0]}
    task = Classify(class_names=["nonlens", "lens"])
    return save(tmp_path_factory.mktemp("model") / "model", "compact", options, task, "classify")


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """Two datasets of 40 and 26 images."""
    folder = tmp_path_factory.mktemp("survey")
    return [write_rings(folder / "one", 40, 7), write_rings(folder / "two", 26, 8)]


@pytest.fixture(scope="module")
def features(model, survey):
    """What the last layer of the network reads, of all images of both."""
    loaded = load_model(model)
    seen = []
    last = [module for module in loaded.network.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for path in survey:
        loaded.predict(np.asarray(read_dataset(path).images[:]))
    return torch.cat(seen).numpy()


def test_table_has_predictions_catalogue_isolation_and_features(model, survey, features, tmp_path):
    embedded = embed_paths(model, survey, tmp_path / "e.parquet", choices=EmbeddingOptions(neighbours=3))
    predict_paths(model, survey, tmp_path / "p.parquet")
    table, predicted = pl.read_parquet(tmp_path / "e.parquet"), pl.read_parquet(tmp_path / "p.parquet")
    names = [f"f{number:03d}" for number in range(features.shape[1])]
    assert table.columns == [*predicted.columns, "isolation", "cluster", *names]
    assert table.select(predicted.columns).equals(predicted)
    np.testing.assert_allclose(table.select(names).to_numpy(), features, atol=1e-5)
    np.testing.assert_allclose(table["isolation"], FeatureSpace(features).isolation(3), rtol=1e-4)
    assert (embedded.images, embedded.features) == (66, features.shape[1])
    record = json.loads((tmp_path / "e.json").read_text())
    assert record["classes"] == {"lens": 33, "nonlens": 33}
    assert record["accuracy_of_the_most_frequent_class"] == 0.5
    figure = record["probes"]["linear"]["macro_auc"]
    assert figure["low"] <= figure["value"] <= figure["high"]


def test_columns_of_the_catalogue_do_not_hide_those_that_are_added(model, survey, tmp_path):
    folder = shutil.copytree(survey[1], tmp_path / "named")
    catalog = pl.read_parquet(folder / "catalog.parquet")
    own = {"isolation": pl.lit(-7.0), "f000": pl.lit("x"), "cluster": pl.lit(99)}
    catalog.with_columns(**own).write_parquet(folder / "catalog.parquet")
    embed_paths(model, [folder], tmp_path / "e.parquet")
    table = pl.read_parquet(tmp_path / "e.parquet")
    assert table["isolation"].min() > 0
    assert table.select("catalog_isolation", "catalog_f000", "catalog_cluster").row(0) == (-7.0, "x", 99)


def neighbours_of(features, row, number):
    scaled = (features - features.mean(0)) / features.std(0)
    away = cdist(scaled[[row]], scaled)[0]
    away[row] = np.inf
    return np.argsort(away)[:number].tolist()


def test_neighbours_of_an_image_by_its_identifier_are_the_others(model, survey, features, tmp_path):
    choices = EmbeddingOptions(like="o7-5", neighbours=4)
    embedded = embed_paths(model, survey, tmp_path / "e.parquet", choices=choices)
    (like,) = embedded.likes
    assert like.rows.tolist() == neighbours_of(features, 5, 4)
    table = pl.read_parquet(tmp_path / "e.parquet")
    assert [line[0] for line in like.lines] == table["id"][like.rows].to_list()
    assert [line[2] for line in like.lines] == table["label"][like.rows].to_list()
    assert json.loads((tmp_path / "e.json").read_text())["like"]["o7-5"][0]["id"] == like.ids[0]


def test_neighbours_of_a_cutout_in_a_file(model, survey, features, tmp_path):
    np.save(tmp_path / "mine.npy", np.asarray(read_dataset(survey[0]).images[5]))
    choices = EmbeddingOptions(like=str(tmp_path / "mine.npy"), neighbours=4)
    (like,) = embed_paths(model, survey, tmp_path / "e.parquet", choices=choices).likes
    assert like.rows.tolist() == [5, *neighbours_of(features, 5, 3)]
    assert like.distances[0] == pytest.approx(0, abs=1e-5)


def test_cutout_that_is_like_none_is_said_to_be(model, survey, tmp_path):
    strange = np.asarray(read_dataset(survey[0]).images[5]) * 0
    strange[:, ::2] = 1000
    np.save(tmp_path / "strange.npy", strange)
    embedded = embed_paths(
        model, survey, tmp_path / "e.parquet", choices=EmbeddingOptions(like=str(tmp_path / "strange.npy"))
    )
    assert any("no neighbour is much like it" in note for note in embedded.notes)


def test_page_shows_each_image_once_and_asks_nothing_of_the_network(model, survey, tmp_path):
    choices = EmbeddingOptions(page=tmp_path / "map.html", clusters=3, like="o8-3")
    embed_paths(model, survey, tmp_path / "e.parquet", choices=choices)
    text = (tmp_path / "map.html").read_text("utf-8")
    assert len(re.findall(r'<circle cx="[\d.]+" cy="[\d.]+" r="5"', text)) == 66
    links = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', text)
    assert links
    assert all(src.startswith("data:image/jpeg") or other == "${sheets[sheet]}" for src, other in links)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    table = pl.read_parquet(tmp_path / "e.parquet")
    assert [lines[0] for lines in data["texts"]] == table["id"].to_list()
    assert len(data["places"]) == 66
    for title in ("label", "predicted", "cluster", "isolation", "p lens"):
        assert re.search(rf'<label for="by\d">{title}</label>', text), title
    assert "Nearest to o8-3" in text
    assert text.count("<h2>Cluster ") == 3
    most = table.sort("isolation", descending=True)["id"][0]
    outliers = text[text.index("<h2>Outliers") :]
    assert re.search(r'alt="([^"]+)"', outliers)[1] == most
    assert "far distances on it mean nothing" in text
    assert {"map_x", "map_y"} <= set(table.columns)


def test_points_are_coloured_by_what_the_table_says(model, survey, tmp_path):
    choices = EmbeddingOptions(page=tmp_path / "map.html", map="pca")
    embed_paths(model, survey[:1], tmp_path / "e.parquet", choices=choices)
    text = (tmp_path / "map.html").read_text("utf-8")
    points = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="5" class="([^"]*)"', text)
    table = pl.read_parquet(tmp_path / "e.parquet")
    number = re.search(r'<label for="by(\d)">label</label>', text)[1]
    colours = [re.search(rf"m{number}-(\w+)", classes)[1] for _, _, classes in points]
    assert len(set(zip(colours, table["label"], strict=True))) == 2
    x = np.array([float(x) for x, _, _ in points])
    y = np.array([float(y) for _, y, _ in points])
    assert np.corrcoef(x, table["map_x"])[0, 1] == pytest.approx(1, abs=1e-4)
    assert np.corrcoef(y, table["map_y"])[0, 1] == pytest.approx(-1, abs=1e-4)
    assert "first two principal components" in text


def test_of_many_images_some_are_drawn_with_all_that_are_listed(model, survey, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_page, "MAPPED", 10)
    choices = EmbeddingOptions(page=tmp_path / "map.html", like="o7-5", neighbours=2)
    embedded = embed_paths(model, survey, tmp_path / "e.parquet", choices=choices)
    text = (tmp_path / "map.html").read_text("utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    drawn = [lines[0] for lines in data["texts"]]
    assert 10 < len(drawn) < 66
    assert set(embedded.likes[0].ids) <= set(drawn)
    for name, tile in re.findall(r'data-n="(\d+)"><img src="[^"]*" alt="([^"]+)"', text):
        assert drawn[int(name)] == tile


def test_features_of_a_masked_autoencoder(survey, tmp_path):
    options = {"width": 16, "depth": 1, "heads": 2, "patch": 8, "decoder_width": 16}
    run = save(tmp_path / "model", "masked-autoencoder", options, Pretrain(), "pretrain")
    embedded = embed_paths(run, survey[1:], tmp_path / "e.csv")
    assert embedded.features == 16
    assert "reconstruction_error" in pl.read_csv(tmp_path / "e.csv").columns


def test_bad_images_are_refused_or_left_out(model, survey, tmp_path):
    folder = shutil.copytree(survey[1], tmp_path / "bad")
    images = np.load(folder / "images.npy")
    images[3, 0, 0, 0] = np.nan
    np.save(folder / "images.npy", images)
    with pytest.raises(DataError, match="o8-3"):
        embed_paths(model, [folder], tmp_path / "e.parquet")
    assert not list(tmp_path.glob("e.*"))
    embedded = embed_paths(model, [folder], tmp_path / "e.parquet", choices=EmbeddingOptions(skip=True))
    assert list(embedded.skipped) == ["o8-3"]
    assert "o8-3" not in pl.read_parquet(tmp_path / "e.parquet")["id"]


def test_what_cannot_be_is_refused_before_images_are_read(model, survey, tmp_path):
    for choices, says in (
        (EmbeddingOptions(like="o9-1"), "--like o9-1: neither a path nor the identifier of an image"),
        (EmbeddingOptions(clusters=67), "--clusters 67 is more than the 66 images that can be used"),
        (EmbeddingOptions(like=str(survey[0])), "40 images; --like takes at most 20"),
    ):
        with pytest.raises(DataError, match=says):
            embed_paths(model, survey, tmp_path / "e.parquet", choices=choices)
    task = Superresolve(factor=2, center=0.5, scale=1.25, flux_ratio=0.25)
    finer = save(tmp_path / "finer", "edsr", {"width": 8, "blocks": 1}, task, "superresolve")
    with pytest.raises(ModelError, match="makes images of images"):
        embed_paths(finer, survey, tmp_path / "e.parquet")
    for options, says in (
        ({"page": tmp_path / "m.pdf"}, "ends in .html"),
        ({"clusters": 1}, "--clusters must be at least 2"),
    ):
        with pytest.raises(DarklensError, match=says):
            EmbeddingOptions(**options)


def test_images_that_look_alike_to_the_model_are_refused(survey, tmp_path):
    options = {"widths": [4, 8], "blocks": [0, 0]}
    run = save(tmp_path / "model", "compact", options, Classify(class_names=["nonlens", "lens"]), "classify")
    folder = shutil.copytree(survey[1], tmp_path / "same")
    images = np.load(folder / "images.npy")
    images[:] = images[:1]
    np.save(folder / "images.npy", images)
    with pytest.raises(DataError, match="all images have the same features"):
        embed_paths(run, [folder], tmp_path / "e.parquet")


def test_images_whose_features_are_no_numbers_have_no_isolation():
    features = np.random.default_rng(0).normal(size=(30, 4))
    features[[3, 8], 1] = np.nan, np.inf
    table = pl.DataFrame({"id": [f"o{row}" for row in range(30)]})
    explored, added = embed._explore(table, features, EmbeddingOptions(neighbours=2), None)
    assert explored.notes[0].startswith("features of 2 images are no numbers (o3, o8)")
    assert [row for row in range(30) if added["isolation"][row] is None] == [3, 8]
    kept = np.delete(features, [3, 8], axis=0)
    np.testing.assert_allclose(added["isolation"].drop_nulls(), FeatureSpace(kept).isolation(2))
    with pytest.raises(DataError, match="a map takes at least 3 images; 2 can be used"):
        embed._explore(table[:3], features[1:4], EmbeddingOptions(page=Path("map.html")), None)


def test_one_image_has_features_and_no_neighbours(model, survey, tmp_path):
    np.save(tmp_path / "mine.npy", np.asarray(read_dataset(survey[0]).images[5]))
    embedded = embed_paths(model, [tmp_path / "mine.npy"], tmp_path / "e.fits")
    assert "one image alone has no neighbours" in embedded.notes
    assert (tmp_path / "e.fits").is_file()


def test_images_of_a_preset_are_fresh_ones():
    choices = EmbeddingOptions(count=6, seed=2)
    found = embed._open(Path("preset:model-3-noisy"), DataOptions(), choices, trust_code=False)
    expected = Simulator("model-3-noisy", simulation_seed(2, "test"))
    np.testing.assert_array_equal(found.images, expected.render(expected.catalog(6)).numpy().astype(found.images.dtype))
    assert how_seen({"simulated": {"preset": "model-3-noisy", "seeds": [2]}}, found.info) is None


def test_command_line_prints_probes_and_neighbours(model, survey, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["embed", str(survey[0]), "--model", str(model), "--out", "e.parquet", "--like", "o7-5", "--page", "map.html"])
    said = capsys.readouterr().out
    assert re.search(r"^linear +0\.\d+", said, re.MULTILINE)
    assert "nearest to o7-5" in said
    assert re.search(r"40 images of \d+ features", said)
    assert json.loads((tmp_path / "e.json").read_text())["command"].startswith("darklens embed ")
