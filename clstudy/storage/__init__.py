"""Storage: folders and object stores, locks, checksums, and the content-addressed store."""
