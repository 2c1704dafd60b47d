"""569 real breast tumours (Wisconsin, 30 measurements of cell nuclei each), and their split over three hospitals.

The data ship inside scikit-learn. In a real federation each hospital reads its own table here.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer

TEST_PATIENTS = 190
# Which share of the benign and of the malignant tumours goes to each hospital, in the order of the hospitals' names.
SHARES = {
    "cancer-centre": (0.05, 0.85),  # sees what others have found
    "general-hospital": (0.15, 0.10),  # small
    "screening-clinic": (0.80, 0.05),  # sees mostly healthy people
}


def load():
    """Measurements, float64 [569, 30], and whether the tumour is malignant, int64 [569]."""
    measurements, benign = load_breast_cancer(return_X_y=True)
    return measurements, 1 - benign


def split(malignant, seed):
    """Rows of the test patients, and a dict from hospital to its rows: disjoint, together all rows."""
    rng = np.random.default_rng(seed)
    test, train = np.split(rng.permutation(len(malignant)), [TEST_PATIENTS])
    dealt = []
    for kind in (0, 1):
        rows = train[malignant[train] == kind]
        cuts = np.cumsum([shares[kind] for shares in SHARES.values()])[:-1] * len(rows)
        dealt.append(np.split(rows, cuts.astype(int)))
    return test, {name: np.concatenate(rows) for name, *rows in zip(SHARES, *dealt, strict=True)}
