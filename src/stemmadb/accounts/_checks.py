"""What ``stemmadb doctor`` looks at in the rows of this pack: whether API keys can still be verified."""

from collections.abc import Iterator

from sqlalchemy.orm import Session

from stemmadb.accounts._key_rows import known_peppers
from stemmadb.query import sql_rows
from stemmadb.reports import Check, Finding, FindingKind
from stemmadb.settings import load_settings

_KINDS = {
    "unknown_pepper": FindingKind(
        "error",
        "{count} live API keys were hashed with pepper {object}, which STEMMADB_TOKEN_PEPPERS does not hold: they are refused",
        "add {object}:base64 behind the newest pepper in STEMMADB_TOKEN_PEPPERS, or issue new keys",
    ),
    "pepper_missing": FindingKind(
        "warning",
        "no pepper is set in production: API keys are stored as plain SHA-256, so that whoever can write a row can make a key",
        "stemmadb secrets generate --id 1, and STEMMADB_TOKEN_PEPPERS set to it",
    ),
}
_VERSIONS = sql_rows(
    """
    SELECT api_keys.pepper_version AS version, count(*) AS count
      FROM stemma.api_keys
     WHERE api_keys.revoked_at IS NULL AND (api_keys.expires_at IS NULL OR api_keys.expires_at > now())
       AND api_keys.pepper_version IS NOT NULL
     GROUP BY api_keys.pepper_version
     ORDER BY api_keys.pepper_version
    """
)


def _look(session: Session) -> Iterator[Finding]:
    peppers = {int(name) for name, _ in known_peppers()}
    for row in _VERSIONS.all(session):
        if row.version not in peppers:
            yield _KINDS["unknown_pepper"].finding("unknown_pepper", str(row.version), count=row.count)
    if not peppers and load_settings().environment == "production":
        yield _KINDS["pepper_missing"].finding("pepper_missing", "STEMMADB_TOKEN_PEPPERS")


CHECK = Check(_KINDS, _look)
