"""Whatever lists rows with documents survives one that cannot be read: generated from the signatures of all public functions."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import inspect as inspect_entity
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from tests.evaluation.judged_runs import Bench, judgement
from tests.evaluation.run_setups import make_definition, make_run

from stemmadb import Repository, errors
from stemmadb._conformance._sources import sources_of
from stemmadb.accounts import audit, users
from stemmadb.accounts.data import OAuthLink
from stemmadb.documents import DocumentColumn, OnInvalid, RawDocument
from stemmadb.entity import Entity
from stemmadb.evaluation import cohorts, comparisons, experiments, runs, scenarios, scores, transcripts
from stemmadb.evaluation.data import ScenarioCreate, TranscriptCreate
from stemmadb.evaluation.documents import AnalysisPlan, RunDelta, ScenarioContent, ScoreRationale, TranscriptContent
from stemmadb.evaluation.entities import Run, Transcript
from stemmadb.packs import packs
from stemmadb.paging import Page, page
from stemmadb.workspaces import approvals, providers, workspaces
from stemmadb.workspaces.data import ApprovalCreate
from stemmadb.workspaces.entities import Workspace
from stemmadb.workspaces.vocabularies import AIProvider

# ------------------------------------------------------------------------------------------------------------------ signatures

WITHOUT: Mapping[str, str] = {}
"""Functions that return several rows with fetched documents and do not take ``on_invalid``, each with the reason."""

_MANY = (Page, list, tuple, Sequence, Iterator, Iterable, dict, Mapping)


def fetched_documents(entity: type[Entity]) -> list[str]:
    """The columns of documents that are fetched with every row of an entity."""
    columns = entity.__table__.columns
    return [column.name for column in columns if isinstance(column.type, DocumentColumn) and not column.info.get("deferred")]


def listed_entities(hint: Any, *, many: bool = False, inside: tuple[Any, ...] = ()) -> Iterator[type[Entity]]:
    """The entities of which a return type holds several: in pages, lists and iterators, and in those of the result types inside."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is not None:
        is_many = isinstance(origin, type) and issubclass(origin, _MANY)
        for argument in inner:
            yield from listed_entities(argument, many=many or is_many, inside=inside)
    elif isinstance(hint, type) and issubclass(hint, Entity):
        yield from [hint] if many else []
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint not in inside:
        for field_hint in typing.get_type_hints(hint).values():
            yield from listed_entities(field_hint, many=many, inside=(*inside, hint))


def returning_several() -> dict[str, Callable[..., Any]]:
    """Every public query function that returns several entities with fetched documents, by its name."""
    found = {}
    for pack in packs():
        for module, name, function in sources_of(pack).functions():
            entities = listed_entities(typing.get_type_hints(inspect.unwrap(function)).get("return"))
            if any(fetched_documents(entity) for entity in entities):
                found[f"{module.__name__}.{name}"] = function
    return found


FUNCTIONS = returning_several()


@pytest.mark.offline
@pytest.mark.requirement("AD-017", "VR-020")
def test_whatever_returns_several_documents_takes_on_invalid() -> None:
    """One row that cannot be read does not break a page, a list or a stream: the caller says what becomes of it."""
    without = {name for name, function in FUNCTIONS.items() if "on_invalid" not in inspect.signature(function).parameters}
    assert without == set(WITHOUT)
    assert all(WITHOUT.values())
    for name, function in FUNCTIONS.items():
        if name not in without:
            parameter = inspect.signature(function).parameters["on_invalid"]
            assert (parameter.default, parameter.kind) == ("raise", parameter.KEYWORD_ONLY), name
            assert typing.get_type_hints(inspect.unwrap(function))["on_invalid"] == OnInvalid, name


@pytest.mark.offline
def test_the_search_for_such_functions_finds_some() -> None:
    """Pages, lists inside of results, and streams; not what fetches no documents, nor what returns one row."""
    found = set(FUNCTIONS)
    assert {
        "stemmadb.evaluation.runs.list_all",
        "stemmadb.evaluation.runs.get_with_transcripts",
        "stemmadb.evaluation.transcripts.iter_for_run",
        "stemmadb.workspaces.workspaces.list_for_user",
        "stemmadb.accounts.users.list_oauth",
    } <= found
    assert not {"stemmadb.evaluation.definitions.list_all", "stemmadb.evaluation.runs.get", "stemmadb.accounts.users.list_all"} & found


