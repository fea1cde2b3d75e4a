"""Our interpreter of pickles against Python's own, and against pickles that are made to harm."""

import pickle
import struct

import numpy as np
import pytest

from darklens.data.pickled_arrays import PickledArray, PickledDtype, set_array
from darklens.data.pickles import load_pickle
from darklens.errors import UnsafePickleError

IMAGE = np.random.default_rng(0).random((5, 7))
TYPES = ["f8", ">f4", "f2", "u2", ">i4", "i8", "u1", "b1"]

PYTHON_2 = (
    b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02O8K\x00"
    b"K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89](cnumpy.core.multiarray\n_reconstruct\ncnumpy\n"
    b"ndarray\nK\x00\x85U\x01b\x87R(K\x01K\x02K\x02\x86cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
    b"J\xff\xff\xff\xffK\x00tb\x89%simage\ntbcnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02f8K\x00K\x01\x87R"
    b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb%smass\n\x86Retb."
)
"""What numpy 1 under Python 2 writes for ``np.array([image, mass], dtype=object)``: byte strings for bytes."""


def pair_of(image, mass):
    pair = np.empty(2, dtype=object)
    pair[0], pair[1] = image, mass
    return pair


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("mass", [1e-23, np.float64(1e-23), np.array([1e-23]), 7])
def test_pairs_of_every_protocol_and_type_are_read_as_pickle_reads_them(protocol, mass):
    for kind in TYPES:
        for order in ("C", "F"):
            image = np.asarray(IMAGE * 100, dtype=kind, order=order)
            for value in (pair_of(image, mass), [image, mass], (image.tolist(), mass)):
                payload = pickle.dumps(value, protocol=protocol)
                expected = pickle.loads(payload)
                read = load_pickle(payload)
                assert read.shape == (2,)
                np.testing.assert_array_equal(read[0], expected[0])
                assert np.asarray(read[0]).dtype == np.asarray(expected[0]).dtype.newbyteorder("=")
                np.testing.assert_array_equal(read[1], expected[1])


@pytest.mark.parametrize("quoted", [False, True], ids=["binary", "text"])
def test_pickles_of_python_2_are_read(quoted):
    image, mass = np.array([[1.5, -2], [3e300, 0.1]]), np.float64(3e-24)

    def string(data):
        escaped = "".join(f"\\x{byte:02x}" for byte in data).encode()
        return b"S'" + escaped + b"'\n" if quoted else b"T" + struct.pack("<i", len(data)) + data

    payload = PYTHON_2.replace(b"%simage\n", string(image.tobytes())).replace(b"%smass\n", string(mass.tobytes()))
    expected = pickle.loads(payload, encoding="latin1")
    np.testing.assert_array_equal(expected[0], image)
    read = load_pickle(payload)
    np.testing.assert_array_equal(read[0], image)
    assert read[1] == expected[1] == mass


DTYPE = b"cnumpy\ndtype\n(V\x00U".replace(b"V\x00U", b"X\x02\x00\x00\x00f8\x89\x88") + b"tR"
BUFFER = b"cnumpy._core.numeric\n_frombuffer\n"


def state(size, names=b"N"):
    """Opcodes that give a dtype ``size`` bytes, whatever it is of."""
    return b"(K\x03X\x01\x00\x00\x00<N" + names + b"N" + b"J" + struct.pack("<i", size) + b"J\xff\xff\xff\xffK\x00tb"


@pytest.mark.parametrize(
    "dtype",
    [
        DTYPE + state(1 << 30),
        DTYPE + state(0),
        DTYPE + state(-1, names=b"(X\x01\x00\x00\x00at"),
        DTYPE.replace(b"f8", b"V8"),
        DTYPE.replace(b"f8", b"U8"),
        DTYPE.replace(b"f8", b"M8"),
        DTYPE.replace(b"f8", b"f9"),
    ],
    ids=["size", "empty", "fields", "void", "text", "time", "unknown"],
)
def test_dtypes_that_are_no_plain_numbers_are_refused(dtype):
    payload = b"\x80\x04" + BUFFER + b"(B\x10\x00\x00\x00" + bytes(16) + dtype + b"K\x02\x85X\x01\x00\x00\x00CtR."
    with pytest.raises(UnsafePickleError, match=r"asks for (a|the) dtype"):
        load_pickle(payload)
    good = payload.replace(dtype, DTYPE + state(-1))
    np.testing.assert_array_equal(load_pickle(good), [0.0, 0.0])


