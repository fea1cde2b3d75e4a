"""The house: imports run one way, what is locked is hashed, what is committed names no place."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "darklens"
FLOORS = [
    {"errors"},
    {"commands", "paths", "schema", "usercode"},
    {"progress"},
    {"physics"},
    {"simulation"},
    {"data"},
    {"models"},
    {"tasks"},
    {"evaluation"},
    {"inference"},
    {"training", "recipes"},
    {"report"},
    {"workflows"},
    {"cli"},
    {"__main__", "__init__"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def imported_rooms(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("darklens"):
            parts = node.module.split(".")
            names |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("darklens.")}
    return {"__init__" if name == "__version__" else name for name in names}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_room_imports_only_from_rooms_below(path):
    relative = path.relative_to(PACKAGE)
    room = relative.parts[0].removesuffix(".py")
    for other in imported_rooms(path) - {room}:
        if room == "cli" and other == "__init__":  # for the version
            continue
        assert LEVEL[other] < LEVEL[room], f"{relative} imports from {other}"


def test_every_room_has_a_floor():
    rooms = {
        p.name.removesuffix(".py") for p in PACKAGE.iterdir() if not p.name.startswith(("__pycache__", "py.typed"))
    }
    assert rooms - {"examples", "weights"} == set(LEVEL)


def test_physics_holds_no_classes_with_state_and_reads_no_files():
    for path in (PACKAGE / "physics").glob("*.py"):
        text = path.read_text()
        classes = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ClassDef)]
        assert all(ast.unparse(c.bases[0]) == "NamedTuple" for c in classes), path
        assert "open(" not in text
        assert "progress" not in imported_rooms(path), path


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
        if path.suffix in (".npy", ".fits", ".png", ".safetensors") or not path.is_file():
            continue
        assert not re.search(hosts, path.read_text("utf-8")), name
