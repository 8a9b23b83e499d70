"""How many examples: few with every ``make test``, twenty times as many with ``make test-deep``."""

import os

from hypothesis import HealthCheck, settings

NIGHTLY = 400
"""Examples of every property in ``make test-deep``."""

_COMMON = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
settings.register_profile("quick", _COMMON, max_examples=NIGHTLY // 20, derandomize=True, database=None)
settings.register_profile("deep", _COMMON, max_examples=NIGHTLY, print_blob=True)

EXAMPLES = settings(settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick")))
"""The decorator of every property here. HYPOTHESIS_PROFILE=deep is the nightly one."""
