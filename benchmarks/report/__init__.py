"""What is made of the benchmarks' rows: files, tables, charts and a page."""

from .page import write_page
from .result import KEPT, Result, kept
from .tables import in_words, write_tables

__all__ = ["KEPT", "Result", "in_words", "kept", "write_page", "write_tables"]
