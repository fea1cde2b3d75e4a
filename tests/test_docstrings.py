"""Docstrings say what is passed, returned and raised, and no function takes a long list of positions."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from numpydoc.validate import validate

PACKAGE = Path(__file__).parents[1] / "src" / "darklens"
PACKAGES = ["physics", "simulation", "data", "evaluation", "tasks", "inference"]
"""Packages whose public functions document all parameters; the others follow."""

POSITIONAL = 6
"""Parameters that may be passed by position."""


def modules(package: str) -> Iterator[str]:
    for path in sorted((PACKAGE / package).rglob("*.py")):
        yield ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def public_objects(module: str) -> Iterator[tuple[str, Any]]:
    """Dotted names of the public functions, classes and methods that a module defines, and the objects."""
    for name, item in vars(import_module(module)).items():
        if name.startswith("_") or getattr(item, "__module__", "") != module or not callable(item):
            continue
        if inspect.isclass(item):
            yield f"{module}.{name}", item
            for method, function in vars(item).items():
                plain = function.__func__ if isinstance(function, classmethod | staticmethod) else function
                if not method.startswith("_") and (inspect.isfunction(plain) or isinstance(plain, property)):
                    yield f"{module}.{name}.{method}", plain
        elif inspect.isfunction(inspect.unwrap(item)):
            yield f"{module}.{name}", item


DOCUMENTED = [entry for package in PACKAGES for module in modules(package) for entry in public_objects(module)]


def names_of(objects: list[tuple[str, Any]]) -> list[str]:
    return [name.removeprefix("darklens.") for name, _ in objects]


def own_raise(function: Any) -> bool:
    """Whether a ``raise`` stands in the body of a function, outside of the functions defined in it."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body
    waiting = list(ast.iter_child_nodes(tree))
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Raise):
            return True
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            waiting += ast.iter_child_nodes(node)
    return False


def is_protocol(kind: type) -> bool:
    return getattr(kind, "_is_protocol", False)


def parameters_of(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]


@pytest.mark.parametrize(("name", "item"), DOCUMENTED, ids=names_of(DOCUMENTED))
def test_first_line_is_a_sentence(name, item):
    """A method may take over the docstring of the method that it overrides; a class needs its own."""
    text = vars(item).get("__doc__") if inspect.isclass(item) else inspect.getdoc(item)
    first = (text or "").split("\n")[0]
    assert first.endswith("."), f"{name}: the docstring's first line must be a sentence; got {first!r}"


FUNCTIONS = [(name, item) for name, item in DOCUMENTED if not inspect.isclass(item) and not isinstance(item, property)]


def overrides_documented(name: str) -> bool:
    """Whether a method overrides one of darklens whose docstring has the sections already."""
    module, owner, method = name.rsplit(".", 2)
    kind = getattr(import_module(module), owner, None) if owner[0].isupper() else None
    bases = kind.__mro__[1:] if inspect.isclass(kind) else ()
    return any("Parameters\n" in (inspect.getdoc(vars(base).get(method)) or "") for base in bases)


LONG = [
    (name, item)
    for name, item in FUNCTIONS
    if len(parameters_of(item)) > 2 and not (name.count(".") > 2 and overrides_documented(name))
]
CONSTRUCTED = [
    (name, item)
    for name, item in DOCUMENTED
    if inspect.isclass(item) and "__init__" in vars(item) and not is_dataclass(item) and not is_protocol(item)
]


@pytest.mark.parametrize(("name", "item"), LONG + CONSTRUCTED, ids=names_of(LONG + CONSTRUCTED))
def test_parameters_are_documented(name, item):
    wrong = [message for code, message in validate(name)["errors"] if code in ("PR01", "PR02")]
    assert not wrong, f"{name}: {'; '.join(wrong)}"


@pytest.mark.parametrize(("name", "item"), LONG, ids=names_of(LONG))
def test_what_is_returned_and_raised_is_documented(name, item):
    text = inspect.getdoc(item) or ""
    returned = inspect.signature(item).return_annotation
    if returned not in (None, "None"):
        assert "\nReturns\n-------\n" in text or "\nYields\n------\n" in text, f"{name}: no section Returns"
    if own_raise(item):
        assert "\nRaises\n------\n" in text, f"{name}: no section Raises"


def test_a_raise_of_an_inner_function_is_not_its_own():
    def outer() -> None:
        def inner() -> None:
            raise ValueError

        inner()

    assert not own_raise(outer)
    assert own_raise(own_raise_example)


def own_raise_example(wrong: bool) -> None:
    if wrong:
        raise ValueError


def positional_parameters(path: Path) -> Iterator[tuple[str, int]]:
    """Public functions and methods of a file, with the number of parameters that may be passed by position."""

    def walk(nodes: list[ast.stmt], owner: str, methods: bool) -> Iterator[tuple[str, int]]:
        for node in nodes:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield from walk(node.body, f"{owner}.{node.name}", True)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name.startswith("_") and node.name != "__init__":
                    continue
                static = any(ast.unparse(decorator) == "staticmethod" for decorator in node.decorator_list)
                own = methods and not static
                yield f"{owner}.{node.name}", len(node.args.posonlyargs) + len(node.args.args) - own

    module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    yield from walk(ast.parse(path.read_text()).body, module, False)


def test_no_function_takes_a_long_list_of_positions():
    many = {name for path in PACKAGE.rglob("*.py") for name, count in positional_parameters(path) if count > POSITIONAL}
    assert not many, "make all but the first few parameters keyword-only"
