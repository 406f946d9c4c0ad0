"""What is done with a trained model."""

import src  # noqa: F401  (says so where the environment is not active)
