"""Types that the whole package shares."""

Field = tuple[int, int, int, int]
"""The rows and columns of the input that a network reads, as (top, left, height, width) in pixels."""
