"""stemmadb.errors: one root, typed fields, stable codes, messages that say what to do."""

import inspect
import pickle
from pathlib import Path

import pytest

from stemmadb import errors
from stemmadb.errors import StemmaError

pytestmark = pytest.mark.offline

# One of each, with what the fields hold and a part of the message that a caller may rely on.
SAMPLES: dict[StemmaError, tuple[str, str]] = {
    StemmaError("anything"): ("stemma", "anything"),
    errors.NotFoundError("Definition", "42"): ("not_found", "Definition 42 was not found"),
    errors.ValidationError("Definition content is required", "content"): ("validation", "Definition content is required"),
    errors.ConstraintViolationError("runs_status_check", "status"): ("constraint_violation", "runs_status_check"),
    errors.UnknownFieldError("Run", "colour", ("name", "status")): ("unknown_field", "use one of name, status"),
    errors.InvalidCursorError(): ("invalid_cursor", "start at the first page"),
    errors.ExpiredCursorError(): ("expired_cursor", "start at the first page"),
    errors.DocumentError("runs", "config", 1, "is odd"): ("document", "runs.config of 1 is odd"),
    errors.UnknownSchemaVersionError("runs", "config", 1, 7, 2): ("unknown_schema_version", "Unknown schema version 7 in runs.config of 1"),
    errors.CorruptDocumentError("runs", "config", None, "not a number", "/seed"): ("corrupt_document", "at '/seed': not a number"),
    errors.DocumentTooLargeError(None, None, None, 20, 16): ("document_too_large", "The document has 20 bytes, and 16 is the most"),
    errors.CoverageError(3, 1, 2): ("coverage", 'coverage="overlap"'),
    errors.MalformedFileError("log.jsonl", "line 3", "/score", "expected a number"): (
        "malformed_file",
        "log.jsonl, line 3, /score: expected a number",
    ),
    errors.ConflictError("User", ("email",)): ("conflict", "User with this email already exists"),
    errors.VersionConflictError("Definition", "42", 3, 4): ("version_conflict", "Definition 42 is at version 4, not 3"),
    errors.FrozenError("Definition", "42", "it has runs; fork it"): ("frozen", "fork it"),
    errors.InvalidTransitionError("COMPLETED", "PENDING", "Run 1"): ("invalid_transition", "Run 1 is COMPLETED and cannot become PENDING"),
    errors.LeaseLostError(("a", 1)): ("lease_lost", "Slot a, 1 is no longer held"),
    errors.LabelMovedError("43", "production"): ("label_moved", "Label 'production' is now at 43"),
    errors.ProgressDerivedError("1"): ("progress_derived", "record outcomes"),
    errors.LastOwnerError(): ("last_owner", "make another member an owner first"),
    errors.InsufficientStockError(3, 1): ("insufficient_stock", "3 were asked for and 1 are there"),
    errors.InsufficientHoldingError("BTC"): ("insufficient_holding", "enough of BTC"),
    errors.QuotaExceededError("exports", 5): ("quota_exceeded", "quota of 5 for exports"),
    errors.EmptyCartError(): ("empty_cart", "put something into it"),
    errors.CurrencyMismatchError("EUR", "USD"): ("currency_mismatch", "in USD, not in EUR"),
    errors.CouponError("it expired"): ("coupon", "it expired"),
    errors.ForeignKeyError("runs_definition_id_fkey", "definition_id"): ("foreign_key", "definition_id"),
    errors.ReferenceNotFoundError("runs_definition_id_fkey", "definition_id"): (
        "reference_not_found",
        "definition_id refers to does not exist",
    ),
    errors.StillReferencedError("runs_definition_id_fkey", "definition_id", ("runs",)): ("still_referenced", "still referred to by runs"),
    errors.TenancyError(): ("tenancy", ""),
    errors.WorkspaceNotSetError("definitions.fork"): ("workspace_not_set", "definitions.fork needs a workspace"),
    errors.TenantViolationError("Run"): ("tenant_violation", "Run is not of the session's workspace"),
    errors.AllWorkspacesRequiredError("documents.census"): ("all_workspaces_required", "db.all_workspaces(reason=...)"),
    errors.AuthenticationError(): ("authentication", "The credentials are not valid"),
    errors.PermissionDeniedError("runs.write"): ("permission_denied", "runs.write"),
    errors.DatabaseError("XX000", "odd"): ("database", "odd (SQLSTATE XX000)"),
    errors.DatabaseUnavailableError("gone", True, "57P03"): ("database_unavailable", "gone (SQLSTATE 57P03)"),
    errors.ConnectionLostError(safe_to_retry=True): ("connection_lost", "open a new session"),
    errors.StorageFullError(): ("storage_full", "no space left"),
    errors.EmbeddedServerError(Path("data"), "in use"): ("embedded_server", "data did not start: in use"),
    errors.CommitUnknownError("771"): ("commit_unknown", "whether transaction 771 took effect is not known"),
    errors.QueryTimeoutError("idle", "25P03"): ("query_timeout", "waited too long for its client"),
    errors.LockTimeoutError(): ("lock_timeout", "holds a lock"),
    errors.PoolTimeoutError(5, 5, 2, "app.py:3"): ("pool_timeout", "5 of 5 in use, 2 waiting); the oldest was taken at app.py:3"),
    errors.SerializationError(): ("serialization", "repeat it from its beginning"),
    errors.SchemaOutOfDateError("0003", "0002", "stemmadb migrate up"): ("schema_out_of_date", 'run "stemmadb migrate up"'),
    errors.ConfigurationError("no such host", "db", 5432, "app", "me"): (
        "configuration",
        "no such host (host db, port 5432, database app, user me)",
    ),
    errors.MissingDependencyError("auth"): ("missing_dependency", 'pip install "stemmadb[auth]"'),
    errors.MigrationError("two heads", "0002"): ("migration", "two heads (revision 0002)"),
    errors.SeedError("roles", "row 3"): ("seed", "Seed roles failed at row 3"),
}


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_says_what_and_what_to_do(error: StemmaError) -> None:
    """Code and message of each class are those that callers rely on."""
    code, part = SAMPLES[error]
    assert error.code == code
    assert part in str(error)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_pickles_with_its_fields(error: StemmaError) -> None:
    """An error from another process has the same class, fields, message and notes."""
    error.add_note("SQLSTATE 23505")
    copied = pickle.loads(pickle.dumps(error))
    assert type(copied) is type(error)
    assert copied.__dict__ == error.__dict__
    assert (str(copied), copied.args) == (str(error), error.args)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_the_fields_of_an_error_stand_in_args(error: StemmaError) -> None:
    """The constructor's parameters are in args, in the same order, so that type(error)(*error.args) is the same error."""
    again = type(error)(*error.args)
    assert again.__dict__ == {key: value for key, value in error.__dict__.items() if key != "__notes__"}
    if type(error).__init__ is not Exception.__init__:
        names = list(inspect.signature(type(error)).parameters)
        assert len(error.args) == len(names)
        if not isinstance(error, errors.DocumentError):
            assert [getattr(error, name) for name in names] == list(error.args)


