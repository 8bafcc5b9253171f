"""Async twins of stemmadb.accounts.users."""

from typing import Final

from stemmadb.accounts import users as _sync
from stemmadb.aio import twin

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

UserRegistration = _sync.UserRegistration
UserUpdate = _sync.UserUpdate
UserWithRoles = _sync.UserWithRoles
Registration = _sync.Registration
IssuedToken = _sync.IssuedToken
OAuthLink = _sync.OAuthLink
OAuthTokens = _sync.OAuthTokens
TwoFactorSetup = _sync.TwoFactorSetup
create: Final = twin(_sync.create)
register: Final = twin(_sync.register)
get: Final = twin(_sync.get)
find: Final = twin(_sync.find)
get_by_email: Final = twin(_sync.get_by_email)
find_by_email: Final = twin(_sync.find_by_email)
get_with_roles: Final = twin(_sync.get_with_roles)
list_all: Final = twin(_sync.list_all)
update: Final = twin(_sync.update)
suspend: Final = twin(_sync.suspend)
reinstate: Final = twin(_sync.reinstate)
soft_delete: Final = twin(_sync.soft_delete)
restore: Final = twin(_sync.restore)
purge: Final = twin(_sync.purge)
set_password: Final = twin(_sync.set_password)
verify_password: Final = twin(_sync.verify_password)
record_failed_login: Final = twin(_sync.record_failed_login)
record_successful_login: Final = twin(_sync.record_successful_login)
is_locked_out: Final = _sync.is_locked_out
create_email_verification: Final = twin(_sync.create_email_verification)
verify_email: Final = twin(_sync.verify_email)
create_password_reset: Final = twin(_sync.create_password_reset)
consume_password_reset: Final = twin(_sync.consume_password_reset)
enable_two_factor: Final = twin(_sync.enable_two_factor)
get_two_factor_secret: Final = twin(_sync.get_two_factor_secret)
disable_two_factor: Final = twin(_sync.disable_two_factor)
consume_backup_code: Final = twin(_sync.consume_backup_code)
link_oauth: Final = twin(_sync.link_oauth)
find_by_oauth: Final = twin(_sync.find_by_oauth)
list_oauth: Final = twin(_sync.list_oauth)
get_oauth_tokens: Final = twin(_sync.get_oauth_tokens)
unlink_oauth: Final = twin(_sync.unlink_oauth)
