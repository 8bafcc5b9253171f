"""Async twins of stemmadb.accounts.users."""

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
create = twin(_sync.create)
register = twin(_sync.register)
get = twin(_sync.get)
find = twin(_sync.find)
get_by_email = twin(_sync.get_by_email)
find_by_email = twin(_sync.find_by_email)
get_with_roles = twin(_sync.get_with_roles)
list_all = twin(_sync.list_all)
update = twin(_sync.update)
suspend = twin(_sync.suspend)
reinstate = twin(_sync.reinstate)
soft_delete = twin(_sync.soft_delete)
restore = twin(_sync.restore)
purge = twin(_sync.purge)
set_password = twin(_sync.set_password)
verify_password = twin(_sync.verify_password)
record_failed_login = twin(_sync.record_failed_login)
record_successful_login = twin(_sync.record_successful_login)
is_locked_out = _sync.is_locked_out
create_email_verification = twin(_sync.create_email_verification)
verify_email = twin(_sync.verify_email)
create_password_reset = twin(_sync.create_password_reset)
consume_password_reset = twin(_sync.consume_password_reset)
enable_two_factor = twin(_sync.enable_two_factor)
get_two_factor_secret = twin(_sync.get_two_factor_secret)
disable_two_factor = twin(_sync.disable_two_factor)
consume_backup_code = twin(_sync.consume_backup_code)
link_oauth = twin(_sync.link_oauth)
find_by_oauth = twin(_sync.find_by_oauth)
list_oauth = twin(_sync.list_oauth)
get_oauth_tokens = twin(_sync.get_oauth_tokens)
unlink_oauth = twin(_sync.unlink_oauth)
