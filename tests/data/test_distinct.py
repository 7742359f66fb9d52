"""Looking labels up in a table gives what NumPy's sort gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from daskdml.data._distinct import codes_in, distinct, distinct_counts

DTYPES = ["i1", "u1", "i2", "i8", "u8", "?", "f4", "U3"]
F4 = np.dtype("f4")


@st.composite
def labels(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    if dtype.kind in "iu":
        # Close together at any place of the dtype's range, or all over it.
        info = np.iinfo(dtype)
        low = draw(st.integers(info.min, info.max))
        near = st.integers(low, min(low + 12, info.max))
        elements = draw(st.sampled_from([near, st.integers(info.min, info.max)]))
    else:
        elements = st.text("abc", max_size=3) if dtype.kind == "U" else st.integers(0, 1 if dtype.kind == "b" else 9)
    return np.array(draw(st.lists(elements, min_size=1, max_size=30)), dtype)


@given(labels(), st.data())
def test_as_numpy_sorts_them(values, data):
    classes, counts = np.unique(values, return_counts=True)
    assert distinct(values).dtype == values.dtype
    np.testing.assert_array_equal(distinct(values), classes)
    found, rows = distinct_counts(values)
    np.testing.assert_array_equal(found, classes)
    np.testing.assert_array_equal(rows, counts)
    weights = data.draw(hnp.arrays("f8", len(values), elements=st.integers(0, 5)))
    expected = [weights[values == c].sum() for c in classes]
    np.testing.assert_array_equal(distinct_counts(values, weights)[1], expected)
    codes = codes_in(classes, values, F4)
    assert codes.dtype == F4
    np.testing.assert_array_equal(classes[codes.astype(int)], values)
    without = data.draw(st.sampled_from(list(classes)))
    assert codes_in(classes[classes != without], values, F4) is None


@pytest.mark.parametrize("dtype", ["i8", "f4", "U1"])
def test_of_no_labels_there_are_none(dtype):
    nothing = np.empty(0, dtype)
    assert len(distinct(nothing)) == 0 and [len(a) for a in distinct_counts(nothing)] == [0, 0]
    assert len(codes_in(nothing, nothing, F4)) == 0


def test_labels_between_and_beyond_the_classes_are_none_of_them():
    classes = np.array([2, 5, 9])
    assert codes_in(classes, np.array([9, 2, 5]), F4).tolist() == [2, 0, 1]
    for stranger in (1, 4, 10, -(2**40)):
        assert codes_in(classes, np.array([2, stranger]), F4) is None
    assert codes_in(np.array([0, 2**40]), np.array([2**40]), F4).tolist() == [1]
    assert codes_in(classes, np.array([2.0, 2.5]), F4) is None
