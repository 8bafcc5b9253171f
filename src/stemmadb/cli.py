"""The command line: ``stemmadb``. Packs add their commands through their entry points."""

import functools
import getpass
import os
import sys
from dataclasses import asdict
from typing import Annotated, Final, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from stemmadb import __version__, _document_commands, _secret_commands
from stemmadb._console import AsJson, Url, Yes, err, fail_for, open_database, output, refuse_in_production
from stemmadb._display import printable
from stemmadb.audit import ActorType, actor
from stemmadb.errors import ConfigurationError, StemmaError, ValidationError

app: Final = typer.Typer(
    name="stemmadb",
    no_args_is_help=True,
    add_completion=False,
    help="Typed data access for PostgreSQL.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
migrate: Final = typer.Typer(no_args_is_help=True, help="Bring the schema to this release, and back.")
seed: Final = typer.Typer(no_args_is_help=True, help="What a database starts with.")
app.add_typer(migrate, name="migrate")
app.add_typer(seed, name="seed")
app.add_typer(_document_commands.group, name="documents")
app.add_typer(_secret_commands.group, name="secrets")

Packs = Annotated[list[str] | None, typer.Option("--packs", help="Only these packs, and what they need. Default: all.")]


@app.callback(invoke_without_command=True)
def _main(context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        typer.echo(f"stemmadb {__version__}")
        raise typer.Exit
    # Whoever types a command is no user of the application's: the records of changes tell that it was one, and whose shell.
    context.with_resource(actor(type=ActorType.ADMIN, user_agent=f"stemmadb {__version__} ({_login()})"))


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


# -------------------------------------------------------------------------------------------------------------- the server


@app.command()
def health(url: Url = None, as_json: AsJson = False) -> None:
    """Say whether the database can be used now. Exit code 1 when it cannot."""
    with open_database(url) as db:
        found = db.health()
    said = f"ok: PostgreSQL {found.server_version}, {found.latency_ms:.1f} ms" if found.ok else f"not ok: {found.error}"
    output(asdict(found), as_json, lambda: print(said))
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def doctor(
    url: Url = None,
    strict: Annotated[bool, typer.Option("--strict", help="Leave with 1 for warnings, too.")] = False,
    as_json: AsJson = False,
) -> None:
    """
    Look for what is known to go wrong with a database, and say what to do. Changes nothing.

    Exit code 1 when an error was found, or the database cannot be reached.
    """
    with open_database(url, migrate=False) as db:
        found = db.check()

    def show() -> None:
        for finding in found.findings:
            print(printable(f"{finding.severity}: {finding.code}: {finding.message}"))
            print(f"    {printable(finding.remedy)}")
        errors, warnings = (sum(finding.severity == each for finding in found.findings) for each in ("error", "warning"))
        server = f"PostgreSQL {found.server_version}, {found.latency_ms:.1f} ms"
        print(f"{errors} errors, {warnings} warnings: {server}" if found.findings else f"ok: nothing is wrong: {server}")

    output({**asdict(found), "ok": found.ok}, as_json, show)
    if not found.ok or (strict and any(finding.severity == "warning" for finding in found.findings)):
        raise typer.Exit(1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def pg(context: typer.Context, tool: Annotated[str, typer.Argument(help="psql, pg_dump, pg_restore, ...")]) -> None:
    """Run a PostgreSQL program on the embedded server: stemmadb pg psql -c 'SELECT 1'."""
    from stemmadb import embedded
    from stemmadb.settings import load_settings

    settings = load_settings()
    if settings.database_url is not None:
        raise ConfigurationError("pg is for the embedded server, and DATABASE_URL is set: run the program with its own options")
    server = embedded.start(settings.data_dir)
    embedded.prepare(server)
    program = server.bindir / tool
    if not program.exists():
        raise ConfigurationError(f"there is no program {tool} beside the embedded server")
    # The lock that keeps the server running is inherited by the program that takes this process's place.
    os.set_inheritable(server._users, True)
    os.execve(program, [str(program), *context.args], server.tool_environment(tool))  # noqa: S606


# -------------------------------------------------------------------------------------------------------------- migrations


@migrate.command()
def up(
    url: Url = None,
    packs: Packs = None,
    phase: Annotated[Literal["expand"] | None, typer.Option(help="expand leaves what the release before still uses")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run.")] = False,
) -> None:
    """Migrate to the newest schema. Several at once: one works, the others wait."""
    from stemmadb import migrations

    with open_database(url, migrate=False) as db:
        before = migrations.status(db).pending
        if dry_run:
            print(f"would apply {', '.join(before)}" if before else "nothing to do: the schema is up to date")
            return
        migrations.upgrade(db, packs, phase=phase)
        after = migrations.status(db).pending
    done = [revision for revision in before if revision not in after]
    print(f"applied {', '.join(done)}" if done else "nothing to do: the schema is up to date")


@migrate.command()
def stamp(target: Annotated[str, typer.Argument(help="base_0001, evaluation@head, heads")], url: Url = None) -> None:
    """Record that the database has a revision, without running it: after a restore without the version table."""
    from stemmadb import migrations

    with open_database(url, migrate=False) as db:
        migrations.stamp(db, target)
    print(f"recorded {target}")


@migrate.command()
def down(
    target: Annotated[str, typer.Argument(help="evaluation_0001, evaluation@base, evaluation@-1")],
    url: Url = None,
    yes: Yes = False,
    with_dependents: Annotated[bool, typer.Option("--with-dependents", help="Undo what is built on it, too.")] = False,
) -> None:
    """Undo revisions: what they made is dropped, rows included."""
    from stemmadb import migrations

    refuse_in_production(yes, f"undo the schema down to {target}")
    with open_database(url, migrate=False) as db:
        migrations.downgrade(db, target, with_dependents=with_dependents)
    print(f"undone down to {target}")


@migrate.command("status")
def migrate_status(url: Url = None, as_json: AsJson = False) -> None:
    """Say which revisions the database has, and which are still to run."""
    from stemmadb import migrations

    with open_database(url, migrate=False) as db:
        found = migrations.status(db)

    def show() -> None:
        table = Table("branch", "installed", "newest", "to run")
        for branch in found.branches:
            table.add_row(branch.branch, branch.installed or "-", branch.head, ", ".join(branch.pending) or "-")
        Console().print(table)

    output({**asdict(found), "up_to_date": found.up_to_date}, as_json, show)


@migrate.command()
def check(url: Url = None, as_json: AsJson = False) -> None:
    """Compare entities, revisions and database. Exit code 1 when something differs."""
    from stemmadb import migrations

    with open_database(url, migrate=False) as db:
        found = migrations.check(db)

    def show() -> None:
        for finding in found.findings:
            print(f"{finding.severity}: {finding.object}: {finding.message} ({finding.code})")
        print("ok: entities, revisions and database agree" if found.ok else f"{len(found.findings)} findings")

    output({**asdict(found), "ok": found.ok}, as_json, show)
    if not found.ok:
        raise typer.Exit(1)


@migrate.command()
def sql(target: Annotated[str, typer.Argument()] = "heads") -> None:
    """Print the SQL of a migration. Needs no database."""
    from stemmadb import migrations

    print(migrations.sql(target))


@migrate.command()
def history(as_json: AsJson = False) -> None:
    """List the revisions that this release ships."""
    from stemmadb import migrations

    found = migrations.history()

    def show() -> None:
        table = Table("revision", "phase", "why")
        for revision in found:
            table.add_row(revision.revision, revision.phase, revision.why)
        Console().print(table)

    output([asdict(revision) for revision in found], as_json, show)


@migrate.command()
def new(
    branch: Annotated[str, typer.Argument(help="the pack's branch")],
    why: Annotated[str, typer.Argument(help="why; its words become the file's name")],
    url: Url = None,
    phase: Annotated[Literal["expand", "contract"], typer.Option(help="contract takes away what the release before uses")] = "expand",
    empty: Annotated[bool, typer.Option("--empty", help="Without statements, to be written by hand.")] = False,
) -> None:
    """Write a revision with what the entities have and the database has not."""
    from stemmadb import migrations

    with open_database(url, migrate=False) as db:
        made = migrations.new(db, why, branch=branch, phase=phase, empty=empty)
    print(made if made is not None else "nothing to write: entities and database agree")


@migrate.command()
def reset(
    url: Url = None,
    yes: Yes = False,
    no_seed: Annotated[bool, typer.Option("--no-seed", help="Leave the new schema empty.")] = False,
) -> None:
    """Drop everything and begin anew, with the seeds of the profile dev. For development."""
    from stemmadb import migrations, seeding

    refuse_in_production(yes, "drop every table of stemmadb, with its rows")
    with open_database(url, migrate=False) as db:
        migrations.downgrade(db, "base@base", with_dependents=True)
        migrations.upgrade(db)
        if not no_seed:
            seeding.run(db, "dev")
    print("the schema is new" + ("" if no_seed else ", with the seeds of the profile dev"))


@migrate.command()
def roles(url: Url = None, login: Annotated[str | None, typer.Option(help="The login that the application uses.")] = None) -> None:
    """Make stemma_owner, stemma_app and stemma_maintenance, and give them their rights. Needs CREATEROLE."""
    from stemmadb import migrations

    with open_database(url, migrate=False) as db:
        made = migrations.roles(db, login=login)
    print(f"made {', '.join(made)}" if made else "the roles were there; their rights are renewed")


# ------------------------------------------------------------------------------------------------------------------- seeds

Profile = Annotated[str, typer.Option("--profile", help="dev, qa, prod or demo")]

# The profile test is for suites, which call seeding.run.
_OFFERED: Final = ("dev", "qa", "prod", "demo")


def _offered(profile: str) -> str:
    if profile not in _OFFERED:
        raise ValidationError(f"there is no seed profile of this name: use one of {', '.join(_OFFERED)}", field="profile")
    return profile


@seed.command("run")
def seed_run(profile: Profile = "dev", url: Url = None, as_json: AsJson = False) -> None:
    """Apply the seeds of a profile; twice is as once."""
    from stemmadb import seeding
    from stemmadb._seed_password import seed_password

    with open_database(url) as db:
        report = seeding.run(db, _offered(profile))

    def show() -> None:
        for module, counts in report.applied.items():
            print(f"{module}: {', '.join(f'{count} {table}' for table, count in counts.items())}")
        for module in report.unchanged:
            print(f"{module}: unchanged")
        if any("users" in counts for counts in report.applied.values()) and seed_password(profile) is None:
            err("seeded users have no password: set one, or sign in another way")

    output(asdict(report), as_json, show)


@seed.command("status")
def seed_status(profile: Annotated[str | None, typer.Option("--profile")] = None, url: Url = None, as_json: AsJson = False) -> None:
    """Say which seed modules are applied, pending, or changed since."""
    from stemmadb import seeding

    with open_database(url) as db:
        found = [row for row in seeding.status(db, None if profile is None else _offered(profile)) if row.profile in _OFFERED]

    def show() -> None:
        table = Table("profile", "module", "state", "applied at")
        for row in found:
            table.add_row(row.profile, row.module, row.state, "-" if row.applied_at is None else f"{row.applied_at:%Y-%m-%d %H:%M}")
        Console().print(table)

    output([asdict(row) for row in found], as_json, show)


# ------------------------------------------------------------------------------------------------------------------- start


@functools.cache
def application() -> typer.Typer:
    """Return the command line with the commands of every installed pack."""
    from stemmadb.packs import packs

    for pack in packs():
        register = pack.load_commands()
        if register is not None:
            register(app)
    return app


def main() -> NoReturn:
    """Run the command line. Every error of the library is one line on stderr and exit code 1."""
    try:
        application()()
    except StemmaError as error:
        fail_for(error)
    except BrokenPipeError:
        # The reader has left, as head does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)
