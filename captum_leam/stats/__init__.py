"""Statistics over people and pairs: intervals, tests, thresholds, error rates."""
