"""Run all stages for each model, here and on emulated processors, and compare every output.

A MACHINE is an architecture, maybe with a processor of `qemu-ARCHITECTURE -cpu help`: aarch64,
aarch64:neoverse-n1, x86_64:Nehalem, x86_64:EPYC. The committed recipe's outputs are compared with
dvc.lock. Those of the others, which are short as emulation is slow, with this machine's.

Debian is needed, with its package qemu-user, the network and about ten minutes a machine. For
aarch64, FOLDER takes 2 GB that the next call uses again: Debian's Python for it and the locked
packages, but torch 2.10.0, as the locked one's wheel wants CUDA there.
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from src.common import files

ROWS: dict[str, object] = {"train_rows": [0, 2000], "test_rows": [60000, 61000]}
SHORT: dict[str, object] = {
    "epochs": 2,
    "learning_rate": 0.05,
    "momentum": 0.9,
    "schedule": "linear",
    "shuffle": True,
}
ADAMW: dict[str, object] = {
    "epochs": 2,
    "init": "normal",
    "optimizer": "adamw",
    "learning_rate": 0.01,
    "weight_decay": 0.01,
    "schedule": "cosine",
    "warmup_epochs": 1,
    "shuffle": True,
    "shift": 1,
}
# resnet has fewer rows, as it computes most.
RECIPES: dict[str, dict[str, dict[str, object]]] = {
    "softmax_regression": {},
    "mlp": {"prepare": ROWS, "train": {**SHORT, "learning_rate": 0.1}},
    "cnn": {"prepare": ROWS, "train": {**SHORT, "shift": 1}},
    "lenet": {"prepare": ROWS, "train": {**SHORT, "shift": 1}},
    "resnet": {"prepare": {**ROWS, "train_rows": [0, 500]}, "train": ADAMW},
}
VERSIONS = """
import platform, numpy, torch, threadpoolctl
print(f"Python {platform.python_version()} on {platform.machine()}, NumPy {numpy.__version__}")
print(f"torch {torch.__version__}, vector width: {torch.backends.cpu.get_cpu_capability()}")
print(*(line for line in torch.__config__.show().splitlines() if "Library" in line), sep="\\n")
for pool in threadpoolctl.ThreadpoolController().select(user_api="blas").info():
    print("  - " + pool["prefix"], pool["version"], pool["architecture"])
"""


def call(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a command, without what the caller's environment tells Python and the libraries."""
    sys.stdout.flush()
    theirs = ("PYTHON", "OPENBLAS", "MKL", "OMP", "ATEN", "MACHINE")
    env = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
    if status := subprocess.run(command, cwd=cwd, env=env).returncode:
        raise OSError(f"exit status {status}: {shlex.join(map(str, command))}")


def emulated_python(machine: str, folder: Path) -> Path:
    """Make a program that is the Python of a machine; return its path."""
    architecture, _, processor = machine.partition(":")
    emulator = [f"qemu-{architecture}", *(["-cpu", processor] if processor else [])]
    if architecture == "aarch64":
        root, site = folder / "root", folder / "site"
        program, home = root / "usr/bin/python3", root / "usr"
        emulator += ["-L", str(root)]
    else:
        program, home = Path(sys.executable).resolve(), Path(sys.base_prefix)
        site = Path(sysconfig.get_path("purelib"))
        # NumPy's OpenBLAS, which no stage calls, takes an emulated Nehalem for one with AVX.
        emulator = ["OPENBLAS_CORETYPE=Nehalem", *emulator]
    start = shlex.join(["env", f"PYTHONHOME={home}", f"PYTHONPATH={site}", *emulator])
    python = folder / f"python-{machine.replace(':', '-')}"
    # With -0, sys.executable is this program, so that child processes are emulated too.
    python.write_text(f'#!/bin/sh\nexec {start} -0 "$0" {shlex.quote(str(program))} "$@"\n')
    python.chmod(0o755)
    if not site.exists():
        install_aarch64(folder, python)
    return python


