"""A study's files on disk: names and schemas, with one writer and one reader for each file."""
