"""What a run learns from: which images are for training and which for validation."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from conftest import TINY

from darklens.data.dataset import DatasetInfo, DatasetWriter
from darklens.data.options import DataOptions
from darklens.errors import DataError, RecipeError
from darklens.simulation import Simulator, load_preset
from darklens.training.build import build_module
from darklens.training.job import check_same_images
from darklens.training.recipe import load_recipe
from darklens.training.training_data import MEMBER_STRIDE, open_training_data


@pytest.fixture(autouse=True)
def _few_images_without_compilation(monkeypatch):
    monkeypatch.setattr("darklens.simulation.renderer.fused_light", lambda *_, **__: None)
    monkeypatch.setattr("darklens.training.training_data.VALIDATION_IMAGES", 64)
    monkeypatch.setattr("darklens.training.training_data.STATISTICS_IMAGES", 128)


RECIPE = load_recipe("substructure/demo", TINY | {"trainer.batch_size": 64})


def block(seed):
    return Simulator("model-3-noisy", seed).block(0)[0]


def test_simulated_training_and_validation_images_are_of_different_seeds():
    data = open_training_data("preset:model-3-noisy", RECIPE, 5)
    training, held_out = data.train[range(64)]["image"], data.validation[range(64)]["image"]
    torch.testing.assert_close(held_out, block(2 * 2**30 + 5))
    torch.testing.assert_close(data.sample, block(2**30 + 5))
    torch.testing.assert_close(training, block(2**30 + 5))
    simulated = data.description["simulated"]
    assert (simulated["preset"], simulated["seeds"]) == ("model-3-noisy", [2**30 + 5, 2 * 2**30 + 5])
    assert not torch.allclose(training, held_out)
    other = open_training_data("preset:model-3-noisy", RECIPE, 6)
    assert not torch.allclose(other.train[range(64)]["image"], training)


def test_runs_of_version_0_1_go_on_with_the_images_that_they_began_with():
    data = open_training_data("preset:model-3-noisy", RECIPE, 5, member=1, own_seeds=False)
    torch.testing.assert_close(data.train[range(64)]["image"], block(5 + 1009))
    torch.testing.assert_close(data.validation[range(64)]["image"], block(5 + 1_000_003))
    assert data.description["simulated"]["seeds"] == [1014, 1_000_008]


def test_no_seed_leads_to_images_of_a_dataset_folder():
    for seed in (-1, 2**30):
        with pytest.raises(DataError, match=f"--seed must be from 0 to 1073741823; got {seed}"):
            open_training_data("preset:model-3-noisy", RECIPE, seed)
    last = open_training_data("preset:model-3-noisy", RECIPE, 2**30 - 1, member=1)
    assert last.description["simulated"]["seeds"] == [2**30 + 1008, 3 * 2**30 - 1]


def test_members_learn_from_other_images_and_share_the_validation_images():
    first = open_training_data("preset:model-3-noisy", RECIPE, 5)
    second = open_training_data("preset:model-3-noisy", RECIPE, 5, member=1)
    assert second.seed == 5 + MEMBER_STRIDE
    torch.testing.assert_close(second.validation[range(64)]["image"], first.validation[range(64)]["image"])
    assert not torch.allclose(second.train[range(64)]["image"], first.train[range(64)]["image"])


def test_labels_are_those_of_the_preset(tmp_path):
    data = open_training_data("preset:model-3-noisy", RECIPE, 5)
    labels = [data.task.class_names[i] for i in data.validation[range(64)]["target"]]
    assert labels == Simulator("model-3-noisy", 2 * 2**30 + 5).catalog(64)["label"].to_list()
    assert data.task.class_names == ["no_sub", "cdm", "axion"]


def test_values_come_with_their_images_and_unknown_ones_are_left_out():
    recipe = load_recipe("mass/demo", TINY | {"trainer.batch_size": 64})
    data = open_training_data("preset:model-3-noisy", recipe, 5)
    truths = Simulator("model-3-noisy", 2 * 2**30 + 5).catalog(64)
    known = truths["log10_axion_mass"].is_not_null().to_numpy()
    held_out = data.validation[range(len(data.validation))]
    np.testing.assert_allclose(held_out["target"][:, 0], truths["log10_axion_mass"].drop_nulls(), rtol=1e-6)
    torch.testing.assert_close(held_out["image"], block(2 * 2**30 + 5)[torch.from_numpy(known)])
    with pytest.raises(DataError, match=r"preset:model-3-noisy: no column 'halo_mass', .*; numbers are in .*theta_E"):
        open_training_data("preset:model-3-noisy", load_recipe("mass/demo", {"task.target": "halo_mass"}), 0)


@pytest.mark.parametrize("missing", [None, ""])
def test_images_without_a_label_are_left_out(dataset, tmp_path, missing):
    folder = shutil.copytree(dataset, tmp_path / "partly")
    catalog = pl.read_parquet(folder / "catalog.parquet")
    labels = [missing if i % 7 == 0 else label for i, label in enumerate(catalog["label"])]
    catalog.with_columns(pl.Series("label", labels)).write_parquet(folder / "catalog.parquet")
    data = open_training_data(str(folder), load_recipe("substructure/demo", TINY), 0)
    assert "28 of 192 images have no label and are left out" in data.notes
    assert len(data.train) + len(data.validation) == 164
    part = data.validation[range(len(data.validation))]
    names = dict(zip(catalog["id"].cast(pl.String), labels, strict=True))
    assert part["target"].dtype == torch.int64
    chosen = data.split.filter(pl.col("split") == "validation")["id"]
    assert [data.task.class_names[i] for i in part["target"]] == [names[name] for name in chosen]


def test_run_does_not_go_on_with_another_preset(tmp_path):
    """Nor with another deflection of one's own; where the files are does not matter."""

    def opened(folder, radius="0.1", factor=1):
        folder.mkdir(exist_ok=True)
        (folder / "own.py").write_text(f"def still(x, y, x0, y0, r):\n    return {factor} * r * x, 0 * y\n")
        (folder / "mine.yaml").write_text(
            "extends: model-3-noisy\nclasses: {a: {}, b: {subhalos: {profile: 'own.py:still', count: 1, "
            f"parameters: {{r: {radius}}}}}}}, no_sub: null, cdm: null, axion: null}}\n"
        )
        return open_training_data(
            f"preset:{folder / 'mine.yaml'}", load_recipe("substructure/demo", TINY | {"trainer.batch_size": 64}), 0,
            trust_code=True,
        )  # fmt: skip

    data = opened(tmp_path / "first")
    run = tmp_path / "run"
    run.mkdir()
    record = {"recipe": {"name": "mine"}}
    (run / "run.json").write_text(json.dumps(record | {"data_description": data.description}))
    check_same_images(opened(tmp_path / "moved"), run)
    for changed in ({"radius": "0.2"}, {"factor": 300}):
        with pytest.raises(DataError, match="the preset, or a file that it names, was changed since the run began"):
            check_same_images(opened(tmp_path / "first", **changed), run)
    older = {"simulated": {"preset": "mine", "seeds": [1, 2]}}
    (run / "run.json").write_text(json.dumps(record | {"data_description": older}))
    check_same_images(data, run)


