"""Roles, and what they may do: made once by ``stemmadb migrate roles``, renewed at the end of every upgrade."""

from __future__ import annotations

import logging

from sqlalchemy import Connection, text

from stemmadb.errors import PermissionDeniedError

log = logging.getLogger("stemmadb.migrations")

OWNER = "stemma_owner"
APP = "stemma_app"
MAINTENANCE = "stemma_maintenance"

RENEW_GRANTS = """
DO $grants$
DECLARE
  grantee record;
  item record;
BEGIN
  FOR grantee IN SELECT oid, rolname FROM pg_roles WHERE rolname IN ('stemma_app', 'stemma_maintenance') LOOP
    IF NOT has_schema_privilege(grantee.oid, 'stemma', 'USAGE') THEN
      EXECUTE format('GRANT USAGE ON SCHEMA stemma TO %I', grantee.rolname);
    END IF;
    FOR item IN
      SELECT relname, array_to_string(wanted, ', ') AS wanted
        FROM (
          SELECT relname, relowner, CASE
                   WHEN relname = 'stemma_alembic_version' THEN ARRAY['SELECT']
                   WHEN relname IN ('audit_logs', 'security_events') THEN ARRAY['INSERT', 'SELECT']
                   ELSE ARRAY['DELETE', 'INSERT', 'SELECT', 'UPDATE'] END AS wanted,
                 ARRAY(SELECT privilege_type FROM aclexplode(relacl) AS acl WHERE acl.grantee = pg_roles.oid ORDER BY 1) AS held
            FROM pg_class
            JOIN pg_roles ON pg_roles.oid = grantee.oid
           WHERE relnamespace = 'stemma'::regnamespace AND relkind IN ('r', 'p')
        ) AS tables
       WHERE wanted <> held AND relowner <> grantee.oid
       ORDER BY relname
    LOOP
      EXECUTE format('REVOKE ALL ON stemma.%I FROM %I', item.relname, grantee.rolname);
      EXECUTE format('GRANT %s ON stemma.%I TO %I', item.wanted, item.relname, grantee.rolname);
    END LOOP;
    FOR item IN
      SELECT oid::regprocedure AS signature FROM pg_proc
       WHERE pronamespace = 'stemma'::regnamespace AND NOT has_function_privilege(grantee.oid, oid, 'EXECUTE')
    LOOP
      EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', item.signature, grantee.rolname);
    END LOOP;
  END LOOP;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'stemma_maintenance') THEN
    FOR item IN
      SELECT relname FROM pg_class
       WHERE relnamespace = 'stemma'::regnamespace AND relkind IN ('r', 'p') AND relrowsecurity
         AND NOT EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = relname || '_maintenance')
       ORDER BY relname
    LOOP
      EXECUTE format('CREATE POLICY %I ON stemma.%I TO stemma_maintenance USING (true) WITH CHECK (true)',
                     item.relname || '_maintenance', item.relname);
    END LOOP;
    -- A new owner must be able to create functions there, at that moment.
    FOR item IN
      SELECT oid::regprocedure AS signature FROM pg_proc
       WHERE pronamespace = 'stemma'::regnamespace AND prosecdef AND left(proname, 14) = 'stemma_search_'
         AND proowner <> 'stemma_maintenance'::regrole AND pg_has_role('stemma_maintenance', 'SET')
    LOOP
      GRANT CREATE ON SCHEMA stemma TO stemma_maintenance;
      EXECUTE format('ALTER FUNCTION %s OWNER TO stemma_maintenance', item.signature);
      REVOKE CREATE ON SCHEMA stemma FROM stemma_maintenance;
    END LOOP;
  END IF;
END $grants$
"""
"""One statement, so that the offline SQL ends with it too. It changes nothing where all is as it should be, and so waits for no lock."""

_LOGIN = text(
    "SELECT rolname::text AS name, rolsuper OR rolcreaterole AS may, rolsuper AS superuser FROM pg_roles WHERE rolname = session_user"
)
_ROLES = text("SELECT rolname::text FROM pg_roles WHERE rolname = ANY(:names)")
_MEMBER = text(
    """
    SELECT EXISTS (
      SELECT FROM pg_auth_members
       WHERE roleid = (SELECT oid FROM pg_roles WHERE rolname = :role)
         AND member = (SELECT oid FROM pg_roles WHERE rolname = :member)
         AND set_option AND inherit_option = :inherit)
    """
)


def renew_grants(connection: Connection) -> None:
    """
    Give ``stemma_app`` and ``stemma_maintenance``, as far as they exist, what they need on every table and function, and no more.

    SELECT, INSERT, UPDATE and DELETE on the tables; only SELECT and INSERT on the logs; only SELECT on the version table; never TRUNCATE.
    Every table under row-level security gets its policy for ``stemma_maintenance``, which also becomes the owner of the functions that
    search (``stemma_search_...``, SECURITY DEFINER), if the owner of the schema may act as it. The caller commits. Doing it again changes
    nothing.

    Args:
        connection: of the owner of the schema.
    """
    connection.execute(text(RENEW_GRANTS))


def ensure_roles(connection: Connection, *, login: str | None = None) -> tuple[str, ...]:
    """
    Make the three roles, without a password, where they are missing. The caller commits.

    ``stemma_app`` and ``stemma_owner`` may become ``stemma_maintenance``, without inheriting it: a policy for a role also holds for
    whoever inherits it. The login of this connection may become all three; it is the owner by inheritance.

    Args:
        connection: of a login with CREATEROLE.
        login: the login of the application (that of ``DATABASE_URL``), which may then become ``stemma_app`` and ``stemma_maintenance``.

    Returns:
        The roles that were made.

    Raises:
        PermissionDeniedError: the login has no CREATEROLE.
    """
    me = connection.execute(_LOGIN).one()
    names = [OWNER, APP, MAINTENANCE]
    there = set(connection.scalars(_ROLES, {"names": names}))
    missing = tuple(name for name in names if name not in there)
    if missing and not me.may:
        raise PermissionDeniedError(
            "CREATEROLE",
            f"{me.name} may not make roles: use a login with CREATEROLE, or let an administrator make {', '.join(missing)}",
        )
    for name in missing:
        connection.exec_driver_sql(f"CREATE ROLE {name} NOLOGIN NOINHERIT" if name == APP else f"CREATE ROLE {name} NOLOGIN")
        log.info("made the role %s", name)
    _grant(connection, MAINTENANCE, APP, inherit=False)
    # So that it can give functions to it; as the owner it may do everything anyhow.
    _grant(connection, MAINTENANCE, OWNER, inherit=False)
    if not me.superuser:
        _grant(connection, OWNER, me.name, inherit=True)
    for member in {me.name, login or me.name} - {APP, MAINTENANCE, OWNER} - ({me.name} if me.superuser else set()):
        _grant(connection, APP, member, inherit=False)
        _grant(connection, MAINTENANCE, member, inherit=False)
    return missing


def _grant(connection: Connection, role: str, member: str, *, inherit: bool) -> None:
    if not connection.scalar(_MEMBER, {"role": role, "member": member, "inherit": inherit}):
        quoted = connection.dialect.identifier_preparer.quote(member)
        connection.exec_driver_sql(f"GRANT {role} TO {quoted} WITH INHERIT {str(inherit).upper()}, SET TRUE")
