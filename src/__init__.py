"""What the stages and the tools are made of."""

import sys

try:
    import safetensors  # noqa: F401  (of the pinned packages, one that every command needs)
except ModuleNotFoundError:
    sys.exit("the packages are missing: `make install` once, then `source .venv/bin/activate`")
