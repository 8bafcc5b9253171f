"""People and services known to the application."""

import logging
from typing import Final

from sqlalchemy import bindparam, case, func, select
from sqlalchemy import update as sa_update
from sqlalchemy.orm import Session

from stemmadb._exports import adopt
from stemmadb.accounts import _passwords
from stemmadb.accounts._credentials import is_locked_out, record_failed_login, record_successful_login, set_password, verify_password
from stemmadb.accounts._emails import normalize_email
from stemmadb.accounts._grants import assign
from stemmadb.accounts._oauth import find_by_oauth, get_oauth_tokens, link_oauth, list_oauth, unlink_oauth
from stemmadb.accounts._passwords import is_acceptable
from stemmadb.accounts._two_factor import consume_backup_code, disable_two_factor, enable_two_factor, get_two_factor_secret
from stemmadb.accounts._user_ends import purge, reinstate, restore, soft_delete, suspend
from stemmadb.accounts._verification import consume_password_reset, create_email_verification, create_password_reset, verify_email
from stemmadb.accounts.data import (
    IssuedToken,
    OAuthLink,
    OAuthTokens,
    Registration,
    TwoFactorSetup,
    UserRegistration,
    UserUpdate,
    UserWithRoles,
)
from stemmadb.accounts.entities import Permission, Role, RolePermission, User, UserPermission, UserRole
from stemmadb.accounts.vocabularies import UserStatus
from stemmadb.data import checked_member, checked_text
from stemmadb.entity import Id, parse_id
from stemmadb.errors import ConflictError, NotFoundError, ValidationError
from stemmadb.paging import Page, page
from stemmadb.query import query, read, sql, sql_rows

__all__ = [
    "UserRegistration",
    "UserUpdate",
    "UserWithRoles",
    "Registration",
    "IssuedToken",
    "OAuthLink",
    "OAuthTokens",
    "TwoFactorSetup",
    "create",
    "register",
    "get",
    "find",
    "get_by_email",
    "find_by_email",
    "get_with_roles",
    "list_all",
    "update",
    "suspend",
    "reinstate",
    "soft_delete",
    "restore",
    "purge",
    "set_password",
    "verify_password",
    "record_failed_login",
    "record_successful_login",
    "is_locked_out",
    "create_email_verification",
    "verify_email",
    "create_password_reset",
    "consume_password_reset",
    "enable_two_factor",
    "get_two_factor_secret",
    "disable_two_factor",
    "consume_backup_code",
    "link_oauth",
    "find_by_oauth",
    "list_oauth",
    "get_oauth_tokens",
    "unlink_oauth",
]

logger: Final = logging.getLogger(__name__)

# Nothing happens on a conflict, rather than an error, so that a refused address leaves the caller's transaction usable.
_INSERT = sql(
    User,
    """
    INSERT INTO stemma.users (id, email, password_hash, name, first_name, last_name, phone)
    VALUES (:id, :email, :password_hash, :name, :first_name, :last_name, :phone)
    ON CONFLICT (email) DO NOTHING
    RETURNING {columns}
    """,
)
_BY_EMAIL = select(User).where(User.email == bindparam("email"), User.deleted_at.is_(None))


