"""Code that several test files and tools share; no tests."""
