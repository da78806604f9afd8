"""Is this machine, or this running cluster, fit for a study? ``python -m clstudy.doctor`` prints a sheet of findings.

``facts`` defines the facts, ``machine`` and ``probes`` gather them, ``judges`` turns them into lines (pure functions),
and ``sheet`` combines everything. It connects to Ray only if an address is given, and imports torch only if GPUs
matter, so that a sheet for one machine takes seconds.
"""
