"""What a stage does: how its state is trained on a person's photos, and how it is scored."""
