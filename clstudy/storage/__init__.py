"""Places (folders, object stores), locks, checksums, and the store of content-addressed values."""
