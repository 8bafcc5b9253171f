"""The part of a Database that tells how large its tables are."""

from typing import Final, Protocol

from sqlalchemy import Engine, text

from stemmadb._sqlstates import translate
from stemmadb.notebook import Table
from stemmadb.reports import TableSize

# What was counted since the last crash, else what the last vacuum estimated; -1 is PostgreSQL's word for never.
_SIZES: Final = text(
    """
    SELECT pg_class.relname::text AS name,
           CASE WHEN coalesce(n_live_tup, 0) > 0 THEN n_live_tup WHEN reltuples >= 0 THEN reltuples::bigint END AS rows,
           coalesce(pg_catalog.pg_table_size(pg_class.oid), 0) AS table_bytes,
           coalesce(pg_catalog.pg_indexes_size(pg_class.oid), 0) AS index_bytes
      FROM pg_catalog.pg_class
      LEFT JOIN pg_catalog.pg_stat_all_tables ON pg_stat_all_tables.relid = pg_class.oid
     WHERE relnamespace = pg_catalog.to_regnamespace('stemma') AND relkind = 'r'
     ORDER BY coalesce(pg_catalog.pg_total_relation_size(pg_class.oid), 0) DESC, pg_class.relname
    """
)


class _HasEngine(Protocol):
    """What has an engine."""

    @property
    def engine(self) -> Engine:
        """SQLAlchemy's own engine."""
        ...


class TableReading:
    """Tells how large tables are; a Database is one."""

    def table_sizes(self: _HasEngine) -> list[TableSize]:
        """
        Return every table of the library and how large it is, over all workspaces; the largest first. Notebooks show it as a table.

        One statement, which reads the catalogue and no row. Each table is locked ACCESS SHARE, as by any reading.

        Raises:
            ConfigurationError: this Database was made from an AsyncEngine, or is closed.
            DatabaseUnavailableError: the server cannot be reached.
            LockTimeoutError, QueryTimeoutError: a migration holds a table for too long.
        """
        try:
            with self.engine.connect() as connection:
                rows = connection.execute(_SIZES).all()
        except Exception as error:
            raise translate(error) from None
        return Table(TableSize(row.name, row.rows, row.table_bytes, row.index_bytes) for row in rows)
