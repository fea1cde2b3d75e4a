"""The structure: imports run one way, what is locked is hashed, what is committed names no place."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from darklens.cli.verbs import VERBS
from darklens.tasks.registry import TASKS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "darklens"
LAYERS = [
    {"errors"},
    {"commands", "paths", "schema", "usercode"},
    {"progress"},
    {"physics"},
    {"simulation"},
    {"data"},
    {"models"},
    {"evaluation"},
    {"plots"},
    {"pretraining"},
    {"tasks"},
    {"inference"},
    {"adaptation"},
    {"training", "recipes"},
    {"report"},
    {"workflows"},
    {"cli"},
    {"__main__", "__init__"},
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("darklens"):
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("darklens.")}
    return {"__init__" if name == "__version__" else name for name in names}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_package_imports_only_from_packages_below(path):
    relative = path.relative_to(PACKAGE)
    package = relative.parts[0].removesuffix(".py")
    for other in imported_packages(path) - {package}:
        if package == "cli" and other == "__init__":  # for the version
            continue
        assert LEVEL[other] < LEVEL[package], f"{relative} imports from {other}"


def test_every_package_has_a_layer():
    packages = {
        p.name.removesuffix(".py") for p in PACKAGE.iterdir() if not p.name.startswith(("__pycache__", "py.typed"))
    }
    assert packages - {"examples", "weights"} == set(LEVEL)


def asks_which_task(tree: ast.AST, verbs: Collection[str] = ()) -> Iterator[str]:
    """What a module says that only a task's own may: its name, its class, or what kind of predictions there are."""
    names = set(TASKS) - set(verbs)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in names:
            yield f"the task's name {node.value!r}"
        elif isinstance(node, ast.ImportFrom) and node.module in {home.partition(":")[0] for home in TASKS.values()}:
            yield f"an import from {node.module}"
        elif isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute):
            against_none = any(isinstance(each, ast.Constant) and each.value is None for each in node.comparators)
            if against_none and node.left.attr in ("probabilities", "values"):
                yield f"whether there are {node.left.attr}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance" and len(node.args) == 2:
            kind = ast.unparse(node.args[1]).rpartition(".")[2]
            if kind in {home.partition(":")[2] for home in TASKS.values()}:
                yield f"isinstance of {kind}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_outside_the_tasks_asks_which_task_it_is(path):
    if path.relative_to(PACKAGE).parts[0] != "tasks":
        # A verb may have the name of a task, on the command line and where commands are suggested.
        of_verbs = path.relative_to(PACKAGE).parts[0] == "cli" or path.name == "following.py"
        verbs = VERBS if of_verbs else ()
        assert not list(asks_which_task(ast.parse(path.read_text()), verbs))


def test_the_search_for_such_questions_finds_them():
    asking = (
        "if task == 'classify': pass\n"
        "from darklens.tasks.regress import Regress\n"
        "isinstance(task, classify.Classify)\n"
        "prediction.probabilities is not None\n"
    )
    assert len(list(asks_which_task(ast.parse(asking)))) == 4


def test_physics_holds_no_classes_with_state_and_reads_no_files():
    for path in (PACKAGE / "physics").glob("*.py"):
        text = path.read_text()
        classes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ClassDef)]
        assert all(ast.unparse(c.bases[0]) == "NamedTuple" for c in classes), path
        assert "open(" not in text
        assert "progress" not in imported_packages(path), path


def test_lock_has_hashes_and_no_addresses():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert text.count("--hash=sha256:") > 500
    locked = dict(re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE))
    assert locked["lightning"] not in {"2.6.2", "2.6.3"}
    assert locked["torch"].split(".")[1] == "15"
    assert locked["torchvision"].split(".")[1] == "29"
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[>=<\[]", name)[0] for name in wanted} <= set(locked)


def test_malicious_lightning_is_excluded():
    from packaging.requirements import Requirement

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    lightning = next(Requirement(name) for name in wanted if name.startswith("lightning"))
    assert not any(lightning.specifier.contains(v) for v in ("2.6.2", "2.6.3"))


def core_lines() -> dict[str, str]:
    """The line of pyproject.toml for each core dependency, by its normalised name."""
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("\ndependencies = [") : text.index("\n]\n", text.index("\ndependencies = ["))]
    return {normal(m[1]): m[0] for m in re.finditer(r'^  "([\w.-]+).*$', block, re.MULTILINE)}


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def outside_imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Top-level modules of others that a file imports anywhere, and whether it handles their absence."""
    tree = ast.parse(path.read_text())
    tries = [node for node in ast.walk(tree) if isinstance(node, ast.Try)]
    guarded = {
        id(inner)
        for node in tries
        if any(handler.type and ast.unparse(handler.type) == "ImportError" for handler in node.handlers)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        for name in (name.split(".")[0] for name in names):
            if name not in sys.stdlib_module_names and name != "darklens":
                yield name, id(node) in guarded


def test_what_the_sources_import_is_a_core_dependency_or_an_extra_whose_absence_is_handled():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core, homes = set(core_lines()), packages_distributions()
    extras = {normal(re.split(r"[>=<\[]", line)[0]) for e in project["optional-dependencies"].values() for line in e}
    undeclared = set()
    for path in PACKAGE.rglob("*.py"):
        for module, handled in outside_imports(path):
            providers = {normal(name) for name in homes.get(module, [module])}
            if not providers & (core | (extras if handled else set())):
                undeclared.add(f"{path.relative_to(PACKAGE)} imports {module}")
    assert not undeclared


def test_every_core_dependency_is_imported_or_says_who_needs_it():
    homes = packages_distributions()
    modules = {module for path in PACKAGE.rglob("*.py") for module, _ in outside_imports(path)}
    imported = {normal(name) for module in modules for name in homes.get(module, [module])}
    unexplained = {
        name for name, line in core_lines().items() if name not in imported and "  # imported by" not in line
    }
    assert not unexplained
    assert "imported by timm" in core_lines()["torchvision"]


def test_every_public_module_imports_after_pip_install(tmp_path):
    """Installed as a user would, into a folder of its own, away from the sources."""
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(tmp_path / "site"),
        str(ROOT),
    ]
    subprocess.run(install, check=True, cwd=tmp_path)
    code = (
        "import sys, pkgutil, importlib\n"
        f"sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import darklens\n"
        f"assert darklens.__file__.startswith({str(tmp_path / 'site')!r}), darklens.__file__\n"
        "names = [m.name for m in pkgutil.walk_packages(darklens.__path__, 'darklens.') if 'main' not in m.name]\n"
        "for name in names: importlib.import_module(name)\n"
        "from darklens.simulation import list_presets\nfrom darklens.training.recipe import list_recipes\n"
        "from importlib import resources\n"
        "assert len(list_presets()) >= 7 and len(list_recipes()) >= 8\n"
        "assert (resources.files('darklens') / 'examples' / 'euclid').is_dir()\n"
        "print(len(names))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 50


def test_nothing_committed_names_a_registry_or_a_place_of_a_machine():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    hosts = "|".join(["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "/ro" + "ot/", "/ho" + "me/"])
    for name in listed.stdout.split():
        path = ROOT / name
        if path.suffix in (".npy", ".npz", ".fits", ".png", ".jpg", ".safetensors") or not path.is_file():
            continue
        assert not re.search(hosts, path.read_text("utf-8")), name
