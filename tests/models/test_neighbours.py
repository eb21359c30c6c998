"""Item-kNN against cosines by NumPy."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from reland_jax.models.neighbours import nearest_items


def test_nearest_items_by_the_cosine_of_their_users() -> None:
    had = (np.random.default_rng(0).random((40, 12)) < 0.2) * 1
    had[:, 3] = 0  # an item that nobody had
    nearest, weight = nearest_items(sparse.csr_array(had), 4)
    length = np.maximum(np.linalg.norm(had, axis=0), 1e-9)
    cosine = had.T @ had / np.outer(length, length)
    np.fill_diagonal(cosine, 0)
    assert not nearest[0].any() and not weight[0].any() and not weight[4].any()
    for item in range(12):
        used = weight[item + 1] > 0
        found = cosine[item, nearest[item + 1, used] - 1]
        np.testing.assert_allclose(found, weight[item + 1, used], rtol=1e-6)
        np.testing.assert_allclose(found, np.sort(cosine[item][cosine[item] > 0])[::-1][:4], rtol=1e-6)
        assert len(set(nearest[item + 1, used])) == used.sum()
