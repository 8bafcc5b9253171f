"""Which tables there are, and how large they are."""

import pytest
from sqlalchemy import Engine, text
from tests.shown_tables import table_of

from stemmadb import connect
from stemmadb.database import Database
from stemmadb.entity import metadata
from stemmadb.errors import ConfigurationError


@pytest.mark.requirement("VR-096", "RF-049", "TN-055", "EC-270")
def test_table_sizes(committed_db: Database, owner: Engine) -> None:
    """Every table of the packs is there, the largest first, with about as many rows as it has; a notebook shows them."""
    with committed_db.session() as session:
        session.execute(text("INSERT INTO stemma.roles (name) SELECT 'role-' || n FROM generate_series(1, 300) AS n"))
        count = session.scalar(text("SELECT count(*) FROM stemma.roles"))
    with owner.begin() as connection:
        connection.exec_driver_sql("ANALYZE stemma.roles")
    sizes = committed_db.table_sizes()
    by_name = {size.name: size for size in sizes}
    assert {table.name for table in metadata.tables.values()} <= by_name.keys()
    totals = [size.table_bytes + size.index_bytes for size in sizes]
    assert totals == sorted(totals, reverse=True)
    roles = by_name["roles"]
    assert roles.rows == count
    assert min(roles.table_bytes, roles.index_bytes) >= 8192
    assert by_name["run_slots"].rows in {None, 0}
    assert {"name", "table_bytes", "index_bytes", *by_name} <= set(table_of(sizes).said)


def test_table_sizes_of_a_closed_database(db: Database) -> None:
    """It says that it is closed."""
    closed = connect(db.url.render_as_string(hide_password=False))
    closed.close()
    with pytest.raises(ConfigurationError, match="closed"):
        closed.table_sizes()
