"""Async twins of stemmadb.evaluation."""
