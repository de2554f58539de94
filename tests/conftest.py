"""Puts tests/ on the path, so that every suite can import `support`."""
