"""Looks a site over: what is wrong with it, and how to mend it. Reads, and changes nothing.

The only files that are written are probes of our own, and they are removed again.
"""

from piseduce_runner.doctor.examination import examine
from piseduce_runner.doctor.findings import Finding, Level

__all__ = ["Finding", "Level", "examine"]