@pytest.mark.offline
def test_methods_of_repositories_take_it_too() -> None:
    """A repository is of any entity."""
    for name in ("list_all", "get_many", "iter_all"):
        assert inspect.signature(getattr(Repository, name)).parameters["on_invalid"].default == "raise"
    assert inspect.signature(page).parameters["on_invalid"].default == "raise"


# ------------------------------------------------------------------------------------------------------------------- behaviour

PLAN = AnalysisPlan(alpha=0.05)
UNREADABLE = '{"schema_version": 999}'
Listed = Callable[[Session, Any, OnInvalid], Iterable[Any]]


@dataclasses.dataclass
class Rows:
    """Two rows of one table, of which the second will not be readable, and what the lists are asked with."""

    good: Any
    bad: Any
    of: Any = None


def _break(session: Session, row: Any, column: str) -> None:
    """Store a document that no release has written yet."""
    session.flush()
    named = row.__table__
    statement = text(f"UPDATE {named.schema}.{named.name} SET {column} = CAST(:raw AS jsonb) WHERE id = :id")
    session.connection().execute(statement, {"raw": UNREADABLE, "id": row.id})
    session.expunge_all()


def _runs(session: Session) -> Rows:
    good = make_run(session, started=False)
    made = Rows(good, runs.create(session, runs.RunCreate(definition_id=good.definition_id, config=good.config)), good.definition_id)
    _break(session, made.bad, "config")
    return made


def _transcripts(session: Session) -> Rows:
    run = make_run(session, started=False)
    scenario = scenarios.create(session, run.definition_id, ScenarioCreate(name="s", content=ScenarioContent(prompt="p")))
    good, bad = (
        transcripts.add(session, run.id, TranscriptCreate(model=model, scenario_id=scenario.id, content=TranscriptContent(turns=())))
        for model in ("a", "b")
    )
    _break(session, bad, "metrics")
    return Rows(good, bad, (run.id, scenario.id))


def _scores(session: Session) -> Rows:
    bench = Bench(session, 1)
    run = bench.run([None])
    good, bad = (
        scores.record(session, bench.transcript(run), judgement(1.0, annotator=name, rationale=ScoreRationale(text=name))) for name in "ab"
    )
    _break(session, bad, "rationale")
    return Rows(good, bad, (run, bench.transcript(run)))


def _cohorts(session: Session) -> Rows:
    good, bad = (cohorts.create(session, cohorts.CohortCreate(name=name)) for name in "ab")
    _break(session, bad, "criteria")
    return Rows(good, bad)


def _experiments(session: Session) -> Rows:
    good, bad = (experiments.create(session, experiments.ExperimentCreate(name=name, analysis_plan=PLAN)) for name in "ab")
    _break(session, bad, "analysis_plan")
    return Rows(good, bad)


def _experiment_runs(session: Session) -> Rows:
    made = _runs(session)
    experiment = experiments.create(session, experiments.ExperimentCreate(name="e"))
    for row in (made.good, made.bad):
        session.execute(text("UPDATE stemma.runs SET experiment_id = :of WHERE id = :id"), {"of": experiment.id, "id": row.id})
    return Rows(made.good, made.bad, experiment.id)


def _amendments(session: Session) -> Rows:
    of = experiments.create(session, experiments.ExperimentCreate(name="e", analysis_plan=PLAN)).id
    experiments.freeze_plan(session, of)
    statement = text(
        "INSERT INTO stemma.experiment_amendments (experiment_id, sequence, plan, reason) "
        "VALUES (:of, 7, CAST(:raw AS jsonb), 'r') RETURNING id"
    )
    bad = session.connection().execute(statement, {"of": of, "raw": UNREADABLE}).one()
    return Rows(experiments.amend_plan(session, of, PLAN, reason="r"), bad, of)


def _comparisons(session: Session) -> Rows:
    bench = Bench(session, 1)
    experiment = experiments.create(session, experiments.ExperimentCreate(name="e")).id
    baseline, *others = (bench.run([1.0]) for _ in range(3))
    good, bad = (
        comparisons.create(
            session,
            comparisons.RunComparisonCreate(baseline_run_id=baseline, comparison_run_id=other, experiment_id=experiment, delta=RunDelta()),
        )
        for other in others
    )
    _break(session, bad, "delta")
    return Rows(good, bad, (baseline, experiment))


def _workspaces(session: Session) -> Rows:
    owner = users.create(session, "lists@example.test")
    good, bad = (workspaces.create(session, owner.id, name) for name in ("Good", "Bad"))
    _break(session, bad, "settings")
    return Rows(good, bad, owner.id)


