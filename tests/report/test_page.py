"""What is in the report's page, and what its scripts compute in Node: torch is the oracle."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from src.exact import functions, grids
from src.learning import graph, models
from src.report import confidence, page
from tests.support import clones, drawings, stages
from tests.support import reports as files_of
from tests.support.drawings import NEAT, Drawing
from tests.support.reports import content_of, html_of, pictures_of, read_csv
from tools import handwriting


def parameters_of(packed: dict[str, Any]) -> np.ndarray:
    """Unpack float32, or 8 bits with a scale."""
    content, scale = base64.b64decode(packed["values"]), packed.get("scale")
    values = (
        np.frombuffer(content, "<f4") if scale is None else np.frombuffer(content, "i1") * scale
    )
    return values.reshape(packed["shape"])


def test_packed_images_come_back_and_most_zeros_cost_nothing() -> None:
    images = np.zeros((3, 400), np.float32)
    images[0, :3], images[1, 5], images[2, 399] = [1, 2**-16, 0.5], 0.25, 1
    packed = page.pixels(images)
    assert packed["levels"] == [0, 2**-16, 0.25, 0.5, 1]
    assert (pictures_of(packed | {"pictures": [0] * 3}) == images).all()
    assert len(base64.b64decode(packed["images"])) < 25
    assert page.pixels(np.full((1, 2), 0.5, np.float32))["levels"] == [0, 0.5]  # 0 is no ink
    fine = np.linspace(-1, 1, 300, dtype=np.float32)  # as standardised ones may be
    packed = page.pixels(fine)
    assert packed["levels"] is None
    assert (np.frombuffer(base64.b64decode(packed["images"]), "<f4") == fine).all()
    full = np.arange(256, dtype=np.float32).reshape(2, 128) / 2**16  # as many levels as a byte has
    assert (pictures_of(page.pixels(full) | {"pictures": [0, 0]}) == full).all()


def test_the_template_is_filled_and_what_it_holds_can_end_no_element_of_it() -> None:
    template = "{{policy}}|{{name}}<style>a{}</style>{{content}}<script>let b = 1;</script>{{name}}"
    filled = page.render(template, {"x": "</script>", "y": [1, 2]}, name="N")
    policy, rest = filled.split("|")
    script, style = (
        base64.b64encode(hashlib.sha256(text).digest()).decode() for text in (b"let b = 1;", b"a{}")
    )
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; "
        "img-src data:; worker-src blob:; base-uri 'none'; form-action 'none'"
    )
    assert rest == (
        'N<style>a{}</style>{"x":"\\u003c/script>","y":[1,2]}<script>let b = 1;</script>N'
    )
    with pytest.raises(KeyError, match="name"):
        page.render(template, {})
    assert page.table({"<a>": 1, "b": "&"}) == (
        "<tr><th scope=row>&lt;a&gt;<td>1\n<tr><th scope=row>b<td>&amp;"
    )


def test_the_page_carries_what_the_stages_wrote(small: Path) -> None:
    content = content_of(small)
    recipe = json.loads(Path("models/recipe.json").read_text())
    kept = ("epochs", "epochs_run", "batch_size", "learning_rate", "momentum", "schedule")
    kept += ("shuffle", "seed", "drop_last")
    assert content["recipe"] == {key: recipe[key] for key in kept} | {"seed": "777"}
    for part, file in (("tensors", "model"), ("start", "start")):
        saved = load_file(f"models/{file}.safetensors")
        assert content[part].keys() == saved.keys()
        for name, tensor in saved.items():
            assert (parameters_of(content[part][name]) == tensor).all()
    assert content["exp"] == page.exponentials()
    taken = load_file("models/snapshots.safetensors")
    for moment in content["history"]:
        for name, packed in moment["tensors"].items():
            expected = taken[f"{moment['step']}/{name}"]
            expected = expected * taken.get(f"scale/{moment['step']}/{name}", 1)
            assert np.allclose(parameters_of(packed), expected, rtol=1e-6, atol=0)
    found = [(moment["step"], moment["epoch"]) for moment in content["history"]]
    assert found == [(0, 0), (1, 0.125), (2, 0.25), (8, 1)]
    numbers = {"epoch": int, "split": str, "loss": float, "accuracy": float, "sha256": str}
    assert content["curve"] == [
        {name: kind(row[name]) for name, kind in numbers.items()}
        for row in read_csv(Path("metrics/plots/learning_curve.csv"))
    ]
    per_class = read_csv(Path("metrics/plots/per_class.csv"))
    assert content["f1"] == [float(row["f1"]) for row in per_class]
    counts = np.zeros((4, 4), int)
    for row in read_csv(Path("metrics/plots/confusion.csv")):
        counts[int(row["actual"]), int(row["predicted"])] += 1
    assert content["confusion"] == counts.tolist()
    assert (content["kind"], content["classes"]) == ("digit", ["0", "1", "2", "3"])
    assert (content["shape"], content["train_rows"]) == ([1, 8, 8], 150)
    assert (content["off"], content["untrainable"], content["linear"]) == (None, None, "1")


def test_the_page_carries_images_of_each_kind_with_what_is_known_of_them(small: Path) -> None:
    content = content_of(small)
    rows = {name: load_file(f"data/prepared/{name}.safetensors") for name in ("train", "test")}
    found = load_file("data/predicted/test.safetensors")["log_probabilities"]
    labels, predicted, sure = rows["test"]["labels"], found.argmax(axis=1), found.max(axis=1)
    pictures = [tuple(picture) for picture in content["pictures"]]
    assert len(set(pictures)) == len(pictures)
    for (split, row), image, facts in zip(
        pictures, pictures_of(content), content["facts"], strict=True
    ):
        assert (image == rows[split]["images"][row].ravel()).all()
        if split == "train":
            assert facts == [rows["train"]["labels"][row]]
        else:
            assert facts == [labels[row], predicted[row], round(float(np.exp(sure[row])), 6)]
    wrong = [row for row in np.argsort(-sure) if labels[row] != predicted[row]]
    assert 1 < len(wrong) < 24
    assert [pictures[place] for place in content["mistakes"]] == [("test", row) for row in wrong]


def test_of_many_mistakes_samples_and_cells_the_page_carries_the_first() -> None:
    classes, rows = 20, 800
    generator = np.random.default_rng(6)
    # Few answers, so that many rows are equally sure: then they come in their order.
    found = np.log(generator.dirichlet(np.ones(classes), 40))[generator.integers(0, 40, rows)]
    labels = generator.integers(0, classes, rows)
    predicted, sure = found.argmax(axis=1), found.max(axis=1)
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    images = np.zeros((rows, 1, 2, 2), np.float32)
    content = page.pictures((images, labels), (images, labels), found, counts)
    pictures = [row for _, row in content["pictures"]]
    by_confidence = sorted(range(rows), key=lambda row: -sure[row])
    mistakes = [row for row in by_confidence if predicted[row] != labels[row]]
    assert [pictures[place] for place in content["mistakes"]] == mistakes[:24]
    samples = [row for label in range(classes) for row in np.flatnonzero(labels == label)[:5]]
    assert [pictures[place] for place in content["samples"]] == samples
    cells = sorted(np.ndindex(classes, classes), key=lambda cell: -counts[cell])[:300]
    surest = {(labels[row], predicted[row]): row for row in reversed(by_confidence)}
    assert [(a, b, pictures[place], count) for a, b, place, count in content["cells"]] == [
        (*cell, surest[cell], counts[cell]) for cell in cells if counts[cell]
    ]
    for level, expected in zip(content["doubt"], confidence.levels(labels, found), strict=True):
        assert (level["from"], level["rows"]) == (expected.least, len(expected.rows))
        assert level["confidence"] == pytest.approx(np.exp(sure[expected.rows]).mean(), abs=1e-4)
        assert level["accuracy"] == pytest.approx(expected.accuracy, abs=1e-4)
        assert pictures[level["picture"]] == expected.rows[0]
    many = page.pictures((images, labels + 150), (images, labels), found, np.pad(counts, 90))
    assert len(many["samples"]) == 20  # one of each class that there is


def test_of_large_snapshots_the_page_takes_fewer_and_none_after_the_kept_epoch() -> None:
    recipe = {"batch_size": 10, "drop_last": False, "epoch": 2}  # of 95 rows: 10 steps each

    def steps(size: int) -> list[int]:
        taken = {f"{step}/w": np.zeros((size, 1000), np.int8) for step in (0, 1, 3, 10, 20, 30)}
        scales = {f"scale/{name}": np.ones(1, np.float32) for name in taken}
        return [moment["step"] for moment in page.history(taken | scales, recipe, 95)]

    assert steps(1) == [0, 1, 3, 10]
    assert steps(600) == [0, 10]
    assert steps(1700) == []


def test_the_page_says_what_the_stages_found(small: Path) -> None:
    text = html_of(small).read_text(encoding="utf-8")
    metrics = json.loads(Path("metrics/evaluate.json").read_text())["test"]
    shown = {"accuracy": f"{metrics['accuracy']:.2%}", "correct": f"{metrics['correct']}"}
    shown |= {"loss": f"{metrics['loss']:.4f}", "macro-f1": f"{metrics['macro_f1']:.4f}"}
    for name, figure in shown.items():
        assert f'<dd id="{name}">{figure}<' in text
    for part in (
        "It read 50 test images",
        "The model is 4 small pictures",
        "each of its 64 pixels",
        "After each 20 images of mnist_784, training moves every weight",
        "<title>Which digit is it?</title>",
        '<html lang="en" class="linear">',
    ):
        assert part in text
    assert "switched off" in re.findall("<noscript>(.*?)</noscript>", text, re.DOTALL)[0]
    recipe = json.loads(Path("models/recipe.json").read_text())
    shown = dict(re.findall(r"<tr><th scope=row>(.*)<td>([^<\n]*)", text))
    model = Path("models/model.safetensors")
    assert shown.pop(str(model)) == f"SHA-256 {hashlib.sha256(model.read_bytes()).hexdigest()}"
    for path in ("data/prepared/train.safetensors", "data/prepared/test.safetensors"):
        parts = load_file(path)
        crc = zlib.crc32(b"".join(parts[part].tobytes() for part in sorted(parts)))
        assert shown.pop(path) == f"CRC-32 {crc:08x}"
    shown = {key: html.unescape(value) for key, value in shown.items()}
    assert shown.keys() == recipe.keys() - {"graph", "graph_reason", "module", "names"}
    assert (shown["seed"], shown["learning_rate"]) == ("777", str(recipe["learning_rate"]))
    shown = page.scores({"test": metrics | {"correct": 91_420, "total": 100_000}})
    assert (shown["correct"], shown["total"]) == ("91,420", "100,000")


def test_a_deep_model_is_not_trained_in_the_page(small: Path) -> None:
    stages.small_parameters(**{"train.model": "mlp", "train.epochs": 1})
    for stage in ("train", "evaluate", "report"):
        stages.run_stage(stage).expect(0)
    content = content_of(small)
    assert (content["start"], content["exp"]) == ({}, [])
    assert "softmax regression alone" in content["untrainable"]
    assert content["tensors"].keys() == load_file("models/model.safetensors").keys()
    assert '<html lang="en" class="deep">' in html_of(small).read_text(encoding="utf-8")


# The scripts, in Node


def node(value: str, **given: Any) -> Any:
    """Return a value, or a promise, of Node with the scripts that know no page and constants."""
    if shutil.which("node") is None:
        pytest.skip("Node is not installed")
    text = '"use strict";\n' + "\n".join(
        (clones.REPOSITORY / f"src/report/{name}.js").read_text(encoding="utf-8")
        for name in ("model", "training", "ink")
    )
    text += "".join(f"\nconst {name} = {json.dumps(content)};" for name, content in given.items())
    text += (
        "\nconst plain = (_, value) => ArrayBuffer.isView(value) ? [...value] : value;"
        f"\nPromise.resolve({value})"
        "\n.then((found) => console.log(JSON.stringify(found, plain)));"
    )
    ended = subprocess.run(
        ["node", "-"], input=text, capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def logits_of(model: nn.Module, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return torch's logits and Node's, of images (N, C, H, W)."""
    nodes, reason = graph.graph(model, images.shape[1:])
    assert nodes is not None, reason
    state = {name: value.numpy() for name, value in model.eval().state_dict().items()}
    found = node(
        "images.map((image) => compute("
        "build(nodes, unpackAll(state), shape), Float64Array.from(image)))",
        nodes=nodes,
        state=page.state(state),
        shape=images.shape[1:],
        images=images.reshape(len(images), -1).tolist(),
    )
    with torch.no_grad():
        return model(torch.from_numpy(images)).numpy(), np.array(found)


