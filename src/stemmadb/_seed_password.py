"""The password that seeds give to the people of development databases."""

import os
from importlib.util import find_spec

from pydantic import SecretStr

PROFILES = frozenset({"dev", "qa", "demo"})
"""Where people get one. In ``prod`` the seeds make nobody, and suites do not wait for hashes."""


def seed_password(profile: str) -> SecretStr | None:
    """Return STEMMADB_SEED_PASSWORD; None when it is not set, when the extra ``auth`` is not installed, and for other profiles."""
    given = os.environ.get("STEMMADB_SEED_PASSWORD")
    if not given or profile not in PROFILES or not all(find_spec(name) for name in ("argon2", "bcrypt")):
        return None
    return SecretStr(given)
