"""One trial: its stages and their keys, and how it runs from the first timestamp to the last."""
