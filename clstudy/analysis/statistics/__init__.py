"""The statistics of a report: pure functions on arrays, one value or difference per identity."""
