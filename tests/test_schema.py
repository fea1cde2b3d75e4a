"""Keys and values of JSON against the types of a dataclass."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from darklens.errors import DataError, ModelError
from darklens.schema import from_keys, known_keys, read_json, read_versioned


@dataclass
class Example:
    name: str
    number: int = 0
    size: float | None = None
    kind: Literal["a", "b"] = "a"
    names: list[str] = field(default_factory=list)
    sizes: list[float | None] = field(default_factory=list)
    anything: dict[str, Any] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    whether: bool = False


@pytest.mark.parametrize(
    "content",
    [
        {"name": "x"},
        {"name": "x", "number": -3, "size": 2, "kind": "b", "names": ["y"], "sizes": [1, None, 0.5], "whether": True},
        {"name": "x", "size": None, "anything": {"deep": [{}]}, "texts": {"a": "b"}},
    ],
)
def test_values_of_the_right_types_are_taken_as_they_are(content):
    made = from_keys(Example, content, "a.json", DataError)
    assert {key: getattr(made, key) for key in content} == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, "name is 1; expected str"),
        ({"number": True}, "number is True; expected int"),
        ({"number": 1.0}, "number is 1.0; expected int"),
        ({"number": 2**63}, "number is 9223372036854775808; expected int"),
        ({"size": "2"}, r"size is '2'; expected float or null"),
        ({"size": float("inf")}, r"size is inf; expected float or null"),
        ({"size": 10**400}, r"size is 1000.*…; expected float"),
        ({"kind": "c"}, r"kind is 'c'; expected a, b"),
        ({"kind": []}, r"kind is \[\]; expected a, b"),
        ({"names": "abc"}, r"names is 'abc'; expected list\[str\]"),
        ({"sizes": [True]}, r"sizes is \[True\]; expected list\[float \| None\]"),
        ({"anything": []}, r"anything is \[\]; expected dict\[str, Any\]"),
        ({"texts": {"a": 1}}, r"texts is \{'a': 1\}; expected dict\[str, str\]"),
        ({"whether": 1}, "whether is 1; expected bool"),
        ({"nome": 1}, "unknown key 'nome'; known are name, number"),
    ],
)
def test_values_of_other_types_are_refused_by_key(change, message):
    with pytest.raises(ModelError, match=rf"^a\.json: {message}"):
        from_keys(Example, {"name": "x"} | change, "a.json", ModelError)


def test_missing_and_unknown_keys():
    with pytest.raises(DataError, match=r"^a\.json: no key 'name'; needed are name$"):
        from_keys(Example, {"number": 1}, "a.json", DataError)
    assert known_keys(Example, {"name": "x", "newer": 1}) == {"name": "x"}


def test_files_that_are_no_json_are_refused(tmp_path):
    path = tmp_path / "a.json"
    with pytest.raises(ModelError, match=r"a\.json: cannot be read: No such file"):
        read_json(path, ModelError)
    for content in (b"{", b"\xff{}", b"[" * 100_000, b'{"a": "\\udc00"}', b'{"a": ' + b"9" * 5000 + b"}"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"a\.json: not valid JSON"):
            read_json(path, DataError)
    path.write_text('{"a": ' + "[" * 63 + "]" * 63 + "}")
    read_json(path, DataError)
    path.write_text('{"a": ' + "[" * 64 + "]" * 64 + "}")
    with pytest.raises(DataError, match=r"a\.json: has more than 64 levels"):
        read_json(path, DataError)
    path.write_text("3")
    with pytest.raises(DataError, match=r"a\.json: holds a int; expected keys and values"):
        read_json(path, DataError)
    path.write_text('{"format": 3}')
    assert read_versioned(path, 3, DataError) == {"format": 3}
    with pytest.raises(DataError, match=r"format 3, this one reads up to 2\); upgrade"):
        read_versioned(path, 2, DataError)
