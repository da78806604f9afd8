"""One trial: the stages it asks for, their keys, and its story from the first timestamp to the last."""