def test_every_class_is_sampled_and_named_in_all() -> None:
    """No class is left out of these tests or of __all__, and each names stemmadb.errors as its module."""
    every = set(_subclasses(StemmaError)) | {StemmaError}
    ours = {error for error in every if error.__module__.startswith("stemmadb")}
    assert ours == {type(error) for error in SAMPLES}
    assert {error.__name__ for error in ours} == set(errors.__all__)
    assert {error.__module__ for error in ours} == {"stemmadb.errors"}
    assert all(inspect.getdoc(error) for error in ours)


def test_codes_are_unique() -> None:
    """A code names one class."""
    codes = [type(error).code for error in SAMPLES]
    assert len(set(codes)) == len(codes)


def test_ids_of_other_workspaces_and_of_nobody_read_the_same() -> None:
    """The message of NotFoundError depends on entity and id alone."""
    assert str(errors.NotFoundError("Run", "7")) == str(errors.NotFoundError("Run", "7"))
    assert "None" not in str(errors.NotFoundError("Run", None))


def test_a_document_error_moves_to_the_place_of_its_document() -> None:
    """located() keeps everything but table, column and key."""
    error = errors.UnknownSchemaVersionError(None, None, None, 7, 2).located("runs", "config", "1")
    assert (error.table, error.column, error.key, error.found, error.known) == ("runs", "config", "1", 7, 2)
    corrupt = errors.CorruptDocumentError(None, None, None, "odd", "/a").located("runs", "config", "1")
    assert (corrupt.reason, corrupt.pointer, corrupt.field) == ("odd", "/a", "config")


def test_a_class_of_a_host_gets_its_own_code() -> None:
    """Deriving from a class of ours is enough."""

    class PaymentRefusedError(errors.ConflictError):
        pass

    assert PaymentRefusedError.code == "payment_refused"


def _subclasses(error: type[StemmaError]) -> list[type[StemmaError]]:
    direct = error.__subclasses__()
    return [*direct, *(item for child in direct for item in _subclasses(child))]
