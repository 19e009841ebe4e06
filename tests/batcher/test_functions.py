"""The results of batch functions that return columns."""

import pytest

from batchify import microbatch, rows


def test_columns_become_one_dict_for_each_item():
    """``rows()`` converts columns of any kind that has a length into one dict for each item, in order."""
    columns = {"ids": [[1], [2, 3]], "size": range(2), 5: ("a", "b")}
    assert [{"ids": [1], "size": 0, 5: "a"}, {"ids": [2, 3], "size": 1, 5: "b"}] == rows(columns)


def test_no_items_make_no_rows():
    """Empty columns, as of a batch without items, make an empty list."""
    assert [] == rows({"ids": [], "mask": []})


def test_each_caller_gets_its_row():
    """A batch function that returns ``rows()`` gives each caller the dict of its item."""
    encode = microbatch(lambda texts: rows({"text": texts, "size": [len(text) for text in texts]}))
    assert [{"text": "a", "size": 1}, {"text": "bc", "size": 2}] == encode.map(["a", "bc"])


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ({"ids": [1, 2], "mask": [1, 1], "kinds": [0]}, "ids has 2, mask has 2, kinds has 1"),
        ({}, "there are none"),
    ],
)
def test_columns_of_different_lengths_are_refused(columns, named):
    """Columns of different lengths, or none at all, are a ``ValueError`` that names them and shows no value."""
    with pytest.raises(ValueError) as caught:
        rows(columns)
    assert f"rows() needs columns of one length, with one value for each item: {named}" == str(caught.value)