def test_seed_decides_split_order_and_weights(dataset):
    def opened(seed):
        return open_training_data(str(dataset), load_recipe("substructure/demo", TINY), seed)

    def first_rows(data):
        loader = data.train_loader(0, 1)
        loader.sampler.set_epoch(0)
        return next(iter(loader))["row"].tolist()

    def weight(data):
        return build_module(data.recipe, data).network.state_dict()["stem.0.weight"]

    a, again, b = opened(1), opened(1), opened(2)
    assert a.split.equals(again.split)
    assert not a.split.equals(b.split)
    assert first_rows(a) == first_rows(again)
    assert first_rows(a) != first_rows(b)
    assert torch.equal(weight(a), weight(again))
    assert not torch.equal(weight(a), weight(b))


def test_rows_marked_test_are_in_neither_set(dataset, tmp_path):
    from darklens.data.importing import import_data
    from darklens.data.layouts import open_data

    split = import_data(
        open_data(dataset), tmp_path / "split", fractions={"train": 0.5, "validation": 0.2, "test": 0.3}
    )
    data = open_training_data(str(split), load_recipe("substructure/demo", TINY), 0)
    marked = open_data(split).catalog
    assert sorted(data.train.ids) == sorted(marked.filter(split="train")["id"])
    assert sorted(data.validation.ids) == sorted(marked.filter(split="validation")["id"])
    assert data.description["test_images"] == (marked["split"] == "test").sum()