def _providers(session: Session) -> Rows:
    good, bad = (providers.upsert(session, kind) for kind in list(AIProvider)[:2])
    _break(session, bad, "settings")
    return Rows(good, bad)


def _approvals(session: Session) -> Rows:
    good, bad = (approvals.create(session, ApprovalCreate(type="t", title=title)) for title in ("good", "bad"))
    _break(session, bad, "payload")
    return Rows(good, bad)


def _identities(session: Session) -> Rows:
    user = users.create(session, "identities@example.test")
    good, bad = (users.link_oauth(session, user.id, OAuthLink(provider=name, provider_account_id="1")) for name in ("github", "google"))
    _break(session, bad, "profile")
    return Rows(good, bad, user.id)


def _records(session: Session) -> Rows:
    statement = text(
        "INSERT INTO stemma.audit_logs (workspace_id, action, entity, entity_id, after) "
        "VALUES (stemma.stemma_workspace_id(), 'CREATE', 'things', '1', CAST(:raw AS jsonb)) RETURNING id"
    )
    return Rows(audit.record(session, "EXPORT", "things", "1"), session.connection().execute(statement, {"raw": UNREADABLE}).one())


def _events(session: Session) -> Rows:
    statement = text("INSERT INTO stemma.security_events (type, payload) VALUES ('PROBE', CAST(:raw AS jsonb)) RETURNING id")
    return Rows(audit.record_security_event(session, "PROBE"), session.connection().execute(statement, {"raw": UNREADABLE}).one())


LISTS: dict[str, tuple[Callable[[Session], Rows], Listed]] = {
    "stemmadb.evaluation.runs.list_all": (_runs, lambda session, of, how: runs.list_all(session, on_invalid=how)),
    "stemmadb.evaluation.runs.list_for_tree": (_runs, lambda session, of, how: runs.list_for_tree(session, of, on_invalid=how)),
    "stemmadb.evaluation.runs.get_with_transcripts": (
        _transcripts,
        lambda session, of, how: runs.get_with_transcripts(session, of[0], on_invalid=how).transcripts,
    ),
    "stemmadb.evaluation.transcripts.list_for_run": (
        _transcripts,
        lambda session, of, how: transcripts.list_for_run(session, of[0], on_invalid=how),
    ),
    "stemmadb.evaluation.transcripts.list_for_scenario": (
        _transcripts,
        lambda session, of, how: transcripts.list_for_scenario(session, of[1], on_invalid=how),
    ),
    "stemmadb.evaluation.transcripts.iter_for_run": (
        _transcripts,
        lambda session, of, how: transcripts.iter_for_run(session, of[0], batch=1, on_invalid=how),
    ),
    "stemmadb.evaluation.scores.list_for_run": (_scores, lambda session, of, how: scores.list_for_run(session, of[0], on_invalid=how)),
    "stemmadb.evaluation.scores.list_for_transcript": (
        _scores,
        lambda session, of, how: scores.list_for_transcript(session, of[1], on_invalid=how),
    ),
    "stemmadb.evaluation.cohorts.list_all": (_cohorts, lambda session, of, how: cohorts.list_all(session, on_invalid=how)),
    "stemmadb.evaluation.experiments.list_all": (_experiments, lambda session, of, how: experiments.list_all(session, on_invalid=how)),
    "stemmadb.evaluation.experiments.get_with_runs": (
        _experiment_runs,
        lambda session, of, how: experiments.get_with_runs(session, of, on_invalid=how).runs,
    ),
    "stemmadb.evaluation.experiments.list_amendments": (
        _amendments,
        lambda session, of, how: experiments.list_amendments(session, of, on_invalid=how),
    ),
    "stemmadb.evaluation.comparisons.list_for_run": (
        _comparisons,
        lambda session, of, how: comparisons.list_for_run(session, of[0], on_invalid=how),
    ),
    "stemmadb.evaluation.comparisons.list_for_experiment": (
        _comparisons,
        lambda session, of, how: comparisons.list_for_experiment(session, of[1], on_invalid=how),
    ),
    "stemmadb.workspaces.workspaces.list_all": (_workspaces, lambda session, of, how: workspaces.list_all(session, on_invalid=how)),
    "stemmadb.workspaces.workspaces.list_for_user": (
        _workspaces,
        lambda session, of, how: [item.workspace for item in workspaces.list_for_user(session, of, on_invalid=how)],
    ),
    "stemmadb.workspaces.providers.list_all": (_providers, lambda session, of, how: providers.list_all(session, on_invalid=how)),
    "stemmadb.workspaces.approvals.list_all": (_approvals, lambda session, of, how: approvals.list_all(session, on_invalid=how)),
    "stemmadb.accounts.users.list_oauth": (_identities, lambda session, of, how: users.list_oauth(session, of, on_invalid=how)),
    "stemmadb.accounts.audit.history": (_records, lambda session, of, how: audit.history(session, "things", "1", on_invalid=how)),
    "stemmadb.accounts.audit.list_all": (_records, lambda session, of, how: audit.list_all(session, on_invalid=how)),
    "stemmadb.accounts.audit.list_security_events": (
        _events,
        lambda session, of, how: audit.list_security_events(session, on_invalid=how),
    ),
    "Repository.list_all": (_runs, lambda session, of, how: Repository(Run).list_all(session, on_invalid=how)),
    "Repository.iter_all": (_runs, lambda session, of, how: Repository(Run).iter_all(session, batch=1, on_invalid=how)),
    "Repository.get_many": (
        _transcripts,
        lambda session, of, how: Repository(Transcript).get_many(
            session, [id for (id,) in session.connection().execute(text("SELECT id FROM stemma.transcripts"))], on_invalid=how
        ),
    ),
    "page of columns": (
        _workspaces,
        lambda session, of, how: [
            session.get_one(Workspace, row.id) if not isinstance(row.settings, RawDocument) else row
            for row in page(session, _select_settings(), order_by=[Workspace.id], on_invalid=how)
        ],
    ),
}


