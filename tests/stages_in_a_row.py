"""Run train and evaluate in this process, several times: `python -m tests.stages_in_a_row FILE`.

FILE is a JSON list of {"gradient": name, "train": flags, "evaluate": flags}. First prints which
kernels torch and MKL really take, as they fall back in silence to what the processor has.
"""

import json
import sys
from pathlib import Path

import torch

from src import training
from stages import evaluate, train
from tools.measure_bits import GRADIENTS

if __name__ == "__main__":
    print(f"torch takes {torch.backends.cpu.get_cpu_capability()}", flush=True)
    with torch.backends.mkl.verbose(torch.backends.mkl.VERBOSE_ON):
        square = torch.eye(2, dtype=torch.float64)
        square @ square
    for run in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        training.train.__kwdefaults__["gradient_of"] = GRADIENTS[run["gradient"]]
        train.main(run["train"])
        evaluate.main(run["evaluate"])
