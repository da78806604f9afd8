"""What a study leaves on disk: names and schemas, one writer and one reader for each file."""
