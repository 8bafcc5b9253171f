"""The service in examples/definitions_api.py, over HTTP against a process of its own: keys, workspaces, refusals, shutdown, logs."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from tests.evaluation.run_setups import make_definition

from stemmadb._test_server import DatabaseServer
from stemmadb.accounts import api_keys, users
from stemmadb.database import Database
from stemmadb.evaluation import definitions
from stemmadb.testing import make_workspace
from stemmadb.workspaces import workspaces

PROGRAM = Path(__file__).parents[1] / "examples" / "definitions_api.py"
SCOPES = ("definitions:read", "definitions:write")
PEPPER = base64.b64encode(b"a pepper that nobody should read").decode()
KEY_RING = f"1:{PEPPER}"


@dataclass(frozen=True)
class Tenant:
    """A workspace, a key that opens it, and a definition in it."""

    workspace_id: UUID
    user_id: UUID
    token: str
    definition_id: UUID

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.token}


@dataclass
class Service:
    """The process, its address, and two workspaces that it serves."""

    db: Database
    process: subprocess.Popen[bytes]
    url: str
    output: Path
    tenants: list[Tenant] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)
    """Tokens that were sent to it."""

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30)

    def token(self, tenant: Tenant, *scopes: str, **more: object) -> str:
        """Another key of a workspace."""
        with self.db.session() as session:
            issued = api_keys.issue(session, tenant.user_id, "k", workspace_id=tenant.workspace_id, scopes=scopes, **more)  # type: ignore[arg-type]
        self.secrets.append(issued.token.get_secret_value())
        return self.secrets[-1]


# With every statement logged, to see that nothing secret is among what a service may be told to write.
_PROGRAM = """
import logging, runpy, sys
logging.basicConfig(level=logging.DEBUG)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(db: Database, folder: Path) -> Service:
    """Start the program on a free port, with its statements logged, and wait until it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "DATABASE_URL": db.url.render_as_string(hide_password=False),
        "STEMMADB_LOG_QUERIES": "1",
        "STEMMADB_TOKEN_PEPPERS": KEY_RING,
        "PYTHONUNBUFFERED": "1",
    }
    output = folder / f"service-{port}.log"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, str(PROGRAM), "--port", str(port)],
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    service = Service(db, process, f"http://127.0.0.1:{port}", output)
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{service.url}/health").status_code == 200:
                return service
        except httpx.TransportError:
            pass
        assert process.poll() is None, output.read_text()
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.05)


def tenant_of(service: Service, slug: str) -> Tenant:
    workspace_id = make_workspace(service.db, slug)
    with service.db.session(workspace=workspace_id) as session:
        user_id = users.create(session, f"{slug}@api.example").id
        definition_id = make_definition(session, f"first of {slug}").id
    tenant = Tenant(workspace_id, user_id, "", definition_id)
    return Tenant(workspace_id, user_id, service.token(tenant, *SCOPES), definition_id)


@pytest.fixture(scope="module")
def service(stemmadb_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The service on a database of its own, with two workspaces."""
    name = stemmadb_server.create()
    db = stemmadb_server.connect(name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEMMADB_TOKEN_PEPPERS", KEY_RING)
        started = start(db, tmp_path_factory.mktemp("service"))
        try:
            started.tenants = [tenant_of(started, "blue"), tenant_of(started, "green")]
            yield started
        finally:
            started.process.terminate()
            started.process.wait(20)
            db.close()
            stemmadb_server.drop(name)


@pytest.fixture
def blue(service: Service) -> Tenant:
    return service.tenants[0]


@pytest.fixture
def green(service: Service) -> Tenant:
    return service.tenants[1]


def without(answer: httpx.Response, *values: object) -> str:
    """A body without the values that the caller named."""
    found = answer.text
    for value in values:
        found = found.replace(str(value), "<given>")
    return found


# ------------------------------------------------------------------------------------------------------------ what it serves


@pytest.mark.requirement("TN-066", "TN-031")
def test_definitions_are_made_forked_and_read(service: Service, blue: Tenant) -> None:
    """Created, forked with another text, read with its texts, its ancestors root first, renamed while nothing depends on it."""
    with service.client() as client:
        made = client.post("/definitions", json={"name": "Trolley", "template": "A {x}."}, headers=blue.headers)
        assert made.status_code == 201
        root = made.json()
        assert (root["name"], root["depth"], root["frozen"]) == ("Trolley", 0, False)
        child = client.post(f"/definitions/{root['id']}/forks", json={"preamble": "Decide."}, headers=blue.headers).json()
        grandchild = client.post(f"/definitions/{child['id']}/forks", json={}, headers=blue.headers).json()
        whole = client.get(f"/definitions/{child['id']}", headers=blue.headers).json()
        assert (whole["preamble"], whole["template"], whole["parent_id"], whole["frozen"]) == ("Decide.", "A {x}.", root["id"], True)
        line = client.get(f"/definitions/{grandchild['id']}/ancestors", headers=blue.headers).json()
        assert [row["id"] for row in line] == [root["id"], child["id"]]
        renamed = client.patch(f"/definitions/{grandchild['id']}", json={"name": "Late", "version": 1}, headers=blue.headers)
        assert (renamed.status_code, renamed.json()["name"], renamed.json()["version"]) == (200, "Late", 2)
    with service.db.session(workspace=blue.workspace_id) as session:
        assert definitions.get(session, root["id"]).created_by_id == blue.user_id


@pytest.mark.requirement("TN-066")
def test_a_list_is_paged_and_searched(service: Service) -> None:
    """Pages join to the whole list, newest first; a search finds words."""
    tenant = tenant_of(service, "paged")
    with service.client() as client:
        made = [
            client.post("/definitions", json={"name": f"Tram {n}", "template": "t"}, headers=tenant.headers).json()["id"] for n in range(5)
        ]
        found, cursor = [], None
        while True:
            page = client.get("/definitions", params={"limit": 2, **({"cursor": cursor} if cursor else {})}, headers=tenant.headers).json()
            found += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert found == [*made[::-1], str(tenant.definition_id)]
        searched = client.get("/definitions", params={"q": "tram 3"}, headers=tenant.headers).json()
        assert [item["id"] for item in searched["items"]] == [made[3]]


# ------------------------------------------------------------------------------------------------------------- what it refuses


@pytest.mark.requirement("TN-035")
def test_another_workspaces_id_reads_like_nobodys(service: Service, blue: Tenant, green: Tenant) -> None:
    """404 with the same body for every endpoint that names a definition, and nothing over there changes."""
    with service.client() as client:
        answers = []
        for id in (green.definition_id, uuid4()):
            found = [
                client.get(f"/definitions/{id}", headers=blue.headers),
                client.get(f"/definitions/{id}/ancestors", headers=blue.headers),
                client.post(f"/definitions/{id}/forks", json={}, headers=blue.headers),
                client.post(f"/definitions/{id}/forks", json={"preamble": "x"}, headers=blue.headers),
                client.patch(f"/definitions/{id}", json={"name": "x", "version": 1}, headers=blue.headers),
            ]
            assert [answer.status_code for answer in found] == [404] * 5
            assert {answer.json()["code"] for answer in found} == {"not_found"}
            answers.append([without(answer, id) for answer in found])
        assert answers[0] == answers[1]
        listed = [item["id"] for item in client.get("/definitions", params={"limit": 200}, headers=blue.headers).json()["items"]]
        assert str(blue.definition_id) in listed
        assert str(green.definition_id) not in listed
        assert client.get("/definitions", params={"q": "green"}, headers=blue.headers).json()["items"] == []
        page = client.get("/definitions", params={"limit": 1}, headers=blue.headers).json()
        if page["next_cursor"]:
            crossed = client.get("/definitions", params={"limit": 1, "cursor": page["next_cursor"]}, headers=green.headers)
            assert (crossed.status_code, crossed.json()["code"]) == (422, "invalid_cursor")
    with service.db.session(workspace=green.workspace_id) as session:
        assert definitions.get(session, green.definition_id).version == 1
        assert definitions.list_children(session, green.definition_id).items == []


def test_keys_that_do_not_hold_are_refused_alike(service: Service, blue: Tenant) -> None:
    """No key, a malformed, an unknown, an edited, an expired, a revoked one, and one of a deleted workspace: 401, one body."""
    revoked, expiring = service.token(blue, *SCOPES), service.token(blue, *SCOPES)
    gone = tenant_of(service, "gone")
    with service.client() as client:
        for token in (revoked, expiring, gone.token):
            assert client.get("/definitions", headers={"X-API-Key": token}).status_code == 200
        with service.db.session() as session:
            keys = {token: api_keys.get_by_prefix(session, prefix_of(session, token)) for token in (revoked, expiring)}
            api_keys.revoke(session, keys[revoked].id)
            session.execute(
                text(
                    "UPDATE stemma.api_keys SET created_at = now() - interval '1 day', expires_at = now() - interval '1 hour' "
                    "WHERE id = :id"
                ),
                {"id": keys[expiring].id},
            )
            workspaces.soft_delete(session, gone.workspace_id)
        edited = blue.token[:-1] + ("0" if blue.token[-1] != "0" else "1")
        tokens = ["", "x", "stm_k_live_" + "0" * 61, edited, revoked, expiring, gone.token]
        answers = [client.get("/definitions", headers={"X-API-Key": token}) for token in tokens] + [client.get("/definitions")]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["code"] == "authentication"


def prefix_of(session: object, token: str) -> str:
    """The stored part of a token."""
    rows = session.execute(text("SELECT prefix FROM stemma.api_keys")).scalars()  # type: ignore[attr-defined]
    (found,) = [prefix for prefix in rows if token.startswith(prefix)]
    return str(found)


def test_a_key_may_do_what_its_scopes_say(service: Service, blue: Tenant) -> None:
    """Without a scope nothing, with that to read no change; a personal key opens no workspace: 403."""
    none, reading = service.token(blue), service.token(blue, "definitions:read")
    everything = service.token(blue, "definitions:*")
    with service.db.session() as session:
        personal = api_keys.issue(session, blue.user_id, "mine", scopes=SCOPES).token.get_secret_value()
    service.secrets.append(personal)
    body = {"name": "N", "template": "t"}
    with service.client() as client:
        statuses = {
            token: (
                client.get("/definitions", headers={"X-API-Key": token}).status_code,
                client.post("/definitions", json=body, headers={"X-API-Key": token}).status_code,
            )
            for token in (none, reading, everything, personal)
        }
        refused = client.post("/definitions", json=body, headers={"X-API-Key": reading}).json()
    assert list(statuses.values()) == [(403, 403), (200, 403), (200, 201), (403, 403)]
    assert refused["code"] == "permission_denied"


def test_errors_have_the_status_of_their_code(service: Service, blue: Tenant) -> None:
    """What is malformed is 422, what somebody else changed or froze 409, and each body says the code."""
    with service.client() as client:
        made = client.post("/definitions", json={"name": "Once", "template": "t"}, headers=blue.headers).json()
        path = f"/definitions/{made['id']}"
        found = [
            client.post("/definitions", json={"name": " ", "template": "t"}, headers=blue.headers),
            client.get("/definitions", params={"cursor": "nonsense"}, headers=blue.headers),
            client.get("/definitions", params={"q": "x" * 1001}, headers=blue.headers),
            client.get("/definitions/no-id", headers=blue.headers),
            client.patch(path, json={"name": "Twice", "version": 7}, headers=blue.headers),
        ]
        client.post(f"{path}/forks", json={}, headers=blue.headers)
        found.append(client.patch(path, json={"name": "Twice", "version": 1}, headers=blue.headers))
        assert client.get("/definitions", params={"limit": 0}, headers=blue.headers).status_code == 422
    assert [(answer.status_code, answer.json()["code"]) for answer in found] == [
        (422, "validation"),
        (422, "invalid_cursor"),
        (422, "validation"),
        (404, "not_found"),
        (409, "version_conflict"),
        (409, "frozen"),
    ]


# -------------------------------------------------------------------------------------------------------------- side by side


@pytest.mark.race
@pytest.mark.requirement("TN-039", "TN-044")
async def test_concurrent_requests_keep_apart(service: Service, blue: Tenant, green: Tenant) -> None:
    """Two hundred and sixty requests of two workspaces at once, reads and writes: each is answered from its own workspace."""

    async def one(client: httpx.AsyncClient, number: int) -> list[str]:
        tenant, other = (blue, green) if number % 2 else (green, blue)
        if number % 3 == 0:
            made = await client.post("/definitions", json={"name": f"of {tenant.workspace_id}", "template": "t"}, headers=tenant.headers)
            assert made.status_code == 201
        own = await client.get(f"/definitions/{tenant.definition_id}", headers=tenant.headers)
        foreign = await client.get(f"/definitions/{other.definition_id}", headers=tenant.headers)
        page = await client.get("/definitions", params={"limit": 200, "q": f'"{tenant.workspace_id}"'}, headers=tenant.headers)
        wrong = [item["name"] for item in page.json()["items"] if str(tenant.workspace_id) not in item["name"]]
        leaked = await client.get("/definitions", params={"q": f'"{other.workspace_id}"'}, headers=tenant.headers)
        return (
            [str(status) for status in (own.status_code, foreign.status_code)] + wrong + [item["name"] for item in leaked.json()["items"]]
        )

    # The server closes a connection that was idle for five seconds, perhaps as a request is on its way.
    limits = httpx.Limits(max_connections=40, keepalive_expiry=2)
    async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=limits) as client:
        assert await asyncio.gather(*(one(client, number) for number in range(60))) == [["200", "404"]] * 60