def _select_settings() -> Any:

    return select(Workspace.id, Workspace.settings)


@pytest.mark.requirement("AD-017", "VR-020")
@pytest.mark.parametrize("name", LISTS)
def test_one_row_costs_itself(session: Session, workspace: UUID, name: str) -> None:
    """ "raise" names the row, "skip" leaves it out, "raw" brings what is stored; the stored document stays, and others are read."""
    make, listed = LISTS[name]
    rows = make(session)
    good, bad = rows.good.id, rows.bad.id
    with pytest.raises(errors.UnknownSchemaVersionError) as raised, session.begin_nested():
        list(listed(session, rows.of, "raise"))
    assert raised.value.found == 999
    assert raised.value.key == bad or name == "page of columns"
    session.expunge_all()
    kept = {row.id for row in listed(session, rows.of, "skip")}
    assert good in kept
    assert bad not in kept
    session.expunge_all()
    held = {row.id: row for row in listed(session, rows.of, "raw")}
    assert {good, bad} <= set(held)
    raw = [value for value in _documents_of(held[bad]) if isinstance(value, RawDocument)]
    assert [found.raw for found in raw] == [{"schema_version": 999}]
    assert not [value for value in _documents_of(held[good]) if isinstance(value, RawDocument)]
    session.flush()
    with pytest.raises(errors.ValidationError, match="on_invalid"):
        list(listed(session, rows.of, "anything"))  # type: ignore[arg-type]


def _documents_of(row: Any) -> list[Any]:
    if not hasattr(row, "_sa_instance_state"):
        return [row.settings]
    return [row.__dict__.get(column.key) for column in inspect_entity(type(row)).column_attrs]


@pytest.mark.offline
def test_every_such_function_is_tried() -> None:
    """A list that is new is added to the cases above."""
    assert set(FUNCTIONS) - set(WITHOUT) - set(LISTS) == set()


def test_a_page_that_left_rows_out_goes_on_where_it_should(session: Session, workspace: UUID) -> None:
    """The cursor is that of the rows, not of those that could be read: nothing is skipped, and nothing comes twice."""
    first = make_run(session, started=False)
    made = [first, *(runs.create(session, runs.RunCreate(definition_id=first.definition_id, config=first.config)) for _ in range(5))]
    ids = sorted((row.id for row in made), reverse=True)
    for row in made[::2]:
        _break(session, row, "progress")
    readable = [row.id for row in made[1::2]]
    found, cursor = [], None
    while True:
        part = runs.list_all(session, cursor=cursor, limit=2, on_invalid="skip")
        found += [row.id for row in part]
        cursor = part.next_cursor
        if cursor is None:
            break
    assert sorted(found, reverse=True) == [id for id in ids if id in readable]
    assert make_definition(session) is not None
