"""The same bits whatever computes them, and whatever surrounds them: src/exact/README.md.

All parameters of each model are compared, as float64, and with them the losses, accuracies and
log-probabilities. Each test asks the libraries which kernels they took.
"""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from src.common import dataset
from tests.support import integers
from tests.support.clones import REPOSITORY, Run
from tests.support.stages import STAGES

# What MKL_VERBOSE says of the kernels it takes, by its names.
MKL_SAYS = {
    "generic": r"Intel\(R\) Architecture|SSE2",
    "SSE4_2": r"SSE4\.2",
    "AVX2": r"AVX2",
    "AVX512": r"AVX-512",
}
ROWS, FEW = "350", "110"  # each leaves a small last batch
Hashes = dict[str, list[str]]


def hashes(
    run: Run, folder: Path, *arguments: str, start: tuple[str, ...] = (sys.executable,), **env: str
) -> tuple[list[Hashes], tuple[str, str]]:
    """Return what `tests.support.hashes` prints for each number of threads, and the kernels."""
    rows = "data/prepared/test.safetensors"
    command = (*start, "-m", "tests.support.hashes", rows, *arguments)
    printed = run(folder, *command, env=env).stdout
    found = [json.loads(line) for line in re.findall(r"^\{.*\}$", printed, re.MULTILINE)]
    torch_takes = re.findall(r"^torch takes (\w+)$", printed, re.MULTILINE)[0].lower()
    header = re.findall(r"^MKL_VERBOSE oneMKL .* architecture (.*), Lnx", printed, re.MULTILINE)[0]
    [mkl_takes] = [name for name, says in MKL_SAYS.items() if re.search(says, header)]
    assert found, printed
    return found, (torch_takes, mkl_takes)


@pytest.fixture(scope="module")
def own(reproduced: Path, run: Run) -> tuple[Hashes, tuple[str, str]]:
    """Return this machine's hashes, and the kernels that it takes by itself."""
    [found], taken = hashes(run, reproduced, ROWS, "cpu", "1")
    assert len({digest for digests in found.values() for digest in digests}) == 2 * len(found)
    return found, taken


@pytest.fixture(scope="module")
def expected(own: tuple[Hashes, tuple[str, str]]) -> Hashes:
    return own[0]


def as_intel(mkl: str, folder: Path) -> dict[str, str]:
    """Return the environment variables that make MKL take these kernels.

    MKL heeds its variable on Intel's processors only, and takes generic kernels elsewhere. It asks
    functions of its own whose the processor is; a preloaded library answers in their place.
    """
    source = "".join(
        f"int {asked}(void) {{ return {int(mkl != 'generic')}; }}\n"
        for asked in ("mkl_serv_intel_cpu_true", "mkl_serv_intel_cpu")  # to act, and to print
    )
    library = folder / "whose.so"
    command = ["cc", "-shared", "-fPIC", "-o", library, "-x", "c", "-"]
    subprocess.run(command, input=source, text=True, check=True)
    chosen = {} if mkl == "generic" else {"MKL_ENABLE_INSTRUCTIONS": mkl}
    return {"LD_PRELOAD": str(library)} | chosen


WIDEST = torch.backends.cpu.get_cpu_capability()


def kernels(aten: str, mkl: str) -> Any:
    """Return parameters of a test, skipped where the processor lacks these registers."""
    is_missing = aten == "avx512" and WIDEST != "AVX512"
    reason = f"no AVX-512: torch takes {WIDEST} here"
    return pytest.param(aten, mkl, marks=pytest.mark.skipif(is_missing, reason=reason))


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler, to choose MKL's kernels with")
@pytest.mark.parametrize(
    ("aten", "mkl"),
    [
        kernels("default", "generic"),
        kernels("avx2", "generic"),
        kernels("avx512", "generic"),
        kernels("default", "SSE4_2"),
        kernels("avx2", "AVX2"),
        kernels("avx512", "AVX512"),
    ],
)
def test_every_vector_width_and_thread_count_gives_the_same_bits(
    aten: str, mkl: str, expected: Hashes, reproduced: Path, run: Run, tmp_path: Path
) -> None:
    """The pairs of kernels that AMD's and Intel's processors of growing width take."""
    env = as_intel(mkl, tmp_path) | {"ATEN_CPU_CAPABILITY": aten}
    found, taken = hashes(run, reproduced, ROWS, "cpu", "1", "2", "4", **env)
    assert taken == (aten, mkl)
    assert found == [expected] * 3


@pytest.mark.parametrize("processes", ["2", "3"])
def test_any_number_of_processes_gives_the_same_bits(
    processes: str, expected: Hashes, reproduced: Path, run: Run
) -> None:
    """The last batch has 50 rows, which three do not share evenly."""
    torchrun = ("torchrun", "--standalone", "--nproc-per-node", processes)
    [found], _ = hashes(run, reproduced, ROWS, "cpu", "1", start=torchrun)
    assert len(found) == len(expected) - 1  # a batch of 1 row feeds no two
    assert found == {name: expected[name] for name in found}


