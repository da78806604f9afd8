"""clstudy: which memory of the past keeps a personalised face generator from forgetting, and how sure can we be?"""

from clstudy.tracking.telemetry import switch_off

__version__ = "0.1.0"

switch_off()  # before any library that would report something can be imported
