"""What README and docs say holds: every block runs, every link leads somewhere, and nothing public is left out."""

import ast
import asyncio
import contextlib
import doctest
import functools
import importlib
import inspect
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest
import typer
from tests.migrations.places import Revisions
from tests.test_cli import call

import stemmadb
from stemmadb import _engines, _heads, errors
from stemmadb.cli import application
from stemmadb.database import Database
from stemmadb.settings import Settings
from stemmadb.testing import make_workspace

pytestmark = pytest.mark.docs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
README = ROOT / "README.md"
PACKS = DOCS / "howto" / "packs.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
TEXTS = ["alembic", "benchmarks", "docs", "examples", "src", "tests", ".ci", *(path.name for path in ROOT.iterdir() if path.is_file())]
SENTENCE = (
    "Entities say what the data is. Documents say what is inside a JSONB column. Query modules say what can be done with it. "
    "The kernel says how it reaches PostgreSQL."
)


def name_of(page: Path) -> str:
    """A page's path from the root of the repository."""
    return page.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


# ------------------------------------------------------------------------------------------------------------------ blocks


@dataclass(frozen=True)
class Block:
    """
    A fenced block of a page; its info string is a language and tags.

    ``python`` runs in the page's namespace, ``python apart`` as a program of its own, ``python test`` under pytest; ``python signature``
    is compared with the source. ``console`` runs the lines that begin with ``$``, and ``console fails`` expects the last one to be refused.
    ``sql`` runs in a session of the workspace ``lab``. ``console output`` compares what follows each command, ``text output`` what the
    block before printed. Of blocks with ``file=PATH``, tests/migrations/test_packs_of_others.py makes a distribution. ``sh`` is for
    commands that are not ours, and is not run; ``text`` and the rest are only read.
    """

    page: Path
    line: int
    language: str
    tags: frozenset[str]
    text: str
    not_run: str | None

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file of a distribution that it is; None for most."""
        return next((tag.removeprefix("file=") for tag in self.tags if tag.startswith("file=")), None)


LANGUAGES = {"python", "console", "sh", "sql", "text", "toml", "ini", "json", "mermaid"}
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+?) -->\n\n?)?^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


@functools.cache
def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, *tags = match["info"].split() or [""]
        line = text.count("\n", 0, match.start("text")) + 1
        found.append(Block(page, line, language, frozenset(tags), textwrap.dedent(match["text"]), match["reason"]))
    return found


# As in a folder without a configuration, but for what pytest-asyncio wants to be told.
_PYTEST = shlex.split(
    "-m pytest -q -p no:cacheprovider -o asyncio_default_fixture_loop_scope=function -o filterwarnings=error -c /dev/null"
)


class Reader:
    """Somebody who types in what a page says, block after block, with DATABASE_URL set to a database that has the workspace ``lab``."""

    def __init__(self, page: Path, environment: dict[str, str], folder: Path) -> None:
        self.module = ModuleType(f"page_{re.sub(r'[^a-z]', '_', page.stem)}")
        self.names = self.module.__dict__
        self.environment = environment
        self.folder = folder
        self.shell: dict[str, str] = {}
        self.printed = ""
        self.runner = asyncio.Runner()

    def read(self, block: Block) -> None:
        """Do what a block says."""
        if block.file is not None:
            assert block.page == PACKS, f"{block}: no test makes a distribution of its files"
        elif block.language == "python" and "signature" in block.tags:
            compare_signatures(block)
        elif block.language == "python" and block.tags & {"apart", "test"}:
            self.run_apart(block)
        elif block.language == "python":
            self.run_python(block)
        elif block.language == "console":
            self.run_console(block)
        elif block.language == "sql":
            self.run_sql(block)
        elif block.language == "text" and "output" in block.tags:
            require_output(block.text, self.printed, str(block))

    def run_python(self, block: Block) -> None:
        # Moved down to its place in the page, so that a traceback names the line.
        source = "\n" * (block.line - 1) + block.text
        code = compile(source, name_of(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            if code.co_flags & inspect.CO_COROUTINE:
                self.runner.run(self._await(code))
            else:
                exec(code, self.names)
        self.printed = out.getvalue()

    async def _await(self, code: Any) -> None:
        await eval(code, self.names)

    def run_apart(self, block: Block) -> None:
        """Run a block that defines entities, which stay in a process for ever, or tests."""
        program = self.folder / f"test_line_{block.line}.py"
        program.write_text(block.text)
        options = [*_PYTEST, "--rootdir", self.folder] if "test" in block.tags else []
        ran = subprocess.run(
            [sys.executable, "-W", "error", *options, program],
            env={**os.environ, **self.environment},
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ran.returncode == 0, f"{block}\n{ran.stdout}\n{ran.stderr}"
        self.printed = ran.stdout

    def run_console(self, block: Block) -> None:
        commands = _commands(block.text)
        assert commands, f"{block}: a console block has lines that begin with $"
        for number, (command, expected) in enumerate(commands, 1):
            done = self.run_command(command, f"{block}: {command}")
            refused = "fails" in block.tags and number == len(commands)
            assert (done.returncode != 0) == refused, f"{block}: {command}\n{done.stdout}\n{done.stderr}"
            if "output" in block.tags and expected.strip():
                require_output(expected, done.stdout + done.stderr, f"{block}: {command}")

    def run_command(self, command: str, place: str) -> subprocess.CompletedProcess[str]:
        """Run ``stemmadb ...`` in this process, also as ``NAME=value stemmadb ...`` and ``name=$(stemmadb ...)``."""
        captured = re.fullmatch(r"(\w+)=\$\((.*)\)", command)
        words = shlex.split(captured[2] if captured else command)
        given: dict[str, str] = {}
        while words and (assigned := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
            given[assigned[1]] = re.sub(r"\$(\w+)", self._variable, assigned[2])
            words.pop(0)
        assert words[:1] == ["stemmadb"], f"{place}: only stemmadb is run here; say why another command is not"
        done = call(*(re.sub(r"\$(\w+)", self._variable, word) for word in words[1:]), **{**self.environment, **given})
        if captured:
            self.shell[captured[1]] = done.stdout.strip()
        return done

    def _variable(self, name: re.Match[str]) -> str:
        # What Python printed is what a reader copies into the shell.
        return self.shell[name[1]] if name[1] in self.shell else str(self.names[name[1]])

    def run_sql(self, block: Block) -> None:
        with stemmadb.connect(workspace="lab") as db, db.session() as session:
            for statement in filter(str.strip, re.split(r";\s*$", block.text, flags=re.MULTILINE)):
                session.connection().exec_driver_sql(statement)


def _commands(text: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def require_output(expected: str, actual: str, place: str) -> None:
    """Require that the text is what was printed; ``...`` stands for anything, and white space does not count."""
    pattern = r"\s*.*\s*".join(re.escape(" ".join(part.split())) for part in expected.split("..."))
    assert re.fullmatch(pattern, " ".join(actual.split()), re.DOTALL), f"{place}: expected\n{expected}\nand got\n{actual}"


@pytest.fixture
def environment(page: Path, committed_db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The variables of a reader whose database is the test's; whatever a page leaves open is closed."""
    make_workspace(committed_db, "lab")
    given = {
        "DATABASE_URL": committed_db.url.render_as_string(hide_password=False),
        "DIRECT_URL": committed_db.direct_url.render_as_string(hide_password=False),
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    # Set by pages that have secrets, and taken back with the rest.
    monkeypatch.setenv("STEMMADB_SECRET_KEYS", "")
    # A copy of the revisions, since one of the commands writes a file beside them. The runbook speaks of revisions to come.
    copy = Revisions(tmp_path / "alembic")
    shutil.copytree(_heads.location(), copy.folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_heads, "location", lambda: copy.folder)
    if page == DOCS / "runbook.md":
        copy.add("base", "op.execute('SELECT 1')")
        copy.add("evaluation", "op.execute('SELECT 1')")
    before = set(_engines._registry)
    _heads.forget()
    yield given
    _heads.forget()
    for key in set(_engines._registry) - before:
        _engines._registry.pop(key)[0].dispose()


@each_page
def test_blocks_run(page: Path, environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who types in the blocks of a page, from first to last, meets no error."""
    blocks = blocks_of(page)
    reader = Reader(page, environment, tmp_path)
    monkeypatch.setitem(sys.modules, reader.module.__name__, reader.module)
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as stack, reader.runner:
        if any(block.language == "python" for block in blocks):
            db = reader.names["db"] = stack.enter_context(stemmadb.connect(workspace="lab"))
            if page.name.startswith("evaluation-"):
                session = reader.names["session"] = stack.enter_context(db.session())
                stack.callback(session.rollback)
        for block in blocks:
            if block.not_run is None:
                reader.read(block)


@each_page
def test_blocks_can_run(page: Path) -> None:
    """Every block names a language that is run or only read; what is not run is a command, and says why."""
    text = page.read_text(encoding="utf-8")
    blocks = blocks_of(page)
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(blocks), "a fence is not closed"
    assert text.count("<!-- not run:") == sum(block.not_run is not None for block in blocks), "a reason stands before no block"
    for block in blocks:
        assert block.language in LANGUAGES, f"{block}: {block.language!r}"
        if block.language == "sh":
            assert block.not_run is not None or page == README, f"{block}: say why it is not run, or write it as console"
        else:
            assert block.not_run is None or block.language == "console", f"{block}: only commands may be left out"


# -------------------------------------------------------------------------------------------------------------- signatures


def compare_signatures(block: Block) -> None:
    """Require that the functions, and the methods of classes, are declared in the module of the page as the block says."""
    module = importlib.import_module(module_of(block.page, block.line))
    for node in ast.parse(block.text).body:
        if isinstance(node, ast.ClassDef):
            methods = [found for found in node.body if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef)]
            owner = getattr(module, node.name)
            pairs = [(method, inspect.getattr_static(owner, method.name)) for method in methods]
        else:
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef), f"{block}: a signature is a function or a class"
            pairs = [(node, getattr(module, node.name))]
        for written, value in pairs:
            declared = _declaration(value)
            for part in ("args", "returns"):
                said, is_ = (ast.unparse(found) if (found := getattr(each, part)) else "" for each in (written, declared))
                assert said == is_, f"{block}: {written.name}"


def _declaration(value: Any) -> ast.FunctionDef | ast.AsyncFunctionDef:
    """How a function is written down in its source."""
    value = getattr(value, "fget", None) or getattr(value, "__func__", value)
    node = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body[0]
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    return node


_MODULE_HEADING = re.compile(r"^#+ `?(stemmadb[a-z_.]*)`?$", re.MULTILINE)


def module_of(page: Path, line: int) -> str:
    """The module that the nearest heading above a line names."""
    above = "\n".join(page.read_text(encoding="utf-8").splitlines()[:line])
    return _MODULE_HEADING.findall(above)[-1]


# --------------------------------------------------------------------------------------------------------------- docstrings


def module_names() -> list[str]:
    """Every module of the package, private ones included."""
    package = Path(stemmadb.__file__).parent
    paths = [path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py") if "_alembic" not in path.parts]
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in paths if path.name != "__main__")


@pytest.mark.offline
def test_docstrings() -> None:
    """What docstrings show at a prompt is what Python answers there."""
    finder, runner, tried = doctest.DocTestFinder(exclude_empty=True), doctest.DocTestRunner(verbose=False), 0
    report = io.StringIO()
    for name in module_names():
        module = importlib.import_module(name)
        for found in finder.find(module, name, globs=dict(module.__dict__)):
            if found.examples:
                tried += 1
                runner.run(found, out=report.write)
    assert tried > 1
    assert runner.failures == 0, report.getvalue()


# -------------------------------------------------------------------------------------------------------------------- pages


@pytest.mark.offline
@each_page
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a page of the repository leads to a file, and its anchor to a heading there."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in anchors_of(place), f"{name_of(page)}: {target}"


def anchors_of(page: Path) -> set[str]:
    """The anchors that the headings of a page have where Markdown is rendered."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    plain = [re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


@pytest.mark.offline
def test_index_links_every_page() -> None:
    """From docs/index.md every page is one click away, and the decisions are two."""
    lists = [DOCS / "index.md", DOCS / "decisions" / "README.md"]
    linked = {(page.parent / target).resolve() for page in lists for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text())}
    assert [name_of(page) for page in PAGES if page not in {*linked, README, lists[0]}] == []


@pytest.mark.offline
def test_the_sentence_of_the_architecture() -> None:
    """README, the page on architecture and the package say in the same words what the library is made of."""
    for text in (README.read_text(), (DOCS / "architecture.md").read_text(), stemmadb.__doc__ or ""):
        assert SENTENCE in " ".join(re.sub(r"^>|\*\*", " ", text, flags=re.MULTILINE).split())


@pytest.mark.offline
def test_readme_shows_the_two_commands_first() -> None:
    """The first two blocks of README are the two commands: one does the main job, the other passes the tests."""
    first, second = (block for block in blocks_of(README)[:2])
    assert [block.text.count("\n") for block in (first, second)] == [1, 1]
    assert re.search(r"venv .*\[embedded\].* stemmadb demo$|venv .*\[embedded\].*/stemmadb demo$", first.text.strip())
    assert second.text.strip().endswith("tox")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not os.environ.get("STEMMADB_TEST_INSTALL"), reason="installs packages: set STEMMADB_TEST_INSTALL=1")
