"""Logistic regression by scikit-learn as a dict of numpy arrays: what travels between a hospital and the server.

coef [1, 30] and intercept [1] are scikit-learn's. mean [30] and square [30], the means of the measurements and of their
squares, standardise them: their average over hospitals, weighted by patients, is the mean over all patients.
"""

import numpy as np
from sklearn.linear_model import SGDClassifier


def initial():
    """A model that knows nothing and standardises nothing."""
    return {"coef": np.zeros((1, 30)), "intercept": np.zeros(1), "mean": np.zeros(30), "square": np.ones(30)}


def measure(params, measurements):
    """The model with the mean and the mean square of these measurements."""
    return {**params, "mean": measurements.mean(axis=0), "square": (measurements**2).mean(axis=0)}


def train(params, measurements, malignant, *, epochs, seed):
    """The model after `epochs` passes of stochastic gradient descent; the same seed gives the same bytes."""
    classifier = SGDClassifier(
        loss="log_loss",
        learning_rate="constant",
        eta0=0.01,
        alpha=0.001,
        max_iter=epochs,
        tol=None,
        random_state=seed,
    )
    # Copies: scikit-learn trains in the memory of what it is given, and `params` is the model that was received.
    classifier.fit(
        standardise(params, measurements),
        malignant,
        coef_init=params["coef"].copy(),
        intercept_init=params["intercept"].copy(),
    )
    return {**params, "coef": classifier.coef_, "intercept": classifier.intercept_}


def accuracy(params, measurements, malignant):
    """The share of patients whom the model puts right, 0 to 1."""
    scores = standardise(params, measurements) @ params["coef"][0] + params["intercept"]
    return float(((scores > 0) == malignant).mean())


def standardise(params, measurements):
    """Every measurement with mean 0 and deviation 1 over all patients of the model's mean and square."""
    deviation = np.sqrt(params["square"] - params["mean"] ** 2)
    return (measurements - params["mean"]) / deviation
