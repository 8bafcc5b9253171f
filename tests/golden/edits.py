"""Documents with one field edited: what a change of a released shape looks like. The class is made again from its edited source."""

import ast
import copy
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

from stemmadb.documents import Document

Edit = Callable[[ast.ClassDef, int], None]
"""Changes one statement of the body of a class in place."""


def edited(document: type[Document]) -> Iterator[tuple[str, type[Document]]]:
    """Yield the class once as it is, and once for each edit of each of its fields and of the fields of its parts; each with a name."""
    definitions, classes = _definitions(document)
    yield "unchanged", _made(document, definitions)
    for name in classes:
        original = next(node for node in definitions if isinstance(node, ast.ClassDef) and node.name == name)
        for position, statement in enumerate(original.body):
            if isinstance(statement, ast.AnnAssign):
                for edit, change in _edits_of(statement):
                    yield f"{name}.{ast.unparse(statement.target)}: {edit}", _changed(document, definitions, original, position, change)
        yield f"{name}: a field more", _changed(document, definitions, original, len(original.body), _add)


def _definitions(document: type[Document]) -> tuple[list[ast.stmt], list[str]]:
    """Return the statements of a document's module that make it: imports, what it uses, itself; and the classes among them."""
    source = inspect.getsourcefile(document)
    assert source is not None
    with open(source, encoding="utf-8") as file:
        module = ast.parse(file.read())
    named = {name: node for node in module.body for name in _names_of(node)}
    used, pending = set[str](), [document.__name__]
    while pending:
        name = pending.pop()
        if name in named and name not in used:
            used.add(name)
            pending += [node.id for node in ast.walk(named[name]) if isinstance(node, ast.Name)]
    kept = [node for node in module.body if isinstance(node, ast.Import | ast.ImportFrom) or used & set(_names_of(node))]
    for node in kept:
        if isinstance(node, ast.ClassDef):
            # Search keys name fields, and are not about the shape.
            node.decorator_list = []
    return kept, [node.name for node in kept if isinstance(node, ast.ClassDef)]


def _names_of(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef):
        return [node.name]
    # Steps are named as other functions are; nothing refers to them by their names.
    if isinstance(node, ast.FunctionDef):
        return [node.name]
    return [target.id for target in node.targets if isinstance(target, ast.Name)] if isinstance(node, ast.Assign) else []


def _made(document: type[Document], definitions: list[ast.stmt]) -> type[Document]:
    """Run the statements, and return the class that they make."""
    # The names of the module are there for what is not among the statements.
    names = dict(vars(sys.modules[document.__module__]))
    exec(compile(ast.Module(definitions, []), f"<{document.__name__}, edited>", "exec"), names)
    made: type[Document] = names[document.__name__]
    assert made is not document
    return made


def _changed(document: type[Document], definitions: list[ast.stmt], original: ast.ClassDef, position: int, change: Edit) -> type[Document]:
    changed = copy.deepcopy(original)
    change(changed, position)
    ast.fix_missing_locations(changed)
    return _made(document, [changed if node is original else node for node in definitions])


def _edits_of(field: ast.AnnAssign) -> Iterator[tuple[str, Edit]]:
    """Yield every edit of one field."""
    written = ast.unparse(field.annotation)
    yield "removed", _remove
    yield "another name", _rename
    for other in ("bool", "tuple[int, ...]"):
        if other != written:
            yield f"as {other}", _typed(other)
    if written.endswith(" | None"):
        yield "no None", _typed(written.removesuffix(" | None"))
    else:
        yield "None as well", _typed(f"{written} | None")
    for call in ("Field(default=-7)", "-7") if _default_of(field) is not None else ("None",):
        yield f"default {call}", _defaulted(call)
    if _default_of(field) is not None:
        yield "required", _defaulted(None)
    if isinstance(field.value, ast.Call):
        for position, keyword in enumerate(field.value.keywords):
            if keyword.arg in ("ge", "gt", "le", "lt"):
                yield f"without {keyword.arg}", _bounded(position, None)
                yield f"another {keyword.arg}", _bounded(position, -99)


def _default_of(field: ast.AnnAssign) -> ast.expr | None:
    """Return what a field's default is written as; None for a required field."""
    if not isinstance(field.value, ast.Call):
        return field.value
    return next((keyword.value for keyword in field.value.keywords if keyword.arg in ("default", "default_factory")), None)


def _remove(made: ast.ClassDef, position: int) -> None:
    made.body[position] = ast.Pass()


def _add(made: ast.ClassDef, position: int) -> None:
    made.body.insert(position, ast.parse("one_more: int = 0").body[0])


def _field(made: ast.ClassDef, position: int) -> Any:
    return made.body[position]


def _rename(made: ast.ClassDef, position: int) -> None:
    target = _field(made, position).target
    target.id = f"{target.id}_renamed"


def _typed(annotation: str) -> Edit:
    def change(made: ast.ClassDef, position: int) -> None:
        _field(made, position).annotation = ast.parse(annotation, mode="eval").body

    return change


def _defaulted(default: str | None) -> Edit:
    def change(made: ast.ClassDef, position: int) -> None:
        _field(made, position).value = None if default is None else ast.parse(default, mode="eval").body

    return change


def _bounded(keyword: int, bound: int | None) -> Edit:
    def change(made: ast.ClassDef, position: int) -> None:
        keywords = _field(made, position).value.keywords
        if bound is None:
            del keywords[keyword]
        else:
            keywords[keyword].value = ast.Constant(bound)

    return change
