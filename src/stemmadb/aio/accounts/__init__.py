"""Async twins of stemmadb.accounts."""
