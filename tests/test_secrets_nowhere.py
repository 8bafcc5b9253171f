"""Every kind of secret that the library takes or makes is used, and then looked for: in the whole database, in logs and in errors."""

from __future__ import annotations

import base64
import binascii
import logging
import pickle
import re
from uuid import uuid4

import pytest
from pydantic import SecretStr
from sqlalchemy import text

from stemmadb import connect
from stemmadb.accounts import api_keys, sessions, users
from stemmadb.accounts.data import OAuthLink
from stemmadb.accounts.vocabularies import MfaMethod
from stemmadb.database import Database
from stemmadb.entity import metadata
from stemmadb.errors import StemmaError
from stemmadb.settings import Settings
from stemmadb.testing import make_workspace
from stemmadb.workspaces import providers
from stemmadb.workspaces.vocabularies import AIProvider

KEY = base64.b64encode(b"the key of all stored secrets..."[:32]).decode()
PEPPER = base64.b64encode(b"the pepper of all digests......."[:32]).decode()
PASSWORD, NEXT_PASSWORD = "a password of a test 1", "another password of it 2"


class Found:
    """What was made, and the texts in which none of it may stand."""

    def __init__(self) -> None:
        self.secrets = [KEY, PEPPER, PASSWORD, NEXT_PASSWORD]
        self.texts: list[str] = []

    def keep(self, made: object, *secrets: SecretStr) -> None:
        """Note secrets, and how what holds them is written."""
        self.secrets += [secret.get_secret_value() for secret in secrets]
        self.texts += [repr(made), str(made)]

    def refuse(self, call: object) -> None:
        """Note what an error says, with its cause and as another process would get it."""
        with pytest.raises(StemmaError) as caught:
            call()  # type: ignore[operator]
        error = caught.value
        self.texts += [str(error), repr(error), repr(error.args), repr(vars(error)), repr(error.__cause__), repr(pickle.dumps(error))]

    def leaks(self) -> list[str]:
        """The secrets that stand in one of the texts, whole or by their longest part."""
        parts = {secret: secret.rpartition("_")[2] if secret.startswith("stm_") else secret for secret in self.secrets}
        return [secret for secret, part in parts.items() if any(part in where for where in self.texts)]


@pytest.mark.requirement("AD-023", "AD-026")
def test_no_secret_is_found_anywhere(committed_db: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Keys, session tokens, passwords, tokens of mails, second factors, backup codes, tokens and keys of providers: 0 places."""
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", f"k:{KEY}")
    monkeypatch.setenv("STEMMADB_TOKEN_PEPPERS", f"1:{PEPPER}")
    monkeypatch.setenv("STEMMADB_LOG_QUERIES", "1")
    found, workspace_id = Found(), make_workspace(committed_db, "lab")
    url = committed_db.url.render_as_string(hide_password=False)
    with caplog.at_level(logging.DEBUG), connect(url, settings=Settings(workspace=None)) as db:
        with db.session() as session:
            user = users.create(session, "ada@secrets.example").id
            issued = api_keys.issue(session, user, "k", workspace_id=workspace_id, scopes=["a:b"])
            found.keep(issued, issued.token)
            found.keep(api_keys.verify(session, issued.token))
            rotated = api_keys.rotate(session, issued.key.id)
            found.keep(rotated, rotated.token)
            users.set_password(session, user, SecretStr(PASSWORD))
            mail = users.create_email_verification(session, user, "ada@secrets.example")
            found.keep(mail, mail.token)
            reset = users.create_password_reset(session, user)
            found.keep(reset, reset.token)
            log_in = sessions.open(session, user)
            found.keep(log_in, log_in.token)
            again = sessions.rotate(session, log_in.token)
            found.keep(again, again.token)
            factor = SecretStr("JBSWY3DPEHPK3PXPJBSWY3DP")
            setup = users.enable_two_factor(session, user, factor, method=MfaMethod.TOTP)
            found.keep(setup, factor, *setup.backup_codes)
            found.keep(users.consume_backup_code(session, user, setup.backup_codes[0]))
            link = OAuthLink(
                provider="github",
                provider_account_id=uuid4().hex,
                access_token=SecretStr("gho_access_of_a_test"),
                refresh_token=SecretStr("ghr_refresh_of_a_test"),
            )
            found.keep(link, SecretStr("gho_access_of_a_test"), SecretStr("ghr_refresh_of_a_test"))
            found.keep(users.link_oauth(session, user, link))
        with db.session(workspace=workspace_id) as session:
            provider_key = SecretStr("sk-provider-key-of-a-test")
            found.keep(providers.upsert(session, AIProvider.OPENAI, api_key=provider_key), provider_key)
        with db.session() as session:
            for wrong in (SecretStr(issued.token.get_secret_value()[:-1] + "!"), mail.token):
                found.refuse(lambda wrong=wrong: api_keys.verify(session, wrong))
            found.refuse(lambda: users.consume_password_reset(session, reset.token, SecretStr("short")))
            found.refuse(lambda: sessions.rotate(session, log_in.token))
            found.refuse(lambda: api_keys.verify(session, issued.token, required_scope="c:d"))
            users.consume_password_reset(session, reset.token, SecretStr(NEXT_PASSWORD))
    found.texts += [
        f"{record.getMessage()} {record.args} {record.exc_text} {sorted(vars(record).items(), key=str)}" for record in caplog.records
    ]
    assert any("stemma.api_keys" in where for where in found.texts)
    with committed_db.all_workspaces(reason="a test") as session:
        for table in metadata.sorted_tables:
            rows = session.scalars(text(f"SELECT CAST(found AS text) FROM stemma.{table.name} AS found")).all()
            # Bytes are written in hexadecimal: what they would say is looked for as well.
            found.texts += [*rows, *(_plain(row) for row in rows)]
    assert len(found.secrets) > 20
    assert found.leaks() == []


def _plain(row: str) -> str:
    """What a row says when its hexadecimal and base64 parts are read."""
    said = [bytes.fromhex(part).decode("latin-1") for part in re.findall(r"\\x((?:[0-9a-f]{2})+)", row)]
    for part in re.findall(r"[A-Za-z0-9+/]{16,}={0,2}", row):
        try:
            said.append(base64.b64decode(part, validate=True).decode("latin-1"))
        except binascii.Error:
            continue
    return "\n".join(said)
