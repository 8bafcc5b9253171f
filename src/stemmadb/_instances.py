"""
Entities from the rows of SQL text, attached to the session.

They come out as SQLAlchemy's own loading makes them. That prepares a row processor for every column with each execution, and asks of each
row what only joined, inherited or eagerly loaded entities need; ours have one table and no relationships. Eleven definitions, read by
``ancestors`` in an open session, take three quarters of the time so.
"""

import functools
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Generic, TypeVar, cast

from sqlalchemy import Column, inspect
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.orm.attributes import instance_state
from sqlalchemy.orm.state import InstanceState

E = TypeVar("E")


class Loader(Generic[E]):
    """
    Makes entities of rows.

    Args:
        entity: their class.
        columns: the columns of the rows, in order: all that are not deferred, and such as are fetched nevertheless.
    """

    def __init__(self, entity: type[E], columns: Sequence[Column[Any]]) -> None:
        mapper: Mapper[Any] = inspect(entity)
        self.entity: Any = entity
        self.columns = columns
        self._manager = mapper.class_manager
        self._names = tuple(mapper.get_property_by_column(column).key for column in columns)
        self._every_name = frozenset(self._names)
        places = [columns.index(cast("Column[Any]", column)) for column in mapper.primary_key]
        self._key: Any = itemgetter(*places) if len(places) > 1 else lambda row: (row[places[0]],)
        deferred = [found.key for found in mapper.column_attrs if found.key not in self._every_name]
        # The hash of a document, where the row has it, tells whether the document changed.
        hashes = {name.removesuffix("_hash"): place for place, name in enumerate(self._names) if name.endswith("_hash")}
        self._deferred = [(name, hashes.get(name)) for name in deferred]

    @functools.cached_property
    def attributes(self) -> list[Any]:
        """The entity's attributes for the columns of a row, in order."""
        return [getattr(self.entity, name) for name in self._names]

    def is_alone(self, session: Session) -> bool:
        """Whether a statement of the caller's may be executed without SQLAlchemy's own loading: no event listener waits for it."""
        listeners: Any = session.dispatch.do_orm_execute
        # Our own look at what is written, and narrow what is read to the workspace, which such a statement is by itself.
        return not self.is_watched(session) and all(_is_ours(listener) for listener in listeners)

    def is_watched(self, session: Session) -> bool:
        """Whether the application has event listeners that only SQLAlchemy's own loading calls."""
        listeners: Any = self._manager.dispatch
        watchers: Any = session.dispatch
        return bool(listeners.load or listeners.refresh or watchers.loaded_as_persistent)

    def load(self, session: Session, rows: Iterable[Sequence[Any]], *, fresh: bool) -> list[E]:
        """
        Return the entities of the rows, in their order.

        Args:
            session: what they are attached to. An object that it has already stands for its row.
            rows: what was fetched; what stands behind the columns is passed over. Rows without a key, as of outer joins, are left out.
            fresh: whether objects that the session has already take the values of their rows; not those with unflushed changes.
        """
        held: Any = session.identity_map
        entity, manager, names, key_of, session_id = self.entity, self._manager, self._names, self._key, session.hash_key
        settle = self._refresh if fresh else self._complete
        # As WeakInstanceDict.fast_get_state() and _add_unpresent() in one look-up: the key is hashed in Python, which is half of either.
        claim, owner, states = held._dict.setdefault, held._wr, held._dict
        entities = []
        for row in rows:
            key = (entity, key_of(row), None)
            if key[1][-1] is None:
                continue
            # As ClassManager.new_instance(), in fewer calls.
            made = entity.__new__(entity)
            state = InstanceState(made, manager)
            holder = claim(key, state)
            if holder is not state:
                instance = holder.obj()
                if instance is not None:
                    settle(instance, row)
                    entities.append(instance)
                    continue
                # Collected meanwhile, and not yet discarded.
                states[key] = state
            values = made.__dict__
            values[manager.STATE_ATTR] = state
            values.update(zip(names, row, strict=False))
            state.key = key
            state.session_id = session_id
            state._instance_dict = owner
            entities.append(made)
        return cast("list[E]", entities)

    def _refresh(self, instance: Any, row: Sequence[Any]) -> None:
        """Give an object the values of its row; forget what was loaded of its deferred columns, unless it is known to be the same."""
        state = instance_state(instance)
        if state.modified:
            # Only without autoflush. With a new version number, saving it would overwrite what somebody saved meanwhile.
            self._complete(instance, row)
            return
        values = state.dict
        for name, witness in self._deferred:
            if name in values and not self._is_unchanged(values, row, witness):
                del values[name]
        values.update(zip(self._names, row, strict=False))
        state._commit(values, self._names)

    def _is_unchanged(self, values: dict[str, Any], row: Sequence[Any], witness: int | None) -> bool:
        """Return whether a deferred column still has the value that was loaded: by its hash, or else because nothing in the row changed."""
        if witness is not None:
            return bool(values.get(self._names[witness]) == row[witness])
        return all(values.get(name) == value for name, value in zip(self._names, row, strict=False))

    def _complete(self, instance: Any, row: Sequence[Any]) -> None:
        """Give an object the values that it lacks, because they were expired or never loaded."""
        state = instance_state(instance)
        values = state.dict
        if values.keys() >= self._every_name:
            return
        missing = {name: value for name, value in zip(self._names, row, strict=False) if name not in values}
        values.update(missing)
        state._commit(values, missing)


def _is_ours(listener: Any) -> bool:
    return str(getattr(listener, "__module__", "")).startswith("stemmadb.")
