"""Async twins, some of them."""
