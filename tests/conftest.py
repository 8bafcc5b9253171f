"""Settings of the whole suite. The fixtures come from the plug-in ``stemmadb.testing``, which the package itself installs."""

from __future__ import annotations

import pytest

# What the machine of a developer is set up for must not reach the tests; each sets what it is about.
_OURS = (
    "DATABASE_URL",
    "DIRECT_URL",
    "SLOW_QUERY_MS",
    "QUERY_TIMEOUT_MS",
    "STEMMADB_DATA_DIR",
    "STEMMADB_ENV",
    "STEMMADB_LOG_QUERIES",
    "STEMMADB_SECRET_KEYS",
    "STEMMADB_SEED_PASSWORD",
    "STEMMADB_TOKEN_PEPPERS",
    "STEMMADB_WORKSPACE",
    "STEMMADB_WRITE_VERSIONS",
)


@pytest.fixture(scope="session", autouse=True)
def _own_environment() -> object:
    with pytest.MonkeyPatch.context() as patch:
        for name in _OURS:
            patch.delenv(name, raising=False)
        yield
