"""Tests of captum_leam: one folder for each package folder, shared code in ``tests.helpers``."""
