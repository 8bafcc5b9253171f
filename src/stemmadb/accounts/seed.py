"""Roles, permissions, and the people of development databases, with a password if STEMMADB_SEED_PASSWORD says one."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.orm import Session

from stemmadb._seed_password import seed_password
from stemmadb.accounts import _passwords
from stemmadb.query import sql_rows
from stemmadb.seeding import Profile, Seed

__all__ = ["SEEDS"]

_ROLES = {
    "permissions": {
        "catalogue:read": "See what is offered",
        "orders:read": "See orders",
        "orders:write": "Change orders",
        "users:read": "See users",
        "users:write": "Change users",
        "roles:*": "Everything about roles",
        "audit:read": "See who did what",
        "evaluation:read": "See definitions, runs and results",
        "evaluation:write": "Make definitions and runs",
    },
    "roles": {
        "customer": {"description": "Anybody who signed up", "permissions": ["catalogue:read"]},
        "staff": {
            "description": "People who look after customers",
            "permissions": ["catalogue:read", "orders:read", "orders:write", "users:read", "evaluation:read", "evaluation:write"],
        },
        "admin": {"description": "May do everything", "permissions": ["*"]},
    },
}

_PEOPLE = [
    {"email": "dev@valuerank.ai", "name": "Dev", "role": "staff"},
    {"email": "admin@lumi.com", "name": "Admin", "role": "admin"},
]
_MORE_PEOPLE = [*_PEOPLE, *({"email": f"qa{number}@example.com", "name": f"QA {number}", "role": "customer"} for number in range(1, 21))]

_PERMISSION = sql_rows(
    """
    INSERT INTO stemma.permissions (key, description) VALUES (:key, :description)
    ON CONFLICT (key) DO UPDATE SET description = excluded.description RETURNING (xmax = 0)
    """
)
_ROLE = sql_rows(
    """
    INSERT INTO stemma.roles (name, description, is_system) VALUES (:name, :description, true)
    ON CONFLICT (name) DO UPDATE SET description = excluded.description, is_system = true RETURNING (xmax = 0)
    """
)
_GRANT = sql_rows(
    """
    INSERT INTO stemma.role_permissions (role_id, permission_id)
    SELECT roles.id, permissions.id
      FROM stemma.roles, stemma.permissions
     WHERE roles.name = :role AND (permissions.key = ANY (CAST(:keys AS text[])) OR '*' = ANY (CAST(:keys AS text[])))
    ON CONFLICT DO NOTHING
    """
)
_USER = sql_rows(
    """
    INSERT INTO stemma.users (email, name) VALUES (:email, :name)
    ON CONFLICT (email) DO UPDATE SET name = excluded.name RETURNING (xmax = 0)
    """
)
_ASSIGN = sql_rows(
    """
    INSERT INTO stemma.user_roles (user_id, role_id)
    SELECT users.id, roles.id FROM stemma.users, stemma.roles WHERE users.email = :email AND roles.name = :role
    ON CONFLICT DO NOTHING
    """
)


def _make_roles(session: Session, data: Any, _profile: Profile) -> Mapping[str, int]:
    permissions = sum(bool(_PERMISSION.scalar(session, key=key, description=text)) for key, text in data["permissions"].items())
    roles = sum(bool(_ROLE.scalar(session, name=name, description=role["description"])) for name, role in data["roles"].items())
    grants = sum(_GRANT.run(session, role=name, keys=role["permissions"]) for name, role in data["roles"].items())
    return {"permissions": permissions, "roles": roles, "role_permissions": grants}


# Whoever has a password keeps it: seeds run again.
_WITHOUT_PASSWORD = sql_rows(
    "SELECT email FROM stemma.users WHERE email = ANY (CAST(:emails AS text[])) AND password_hash IS NULL ORDER BY email"
)
_SET_PASSWORD = sql_rows("UPDATE stemma.users SET password_hash = :password_hash WHERE email = :email AND password_hash IS NULL")


def _make_people(session: Session, data: Any, profile: Profile) -> Mapping[str, int]:
    people = sum(bool(_USER.scalar(session, email=person["email"], name=person["name"])) for person in data)
    roles = sum(_ASSIGN.run(session, email=person["email"], role=person["role"]) for person in data)
    password = seed_password(profile)
    if password is not None:
        normal = _passwords.checked_password(password, second_factor=False, field="STEMMADB_SEED_PASSWORD")
        for row in _WITHOUT_PASSWORD.all(session, emails=[person["email"] for person in data]):
            # Each with a salt of its own.
            _SET_PASSWORD.run(session, email=row.email, password_hash=_passwords.hash_password(normal))
    return {"users": people, "user_roles": roles}


SEEDS = (
    Seed("accounts.roles", frozenset({"dev", "qa", "prod", "demo", "test"}), _ROLES, _make_roles),
    Seed("accounts.people", frozenset({"dev", "test"}), _PEOPLE, _make_people),
    Seed("accounts.people", frozenset({"qa"}), _MORE_PEOPLE, _make_people),
)
