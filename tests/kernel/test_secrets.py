"""Stored secrets: opened by their keys, in their rows, and nowhere else."""

import base64
import sys
from uuid import uuid4

import pytest

from stemmadb import _secrets
from stemmadb._secrets import Place, decrypt, encrypt
from stemmadb.errors import ConfigurationError, MissingDependencyError

OLD = "old:" + base64.b64encode(b"o" * 32).decode()
NEW = "new:" + base64.b64encode(b"n" * 32).decode()
SECRET = "JBSWY3DPEHPK3PXP"

pytestmark = pytest.mark.offline


@pytest.fixture(autouse=True)
def _keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", OLD)


def place() -> Place:
    """A row of its own."""
    return Place("users", "two_factor_secret", uuid4())


def test_what_was_encrypted_is_read_back() -> None:
    """The text names version and key and not the secret; the same secret twice is two texts."""
    row = place()
    stored = encrypt(SECRET, row)
    assert stored.startswith("v1:old:")
    assert SECRET not in stored
    assert SECRET.encode() not in base64.b64decode(stored.rpartition(":")[2])
    assert decrypt(stored, row) == SECRET
    assert encrypt(SECRET, row) != stored
    assert decrypt(encrypt("", row), row) == ""


@pytest.mark.requirement("AD-026")
@pytest.mark.parametrize("change", ["table", "column", "row_id", "workspace_id"])
def test_a_moved_ciphertext_does_not_open(change: str) -> None:
    """In another row, column, table or workspace it is an error, which says neither the secret nor the text."""
    row = Place("ai_provider_configs", "api_key", uuid4(), uuid4())
    stored = encrypt(SECRET, row)
    parts = {"table": row.table, "column": row.column, "row_id": row.row_id, "workspace_id": row.workspace_id}
    other = Place(**{**parts, change: "other" if change in ("table", "column") else uuid4()})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError) as caught:
        decrypt(stored, other)
    assert SECRET not in str(caught.value)
    assert stored not in str(caught.value)
    assert caught.value.__cause__ is None


def test_no_edit_opens() -> None:
    """Every bit of a stored text counts."""
    row = place()
    head, _, body = encrypt(SECRET, row).rpartition(":")
    raw = bytearray(base64.b64decode(body))
    for position in range(len(raw)):
        raw[position] ^= 1
        with pytest.raises(ConfigurationError):
            decrypt(f"{head}:{base64.b64encode(raw).decode()}", row)
        raw[position] ^= 1
    for text in ("", "v1", "v1:old", "v1:old:", "v1:old:?", "v2" + head[2:] + ":" + body, SECRET):
        with pytest.raises(ConfigurationError):
            decrypt(text, row)


def test_keys_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest key writes, every key reads; one that is gone is named."""
    row = place()
    stored = encrypt(SECRET, row)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"{NEW},{OLD}")
    assert decrypt(stored, row) == SECRET
    assert encrypt(SECRET, row).startswith("v1:new:")
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", NEW)
    with pytest.raises(ConfigurationError, match="'old'"):
        decrypt(stored, row)
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", NEW.replace("new:", "old:"))
    with pytest.raises(ConfigurationError, match="another one"):
        decrypt(stored, row)


def test_without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is encrypted with a key that everybody knows."""
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", "")
    with pytest.raises(ConfigurationError, match="STEMMADB_SECRET_KEYS"):
        encrypt(SECRET, place())


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    row = place()
    stored = encrypt(SECRET, row)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: encrypt(SECRET, row), lambda: decrypt(stored, row)):
        with pytest.raises(MissingDependencyError) as caught:
            call()
        assert caught.value.extra == "auth"


def test_one_use_one_key() -> None:
    """What encrypts is not what signs: each use has a key of its own."""
    assert len({_secrets.subkey(b"k" * 32, purpose) for purpose in ("secrets", "backup codes")}) == 2
