"""The same bits whatever computes them: kernels, processors, devices, and what surrounds them.

docs/bits.md says what is promised, and why it holds.
"""

import hashlib
import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

from src import softmax_regression, tensors
from tests.conftest import Run
from tests.test_stages import command_of
from tools.measure_bits import GRADIENTS, kernels

# What MKL_VERBOSE says of the kernels it takes, by its names.
MKL_SAYS = {
    "generic": r"Intel\(R\) Architecture|SSE2",
    "SSE4_2": r"SSE4\.2",
    "AVX2": r"AVX2",
    "AVX512": r"AVX-512",
}


def test_the_grid_has_no_negative_zero() -> None:
    # A sum of zeros is 0.0 or -0.0, depending on where a kernel starts to add.
    near_zero = torch.tensor([-0.0, -1e-9, 1e-9, -(2.0**-18)], dtype=torch.float64)
    assert not torch.signbit(softmax_regression.to_grid(near_zero)).any()


def test_the_grid_hides_noise_and_changes_no_float32_that_is_on_it() -> None:
    parameters = softmax_regression.start("normal", 5)
    noise = torch.empty_like(parameters).uniform_(-1e-6, 1e-6)
    assert torch.equal(softmax_regression.to_grid(parameters + noise), parameters)
    assert torch.equal(parameters.float().double(), parameters)


def flags(command: list[str], folder: Path, **changes: str) -> list[str]:
    """Take a stage's flags from its command, with outputs in `folder` and some values changed."""
    _, _, _, *found = command
    for name, value in changes.items():
        found[found.index(f"--{name}") + 1] = str(value)
    return [
        str(folder / flag) if flag.startswith(("models/", "metrics/")) else flag for flag in found
    ]


def digests(folder: Path) -> dict[str, str]:
    """Map each output of train and evaluate below a folder to its sha256."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for name in ("models", "metrics")
        for path in sorted((folder / name).rglob("*.*"))
        if path.suffix in (".safetensors", ".json", ".csv")
    }


def kernels_taken(printed: str) -> tuple[str, str]:
    """Read what `stages_in_a_row` printed first: torch's level and MKL's."""
    [torch_takes] = re.findall(r"^torch takes (\w+)$", printed, re.MULTILINE)
    [header] = re.findall(r"^MKL_VERBOSE oneMKL .* architecture (.*), Lnx", printed, re.MULTILINE)
    [mkl_takes] = [name for name, says in MKL_SAYS.items() if re.search(says, header)]
    return torch_takes.lower(), mkl_takes


def stages_in_a_row(
    run: Run, workspace: Path, runs: list[tuple[Path, str, dict]], *prefix: str, **env: str
) -> str:
    """Run train and evaluate for each (folder, gradient, changed flags) in one process."""
    plan = []
    for folder, gradient, changes in runs:
        stages = {}
        for stage in ("train", "evaluate"):
            command = command_of(workspace, stage)
            known = {name: value for name, value in changes.items() if f"--{name}" in command}
            stages[stage] = flags(command, folder, **known)
        plan.append({"gradient": gradient, **stages})
    file = runs[0][0].parent / "plan.json"
    file.write_text(json.dumps(plan))
    return run(
        workspace, *prefix, sys.executable, "-m", "tests.stages_in_a_row", file, env=env
    ).stdout


@pytest.fixture(scope="module")
def first_epoch(
    reproduced: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Return the digests of what the pipeline gives with epochs: 1."""
    folder = tmp_path_factory.mktemp("first_epoch")
    for stage, changes in (("train", {"epochs": 1}), ("evaluate", {})):
        changed = flags(command_of(reproduced, stage), folder, **changes)
        run(reproduced, "python", "-m", f"stages.{stage}", *changed)
    return digests(folder)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler, to choose MKL's kernels with")
