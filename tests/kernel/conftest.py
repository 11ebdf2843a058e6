"""Property tests here draw the same examples in every run, and none is held against a clock."""

from hypothesis import settings

settings.register_profile("pure", deadline=None, derandomize=True, database=None)
settings.load_profile("pure")