@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="no qemu-x86_64: apt's qemu-user")
@pytest.mark.parametrize(
    ("processor", "kernels"),
    [
        ("EPYC", ("avx2", "generic")),  # AMD, 2017; the emulator has no AVX-512
        ("Nehalem", ("default", "SSE4_2")),  # Intel, 2008
        ("Haswell", ("avx2", "AVX2")),  # Intel, 2013
    ],
)
def test_an_emulated_processor_gives_the_bits_of_this_one(
    processor: str,
    kernels: tuple[str, str],
    own: tuple[Hashes, tuple[str, str]],
    reproduced: Path,
    run: Run,
) -> None:
    """On a few rows, as emulation is slow."""
    if kernels == own[1]:
        pytest.skip(f"this machine takes the kernels of {processor} itself: {kernels}")
    # NumPy's OpenBLAS, which nothing here calls, takes an emulated Nehalem for one with AVX.
    env = {"OPENBLAS_CORETYPE": "Nehalem"} if processor == "Nehalem" else {}
    emulated = ("qemu-x86_64", "-cpu", processor, sys.executable)
    found, taken = hashes(run, reproduced, FEW, "cpu", "1", start=emulated, **env)
    assert taken == kernels
    assert found == hashes(run, reproduced, FEW, "cpu", "1")[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_bits_of_the_cpu_from_a_captured_graph_and_without(
    expected: Hashes, reproduced: Path, run: Run
) -> None:
    """Without shift an epoch is captured as a graph; the cnn's recipe shifts."""
    [found], _ = hashes(run, reproduced, ROWS, "cuda", "1")
    assert found == expected


def test_whole_numbers_in_numpy_train_to_the_hash_that_the_pipeline_printed(
    reproduced: Path,
) -> None:
    """The default recipe's first epoch on the 60,000 real rows, by a second implementation."""
    images, labels = dataset.read(str(reproduced / "data/prepared/train.safetensors"), "np")[:2]
    images = images.reshape(len(images), -1)
    batches = [slice(at, at + 100) for at in range(0, len(labels), 100)]
    digest = integers.train(integers.start(777, 10, 784), images, labels, batches, 0.5)
    with open(reproduced / "metrics/plots/learning_curve.csv", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["sha256"] == digest[:8]
    printed = reproduced.with_name("reproduced.log").read_text(encoding="utf-8")
    assert re.search(rf"^epoch 1/5 .*  {digest[:8]}  ", printed, re.MULTILINE)


@pytest.mark.skipif(not shutil.which("faketime"), reason="no faketime: apt's faketime")
@pytest.mark.skipif(
    not Path("/usr/share/i18n/locales/tr_TR").exists(), reason="no source of locales: apt's locales"
)
def test_clock_locale_path_hash_seed_umask_and_style_leak_into_no_output(
    small_outputs: Path, run: Run, tmp_path: Path
) -> None:
    """Turkish has a decimal comma, and an I that is not the upper case of its i."""
    run(tmp_path, "localedef", "--inputfile=tr_TR", "--charmap=UTF-8", tmp_path / "tr_TR.UTF-8")
    surroundings = {
        "LOCPATH": str(tmp_path),
        "LC_ALL": "tr_TR.UTF-8",
        "TZ": "Pacific/Chatham",
        "PYTHONHASHSEED": "4242",
        "PYTHONPATH": str(REPOSITORY),
        "COLUMNS": "33",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512_SKX AVX2 FMA3",
        "OPENBLAS_CORETYPE": "Nehalem",
        "OMP_NUM_THREADS": "2",
    }
    folder = tmp_path / "a päth with spaces & 'quotes'"
    for name in ("data/raw/dataset.safetensors", "params.yaml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(small_outputs / name, folder / name)
    shutil.copytree(small_outputs / "src", folder / "src")
    (folder / "matplotlibrc").write_text("font.size: 20\nfigure.facecolor: green\n")
    program = f"""
import locale, os, time
from tests.support import stages
locale.setlocale(locale.LC_ALL, "")
print(time.strftime("%Y %Z"), locale.localeconv()["decimal_point"], oct(os.umask(0o77)))
for stage in {STAGES[1:]}:
    stages.run_stage(stage).expect(0)
"""
    start = ("sh", "-c", 'umask 077 && exec faketime "2031-02-03 04:05:06" python -c "$1"', "sh")
    assert run(folder, *start, program, env=surroundings).stdout == "2031 +1345 , 0o77\n"
    (folder / "matplotlibrc").unlink()

    def outputs(of: Path) -> dict[str, bytes]:
        files = (path for path in sorted(of.rglob("*")) if path.is_file())
        return {path.relative_to(of).as_posix(): path.read_bytes() for path in files}

    assert outputs(folder) == outputs(small_outputs)
    assert len(outputs(folder)) > 15
