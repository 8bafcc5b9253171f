"""Who sessions run as, and what that role and its login may do beyond what they should."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from stemmadb._doctor._kinds import finding
from stemmadb.reports import Finding

_READ = text(
    """
    SELECT session_user::text AS login, current_user::text AS role,
           (SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = session_user) AS login_bypasses,
           (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = session_user) AS login_is_superuser,
           (SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = current_user) AS role_bypasses,
           ARRAY(SELECT rolname::text FROM pg_catalog.pg_roles
                  WHERE rolname IN ('stemma_app', 'stemma_maintenance')) AS roles,
           coalesce((SELECT pg_catalog.pg_has_role(current_user, oid, 'USAGE')
                       FROM pg_catalog.pg_roles WHERE rolname = 'stemma_maintenance' AND rolname <> current_user), false)
             AS inherits_maintenance,
           coalesce((SELECT pg_catalog.pg_has_role(session_user, oid, 'SET')
                       FROM pg_catalog.pg_roles WHERE rolname = 'stemma_maintenance'), false) AS may_maintain,
           ARRAY(SELECT DISTINCT pg_catalog.pg_get_userbyid(relowner)::text
                   FROM pg_catalog.pg_class
                  WHERE relnamespace = pg_catalog.to_regnamespace('stemma') AND relkind IN ('r', 'p')
                    AND pg_catalog.pg_has_role(session_user, relowner, 'MEMBER') ORDER BY 1) AS owners,
           (SELECT count(*) FROM pg_catalog.pg_class
             WHERE relnamespace = pg_catalog.to_regnamespace('stemma') AND relkind IN ('r', 'p')
               AND NOT pg_catalog.has_table_privilege(oid, 'SELECT')) AS unreadable
    """
)


@dataclass(frozen=True)
class LoginFacts:
    """The login of a connection, and the role that its transactions switch to."""

    login: str
    role: str
    login_bypasses: bool
    login_is_superuser: bool
    role_bypasses: bool
    roles: tuple[str, ...]
    """Those of stemma_app and stemma_maintenance that exist."""
    inherits_maintenance: bool
    may_maintain: bool
    owners: tuple[str, ...]
    """Owners of our tables that the login is, or may act as."""
    unreadable: int
    """Our tables that the role may not read."""


def read_login(connection: Connection) -> LoginFacts:
    """Ask the server, in one statement, inside a transaction as sessions have it."""
    row: Any = connection.execute(_READ).one()
    values = row._asdict()
    return LoginFacts(**{**values, "roles": tuple(row.roles), "owners": tuple(row.owners)})


def judge_login(facts: LoginFacts) -> Iterator[Finding]:
    """Say what is wrong with a login. Asks nothing."""
    for role in ("stemma_app", "stemma_maintenance"):
        if role not in facts.roles:
            yield finding("roles_missing", role)
    if facts.role_bypasses:
        yield finding("bypasses_policies", facts.role)
    elif facts.login_bypasses:
        yield finding("login_bypasses_policies", facts.login)
    # A superuser is a member of every role.
    if facts.inherits_maintenance and not facts.role_bypasses:
        yield finding("inherits_maintenance", facts.role)
    for owner in facts.owners:
        if owner == facts.login:
            yield finding("owns_tables", owner)
        elif not facts.login_is_superuser:
            yield finding("may_become_owner", facts.login, owner=owner)
    if facts.unreadable:
        yield finding("lacks_privileges", facts.role, count=facts.unreadable, login=facts.login)