@pytest.mark.parametrize(
    "shape", [b"K\x03\x85", b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86", b"M\xff\xffM\xff\xff\x86", b"N\x85"]
)
def test_bytes_of_an_array_must_fit_its_shape(shape):
    payload = b"\x80\x04" + BUFFER + b"(B\x10\x00\x00\x00" + bytes(16) + DTYPE + shape + b"X\x01\x00\x00\x00CtR."
    with pytest.raises(ValueError, match=r"size|shape"):
        load_pickle(payload)


def test_pointers_cannot_be_read_from_bytes():
    """Eight bytes that are taken for an object are a pointer to anywhere: numpy would follow it and crash."""
    payload = b"\x80\x04" + BUFFER + b"(B\x08\x00\x00\x00AAAAAAAA" + DTYPE.replace(b"f8", b"O8") + b"K\x01\x85"
    with pytest.raises(ValueError, match="not of its dtype"):
        load_pickle(payload + b"X\x01\x00\x00\x00CtR.")


LAUGHS = b"]q\x00" + b"".join(b"](" + b"h%c" % (i,) * 10 + b"eq%c" % (i + 1,) for i in range(12)) + b"."
TEXT = b"X\x00\x10\x00\x00" + b"a" * 4096 + b"q\x00"
BOMBS = {
    "lists of lists of one list": (LAUGHS, "more values"),
    "one text many times": (TEXT + b"(" + b"h\x00" * 99 + b"l.", "more values"),
    "one text encoded many times": (
        TEXT + b"X\x06\x00\x00\x00latin1q\x01" + b"c_codecs\nencode\nh\x00h\x01\x86R" * 99 + b".",
        "more bytes",
    ),
    "a list inside itself": (b"]q\x00h\x00a.", "more values"),
    "a thousand levels": (b"]" * 1000 + b"a" * 999 + b".", "too deep"),
    "a million levels of tuples": (b"N" + b"\x85" * 1_000_000 + b".", "too deep"),
    "a text longer than the file": (b"X\xff\xff\xff\x7fabc.", "expected 2147483647 bytes"),
    "no end": (b"]", "does not stop"),
    "an empty stack": (b".", "empty list"),
    "a function as value": (b"cnumpy\ndtype\n.", "function in the place of a value"),
    "five million operations": (b"N0" * 2_500_000 + b".", "more than 4,000,000 operations"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_a_pickle_builds_is_no_larger_than_itself(name):
    payload, message = BOMBS[name]
    with pytest.raises((ValueError, IndexError, TypeError), match=message):
        load_pickle(payload)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"}.", "asks for empty dict"),
        (b"(ios\nsystem\n.", "asks for inst"),
        (b"cos\nsystem\n.", "asks for os.system, which"),
        (b"X\x02\x00\x00\x00osX\x06\x00\x00\x00system\x93.", "asks for os.system, which"),
        (b"cnumpy\nndarray\n)R.", "asks for a call of numpy.ndarray"),
        (b"cnumpy._core.multiarray\n_reconstruct\ncnumpy\ndtype\n)X\x01\x00\x00\x00b\x87R.", "class other than"),
        (b"]Nb.", "asks to change an object that is no array"),
        (b"Pabc\n.", "stored elsewhere"),
        (b"\x82\x01.", "asks for ext1"),
    ],
)
def test_what_an_image_has_no_use_for_is_refused_by_name(payload, message):
    with pytest.raises(UnsafePickleError, match=message):
        load_pickle(payload)


@pytest.mark.parametrize(
    "payload",
    [
        b"(K\x01M\x02\x012l.",
        b"(K\x03K\x040N\x88l.",
        b"(K\x03(K\x04K\x051\x89l.",
        b"](K\x01K\x02K\x03e.",
        b"]K\x07aI9\na.",
        b"K\x01K\x02\x86.",
        b"K\x01K\x02K\x03\x87.",
        b"K\x01q\x05(h\x05h\x05l.",
        b"X\x01\x00\x00\x00a\x94(h\x00r\x00\x01\x00\x00j\x00\x01\x00\x00K\x02l.",
        b"(L-12L\nF2.5\nG\x40\x09\x21\xfb\x54\x44\x2d\x18\x8a\x02\xff\x7fl.",
    ],
    ids=["dup", "pop", "pop mark", "appends", "append", "two", "three", "get", "long put", "numbers"],
)
def test_operations_are_those_of_python(payload):
    expected = pickle.loads(payload)
    assert load_pickle(payload).tolist() == list(expected)
    assert [type(value) for value in load_pickle(payload)] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, (2,), PickledDtype("f8"), False, bytes(16)], "without a state of five parts"),
        ((1, (2,), PickledDtype("f8"), False), "without a state of five parts"),
        ((1, [2], PickledDtype("f8"), False, bytes(16)), "without dtype or shape"),
        ((1, (2,), "f8", False, bytes(16)), "without dtype or shape"),
        ((1, (1,) * 33, PickledDtype("f8"), False, bytes(8)), "without dtype or shape"),
        ((1, (True,), PickledDtype("f8"), False, bytes(8)), "of an impossible shape"),
        ((1, (-1,), PickledDtype("f8"), False, bytes(8)), "of an impossible shape"),
        ((1, (2**48, 0), PickledDtype("f8"), False, b""), "of an impossible shape"),
        ((1, (1,), PickledDtype("O"), False, bytes(8)), "not of its dtype"),
        ((1, (1,), PickledDtype("f8"), False, [1.0]), "not of its dtype"),
        ((1, (2,), PickledDtype("f8"), False, bytes(15)), "not of its size"),
        ((1, (2,), PickledDtype("O"), False, [1.0]), "not of its size"),
    ],
)
def test_states_that_are_no_array_are_refused(state, message):
    with pytest.raises(ValueError, match=message):
        set_array(PickledArray(), state)
