"""Columns of a catalogue as numbers, against scikit-learn's encoders."""

import numpy as np
import polars as pl
import pytest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from darklens.data.catalog_inputs import check_joined, fit_encoder, read_encoder
from darklens.errors import DataError, ModelError

TABLE = pl.DataFrame(
    {
        "id": ["a", "b", "c", "d"],
        "label": ["lens", "nonlens", "lens", "nonlens"],
        "ra": [1.0, 2.0, 3.0, 4.0],
        "mag": [20.0, None, 22.5, float("nan")],
        "z": [0.1, 0.5, 0.2, 0.9],
        "kind": ["Sb", "E", None, "E"],
        "flag": [True, False, True, True],
        "empty": [None, None, None, None],
        "same": [3, 3, 3, 3],
        "list": [[1.0], [2.0], [], [3.0]],
    }
)


def test_inputs_are_those_of_scikit_learn():
    encoder = fit_encoder(TABLE, ["mag", "z", "kind", "flag"], "here").encoder
    numbers = TABLE.select("mag", "z").fill_null(np.nan).to_numpy()
    # The scatter is that of known values, so that those that are filled in do not make it smaller.
    expected = make_pipeline(StandardScaler(), SimpleImputer()).fit_transform(numbers)
    kinds = OneHotEncoder(sparse_output=False, handle_unknown="ignore").fit(np.array([["E"], ["Sb"]], object))
    found = encoder.encode(TABLE, "here")
    assert encoder.features == [
        "mag",
        "mag is missing",
        "z",
        "kind=E",
        "kind=Sb",
        "kind is missing",
        "flag=false",
        "flag=true",
    ]
    np.testing.assert_allclose(found[:, [0, 2]], expected, atol=1e-6)
    np.testing.assert_array_equal(found[:, 1], [0, 1, 0, 1])
    np.testing.assert_array_equal(found[:, 3:5], kinds.transform(TABLE.select("kind").to_numpy()))
    np.testing.assert_array_equal(found[:, 5], [0, 0, 1, 0])
    np.testing.assert_array_equal(found[:, 6:], [[0, 1], [1, 0], [0, 1], [0, 1]])


def test_all_leaves_out_what_is_no_input_and_says_why():
    fitted = fit_encoder(TABLE, "all", "here")
    assert fitted.encoder.names == ["mag", "z", "kind", "flag"]
    said = " ".join(fitted.notes)
    for reason in ("has no value in any training row: empty", "is constant over the training rows: same", "text: list"):
        assert reason in said


def test_encoder_survives_its_record_and_a_damaged_one_is_refused():
    encoder = fit_encoder(TABLE, "all", "here").encoder
    assert read_encoder(encoder.content(), "m", ModelError).columns == encoder.columns
    assert read_encoder([], "m", ModelError) is None
    for change in ({"scale": 0.0}, {"categories": ["x"]}, {"mean": None}):
        with pytest.raises(ModelError, match="m: catalog: column 'mag' has"):
            read_encoder([encoder.content()[0] | change], "m", ModelError)
    with pytest.raises(ModelError, match="a column comes twice"):
        read_encoder([encoder.content()[0]] * 2, "m", ModelError)


def test_new_rows_are_scaled_as_training_rows_were():
    encoder = fit_encoder(TABLE, ["z", "kind", "flag"], "here").encoder
    new = pl.DataFrame({"id": ["x"], "z": [None], "kind": ["Irr"], "flag": ["true"]})
    np.testing.assert_array_equal(encoder.encode(new, "new"), [[0, 0, 0, 0, 0, 1]])
    first, second = encoder.notes(new, "new")
    assert first.startswith("column 'z' has no value in 1 of 1 rows; training rows always had one")
    assert second.startswith("column 'kind' holds 'Irr' in 1 of 1 rows, which no training row has")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z": ["bright"]}, "new: column 'z' holds String where training rows held numbers; the first is 'bright'"),
        ({"kind": [1]}, "new: column 'kind' holds Int64 where training rows held text"),
        ({"z": [np.inf]}, r"new: column 'z' is infinite \(id x\)"),
    ],
)
def test_column_of_another_kind_is_refused(change, message):
    encoder = fit_encoder(TABLE, ["z", "kind"], "here").encoder
    with pytest.raises(DataError, match=message):
        encoder.encode(pl.DataFrame({"id": ["x"], "z": [1.0], "kind": ["E"]} | change), "new")


def test_long_lists_of_identifiers_are_cut():
    with pytest.raises(DataError, match=r"here: 9 images \(0, 1, 2, 3, 4, …\) without a row in the catalogue; columns"):
        check_joined([str(i) for i in range(9)], ["r"], "here", every_row=False)


def test_numbers_far_from_the_training_rows_and_columns_without_any_are_noted():
    encoder = fit_encoder(TABLE, ["z", "mag"], "here").encoder
    far = TABLE.with_columns(z=pl.Series([0.1, -99.0, 0.2, 0.9]))
    assert encoder.notes(TABLE, "there") == []
    assert encoder.notes(far, "there") == [
        "column 'z' is more than 10 standard deviations from the mean of the training rows in 1 of 4 rows, such as -99; if "
        "such a number stands for no value, leave it empty"
    ]
    without = TABLE.with_columns(z=pl.lit(None, dtype=pl.String))
    assert (encoder.encode(without, "there")[:, 0] == 0).all()
    assert encoder.notes(without, "there") == [
        "column 'z' has no value in 4 of 4 rows; training rows always had one, so that their mean is taken"
    ]


def test_identifiers_are_no_inputs():
    with pytest.raises(DataError, match=r"inputs\.columns names 'id', an identifier"):
        fit_encoder(TABLE, ["z", "id"], "here")
