"""A user's own code inside the model folder: what is copied, checked, trusted and refused."""

import dataclasses
import hashlib
import json

import pytest

from darklens.errors import ModelError, UntrustedCodeError
from darklens.inference.carried import carries_only, copy_code, trusted_config
from darklens.inference.config import ModelConfig

NETWORK = "class Net:\n    pass\n"
LOSS = "def loss(logits, labels):\n    return logits\n"


def digest(text):
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def config(tmp_path):
    """A model whose network is a file of its own, and its recipe's loss and optimiser are others."""
    (tmp_path / "code").mkdir()
    for name, text in (("net.py", NETWORK), ("loss.py", LOSS), ("opt.py", LOSS)):
        (tmp_path / "code" / name).write_text(text)
    code = tmp_path / "code"
    return ModelConfig(
        {"name": "regress", "target": "m", "error": f"{code}/loss.py:loss"}, {"name": f"{code}/net.py:Net", "width": 3}, {},
        1, 4, outputs=["m"], recipe={"name": "mine", "optimizer": {"name": f"{code}/opt.py:loss"}},
    )  # fmt: skip


def test_code_is_copied_and_named_by_its_file_alone(config, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    found = copy_code(config, folder)
    assert sorted(path.name for path in folder.iterdir()) == ["loss.py", "net.py", "opt.py"]
    assert (folder / "net.py").read_text() == NETWORK
    assert found.code == {"loss.py": digest(LOSS), "net.py": digest(NETWORK), "opt.py": digest(LOSS)}
    assert found.network == {"name": "net.py:Net", "width": 3}
    assert found.task == {"name": "regress", "target": "m", "error": "loss.py:loss"}
    assert found.recipe == {"name": "mine", "optimizer": {"name": "opt.py:loss"}}
    assert (found.outputs, found.pixels) == (["m"], 4)
    trusted = trusted_config(found, folder, True)
    assert trusted.network == {"name": f"{folder}/net.py:Net", "width": 3}
    assert trusted.task["error"] == f"{folder}/loss.py:loss"
    assert trusted.recipe["optimizer"] == {"name": f"{folder}/opt.py:loss"}
    again = copy_code(trusted, folder)
    assert again == found, "a copy onto itself changes nothing"


def test_code_of_one_name_and_different_content_is_refused(config, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "net.py").write_text(LOSS)
    odd = dataclasses.replace(config, task=config.task | {"error": f"{tmp_path}/other/net.py:loss"})
    with pytest.raises(ModelError, match=r"net\.py: another file of code is called net\.py as well; rename one"):
        copy_code(odd, tmp_path / "other")
    assert (tmp_path / "other" / "net.py").read_text() == LOSS, "nothing is written over"
    (tmp_path / "other" / "net.py").write_text(NETWORK)
    (tmp_path / "model").mkdir()
    assert copy_code(odd, tmp_path / "model").code["net.py"] == digest(NETWORK), "the same content is one file"


def test_ensembles_and_models_of_the_library_carry_nothing(config, tmp_path):
    whole = dataclasses.replace(config, members=["0", "1"])
    assert copy_code(whole, tmp_path) is whole
    plain = ModelConfig({"name": "regress", "target": "m"}, {"name": "compact"}, {}, 1, 4, outputs=["m"])
    assert copy_code(plain, tmp_path) == plain
    assert trusted_config(plain, tmp_path, False) == plain


@pytest.fixture
def carried(config, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    return copy_code(config, folder), folder


def test_code_runs_only_if_it_is_trusted(carried):
    config, folder = carried
    with pytest.raises(UntrustedCodeError, match=r"model/config\.json: would run loss of .*model/loss\.py"):
        trusted_config(config, folder, False)


def test_code_for_training_is_asked_for_only_there(carried):
    config, folder = carried
    (folder / "opt.py").unlink()
    assert trusted_config(config, folder, True).recipe["optimizer"] == {"name": f"{folder}/opt.py:loss"}
    with pytest.raises(ModelError, match=r"model: its loss needs the file .*opt\.py, which is missing; bring it back"):
        trusted_config(config, folder, True, training=True)


@pytest.mark.parametrize("part", ["network", "task"])
def test_loss_or_network_of_the_recipe_is_for_training(carried, part):
    config, folder = carried
    named = dataclasses.replace(config, recipe={part: {"name": "gone.py:Gone"}})
    assert trusted_config(named, folder, True).recipe == {part: {"name": f"{folder}/gone.py:Gone"}}
    with pytest.raises(ModelError, match=r"its Gone needs the file .*gone\.py"):
        trusted_config(named, folder, True, training=True)


def test_changed_code_is_refused(carried):
    config, folder = carried
    (folder / "net.py").write_text(NETWORK + "# changed\n")
    with pytest.raises(ModelError, match=r"net\.py: is not the file that the model was saved with \(its SHA-256"):
        trusted_config(config, folder, True)
    with pytest.raises(ModelError, match="is not the file that the model was saved with"):
        trusted_config(dataclasses.replace(config, code={"loss.py": digest(LOSS)}), folder, True)


def test_code_of_version_0_1_is_looked_for_where_it_was(config, tmp_path):
    assert trusted_config(config, tmp_path, True) is config
    with pytest.raises(UntrustedCodeError, match=r"config\.json: would run .* of .*code/"):
        trusted_config(config, tmp_path, False)
    (tmp_path / "code" / "opt.py").unlink()
    assert trusted_config(config, tmp_path, True) is config
    with pytest.raises(ModelError, match=r"its loss needs the file .*opt\.py"):
        trusted_config(config, tmp_path, True, training=True)
    (tmp_path / "code" / "net.py").unlink()
    with pytest.raises(ModelError, match=r"its Net needs the file .*code/net\.py, which is missing"):
        trusted_config(config, tmp_path, True)


def test_model_that_carries_only_code_that_the_user_has_named(carried, tmp_path):
    config, folder = carried

    def written(**changes):
        (folder / "config.json").write_text(json.dumps(dataclasses.asdict(dataclasses.replace(config, **changes))))
        return folder

    both = {digest(NETWORK), digest(LOSS)}
    assert carries_only(written(), both) is True
    assert carries_only(folder, {digest(NETWORK)}) is False
    assert carries_only(folder, ()) is False
    (folder / "opt.py").write_text(NETWORK)
    assert carries_only(folder, both) is True, "what a file is, not its name, decides"
    (folder / "opt.py").write_text("else")
    assert carries_only(folder, both) is False
    (folder / "opt.py").unlink()
    assert carries_only(folder, both) is False
    (folder / "opt.py").write_text(LOSS)
    assert carries_only(written(members=["0"]), both) is False
    assert carries_only(written(code={}), both) is False
    plain = {"network": {"name": "compact"}, "task": {"name": "regress", "target": "m"}, "recipe": {}}
    assert carries_only(written(**plain), both) is False, "there is no code"