# ------------------------------------------------------------------------------------------------------------ end, and traces


def test_a_request_that_has_begun_is_answered(service: Service, blue: Tenant, tmp_path: Path) -> None:
    """After SIGTERM nobody new is let in, a fork that waits for a lock is finished and committed, and no connection stays open."""
    own = start(service.db, tmp_path)
    with service.db.session(workspace=blue.workspace_id) as session:
        parent = make_definition(session, "waited for").id
    with ThreadPoolExecutor() as pool:
        with service.db.session(workspace=blue.workspace_id) as session:
            session.execute(text("SELECT id FROM stemma.definitions WHERE id = :id FOR UPDATE"), {"id": parent})
            asked = pool.submit(httpx.post, f"{own.url}/definitions/{parent}/forks", json={}, headers=blue.headers, timeout=60)
            await_true(lambda: waiting(service.db) == 1, own)
            own.process.send_signal(signal.SIGTERM)
            await_true(lambda: not listens(own.url), own)
            assert not asked.done()
        answer = asked.result(30)
    assert answer.status_code == 201
    assert own.process.wait(30) in (0, -signal.SIGTERM)
    with service.db.session(workspace=blue.workspace_id) as session:
        assert [str(row.id) for row in definitions.list_children(session, parent)] == [answer.json()["id"]]
    assert "Application shutdown complete" in own.output.read_text()
    assert "Traceback" not in own.output.read_text()


def waiting(db: Database) -> int:
    """How many sessions of the database wait for a lock."""
    with db.session() as session:
        found = session.scalar(
            text("SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()")
        )
    return int(found or 0)


def listens(url: str) -> bool:
    host, _, port = url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def await_true(condition: object, service: Service) -> None:
    deadline = time.monotonic() + 30
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, service.output.read_text()
        time.sleep(0.02)


def test_nothing_secret_is_in_its_output(service: Service, blue: Tenant, green: Tenant) -> None:
    """After requests of all kinds, failures included, with every statement logged: no token, no part of one, no pepper."""
    broken = f"{blue.token}x"
    with service.client() as client:
        for tenant in (blue, green):
            client.get("/definitions", headers=tenant.headers)
            client.post("/definitions", json={"name": "N"}, headers=tenant.headers)
            client.get("/definitions/nobody", headers=tenant.headers)
        client.get("/definitions", headers={"X-API-Key": broken})
    output = service.output.read_text()
    assert "GET /definitions" in output
    assert "Traceback" not in output
    for token in [*service.secrets, broken]:
        secret = token.rpartition("_")[2]
        for start_ in range(0, len(secret) - 12, 6):
            assert secret[start_ : start_ + 12] not in output
    assert PEPPER not in output
