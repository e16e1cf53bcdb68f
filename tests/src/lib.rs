//! Nothing of its own: the tests in `tests/` drive the built programs end to end.