def install_aarch64(folder: Path, python: Path) -> None:
    """Unpack Debian's Python for it into root/, and the wheels for it into site/."""
    apt = folder / "apt"
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()  # nothing counts as installed, so that apt names every package
    options = ["APT::Architecture=arm64", "APT::Architectures=arm64", f"Dir::State={apt}"]
    options += [f"Dir::State::status={apt}/status", f"Dir::Cache={apt}"]
    get = ["apt-get", "-qq", *(f"--option={option}" for option in options)]
    call(*get, "update")
    call(*get, "install", "--download-only", "--no-install-recommends", "python3", "libstdc++6")
    for package in (apt / "archives").glob("*.deb"):
        call("dpkg", "--extract", package, folder / "root")
    ask = "import sys; print('%d.%d' % sys.version_info[:2])"
    version = subprocess.check_output([python, "-c", ask], text=True).strip()
    pins = [pin for pin in Path("requirements.lock").read_text().splitlines() if "==" in pin]
    # antlr4's runtime, which only DVC imports, has no wheel. fetch may call pip.
    wheels = [pin for pin in pins if not pin.startswith(("antlr4", "torch"))]
    systems = ["manylinux2014", *(f"manylinux_2_{minor}" for minor in range(17, 37))]
    # pip would choose the dependencies of the machine that it runs on: hence --no-deps.
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    pip += [f"--platform={system}_aarch64" for system in systems]
    pip += [f"--python-version={version}", f"--target={folder}/site"]
    call(*pip, *wheels, "torch==2.10.0", "pip")


def run_stages(python: Path, model: str, clone: Path) -> dict[str, str]:
    """Run all stages in a clone with a model's recipe; return the md5 of each output."""
    stages = files.parse_yaml((clone / "dvc.lock").read_text())["stages"]
    call("git", "checkout", "--quiet", "--", "params.yaml", cwd=clone)  # nothing of another recipe
    settings = files.parse_yaml((clone / "params.yaml").read_text(encoding="utf-8"))
    settings["fetch"]["sources"] = ["pypi"]  # the same rows as OpenML's, sooner
    settings["train"]["model"] = model
    for section, values in RECIPES[model].items():
        settings[section] |= values
    (clone / "params.yaml").write_text(json.dumps(settings))  # JSON is YAML
    for stage in stages:
        if stage != "fetch" or not RECIPES[model]:  # the others take what it fetched
            call(python, "-m", f"stages.{stage}", cwd=clone)
    paths = [output["path"] for stage in stages.values() for output in stage["outs"]]
    contents = {path: (clone / path).read_bytes() for path in paths}
    return {path: hashlib.md5(contents[path], usedforsecurity=False).hexdigest() for path in paths}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.emulate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("machines", metavar="MACHINE", nargs="*")
    given = parser.parse_args()
    for qemu in {f"qemu-{machine.partition(':')[0]}" for machine in given.machines}:
        if qemu not in ("qemu-aarch64", "qemu-x86_64") or not shutil.which(qemu):
            parser.error(f"{qemu} is not here or not for this; `apt-get install qemu-user`")
    given.folder.mkdir(parents=True, exist_ok=True)
    stages = files.parse_yaml(Path("dvc.lock").read_text())["stages"]
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    expected, different = {"softmax_regression": outs}, 0
    try:
        call("git", "log", "-1", "--format=commit %h")
        for machine in ["this", *given.machines]:
            print(f"\nmachine: {machine}")
            python = Path(sys.executable)
            if machine == "this":
                call("grep", "--max-count=1", "model name", "/proc/cpuinfo")
            else:
                call(f"qemu-{machine.partition(':')[0]}", "--version")
                python = emulated_python(machine, given.folder.resolve())
            call(python, "-c", VERSIONS)
            with tempfile.TemporaryDirectory() as clone:
                call("git", "clone", "--quiet", ".", clone)
                for model in RECIPES:
                    print(f"\n{machine}, {model}: {RECIPES[model] or 'the committed recipe'}")
                    found = run_stages(python, model, Path(clone))
                    for path, md5 in found.items():
                        wanted = expected.setdefault(model, found)[path]
                        different += md5 != wanted
                        print(md5, path if md5 == wanted else f"{path} DIFFERS from {wanted}")
    except OSError as error:
        sys.exit(f"emulate: {error}")
    print(f"\n{different} outputs differ")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
