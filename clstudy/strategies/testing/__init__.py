"""The conformance suite that every strategy goes through, the packaged ones and a user's own."""
