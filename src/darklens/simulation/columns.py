"""Columns of a catalogue: choose rows, convert to tensors, and convert to and from a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

Columns = Mapping[str, Any]
"""Columns of equal length by name: arrays of numbers or text (nan for no value), and lists of arrays (None for none).

In the place of arrays of numbers there may be tensors, from which derivatives are then taken."""


def select(columns: Columns, chosen: np.ndarray) -> dict[str, Any]:
    """Return some rows of all columns, by their indices."""
    return {k: v[chosen] if isinstance(v, np.ndarray | Tensor) else [v[i] for i in chosen] for k, v in columns.items()}


def scatter(rows: dict[str, Any], chosen: np.ndarray, values: Columns, size: int) -> None:
    """Write columns of some rows into those of all; the others get nan, or None in lists.

    Parameters
    ----------
    rows
        Columns of all rows, which are written to.
    chosen
        Indices of the rows that ``values`` is of.
    values
        Arrays, or lists of arrays.
    size
        Number of all rows.
    """
    for name, column in values.items():
        if isinstance(column, np.ndarray):
            rows.setdefault(name, np.full(size, np.nan))[chosen] = column
        else:
            whole = rows.setdefault(name, [None] * size)
            for i, value in zip(chosen, column, strict=True):
                whole[i] = value


def requires_grad(columns: Columns) -> bool:
    """Return whether derivatives are asked for, from any of the columns."""
    each = (one for values in columns.values() for one in (values if isinstance(values, list) else [values]))
    return any(isinstance(one, Tensor) and one.requires_grad for one in each)


def columns_of(columns: Columns, names: Sequence[str], like: torch.dtype | Tensor) -> list[Tensor]:
    """Return numeric columns as tensors.

    Parameters
    ----------
    columns
        Columns of N rows.
    names
        Which of them.
    like
        A dtype, for tensors on the CPU, or a tensor that gives dtype and device.

    Returns
    -------
    A tensor (N,) for each name.
    """
    dtype, device = (like.dtype, like.device) if isinstance(like, Tensor) else (like, torch.device("cpu"))
    return [as_tensor(columns[name]).to(device, dtype) for name in names]


def as_tensor(values: Any) -> Tensor:
    """Return numbers as a tensor in float64; a tensor stays as it is, with its derivatives."""
    return values if isinstance(values, Tensor) else torch.tensor(np.asarray(values, dtype=np.float64))


def to_frame(columns: Columns) -> pl.DataFrame:
    """Convert columns to a table: nan becomes null, arrays become lists."""
    series = []
    for name, values in columns.items():
        if isinstance(values, np.ndarray):
            series.append(pl.Series(name, values, nan_to_null=values.dtype.kind == "f"))
        elif name == "subhalo_profile":
            series.append(pl.Series(name, values, dtype=pl.String))
        else:
            lists = [None if v is None else v.tolist() for v in values]
            series.append(pl.Series(name, lists, dtype=pl.List(pl.Float64)))
    return pl.DataFrame(series)


def from_frame(frame: pl.DataFrame) -> dict[str, Any]:
    """Convert a table to columns: the inverse of `to_frame`.

    Parameters
    ----------
    frame
        N rows, as `darklens.simulation.Simulator.catalog` returns them.

    Returns
    -------
    Arrays (N,) by name, nan where there is no value; for lists, N arrays (K,) of float64, or None.
    """
    columns: dict[str, Any] = {}
    for series in frame:
        if series.dtype == pl.List:
            columns[series.name] = [None if v is None else np.asarray(v, dtype=np.float64) for v in series.to_list()]
        elif series.name == "subhalo_profile":
            columns[series.name] = series.to_list()
        else:
            columns[series.name] = series.to_numpy()
    return columns