def test_the_first_command_of_readme() -> None:
    """In a copy of the repository in which nothing was built, the first command ends with the demonstration."""
    # Not in pytest's folder, which the server's account cannot enter when root runs the tests.
    with tempfile.TemporaryDirectory(prefix="stemmadb-readme-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(ROOT, folder / "repository", ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist"))
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("STEMMADB_", "DATABASE_", "DIRECT_"))}
        ran = subprocess.run(
            ["/bin/sh", "-c", blocks_of(README)[0].text],
            env={**kept, "STEMMADB_DATA_DIR": str(folder / "data")},
            cwd=folder / "repository",
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        assert "108/108 slots" in ran.stdout
        deadline = time.monotonic() + 10
        while (folder / "data" / "cluster" / "postmaster.pid").exists() and time.monotonic() < deadline:
            time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------------ the reference


def public_modules() -> list[str]:
    """Modules that users import; a folder of entities counts as one, and twins as the modules that they mirror."""
    found = [name for name in module_names() if not any(part.startswith("_") for part in name.split("."))]
    return [name for name in found if not re.match(r"stemmadb\.(aio|\w+\.entities)\.", name)]


def public_names(module: ModuleType) -> list[str]:
    """What a module offers: ``__all__``, else the functions and classes that are defined in it."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    defined = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return [name for name in defined if not name.startswith("_") and isinstance(vars(module)[name], type | FunctionType)]


def page_of(module: str) -> Path | None:
    """The page on a module: the one called after it, else the one with a heading of its name."""
    name = module.removeprefix("stemmadb.").replace(".", "-").replace("_", "-")
    if (REFERENCE / f"{name}.md").exists():
        return REFERENCE / f"{name}.md"
    return next((page for page in sorted(REFERENCE.glob("*.md")) if module in _MODULE_HEADING.findall(page.read_text())), None)


@pytest.mark.offline
@pytest.mark.parametrize("module", public_modules())
def test_reference(module: str) -> None:
    """Every public module has a page of reference, and every public name and every column stands on it."""
    page = page_of(module)
    assert page is not None, "no page"
    words = set(re.findall(r"\w+", page.read_text()))
    imported = importlib.import_module(module)
    # What a command line offers are its commands, see below.
    names = [] if module.endswith((".cli", ".commands")) else public_names(imported)
    for entity in vars(imported).values() if module.endswith(".entities") else ():
        names += [column.name for column in entity.__table__.columns] if hasattr(entity, "__table__") else []
    assert [name for name in names if name not in words] == []


@pytest.mark.offline
def test_every_command_is_described() -> None:
    """Each command of the packs and the kernel, and each of its options, stands on the page on the command line."""
    page = (REFERENCE / "cli.md").read_text()
    pending: list[tuple[str, Any]] = [("stemmadb", typer.main.get_command(application()))]
    while pending:
        name, command = pending.pop()
        pending += [(f"{name} {below}", found) for below, found in getattr(command, "commands", {}).items()]
        options = [option for found in command.params for option in found.opts if option.startswith("--")]
        assert [said for said in (name.removeprefix("stemmadb "), *options) if said not in page] == []


@pytest.mark.offline
def test_every_variable_is_described() -> None:
    """Each variable of the environment stands on the page on settings, and in .env.example."""
    variables = {str(field.validation_alias) for field in Settings.model_fields.values()}
    for page in (REFERENCE / "settings.md", ROOT / ".env.example"):
        assert variables - set(re.findall(r"\w+", page.read_text())) == set(), name_of(page)


@pytest.mark.offline
def test_every_error_code_has_an_entry() -> None:
    """The page on troubleshooting has a heading for the code of every error."""
    headings = set(re.findall(r"^### `(\w+)`$", (DOCS / "howto" / "troubleshooting.md").read_text(), re.MULTILINE))
    assert {getattr(errors, name).code for name in errors.__all__} == headings


# ------------------------------------------------------------------------------------------------------------ the repository

# Written in two parts, so that this file does not hold what it looks for.
_FOREIGN = [
    "/" + r"work/",
    "/" + r"root/",
    "/" + r"home/(?!me\b)[a-z]",
    "/" + r"Users/[A-Za-z]",
    "py" + r"pi\.",
    "python" + r"hosted",
    "npm" + r"js",
    "arti" + r"factory",
    "index" + r"[-_]url",
]


@pytest.mark.offline
def test_no_machine_and_no_registry_is_named() -> None:
    """No file of the repository names a folder of somebody's machine, or where packages come from."""
    looked_for = re.compile("|".join(_FOREIGN))
    found = []
    for top in TEXTS:
        for path in [ROOT / top, *(ROOT / top).rglob("*")]:
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            with contextlib.suppress(UnicodeDecodeError):
                found += [f"{name_of(path)}: {hit}" for hit in looked_for.findall(path.read_text(encoding="utf-8"))]
    assert found == []
