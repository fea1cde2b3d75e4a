"""A bounded run of `tests/fuzz.py`; run it by hand for more."""

from fuzz import KINDS, fuzz

PAIRS = ["pair", "buffer"]


def test_damaged_files_are_read_or_refused_by_name(tmp_path):
    counts, faults = fuzz(tmp_path, 390, seed=7, kinds=[*KINDS, *PAIRS])
    assert not faults, "\n".join(faults)
    assert counts.total() == 390
    refused = {kind: counts[kind, "refused"] for kind in KINDS}
    assert sum(refused.values()) > 195, counts
    assert min(refused.values()) > 5, counts
    assert all(counts[kind, "read"] for kind in PAIRS), counts