@pytest.mark.parametrize("mkl", ["SSE4_2", "AVX2", "AVX512"])
@pytest.mark.parametrize("aten", ["default", "avx2", "avx512"])
def test_every_kernel_thread_count_and_gradient_gives_the_same_bits(
    aten: str, mkl: str, reproduced: Path, first_epoch: dict, run: Run, tmp_path: Path
) -> None:
    """One process for each pair of kernel sets; threads and gradients change within it.

    One thread runs all epochs, against the committed bits. Several threads run one, as each
    step waits for all of them and a busy machine makes that long. MKL's generic kernels, which
    AMD's processors take, are left to the emulated EPYC.
    """
    expected, runs = {}, []
    for threads, epochs, outputs in (
        (1, 5, digests(reproduced)),
        (2, 1, first_epoch),
        (4, 1, first_epoch),
    ):
        for gradient in GRADIENTS:
            folder = tmp_path / f"{threads} threads, {gradient}"
            runs.append((folder, gradient, {"threads": threads, "epochs": epochs}))
            expected[folder.name] = outputs
    printed = stages_in_a_row(run, reproduced, runs, **kernels(aten, mkl, tmp_path))
    if (taken := kernels_taken(printed)) != (aten, mkl):
        warnings.warn(f"asked for {aten}, {mkl}; this machine has only {taken}", stacklevel=1)
    assert {folder.name: digests(folder) for folder, _, _ in runs} == expected
    assert all(len(outputs) == 7 for outputs in expected.values())


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="no qemu-x86_64: apt's qemu-user")
@pytest.mark.parametrize(
    ("processor", "kernels_of_it"),
    [
        ("EPYC", ("avx2", "generic")),  # AMD, 2017; the emulator has no AVX-512
        ("Nehalem", ("default", "SSE4_2")),  # Intel, 2008
        ("Haswell", ("avx2", "AVX2")),  # Intel, 2013
    ],
)
def test_an_emulated_processor_gives_the_bits_of_this_one(
    processor: str, kernels_of_it: tuple[str, str], reproduced: Path, run: Run, tmp_path: Path
) -> None:
    """A few epochs on a subset, as emulation is slow."""
    rows = tensors.read(
        str(reproduced / "data/prepared/test.safetensors"), "np", images="float32", labels="int64"
    )
    data = str(tmp_path / "rows.safetensors")
    tensors.write(data, **{name: values[:2000] for name, values in rows.items()})
    native, emulated = tmp_path / "native", tmp_path / "emulated"
    changes = {"train_data": data, "test_data": data}
    stages_in_a_row(run, reproduced, [(native, "closed form", changes)])
    # NumPy's OpenBLAS, which no stage calls, takes an emulated Nehalem for one with AVX.
    env = {"OPENBLAS_CORETYPE": "Nehalem"} if processor == "Nehalem" else {}
    emulator = ("qemu-x86_64", "-cpu", processor)
    printed = stages_in_a_row(
        run, reproduced, [(emulated, "closed form", changes)], *emulator, **env
    )
    assert kernels_taken(printed) == kernels_of_it
    assert len(digests(native)) == 7
    assert digests(emulated) == digests(native)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_committed_model_and_metrics(
    reproduced: Path, run: Run, tmp_path: Path
) -> None:
    for stage in ("train", "evaluate"):
        found = flags(command_of(reproduced, stage), tmp_path, device="cuda")
        run(reproduced, "python", "-m", f"stages.{stage}", *found)
    expected, found = digests(reproduced), digests(tmp_path)
    for name in ("models/model.safetensors", "metrics/train.json", "metrics/evaluate.json"):
        assert found[name] == expected[name]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("faketime"), reason="no faketime: apt's faketime")
@pytest.mark.skipif(
    not Path("/usr/share/i18n/locales/tr_TR").exists(), reason="no source of locales: apt's locales"
)
def test_clock_locale_path_hash_seed_and_umask_leak_into_no_output(
    reproduced: Path, run: Run, tmp_path: Path
) -> None:
    """Turkish has a decimal comma, and an I that is not the upper case of its i."""
    run(tmp_path, "localedef", "--inputfile=tr_TR", "--charmap=UTF-8", tmp_path / "tr_TR.UTF-8")
    surroundings = {
        "LOCPATH": str(tmp_path),
        "LC_ALL": "tr_TR.UTF-8",
        "TZ": "Pacific/Chatham",
        "PYTHONHASHSEED": "4242",
        "OMP_NUM_THREADS": "2",
        "COLUMNS": "33",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",  # or waiting for locks would never end
    }

    def run_elsewhere(folder: Path, command: str) -> str:
        command = f"umask 077 && exec faketime '2031-02-03 04:05:06' {command}"
        return run(folder, "sh", "-c", command, env=surroundings).stdout

    probe = """python -c '
import locale, os, time
locale.setlocale(locale.LC_ALL, "")
print(time.strftime("%Y %Z"), locale.localeconv()["decimal_point"], oct(os.umask(0)))'"""
    assert run_elsewhere(tmp_path, probe) == "2031 +1345 , 0o77\n"

    folder = tmp_path / "a päth with spaces & 'quotes'"
    run(tmp_path, "git", "clone", "--quiet", reproduced, folder)
    printed = run_elsewhere(folder, "dvc repro --force")
    stages = ("fetch", "prepare", "train", "evaluate", "report")
    assert re.findall(r"^Running stage '(\w+)'", printed, re.MULTILINE) == list(stages)
    # The lock holds the md5 of every output of every stage, the metrics are in Git themselves.
    assert run(folder, "git", "status", "--porcelain").stdout == ""
