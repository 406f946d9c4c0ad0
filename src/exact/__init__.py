"""Exact training in ordinary PyTorch: the same bits on every machine."""
