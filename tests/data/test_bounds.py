"""Files that promise more than they can hold, and gzip files that expand too far, are refused."""

import gzip
import zlib

import numpy as np
import pytest
from astropy.io import fits

from darklens.data.bounds import (
    DEFLATE_RATIO,
    IMAGE_BYTES,
    TILE_RATIO,
    check_expansion,
    check_gzip,
    check_image,
    check_whole,
    named_errors,
)
from darklens.errors import DataError, ModelError


def test_gzip_that_expands_beyond_bounds_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.fits.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    check_gzip(path)
    monkeypatch.setattr("darklens.data.bounds.IMAGE_BYTES", 5_000_000)
    with pytest.raises(DataError, match=r"a\.fits\.gz: an image of \d"):
        check_gzip(path)


def test_bounds_are_what_they_say(tmp_path):
    worst = len(zlib.compress(bytes(2**24), 9))
    check_expansion(tmp_path, 2**24, worst)
    with pytest.raises(DataError):
        check_expansion(tmp_path, worst * DEFLATE_RATIO + 1, worst)
    constant = fits.CompImageHDU(np.zeros((512, 512), np.int16), compression_type="PLIO_1", tile_shape=(512, 512))
    constant.writeto(tmp_path / "a.fits")
    check_expansion(tmp_path, 512 * 512 * 2, (tmp_path / "a.fits").stat().st_size, ratio=TILE_RATIO)
    check_whole(tmp_path, 10, 10)
    with pytest.raises(DataError, match="truncated: 9 bytes where its header promises 10"):
        check_whole(tmp_path, 10, 9)
    check_image(tmp_path, IMAGE_BYTES)
    with pytest.raises(DataError, match="so cut it"):
        check_image(tmp_path, IMAGE_BYTES + 1)


def test_errors_of_decoders_name_the_file_and_the_reason():
    class PanicException(BaseException):
        pass

    for error, reason in (
        (ValueError("first line\n  last line  \n\n"), "last line"),
        (KeyError(), "KeyError"),
        (OSError("x" * 300), "x" * 200),
        (PanicException("out of range"), "out of range"),
        (ValueError("\ud800"), r"\\ud800"),
    ):
        with (
            pytest.raises(ModelError, match=f"^a.bin: damaged: {reason}$"),
            named_errors("a.bin", "damaged", ModelError),
        ):
            raise error
    for error in (DataError("as it is"), MemoryError("as it is"), KeyboardInterrupt("as it is")):
        with pytest.raises(type(error), match=r"^as it is$"), named_errors("a.bin", "damaged", ModelError):
            raise error


def test_a_gzip_file_is_checked_by_what_comes_out_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr("darklens.data.bounds.IMAGE_BYTES", 20_000)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(np.random.default_rng(0).bytes(19_000)))
    check_gzip(path)
    path.write_bytes(path.read_bytes()[:2] + b"damaged" * 100)
    with pytest.raises(DataError, match=r"a\.gz: not a readable gzip file"):
        check_gzip(path)
