"""The pictures and the page that show what was learned."""

import os

# Meant for other programs: a notebook's backend, a user's settings. matplotlib reads both when it
# is imported, and ends there if it cannot use them. The figures are drawn without any backend.
os.environ.pop("MPLBACKEND", None)
os.environ["MATPLOTLIBRC"] = os.devnull
