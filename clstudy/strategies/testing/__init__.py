"""The conformance suite for strategies, packaged ones and a user's own."""
