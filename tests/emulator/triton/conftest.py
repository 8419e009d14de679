"""These files need Triton, which the tests do not."""

collect_ignore = ["kernels.py", "kernels_sm90.py", "kernels_sm90_roles.py"]
