"""clstudy: which memory of the past keeps a personalised face generator from forgetting, and how sure can we be?"""

__version__ = "0.1.0"