@query
def create(
    session: Session,
    email: str,
    password_hash: str | None = None,
    *,
    name: str | None = None,
    first_name: str | None = None,
    last_name: str | None = None,
    phone: str | None = None,
) -> User:
    """
    Make a user. One statement.

    Args:
        session: the caller's session; needs no workspace.
        email: any letter case; stored trimmed and in lower case.
        password_hash: a hash made elsewhere, bcrypt or Argon2id with no less work than 19 MiB and two passes, never a password;
            None for somebody who has no password yet, or signs in elsewhere.
        name: how the person is shown.
        first_name: given name.
        last_name: family name.
        phone: in any form.

    Raises:
        ConflictError: the address belongs to a user, live or deleted. The transaction stays usable.
        ValidationError: not an address, or a plain password or a weak hash in the place of a hash; nothing was sent.
    """
    if password_hash is not None and not is_acceptable(checked_text(password_hash, "password_hash")):
        message = "password_hash is neither bcrypt nor Argon2id of at least 19 MiB and two passes: never pass a password"
        raise ValidationError(message, field="password_hash")
    # Made as an entity first: its rules are those of the columns.
    draft = User(email=email, password_hash=password_hash, name=name, first_name=first_name, last_name=last_name, phone=phone)
    user = _INSERT.write(
        session,
        id=draft.id,
        email=draft.email,
        password_hash=password_hash,
        name=draft.name,
        first_name=draft.first_name,
        last_name=draft.last_name,
        phone=draft.phone,
    )
    if user is None:
        raise ConflictError("User", ("email",))
    logger.info("user created", extra={"user_id": str(user.id)})
    return user


@query
def register(session: Session, data: UserRegistration, *, role: str = "customer") -> Registration:
    """
    Make a user with a password and a role, and a token that confirms the address: all of it, or nothing.

    The password is hashed with Argon2id, off the event loop, before anything is locked.

    Args:
        session: the caller's session; needs no workspace.
        data: the address, the password, and what else is known.
        role: by name; the seeds make ``customer``, ``staff`` and ``admin``.

    Returns:
        The user, and the token, which is good for a day and shown this once.

    Raises:
        ConflictError: the address belongs to a user, live or deleted. The transaction stays usable.
        MissingDependencyError: the extra ``auth`` is not installed.
        NotFoundError: there is no such role.
        ValidationError: not an address, or a password of under 15 or over 1024 characters; nothing was sent.
    """
    given = UserRegistration.of(data)
    password_hash = _passwords.hash_password(_passwords.checked_password(given.password, second_factor=False))
    names = {"name": given.name, "first_name": given.first_name, "last_name": given.last_name, "phone": given.phone}
    with session.begin_nested():
        user = create(session, given.email, password_hash, **names)
        assign(session, user.id, role)
        return Registration(user, create_email_verification(session, user.id, user.email))


@query
def get(session: Session, user_id: Id, *, include_deleted: bool = False) -> User:
    """
    Return a user by id.

    Raises:
        NotFoundError: no user has this id, or it is deleted and ``include_deleted`` is False.
    """
    user = find(session, user_id, include_deleted=include_deleted)
    if user is None:
        logger.warning("user not found", extra={"user_id": str(user_id)})
        raise NotFoundError("User", user_id)
    return user


@query
def find(session: Session, user_id: Id, *, include_deleted: bool = False) -> User | None:
    """Return a user by id, or None; a malformed id is nobody's."""
    try:
        key = parse_id(user_id, "User")
    except NotFoundError:
        return None
    logger.debug("reading user", extra={"user_id": str(key)})
    user = read(session, User, key)
    return user if user is None or include_deleted or user.deleted_at is None else None


@query
def get_by_email(session: Session, email: str) -> User:
    """
    Return a live user by e-mail address, in any letter case.

    Raises:
        NotFoundError: no live user has this address.
    """
    user = find_by_email(session, email)
    if user is None:
        raise NotFoundError("User", email)
    return user


@query
def find_by_email(session: Session, email: str) -> User | None:
    """Return a live user by e-mail address, in any letter case, or None."""
    try:
        address = normalize_email(email)
    except ValueError:
        return None
    logger.debug("reading user by e-mail")
    return session.scalars(_BY_EMAIL, {"email": address}).one_or_none()


_OF_ROLE = (
    select(func.array_agg(Permission.key))
    .join(RolePermission, RolePermission.permission_id == Permission.id)
    .where(RolePermission.role_id == Role.id)
    .scalar_subquery()
)
_DIRECT = (
    select(func.array_agg(Permission.key))
    .join(UserPermission, UserPermission.permission_id == Permission.id)
    .where(UserPermission.user_id == User.id)
    .scalar_subquery()
)
# A user without roles is one row without a role.
_WITH_ROLES = (
    select(User, Role, _OF_ROLE, _DIRECT)
    .outerjoin(UserRole, UserRole.user_id == User.id)
    .outerjoin(Role, Role.id == UserRole.role_id)
    .where(User.id == bindparam("id"), User.deleted_at.is_(None))
    .order_by(Role.name)
)


