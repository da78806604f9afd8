"""The geometry of convex hulls that the hull strategies choose by."""
