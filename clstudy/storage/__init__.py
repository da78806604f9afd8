"""Places (folders, object stores), locks, checksums, and the content-addressed store."""
