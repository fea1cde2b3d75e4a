"""Networks that take columns of a catalogue: training, resuming, evaluation, prediction, ensembles."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch

from darklens.data.dataset import DatasetInfo, DatasetWriter
from darklens.data.options import DataOptions
from darklens.errors import DarklensError, DataError, ModelError, RecipeError
from darklens.inference.attribution import attributions
from darklens.inference.model import load_model
from darklens.training import fit as fitting
from darklens.training.ensemble import make_ensemble
from darklens.training.fit import EpochLines
from darklens.training.job import Job
from darklens.training.recipe import load_recipe
from darklens.training.train import resume, train
from darklens.workflows.evaluate import evaluate_run
from darklens.workflows.explain import explain_images
from darklens.workflows.finetune import finetune
from darklens.workflows.options import EvaluationOptions, PredictionOptions
from darklens.workflows.predict import predict_paths

PIXELS, ROWS = 16, 96
TINY = {
    "network.name": "attention-fusion", "network.widths": [4, 4], "network.tokens": 8, "network.heads": 2,
    "trainer.epochs": 2, "trainer.batch_size": 32, "trainer.precision": "32-true",
    "inputs.columns": ["mag_g", "seeing", "kind"],
}  # fmt: skip
RECIPE = load_recipe("finding/demo", TINY)


def rows(count, seed):
    """Honest columns: magnitudes that say a little, seeing that says nothing, and a kind with gaps."""
    rng = np.random.default_rng(seed)
    labels = np.where(np.arange(count) % 3 == 0, "lens", "nonlens")
    magnitudes = rng.normal(20, 1, count) - 0.8 * (labels == "lens")
    return pl.DataFrame(
        {
            "id": [f"{seed}-{i}" for i in range(count)],
            "label": labels,
            "mag_g": [None if i % 10 == 7 else float(m) for i, m in enumerate(magnitudes)],
            "seeing": rng.uniform(0.5, 1.1, count),
            "kind": rng.choice(["E", "S0", "Sb"], count),
        }
    )


def write(path, catalog, seed, **columns):
    rng = np.random.default_rng(seed)
    shape = (len(catalog), 1, PIXELS, PIXELS)
    with DatasetWriter(path, shape, np.dtype(np.float32), fingerprint={}) as writer:
        writer.write(0, rng.normal(5, 1, shape).astype(np.float32))
        writer.checkpoint(len(catalog))
        return writer.finish(catalog.with_columns(**columns), DatasetInfo("made", ["nonlens", "lens"]))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "train", rows(ROWS, 1), 1)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "test", rows(40, 2), 2)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return train(Job(RECIPE, str(data)), tmp_path_factory.mktemp("runs") / "fusion")


def test_model_folder_knows_its_columns_as_plain_numbers(trained, data):
    columns = json.loads((trained / "model" / "config.json").read_text())["catalog"]
    split = pl.read_parquet(trained / "split.parquet")
    training = rows(ROWS, 1).join(split.filter(pl.col("split") == "train"), on="id")
    assert [column["name"] for column in columns] == ["mag_g", "seeing", "kind"]
    assert columns[0]["mean"] == pytest.approx(training["mag_g"].mean(), rel=1e-12)
    assert columns[1]["scale"] == pytest.approx(training["seeing"].std(ddof=0), rel=1e-12)
    assert columns[2]["categories"] == ["E", "S0", "Sb"]
    assert [column["has_missing"] for column in columns] == [True, False, False]
    assert "`mag_g`, `seeing`, `kind`" in (trained / "model" / "README.md").read_text()


def test_predictions_depend_on_the_catalogue_and_on_the_right_row_of_it(trained, others, tmp_path):
    model = load_model(trained)
    images, catalog = np.load(others / "images.npy"), pl.read_parquet(others / "catalog.parquet")
    together = model.predict(images, catalog=catalog)
    alone = np.concatenate([model.predict(images[[i]], catalog=catalog[[i]]).array for i in range(5)])
    np.testing.assert_allclose(together.array[:5], alone, atol=1e-6)
    changed = catalog.with_columns(pl.col("mag_g") + 3)
    assert np.abs(model.predict(images, catalog=changed).array - together.array).max() > 1e-5
    as_lists = {name: catalog[name].to_list() for name in model.columns}
    np.testing.assert_array_equal(model.predict(images, catalog=as_lists).array, together.array)
    assert together.outlier_score.shape == (40,)

    predict_paths(trained, [others], tmp_path / "out.parquet")
    table = pl.read_parquet(tmp_path / "out.parquet")
    np.testing.assert_allclose(table["p_lens"], together.array[:, 1], atol=1e-6)


def test_catalogue_is_joined_by_identifier_in_whatever_order_its_rows_are(trained, others, tmp_path):
    catalog = pl.read_parquet(others / "catalog.parquet")
    bare = shutil.copytree(others, tmp_path / "bare")
    catalog.select("id").write_parquet(bare / "catalog.parquet")
    catalog.drop("label").reverse().write_csv(tmp_path / "beside.csv")
    predict_paths(trained, [bare], tmp_path / "a.parquet", options=DataOptions(catalog=tmp_path / "beside.csv"))
    predict_paths(trained, [others], tmp_path / "b.parquet")
    a, b = (pl.read_parquet(tmp_path / f"{name}.parquet") for name in "ab")
    np.testing.assert_allclose(a["p_lens"], b["p_lens"], atol=1e-6)
    with pytest.raises(DataError, match=r"bare: no column 'mag_g', 'seeing', 'kind', which the network takes beside"):
        predict_paths(trained, [bare], tmp_path / "c.parquet")
    catalog.drop("label")[:38].write_csv(tmp_path / "short.csv")
    with pytest.raises(DataError, match=r"bare: 2 images \(2-38, 2-39\) without a row in the catalogue"):
        predict_paths(trained, [bare], tmp_path / "c.parquet", options=DataOptions(catalog=tmp_path / "short.csv"))


def test_symmetries_evaluation_and_attribution_see_the_catalogue(trained, others, tmp_path):
    record = evaluate_run(trained, others, EvaluationOptions(symmetries=True))
    assert record["n"] == 40
    explain_images(trained, [write(tmp_path / "few", rows(3, 4), 4)], tmp_path / "maps.png")
    model, catalog = load_model(trained), pl.read_parquet(others / "catalog.parquet")[:2]
    images = torch.from_numpy(np.load(others / "images.npy")[:2])
    maps = attributions(model, images, [1, 1], catalog=catalog)
    # Integrated gradients add up to the change of the output from an even image, at the same row of the catalogue.
    beside = model.inputs(catalog)
    with torch.no_grad():
        prepared = model.preprocessing(images)
        change = model.network(prepared, *beside)[:, 1] - model.network(torch.zeros_like(prepared), *beside)[:, 1]
    np.testing.assert_allclose(maps.sum((1, 2)), change, rtol=0.1, atol=2e-3)


def test_unknown_category_is_said_once(trained, others, tmp_path):
    odd = write(tmp_path / "odd", rows(40, 2).with_columns(kind=pl.lit("Irr")), 2)
    notes = predict_paths(trained, [odd], tmp_path / "o.parquet").notes
    assert [note for note in notes if "'kind' holds 'Irr' in 40 of 40 rows" in note] == notes[:1]


def test_deployment_names_what_is_missing(trained, others):
    model, images = load_model(trained), np.load(others / "images.npy")[:2]
    with pytest.raises(
        ModelError, match=r"takes columns of the catalogue beside images \(mag_g, seeing, kind\); give cat"
    ):
        model.predict(images)
    with pytest.raises(DataError, match=r"no column 'kind'"):
        model.predict(images, catalog={"mag_g": [20.0, 21.0], "seeing": [0.7, 0.8]})
    with pytest.raises(ModelError, match="catalog has 1 rows for 2 images"):
        model.predict(images, catalog={"mag_g": [20.0], "seeing": [0.7], "kind": ["E"]})
    with pytest.raises(DataError, match=r"column 'mag_g' holds String where training rows held numbers.*'bright'"):
        model.predict(images, catalog={"mag_g": ["bright", "faint"], "seeing": [0.7, 0.8], "kind": ["E", "E"]})


def test_ensemble_gives_each_member_its_own_scale(trained, data, others, tmp_path):
    second = train(Job(RECIPE, str(data), seed=5), tmp_path / "second")
    both = make_ensemble([trained, second], tmp_path / "both")
    images, catalog = np.load(others / "images.npy"), pl.read_parquet(others / "catalog.parquet")
    found = load_model(both)
    assert found.columns == ["mag_g", "seeing", "kind"]
    parts = [member.predict(images, catalog=catalog).array for member in found.members]
    odds = np.mean([load_model(run).predict(images, catalog=catalog).array for run in (trained, second)], axis=0)
    np.testing.assert_allclose(np.mean(parts, axis=0), odds, atol=1e-6)
    assert found.members[0].encoder != found.members[1].encoder
    predict_paths(both, [others], tmp_path / "e.parquet", choices=PredictionOptions(symmetries=True))


def test_resumed_run_ends_with_the_same_weights(trained, data, tmp_path, monkeypatch):
    """Two epochs at once, and one and then one; with another catalogue it does not go on."""

    class Kill(EpochLines):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise RuntimeError("killed")

    folder = shutil.copytree(data, tmp_path / "train")
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "EpochLines", Kill)
        with pytest.raises(RuntimeError, match="killed"):
            train(Job(RECIPE, str(folder)), tmp_path / "half")
    catalog = pl.read_parquet(folder / "catalog.parquet")
    catalog.with_columns(pl.col("seeing") * 2).write_parquet(folder / "catalog.parquet")
    with pytest.raises(DataError, match="columns of the catalogue are not those that the run began with"):
        resume(tmp_path / "half")
    catalog.write_parquet(folder / "catalog.parquet")
    resume(tmp_path / "half")
    before, after = (load_model(run).network.state_dict() for run in (trained, tmp_path / "half"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_finetuning_keeps_columns_and_scales(trained, others, tmp_path):
    tuned = finetune(str(trained), str(others), tmp_path / "tuned", overrides={"trainer.epochs": 1})
    assert load_model(tuned).encoder == load_model(trained).encoder
    with pytest.raises(RecipeError, match=r"inputs.columns are seeing; those of .*fusion, .* are mag_g, seeing, kind"):
        finetune(str(trained), str(others), tmp_path / "no", overrides={"inputs.columns": "seeing"})


def test_images_that_are_simulated_as_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr("darklens.training.training_data.VALIDATION_IMAGES", 64)
    monkeypatch.setattr("darklens.training.training_data.STATISTICS_IMAGES", 128)
    monkeypatch.setattr("darklens.training.training_data.CATALOG_ROWS", 128)
    preset = tmp_path / "small.yaml"
    preset.write_text("extends: finding-deeplense\npixels: 16\nfaintest_neighbour: 18\n")
    recipe = load_recipe(
        "finding/demo",
        TINY | {
            "inputs.columns": "galaxy_magnitude_i,galaxy_R_sersic", "trainer.batch_size": 64, "trainer.epochs": 1,
            "trainer.epoch_images": 128,
        },
    )  # fmt: skip
    run = train(Job(recipe, f"preset:{preset}"), tmp_path / "run")
    assert load_model(run).columns == ["galaxy_magnitude_i", "galaxy_R_sersic"]
    assert evaluate_run(run, f"preset:{preset}", EvaluationOptions(count=48))["n"] == 48
    both = make_ensemble([run, run], tmp_path / "both")
    assert load_model(both).columns == ["galaxy_magnitude_i", "galaxy_R_sersic"]
    leaking = load_recipe("finding/demo", TINY | {"inputs.columns": "theta_E", "trainer.batch_size": 64})
    with pytest.raises(
        DataError, match=r"preset:small: columns .* tell the label without an image: theta_E \(AUC 1.000"
    ):
        train(Job(leaking, f"preset:{preset}"), tmp_path / "no")


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        ({}, ["mag_r"], "no column 'mag_r', which the network takes beside the image; the catalogue has label, mag_g"),
        ({"seeing": pl.lit(0.7)}, ["seeing"], "column 'seeing' is constant over the training rows"),
        ({"id": pl.lit("same")}, ["seeing"], r"1 identifiers \(same\) in more than one row"),
        ({"seeing": pl.lit(np.inf)}, ["seeing"], "column 'seeing' is infinite"),
        ({"kind": pl.col("id")}, ["kind"], "holds more than 64 different texts"),
        ({}, ["seeing", "seeing"], "names 'seeing' twice"),
        ({"split": pl.when(pl.col("label") == "lens").then(pl.lit("train")).otherwise(
            pl.when(pl.int_range(pl.len()) % 4 == 1).then(pl.lit("validation")).otherwise(pl.lit("train")))},
         ["seeing"], "validation: none of .* images is a lens; both are needed"),
        ({"leak": (pl.col("label") == "lens") + 0.01 * pl.col("seeing")}, ["leak", "seeing"],
         r"tell the label without an image: leak \(AUC 1.000\); all together AUC 1.000. A network would"),
    ],
)  # fmt: skip
def test_catalogue_that_cannot_be_used_is_refused(tmp_path, change, columns, message):
    path = write(tmp_path / "bad", rows(ROWS, 1), 1, **change)
    with pytest.raises(DataError, match=message):
        train(Job(load_recipe("finding/demo", TINY | {"inputs.columns": columns}), str(path)), tmp_path / "run")


def test_leaks_can_be_allowed(tmp_path):
    path = write(tmp_path / "leaking", rows(ROWS, 1), 1, leak=(pl.col("label") == "lens") + 0.01 * pl.col("seeing"))
    recipe = load_recipe("finding/demo", TINY | {"inputs.columns": ["leak"], "allow_leaks": True, "trainer.epochs": 1})
    run = train(Job(recipe, str(path)), tmp_path / "run")
    assert "leak (AUC 1.000)" in " ".join(json.loads((run / "run.json").read_text())["notes"])


def test_images_without_row_and_rows_without_image_are_listed(tmp_path, data):
    catalog = rows(ROWS, 1)
    bare = shutil.copytree(data, tmp_path / "bare")
    catalog.select("id", "label").write_parquet(bare / "catalog.parquet")
    catalog = catalog.drop("label").with_columns(id=pl.col("id").replace({"1-3": "x", "1-4": "y"}))
    catalog.write_csv(tmp_path / "beside.csv")
    job = Job(RECIPE, str(bare), options=DataOptions(catalog=tmp_path / "beside.csv"))
    message = (
        r"2 images \(1-3, 1-4\) without a row in the catalogue and 2 rows of the catalogue \(x, y\) without an image"
    )
    with pytest.raises(DataError, match=message):
        train(job, tmp_path / "run")


def test_network_that_takes_images_alone_is_refused(data, tmp_path):
    recipe = load_recipe("finding/demo", {"inputs.columns": "seeing", "trainer.batch_size": 32})
    with pytest.raises(ModelError, match=r"network compact takes images alone, and inputs.columns names columns"):
        train(Job(recipe, str(data)), tmp_path / "run")
    without = load_recipe("finding/demo", TINY | {"inputs.columns": None})
    with pytest.raises(
        DarklensError, match=r"network attention-fusion takes columns of the catalogue: name them by --inp"
    ):
        train(Job(without, str(data)), tmp_path / "run")