STORED = {"trainer.batch_size": 16, "preprocessing.crop": None}


@pytest.fixture
def stored(tmp_path):
    """Write a dataset of 150 images (2, 12, 12); return its path."""

    def write(name="set", shape=(150, 2, 12, 12), targets=None, **columns):
        images = np.random.default_rng(0).normal(3, 1, shape).astype(np.float32)
        images *= np.linspace(1, 2, shape[0]).reshape(-1, 1, 1, 1).astype(np.float32)
        writer = DatasetWriter(tmp_path / name, images.shape, images.dtype, fingerprint={})
        writer.write(0, images)
        labels = ["cdm", "axion", "cdm"] * (shape[0] // 3)
        catalog = pl.DataFrame({"id": [f"i{n}" for n in range(shape[0])], "label": labels} | columns)
        info = DatasetInfo("a telescope", ["axion", "cdm"], ["g", "r"][: shape[1]], 0.1, unit="counts", seed=9)
        return str(writer.finish(catalog, info, targets)), images

    return write


def opened(
    path,
    seed=3,
    options=DataOptions(),
    unlabelled=None,
    member=0,
    split_seed=None,
    recipe="substructure/demo",
    **overrides,
):
    changes = STORED | {key.replace("__", "."): value for key, value in overrides.items()}
    made = load_recipe(recipe, changes)
    return open_training_data(
        path, made, seed, options=options, unlabelled=unlabelled, member=member, split_seed=split_seed
    )


def test_what_is_remembered_of_a_dataset(stored):
    path, images = stored()
    data = opened(path)
    assert (data.train_images, len(data.validation), data.shape, data.seed) == (135, 15, (2, 12, 12), 3)
    assert (data.bands, data.pixel_scale, data.unit, data.unlabelled) == (["g", "r"], 0.1, "counts", None)
    assert data.task.class_names == ["axion", "cdm"]
    rows = [int(name[1:]) for name in data.train.ids]
    by_number = data.split.with_columns(row=pl.col("id").str.slice(1).cast(int)).sort("row")["split"].to_list()
    assert [n for n in range(150) if by_number[n] == "train"] == sorted(rows)
    assert data.split.columns == ["id", "split"]
    assert len(data.sample) == 128
    sampled = {float(image[0, 0, 0]) for image in data.sample}
    assert sampled < {float(images[row, 0, 0, 0]) for row in rows}
    peaks = np.quantile(data.sample.numpy().reshape(128, -1), 0.995, axis=1)
    assert data.description == {
        "source": "a telescope", "layout": "dataset", "seed": 9, "train_images": 135, "validation_images": 15,
        "test_images": 0, "checksum": data.description["checksum"], "simulated": None,
        "typical_peak": pytest.approx(np.sort(peaks)[63], rel=1e-5),
    }  # fmt: skip
    assert data.description["checksum"]
    batch = data.train[[4, 2]]
    torch.testing.assert_close(batch["image"], torch.from_numpy(images[[rows[4], rows[2]]]))
    labels = ["cdm", "axion", "cdm"] * 50
    assert batch["target"].tolist() == [["axion", "cdm"].index(labels[rows[n]]) for n in (4, 2)]


def test_member_of_a_stored_dataset_shares_the_split_and_not_the_order(stored):
    path, _ = stored()
    first, second = opened(path), opened(path, member=2)
    assert (first.seed, second.seed) == (3, 3 + 2 * 1009)
    assert first.split.equals(second.split)
    torch.testing.assert_close(first.sample, second.sample)
    assert not torch.equal(opened(path, seed=4).sample, first.sample)


def test_split_may_be_that_of_another_seed(stored):
    """Then all but the split, or the validation images of a preset, is that of the seed itself."""
    path, _ = stored()
    first, second, other = opened(path), opened(path, seed=4, split_seed=3), opened(path, seed=4)
    assert second.seed == 4
    assert first.split.equals(second.split)
    assert not first.split.equals(other.split)
    assert not torch.equal(second.sample, first.sample)
    first, second = (
        open_training_data("preset:model-3-noisy", RECIPE, seed, member=1, split_seed=5) for seed in (5, 6)
    )
    assert first.description["simulated"]["seeds"] == [2**30 + 5 + 1009, 2 * 2**30 + 5]
    assert second.description["simulated"]["seeds"] == [2**30 + 6 + 1009, 2 * 2**30 + 5]


def test_loaders_divide_batches_among_processes(stored):
    path, _ = stored()
    data = opened(path)
    loaders = [data.train_loader(rank, 2) for rank in (0, 1)]
    rows = []
    for loader in loaders:
        loader.sampler.set_epoch(1)
        rows.append([batch["row"].tolist() for batch in loader])
    assert {len(batch) for each in rows for batch in each} == {8}
    flat = [set(np.concatenate(each)) for each in rows]
    assert not flat[0] & flat[1]
    assert len(rows[0]) == len(rows[1]) == 135 // 16
    assert sum(len(batch["row"]) for batch in opened(path, trainer__epoch_images=48).train_loader(0, 1)) == 48
    assert loaders[0].num_workers == 0
    assert opened(path, trainer__workers=2).train_loader(0, 1).num_workers == 2
    said = "trainer.batch_size: 16 images in a step cannot be divided equally among 3 processes; choose a multiple of 3, or"
    with pytest.raises(RecipeError, match=f"^recipe substructure/demo: {said} other --trainer.devices$"):
        data.train_loader(0, 3)
    ordered = [batch["row"].tolist() for batch in data.validation_loader(0, 1)]
    assert ordered == [list(range(15))]
    parts = [np.concatenate([batch["row"] for batch in data.validation_loader(rank, 2)]).tolist() for rank in (0, 1)]
    assert set(parts[0]) | set(parts[1]) == set(range(15))
    assert len(parts[0]) < 15


def test_rows_without_a_value_are_left_out(stored):
    values = [float(n) if n % 5 else None for n in range(150)]
    path, images = stored(m=values)
    data = opened(path, recipe="mass/demo", task__target="m")
    assert data.train_images + len(data.validation) == 120
    rows = [int(name[1:]) for name in data.train.ids]
    assert all(row % 5 for row in rows)
    batch = data.train[[7]]
    assert batch["target"].tolist() == [[float(rows[7])]]
    assert batch["target"].dtype == torch.float32
    torch.testing.assert_close(batch["image"][0], torch.from_numpy(images[rows[7]]))
    assert data.task.center == [pytest.approx(np.mean(rows), rel=1e-6)]
    assert data.task.scale == [pytest.approx(np.std(rows), rel=1e-6)]


def test_what_a_recipe_cannot_learn_from_is_said(stored):
    path, _ = stored(m=[2.5] * 150, z=list(range(150)), name_of=["x"] * 150)
    with pytest.raises(DataError, match=r"set: no column 'q', which the task needs; numbers are in m, z\. --catalog"):
        opened(path, recipe="mass/demo", task__target="q")
    with pytest.raises(DataError, match="set: every training image has the same m"):
        opened(path, recipe="mass/demo", task__target="m")
    with pytest.raises(DataError, match="set: 135 training images are fewer than a batch of 136; choose a smaller"):
        opened(path, trainer__batch_size=136)
    assert opened(path, trainer__batch_size=135).train_images == 135
    plain, _ = stored("plain")
    with pytest.raises(DataError, match="numbers are in none"):
        opened(plain, recipe="mass/demo", task__target="q")
    with pytest.raises(RecipeError, match="--unlabelled other: this recipe's task has no use for a second dataset"):
        opened(plain, unlabelled="other")


def test_options_reach_the_images(stored):
    path, _ = stored()
    array = np.load(f"{path}/images.npy", mmap_mode="r+")
    array[:, 0, 3, 3] = np.nan
    array.flush()
    with pytest.raises(DataError, match="nan or infinite"):
        opened(path)
    data = opened(path, options=DataOptions(mask=True))
    assert float(data.sample[:, 0, 3, 3].abs().max()) == 0
    array[:, 0, 3, 3] = 0
    array[:] = 1.5
    array.flush()
    with pytest.raises(DataError, match=r"one value|constant"):
        opened(path, preprocessing__stretch="minmax")
    assert opened(path).sample.unique().tolist() == [1.5]


def test_crop_of_the_recipe_is_read_from_the_centre(stored):
    path, images = stored()
    data = opened(path, preprocessing__crop=6)
    row = int(data.train.ids[0][1:])
    torch.testing.assert_close(data.train[[0]]["image"][0], torch.from_numpy(images[row, :, 3:9, 3:9]))
    assert data.shape == (2, 12, 12), "of the images, before they are cropped"


def test_images_that_are_not_square_are_cropped_with_a_note(stored):
    path, images = stored(shape=(150, 2, 12, 16))
    data = opened(path)
    assert data.notes == ["images of 12×16 pixels are cropped to the central 12×12"]
    assert data.shape == (2, 12, 12)
    row = int(data.train.ids[0][1:])
    torch.testing.assert_close(data.train[[0]]["image"][0], torch.from_numpy(images[row, :, :, 2:14]))


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        ({}, []),
        ({"preprocessing__repeat_channels": 3}, []),
        (
            {"preprocessing__repeat_channels": 2},
            ["the images have 2 bands, which the network sees as they are; nothing is repeated"],
        ),
        (
            {"preprocessing__lens_model": True},
            ["the smooth lens is fitted to the sum of the 2 bands; --preprocessing.lens_band chooses one"],
        ),
        ({"preprocessing__lens_model": True, "preprocessing__lens_band": "g"}, []),
    ],
)
def test_what_is_done_with_bands_is_noted(stored, changes, notes):
    path, _ = stored()
    assert opened(path, **changes).notes == notes


