"""Data sets of other sizes and classes run through all stages with other parameters only.

They have the shapes of OpenML's, few rows, and come over OpenML's own protocol.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from src.common import files
from tests.support.clones import REPOSITORY
from tests.support.openml_server import OpenML, redirected
from tests.support.stages import parameters, run_stage

MODELS = ("softmax_regression", "cnn", "resnet")
# name: pixels, classes, and the parameters besides the name that differ
SETS = {
    "Fashion-MNIST": (784, 10, {}),  # and Kuzushiji-MNIST
    "EMNIST_Balanced": (784, 47, {"prepare.transpose": True}),
    "Devnagari-Script": (1024, 46, {}),
    "optdigits": (64, 10, {"prepare.pixel_max": 16}),
    "CIFAR_10": (3072, 10, {"prepare.shape": [3, 32, 32]}),
}
NO_CNN = {"optdigits": "are too small for Conv2d"}


@pytest.mark.parametrize("name", SETS)
def test_another_data_set_needs_parameters_only(name: str, openml: OpenML, tmp_path: Path) -> None:
    pixels, classes, changes = SETS[name]
    brightest = changes.get("prepare.pixel_max", 255)
    generator = np.random.default_rng(0)
    images = generator.integers(0, brightest + 1, (150, pixels), np.uint8)
    labels = (np.arange(150) % classes).astype(np.uint8)
    changes = changes | {"fetch.dataset": name, "fetch.sha256": None, "fetch.sources": ["openml"]}
    changes |= {"prepare.train_rows": [0, 100], "prepare.test_rows": [100, 150]}
    changes |= {"train.epochs": 1, "train.learning_rate": 0.01, "train.batch_size": 50}
    Path("src").mkdir()
    shutil.copytree(REPOSITORY / "src" / "report", "src/report")
    parameters(**changes)
    with OpenML(images, labels, name, data_id=40996) as server, redirected(server.env):
        run_stage("fetch").expect(0, "fetch: openml: 150 rows")
    run_stage("prepare").expect(0)
    for model in MODELS:
        parameters(**changes, **{"train.model": model})
        if model == "cnn" and name in NO_CNN:
            run_stage("train").expect(2, "train: train.model: ", NO_CNN[name], "(given: 'cnn')")
            continue
        run_stage("train").expect(0, "epoch 1/1")
        run_stage("evaluate").expect(0, " of 50)")
        found = load_file("data/predicted/test.safetensors")["log_probabilities"]
        assert found.shape == (50, classes)
        assert files.read_json("metrics/evaluate.json")["test"]["total"] == 50
    run_stage("report").expect(0)
