"""Ray: the driver of a study, its workers and actors, and what they need on other nodes. Nothing else imports Ray."""