class Branches(nn.Module):
    """What a forward may do besides its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(2, 1))
        self.two = nn.Conv2d(2, 4, (3, 2), stride=(1, 2), padding=(2, 1), bias=False)
        self.halved, self.out = nn.MaxPool2d(2), nn.Linear(32, 5)
        self.pool = nn.AdaptiveAvgPool2d((2, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        one, two = nn.functional.leaky_relu(self.one(x), 0.2), torch.relu(self.two(x))
        product = one * two
        x = torch.cat([one + two, one - product], 1)
        x = self.pool(self.halved(x))
        x = nn.functional.pad(x, (0, 1, -1, 1), value=0.5)
        return self.out(x.view(-1, 2, 32)).flatten(1)


def random_model(*layers: nn.Module) -> nn.Module:
    model = nn.Sequential(*layers)
    for name, value in model.state_dict().items():
        if "running" in name:  # a trained BatchNorm's
            value.uniform_(0.5, 2)
    return model


NETS: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: random_model(
        nn.Conv2d(2, 6, 3, stride=2, padding=2, dilation=2, groups=2),
        nn.BatchNorm2d(6),
        nn.LeakyReLU(0.1),
        nn.Conv2d(6, 6, (1, 3), groups=6, bias=False),
        nn.BatchNorm2d(6, affine=False),
        nn.Hardtanh(-0.5, 0.7),
        nn.Flatten(),
        nn.LazyLinear(4),
    ),
    "poolings": lambda: random_model(
        nn.MaxPool2d(3, stride=1, padding=1),
        nn.AvgPool2d((2, 3), stride=(1, 2), padding=1),
        nn.MaxPool2d(2, stride=1, dilation=2),
        nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d((3, 2)),
        nn.Flatten(),
        nn.BatchNorm1d(12),
        nn.Linear(12, 3),
    ),
    "shapes": lambda: random_model(
        nn.Flatten(2),
        nn.Unflatten(2, (11, 8)),
        nn.Identity(),
        nn.Flatten(1, -2),
        nn.Linear(8, 3),
        nn.ReLU(),
        nn.Flatten(),
    ),
    "branches": Branches,
}


@pytest.mark.parametrize("name", NETS)
def test_node_computes_what_torch_computes(name: str) -> None:
    torch.manual_seed(4)
    images = np.random.default_rng(2).normal(size=(3, 2, 11, 8)).astype(np.float32)
    model = NETS[name]().eval()
    with torch.no_grad():
        model(torch.from_numpy(images))  # a lazy layer takes its size
    expected, found = logits_of(model, images)
    assert expected.shape == found.shape
    assert np.abs(expected - found).max() < 1e-4


@pytest.mark.parametrize("name", [*models.MODELS, "GELU"])
def test_the_page_agrees_with_what_is_recorded_or_says_that_it_is_off(
    name: str, own: Callable[[], Path]
) -> None:
    torch.manual_seed(3)
    images, labels = files_of.digits(120, side=28)
    if name == "GELU":
        model = nn.Sequential(nn.Flatten(), nn.GELU(), nn.Linear(784, 10))
    else:
        model = models.build(name, (1, 28, 28), 10)
    files_of.write(files_of.fit(model, images, labels, steps=8), images, labels)
    own()
    content = content_of(Path())
    if name == "GELU":
        assert name in content["off"]
        assert (content["graph"], content["tensors"], content["history"]) == (None, {}, [])
        return
    assert content["off"] is None
    found = node(
        "((model) => unpackPictures(page.images, page.levels, page.pictures.length,"
        " product(page.shape)).map((image, place) => {"
        " const [, label, probability] = page.facts[place];"
        " return label === undefined"
        " || agrees(softmax(compute(model, image)), label, probability); }))"
        "(build(page.graph, unpackAll(page.tensors), page.shape))",
        page=content,
    )
    assert sum(len(facts) == 3 for facts in content["facts"]) > 9
    assert found == [True] * len(content["pictures"])


def test_what_the_page_does_not_know_is_said_and_never_passed_over() -> None:
    faulty = [
        {"op": "gelu"},
        {"op": "flatten", "start": 0, "end": -1},
        {"op": "linear", "module": "m"},
        {"op": "maxpool", "ceil": True},
    ]
    said = node(
        "faulty.map((node) => { try { build([{ name: 'x', op: 'input', inputs: [] },"
        " { name: 'y', inputs: ['x'], ...node }], {}, [1, 4, 4]); return ''; }"
        " catch (error) { return error.message; } })",
        faulty=faulty,
    )
    assert said == [
        "the page does not compute gelu",
        "an operation over the batch",
        "the layer m has no weight",
        "pooling with ceil_mode",
    ]


def test_an_answer_agrees_by_its_class_and_its_probability() -> None:
    cases = [[0.3, 0.7, 1, 0.70005], [0.3, 0.7, 1, 0.7002]]
    cases += [[0.50004, 0.49996, 1, 0.5], [0.6, 0.4, 1, 0.4]]
    found = node("cases.map(([a, b, label, p]) => agrees([a, b], label, p))", cases=cases)
    assert found == [True, False, True, False]


def test_node_draws_numpys_permutations_and_digests_as_hashlib() -> None:
    cases = ((777, 1, 600), (0, 2, 7), (2**63 - 1, 10_000, 1000), (1, 3, 1))
    found = node(
        "cases.map(([seed, epoch, count]) => permutation(BigInt(seed), epoch, count))",
        cases=[[str(seed), epoch, count] for seed, epoch, count in cases],  # of more than 53 bits
    )
    for (seed, epoch, count), order in zip(cases, found, strict=True):
        assert order == np.random.default_rng([seed, epoch]).permutation(count).tolist()
    content = bytes(range(200))
    found = node("sha256(Uint8Array.from(content))", content=list(content))
    assert found == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("momentum", [0, 0.5])
def test_node_trains_softmax_regression_to_the_recorded_hashes(
    momentum: float, small: Path
) -> None:
    stages.small_parameters(
        **{"train.shuffle": True, "train.momentum": momentum, "train.schedule": "linear"},
        # More than a browser's numbers and six decimals hold.
        **{"train.seed": 2**53 + 1, "train.learning_rate": 0.1234567, "train.batch_size": 40},
        **{"train.epochs": 3, "train.init": "normal", "train.drop_last": True},
    )
    for stage in ("train", "evaluate", "report"):
        stages.run_stage(stage).expect(0)
    content = content_of(small)
    assert content["untrainable"] is None
    found = node(
        "(async () => { const start = unpackAll(page.start), found = [];"
        "globalThis.postMessage = ({ epoch, hash }) => { if (hash) found.push(hash); };"
        "const file = new Blob([require('fs').readFileSync(train)]);"
        "const tables = page.exp.map((part) => new Float64Array(bytes(part).buffer));"
        "await trainInWorker({ ...await readRows(file, 64), recipe: page.recipe,"
        " weight: start['1.weight'], bias: start['1.bias'], tables }); return found; })()",
        page=content,
        train=str(small / "data/prepared/train.safetensors"),
    )
    curve = read_csv(Path("metrics/plots/learning_curve.csv"))
    assert found == [row["sha256"] for row in curve if row["split"] == "train"]
    assert len(found) == 3


def test_node_unpacks_snapshots_of_8_bits() -> None:
    taken = {"0/w": np.int8([[-127, 0, 64]]), "scale/0/w": np.float32([0.5])}
    (moment,) = page.history(taken, {"batch_size": 1, "drop_last": False, "epoch": 1}, 1)
    found = node("unpackAll(packed).w", packed=moment["tensors"])
    assert found == [-63.5, 0, 32]


def test_steps_of_exact_inputs_and_exponentials_are_those_of_the_training() -> None:
    for inputs in (1, 9, 784, 1023, 1024, 3072, 100_000):
        assert page.input_step("linear", inputs) == grids.for_inputs(inputs).step
        images = grids.for_inputs(inputs, grids.IMAGES)
        assert page.input_step("conv2d", inputs) == images.step
    for text, expected in zip(page.exponentials(), functions.short_exponentials(), strict=True):
        assert np.frombuffer(base64.b64decode(text), "<f8").tolist() == expected


@pytest.mark.parametrize("side", [28, 8])
def test_node_brings_ink_to_the_form_that_predict_uses(side: int) -> None:
    generator = np.random.default_rng(7)
    masks = []
    for height, width in ((9, 5), (40, 40), (120, 30), (60, 200)):
        ink = generator.random((height, width)) < 0.3
        ink[[0, -1]], ink[:, [0, -1]] = True, True
        masks.append(ink)
    given = [
        {"ink": mask.ravel().astype(int).tolist(), "height": len(mask), "width": len(mask[0])}
        for mask in masks
    ]
    found = node(
        "given.map((mask) => intoForm(mask, Math.max(mask.width, mask.height)))",
        HEIGHT=side,
        WIDTH=side,
        given=given,
    )
    for mask, form in zip(masks, found, strict=True):
        assert np.abs(handwriting.into_form(mask, side).ravel() - form).max() < 1e-9


@pytest.mark.parametrize(
    ("floor", "drawn"),
    [
        (0.93, drawings.some(1)),
        (0.95, drawings.some(2, NEAT, height=0.25)),
        (0.97, drawings.some(3, NEAT, tick=True)),
    ],
    ids=["any", "a quarter high", "with a stray tick"],
)
def test_drawings_are_read(
    floor: float, drawn: list[tuple[int, Drawing]], reproduced: Path
) -> None:
    content = content_of(reproduced)
    _, height, width = content["shape"]
    found = node(
        "((model) => drawn.map((strokes) => compute(model, formOf(withoutSpecks(strokes)))))"
        "(build(page.graph, unpackAll(page.tensors), page.shape))",
        page=content,
        HEIGHT=height,
        WIDTH=width,
        drawn=[strokes for _, strokes in drawn],
    )
    digits = np.array([digit for digit, _ in drawn])
    assert (np.argmax(found, axis=1) == digits).mean() >= floor