OWN = """
from dataclasses import dataclass
import numpy as np
from darklens.tasks.base import Needs
from darklens.tasks.classify import Classify

@dataclass(frozen=True)
class Taught(Classify):
    @property
    def needs(self):
        return Needs(("label",), unlabelled=True)

@dataclass(frozen=True)
class Paired(Classify):
    @property
    def needs(self):
        return Needs(pairs=True)
    def for_data(self, cutouts):
        return self
"""


def test_second_dataset_stands_beside_each_batch(stored, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    path, _ = stored()
    other, images = stored("other", shape=(30, 2, 12, 12))
    task = f"{tmp_path}/own.py:Taught"
    data = opened(path, unlabelled=other, task__name=task)
    assert len(data.unlabelled) == 30
    batch = next(iter(data.train_loader(0, 1)))
    assert batch["image"].shape[0] == batch["unlabelled"].shape[0] == 16
    known = {float(value) for value in images[:, 0, 0, 0]}
    assert {float(value) for value in batch["unlabelled"][:, 0, 0, 0]} < known
    assert next(iter(data.train_loader(1, 4)))["unlabelled"].shape[0] == 4
    few, _ = stored("few", shape=(6, 2, 12, 12))
    assert next(iter(opened(path, unlabelled=few, task__name=task).train_loader(0, 2)))["unlabelled"].shape[0] == 3
    with pytest.raises(RecipeError, match="needs a second dataset, of images without labels: --unlabelled PATH"):
        opened(path, task__name=task)
    odd, _ = stored("odd", shape=(6, 2, 10, 10))
    with pytest.raises(
        DataError, match=r"odd: images of 2×10×10; the labelled ones have 2×12×12 \(bands×height×width\)"
    ):
        opened(path, unlabelled=odd, task__name=task)


def test_image_pairs_are_read_batch_by_batch(stored, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    targets = np.random.default_rng(1).normal(0, 1, (150, 2, 24, 24)).astype(np.float32)
    path, _ = stored(targets=targets)
    task = f"{tmp_path}/own.py:Paired"
    data = opened(path, task__name=task)
    row = int(data.train.ids[5][1:])
    np.testing.assert_array_equal(data.train[[5]]["target"][0], targets[row])
    with pytest.raises(RecipeError, match="crop is not for image pairs, whose sizes go together"):
        opened(path, task__name=task, preprocessing__crop=8)
    plain, _ = stored("plain")
    with pytest.raises(DataError, match="plain: the task needs an image to predict for each"):
        opened(plain, task__name=task)


@pytest.mark.parametrize("processes", [2, 8])
def test_processes_share_the_images_of_a_step(processes):
    """All of a step's images together are those of one process, bit by bit."""
    recipe = load_recipe("substructure/demo", TINY | {"trainer.batch_size": 64, "trainer.epoch_images": 128})
    data = open_training_data("preset:model-3-noisy", recipe, 5)
    alone = list(data.train_loader(0, 1))
    assert [len(batch["image"]) for batch in alone] == [64, 64]
    shared = [list(data.train_loader(rank, processes)) for rank in range(processes)]
    for expected, *parts in zip(alone, *shared, strict=True):
        assert {len(part["image"]) for part in parts} == {64 // processes}
        for name, tensor in expected.items():
            assert torch.equal(torch.cat([part[name] for part in parts]), tensor), name


def test_what_is_remembered_of_a_preset():
    recipe = load_recipe("substructure/demo", TINY | {"trainer.batch_size": 128, "trainer.epoch_images": 256})
    data = open_training_data("preset:model-3-noisy", recipe, 5)
    assert (data.train_images, data.shape, data.split, data.notes) == (256, (1, 64, 64), None, [])
    peaks = np.quantile(data.sample.numpy().reshape(64, -1), 0.995, axis=1)
    assert data.description == {
        "source": "preset:model-3-noisy", "layout": "simulated as it goes", "seed": 5, "train_images": 512,
        "simulated": {
            "preset": "model-3-noisy", "seeds": [2**30 + 5, 2**31 + 5], "checksum": load_preset("model-3-noisy").checksum,
        },
        "validation_images": 64, "typical_peak": pytest.approx(np.sort(peaks)[31], rel=1e-5),
    }  # fmt: skip
    assert list(data.train_loader(0, 1).sampler) == [list(range(128)), list(range(128, 256))]
    assert list(data.train_loader(1, 2).sampler) == [list(range(64, 128)), list(range(192, 256))]
    assert list(data.train_loader(5, 8).sampler) == [list(range(80, 96)), list(range(208, 224))]
    assert data.validation[[3, 1]]["row"].tolist() == [3, 1]
    assert [batch["row"].tolist() for batch in data.validation_loader(0, 1)] == [list(range(64))]
    assert data.pixel_scale == 0.08
    with pytest.raises(RecipeError, match="simulated images come in blocks of 64; 96 is no multiple"):
        open_training_data("preset:model-3-noisy", load_recipe("substructure/demo", {"trainer.batch_size": 96}), 5)
