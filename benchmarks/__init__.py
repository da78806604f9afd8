"""What clstudy costs: ``python -m benchmarks`` measures every hot path, the other files answer one question each."""
