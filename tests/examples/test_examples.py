"""The examples' own parts: data, training, and what they import. That a federation of them works is shown by running them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
SEEDS = (0, 1, 2)


def load(folder: str, name: str) -> ModuleType:
    """The module examples/<folder>/<name>.py under a name of its own: two folders have a data.py."""
    spec = importlib.util.spec_from_file_location(f"{folder}_{name}", EXAMPLES / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def mnist() -> tuple[ModuleType, ModuleType, np.ndarray, np.ndarray]:
    """data.py, net.py, images, digits."""
    data = load("mnist", "data")
    return data, load("mnist", "net"), *data.load()


def test_mnist_has_five_hundred_images_of_each_digit(mnist):
    _, _, images, digits = mnist
    assert images.shape == (5000, 1, 28, 28)
    assert images.dtype == np.float32
    assert np.bincount(digits).tolist() == [500] * 10


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("sites", [1, 3, 50])
def test_every_mnist_image_is_at_one_site_or_in_the_test_set(mnist, seed, sites):
    data, _, _, digits = mnist
    test, parts = data.split(digits, sites, seed, alpha=0.3)
    assert len(test) == 1000
    assert len(parts) == sites
    assert sorted(np.concatenate([test, *parts])) == list(range(5000))
    assert min(map(len, parts)) >= 4000 // (10 * sites)


def test_every_site_computes_the_same_mnist_split(mnist):
    data, _, _, digits = mnist
    test, parts = data.split(digits, 3, seed=0, alpha=0.3)
    again, again_parts = data.split(digits, 3, seed=0, alpha=0.3)
    assert np.array_equal(test, again)
    assert all(map(np.array_equal, parts, again_parts))
    other, _ = data.split(digits, 3, seed=1, alpha=0.3)
    assert not np.array_equal(test, other)


def test_a_small_alpha_gives_the_sites_different_digits(mnist):
    data, _, _, digits = mnist

    def largest_share(alpha: float) -> float:
        """Mean over digits of the share that the site with most of it has; a third if the deal is even."""
        _, parts = data.split(digits, 3, seed=0, alpha=alpha)
        counts = np.array([np.bincount(digits[rows], minlength=10) for rows in parts])
        return float((counts.max(axis=0) / counts.sum(axis=0)).mean())

    assert largest_share(100) < 0.45
    assert largest_share(0.3) > 0.55


def trained(net: ModuleType, images: np.ndarray, digits: np.ndarray, seed: tuple[int, ...]) -> dict[str, torch.Tensor]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = net.Net()
    net.train(model, torch.from_numpy(images[:320]), torch.from_numpy(digits[:320]), epochs=1, lr=0.1, seed=seed)
    return model.state_dict()


def test_a_repeated_mnist_round_gives_the_same_bytes(mnist):
    _, net, images, digits = mnist
    rows = np.random.default_rng(0).permutation(5000)[:320]
    images, digits = images[rows], digits[rows]
    first, again = (trained(net, images, digits, seed=(0, 1, 4)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize("seed", [(1, 1, 4), (0, 2, 4), (0, 1, 5)], ids=["seed", "site", "round"])
def test_another_seed_site_or_round_trains_in_another_order(mnist, seed):
    _, net, images, digits = mnist
    rows = np.random.default_rng(0).permutation(5000)[:320]
    images, digits = images[rows], digits[rows]
    first, other = trained(net, images, digits, seed=(0, 1, 4)), trained(net, images, digits, seed=seed)
    assert not torch.equal(first["fc2.weight"], other["fc2.weight"])


def test_three_mnist_rounds_of_averaging_beat_every_site_alone(mnist):
    data, net, images, digits = mnist
    torch.set_num_threads(1)
    test, parts = data.split(digits, 3, seed=0, alpha=0.3)
    images, digits = torch.from_numpy(images), torch.from_numpy(digits)
    torch.manual_seed(0)
    start = net.Net().state_dict()

    def after_training(weights: dict[str, torch.Tensor], site: int, t: int) -> dict[str, torch.Tensor]:
        model = net.Net()
        model.load_state_dict(weights)
        net.train(model, images[parts[site]], digits[parts[site]], epochs=2, lr=0.1, seed=(0, site, t))
        return model.state_dict()

    def accuracy(weights: dict[str, torch.Tensor]) -> float:
        model = net.Net()
        model.load_state_dict(weights)
        return net.accuracy(model, images[test], digits[test])

    together, alone = start, [start] * 3
    for t in range(3):
        updates = [after_training(together, site, t) for site in range(3)]
        together = {
            name: sum(len(rows) * u[name] for rows, u in zip(parts, updates, strict=True)) / 4000 for name in start
        }
        alone = [after_training(weights, site, t) for site, weights in enumerate(alone)]
    assert accuracy(together) > max(map(accuracy, alone)) + 0.03


@pytest.fixture(scope="module")
def tumours() -> tuple[ModuleType, ModuleType, np.ndarray, np.ndarray]:
    """data.py, model.py, measurements, malignant."""
    data = load("tabular", "data")
    return data, load("tabular", "model"), *data.load()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_patient_is_at_one_hospital_or_in_the_test_set(tumours, seed):
    data, _, _, malignant = tumours
    test, parts = data.split(malignant, seed)
    assert len(test) == 190
    assert sorted(np.concatenate([test, *parts.values()])) == list(range(569))
    again, again_parts = data.split(malignant, seed)
    assert np.array_equal(test, again)
    assert all(np.array_equal(parts[name], again_parts[name]) for name in parts)


def test_the_mean_of_the_hospitals_means_standardises_all_patients(tumours):
    data, model, measurements, malignant = tumours
    _, parts = data.split(malignant, 0)
    updates = [(len(rows), model.measure(model.initial(), measurements[rows])) for rows in parts.values()]
    total = sum(n for n, _ in updates)
    together = {name: sum(n * u[name] for n, u in updates) / total for name in model.initial()}
    everyone = model.standardise(together, measurements[np.concatenate(list(parts.values()))])
    assert np.allclose(everyone.mean(axis=0), 0, atol=1e-8)
    assert np.allclose(everyone.std(axis=0), 1)


def test_a_repeated_hospital_round_gives_the_same_bytes(tumours):
    data, model, measurements, malignant = tumours
    rows = data.split(malignant, 0)[1]["general-hospital"]
    start = model.measure(model.initial(), measurements[rows])
    first, again = (model.train(start, measurements[rows], malignant[rows], epochs=5, seed=3) for _ in range(2))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert {name: value.shape for name, value in first.items()} == {
        name: value.shape for name, value in model.initial().items()
    }
    other = model.train(start, measurements[rows], malignant[rows], epochs=5, seed=4)
    assert not np.array_equal(first["coef"], other["coef"])


@pytest.mark.parametrize("seed", SEEDS)
def test_averaged_hospitals_beat_every_hospital_alone(tumours, seed):
    data, model, measurements, malignant = tumours
    test, parts = data.split(malignant, seed)
    together = model.initial()
    alone = {name: model.measure(model.initial(), measurements[rows]) for name, rows in parts.items()}
    total = sum(map(len, parts.values()))
    for t in range(12):
        updates = []
        for name, rows in parts.items():
            x, y = measurements[rows], malignant[rows]
            update = model.measure(together, x) if t == 0 else model.train(together, x, y, epochs=5, seed=t)
            updates.append((len(rows), update))
            if t > 0:
                alone[name] = model.train(alone[name], x, y, epochs=5, seed=t)
        together = {name: sum(n * u[name] for n, u in updates) / total for name in together}

    def accuracy(params: dict[str, np.ndarray]) -> float:
        return model.accuracy(params, measurements[test], malignant[test])

    assert accuracy(together) > max(map(accuracy, alone.values()))


def test_the_tabular_example_imports_no_torch():
    """Nor does `import fedjob`: the client API must not bring it in either."""
    program = "import sys, data, model, fedjob; print('torch' in sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=EXAMPLES / "tabular", capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "False"


def test_the_inline_job_holds_the_files_of_its_folder():
    folder = EXAMPLES / "tabular"
    job, inline = (yaml.safe_load((folder / name).read_text()) for name in ("job.yaml", "job-inline.yaml"))
    files = inline["spec"]["trainer"]["files"]
    assert files == {name: (folder / name).read_text() for name in ("data.py", "model.py", "train.py")}
    assert inline["spec"]["workflow"] == job["spec"]["workflow"]
    assert inline["spec"]["sites"] == job["spec"]["sites"]


def test_the_file_for_a_cluster_is_the_job_with_its_scripts_and_the_image_that_make_images_builds(tmp_path):
    from fedjob.version import __version__

    image = f"localhost/fedjob-examples:{__version__}"
    command = [sys.executable, "-m", "fedjob.cli.main", "manifest", "job.yaml", "--image", image]
    printed = subprocess.run(command, cwd=EXAMPLES / "mnist", capture_output=True, text=True, check=True).stdout
    written = (EXAMPLES / "mnist" / "cluster.yaml").read_text()
    assert written == printed, f"in examples/mnist: fedjob manifest job.yaml --image {image} > cluster.yaml"


def test_the_hospitals_of_the_job_are_those_of_the_split(tumours):
    data = tumours[0]
    job = yaml.safe_load((EXAMPLES / "tabular" / "job.yaml").read_text())
    assert [site["name"] for site in job["spec"]["sites"]] == list(data.SHARES)


@pytest.mark.parametrize("path", sorted(EXAMPLES.rglob("*.yaml")), ids=lambda path: str(path.relative_to(EXAMPLES)))
def test_every_job_file_is_valid(path):
    from fedjob.api import FederatedJob

    FederatedJob.model_validate(yaml.safe_load(path.read_text()))


def test_only_the_import_of_the_migrated_script_is_fedjobs():
    lines = (EXAMPLES / "migrated" / "client.py").read_text().splitlines()
    assert [line for line in lines if "fedjob" in line] == [
        "import fedjob.client as flare  # was: import nvflare.client as flare"
    ]


@pytest.mark.timeout(600)
def test_the_demo_makes_a_model_that_is_better_than_any_site_alone(tmp_path):
    """What `make demo` ends with, as the README shows it."""
    job = yaml.safe_load((EXAMPLES / "mnist" / "job.yaml").read_text())
    command = [sys.executable, "-m", "fedjob.cli.main", "run", str(EXAMPLES / "mnist" / "job.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [history] = (tmp_path / "runs").glob("mnist-*/history.jsonl")
    last = json.loads(history.read_text().splitlines()[-1])
    assert last["kind"] == "Evaluate"
    assert set(last["sites"]) == {site["name"] for site in job["spec"]["sites"]}
    for name, site in last["sites"].items():
        assert site["metrics"]["accuracy"] > site["metrics"]["own_accuracy"] + 0.05, name
