"""kernels.py needs Triton, which the tests do not."""

collect_ignore = ["kernels.py"]
