"""The search for learning rates and other settings that precedes a study."""