@query
def get_with_roles(session: Session, user_id: Id) -> UserWithRoles:
    """
    Return a live user with their roles, by name, and the permissions that these give and that were granted directly. One statement.

    Raises:
        NotFoundError: no live user has this id.
    """
    values = {"id": parse_id(user_id, "User")}
    rows = session.execute(_WITH_ROLES, values, execution_options={"populate_existing": True}).all()
    if not rows:
        raise NotFoundError("User", user_id)
    keys = {key for row in rows for granted in row[2:] for key in granted or ()}
    return UserWithRoles(rows[0][0], [row[1] for row in rows if row[1] is not None], frozenset(keys))


@query
def list_all(
    session: Session,
    *,
    status: UserStatus | None = None,
    query: str | None = None,
    include_deleted: bool = False,
    cursor: str | None = None,
    limit: int = 50,
    with_total: bool = False,
) -> Page[User]:
    """
    Return users, newest first, by (created_at, id).

    Args:
        session: the caller's session; needs no workspace.
        status: only these.
        query: part of the address or of the name, in any letter case; ``%`` and ``_`` are themselves. A scan: no index serves it.
        include_deleted: whether deleted users are in the list. Asking for ``status=DELETED`` includes them.
        cursor: ``next_cursor`` of the page before; None starts at the first.
        limit: 1 to 200.
        with_total: whether all matching users are counted as well.

    Raises:
        InvalidCursorError: the cursor is not of this list.
        ValidationError: an unknown status, or a query that no text contains; nothing was sent.
    """
    statement = select(User)
    if status is not None:
        statement = statement.where(User.status == checked_member(status, UserStatus, "status"))
    elif not include_deleted:
        statement = statement.where(User.deleted_at.is_(None))
    if query is not None and checked_text(query, "query"):
        statement = statement.where(User.email.icontains(query, autoescape=True) | User.name.icontains(query, autoescape=True))
    return page(session, statement, order_by=[User.created_at.desc(), User.id.desc()], cursor=cursor, limit=limit, with_total=with_total)


# A token for an address that was given up would bring it back.
_VOID_VERIFICATIONS = sql_rows(
    "UPDATE stemma.email_verification_tokens SET used_at = now() WHERE user_id = :id AND used_at IS NULL AND email <> :email"
)
_EMAIL_TAKEN = sql_rows("SELECT 1 FROM stemma.users WHERE email = :email AND id <> :id")


@query
def update(session: Session, user_id: Id, data: UserUpdate) -> User:
    """
    Change a live user; fields that ``data`` does not give stay.

    A new address is not verified yet, and tokens that were sent to others are void.

    Raises:
        ConflictError: the new address belongs to another user. The transaction stays usable, except when that user appears at this moment.
        NotFoundError: no live user has this id.
    """
    key = parse_id(user_id, "User")
    changes = UserUpdate.of(data).changes()
    if not changes:
        return get(session, key)
    if "email" in changes and _EMAIL_TAKEN.first(session, email=changes["email"], id=key) is not None:
        raise ConflictError("User", ("email",))
    if "email" in changes:
        same = User.email == changes["email"]
        changes["email_verified"] = case((same, User.email_verified), else_=False)
        changes["email_verified_at"] = case((same, User.email_verified_at), else_=None)
        _VOID_VERIFICATIONS.run(session, id=key, email=changes["email"])
    statement = sa_update(User).where(User.id == key, User.deleted_at.is_(None)).values(**changes).returning(User)
    user = session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()
    if user is None:
        raise NotFoundError("User", user_id)
    return user


adopt(globals())
