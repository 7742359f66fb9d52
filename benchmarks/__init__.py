"""Benchmarks: each module measures all sides in turn in one run; ``python -m benchmarks NAME [--full]``."""
