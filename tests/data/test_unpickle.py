import os
import pickle
import struct

import numpy as np
import pytest

from darklens.data.layouts import open_data
from darklens.data.unpickle import load_npy, read_header, split_pair
from darklens.errors import DataError, UnsafePickleError


class Malicious:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def save_pickled(path, payload: bytes) -> None:
    """A .npy file whose object array is any pickle at all."""
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + payload)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_malicious_pickle_is_refused_and_does_not_run(tmp_path, protocol):
    evidence = tmp_path / "ran"
    path = tmp_path / "axion.npy"
    save_pickled(path, pickle.dumps([np.zeros((4, 4)), Malicious(evidence)], protocol=protocol))
    with pytest.raises(UnsafePickleError, match=r"axion.npy: refused: its pickle asks for .*system"):
        load_npy(path)
    with pytest.raises(UnsafePickleError):
        open_data(tmp_path)
    assert not evidence.exists()
    np.load(path, allow_pickle=True)  # what others do
    assert evidence.exists(), "the file was meant to be dangerous"


@pytest.mark.parametrize("call", [(eval, ("1",)), (getattr, (np.ndarray, "tofile")), (np.load, ("x",))])
def test_no_other_callable_is_admitted(tmp_path, call):
    class Caller:
        def __reduce__(self):
            return call

    save_pickled(tmp_path / "a.npy", pickle.dumps(Caller()))
    with pytest.raises(UnsafePickleError):
        load_npy(tmp_path / "a.npy")


@pytest.mark.parametrize("mass", [1e-23, np.float64(1e-23), np.array(1e-23), np.array([1e-23])])
@pytest.mark.parametrize("protocol", [2, 4])
def test_published_pairs_are_read(tmp_path, mass, protocol):
    image = np.random.default_rng(0).random((6, 6))
    pair = np.empty(2, dtype=object)
    pair[0], pair[1] = image, mass
    save_pickled(tmp_path / "pair.npy", pickle.dumps(pair, protocol=protocol))
    read, value = split_pair(load_npy(tmp_path / "pair.npy"), tmp_path)
    np.testing.assert_array_equal(read, image)
    assert value == 1e-23


def test_truncated_files_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((32, 32)))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"a\.npy: truncated: \d+ bytes where its header promises 8320"):
        load_npy(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes(whole[:5])
    with pytest.raises(DataError, match=r"a\.npy: not a \.npy file"):
        load_npy(tmp_path / "a.npy")
    pair = np.empty(2, dtype=object)
    pair[0], pair[1] = np.zeros((9, 9)), 1.0
    np.save(tmp_path / "b.npy", pair, allow_pickle=True)
    (tmp_path / "b.npy").write_bytes((tmp_path / "b.npy").read_bytes()[:-40])
    with pytest.raises(DataError, match="damaged or cut off"):
        load_npy(tmp_path / "b.npy")


def write_npy(path, header: bytes, data: bytes = b""):
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data)
    return path


HEADERS = {
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3": "not a .npy file",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (-2, -3), }\n": "promises the shape",
    b"{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296, 4294967296), }\n": "truncated: .* promises 147573952",
    b"{'descr': '<c16', 'fortran_order': False, 'shape': (2, 2), }\n": "holds complex128, not numbers",
    b"{'descr': '|V9', 'fortran_order': False, 'shape': (2, 2), }\n": "holds .*V9, not numbers",
    b"{'descr': '<M8[s]', 'fortran_order': False, 'shape': (2, 2), }\n": "holds datetime64",
    b"[" * 5000: "not a .npy file",
}


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
def test_npy_headers_that_lie_are_refused(tmp_path, header):
    path = write_npy(tmp_path / "a.npy", header, bytes(64))
    with pytest.raises(DataError, match=rf"a\.npy: .*{HEADERS[header]}"):
        read_header(path)
    with pytest.raises(DataError, match=r"a\.npy"):
        open_data(path)


def test_npy_header_of_four_gigabytes_is_not_read(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\xff{'descr'")
    with pytest.raises(
        DataError, match=r"a\.npy: not a \.npy file \(EOF: reading array header, expected 4294967295 bytes"
    ):
        load_npy(tmp_path / "a.npy")


@pytest.mark.parametrize(
    "parts", [["a", 1.0], [np.zeros((4, 4)), "x"], [[[1.0], [1.0, 2.0]], 1.0], [np.zeros((4, 4)), 1j]]
)
def test_pairs_of_anything_but_numbers_are_refused(tmp_path, parts):
    pair = np.empty(2, dtype=object)
    pair[0], pair[1] = parts
    with pytest.raises(DataError, match=r"expected \[image, mass\]"):
        split_pair(pair, tmp_path / "a.npy")


@pytest.mark.parametrize("mapped", [False, True])
def test_arrays_are_read_into_memory_or_mapped(mapped, tmp_path):
    numbers = np.array([[1.5, -2.0, 3.0], [4.0, 5.0, -6.5]])
    np.save(tmp_path / "a.npy", numbers)
    array = load_npy(tmp_path / "a.npy", mmap=True) if mapped else load_npy(tmp_path / "a.npy")
    np.testing.assert_array_equal(array, numbers)
    assert isinstance(array, np.memmap) == mapped
    assert array.flags.writeable != mapped
