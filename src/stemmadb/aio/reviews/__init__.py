"""Async twins of stemmadb.reviews."""
