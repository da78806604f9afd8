"""Is this machine, or this running cluster, fit for a study? ``python -m clstudy.doctor`` prints a sheet of findings.

``facts`` says what is found out, ``judges`` turns facts into lines (pure), ``machine``, ``probes`` and ``cluster`` find
them out, ``sheet`` puts all together. Ray is connected to only with an address, and torch imported only where GPUs
matter, so that a sheet for one machine takes seconds.
"""
