"""Async twins of stemmadb.workspaces."""
