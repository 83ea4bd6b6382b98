"""SQL filters: parsed and checked completely, then written in the words of Lance.

Lance reads `"name"` as a text, ignores what follows a valid expression, and compares some types in ways of its own. So
it never gets a filter as it was written: sqlglot parses it, every part is checked against the store's columns and their
types, and what was understood is written again. A filter that is accepted selects what DuckDB selects.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import pyarrow as pa
from sqlglot import TokenType, exp
from sqlglot.dialects.duckdb import DuckDB
from sqlglot.errors import SqlglotError

from forclip.index.columns import is_readable
from forclip.index.filter_expressions import Expressions, arguments, shorten, written
from forclip.index.filter_values import RefusedFilter, Value, column_value, compare, quote, unify
from forclip.index.schema import BUILT_IN_COLUMNS, HIDDEN_COLUMNS

logging.getLogger("sqlglot").setLevel(logging.ERROR)  # what it warns about is refused
MOST_SHOWN = 200  # characters of a filter in an error message
_COMPARISONS: dict[type[exp.Expr], str] = {exp.EQ: "=", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<="}
_CONDITION_NODES = (
    *(*_COMPARISONS, exp.NEQ, exp.NullSafeEQ, exp.NullSafeNEQ, exp.And, exp.Or, exp.Not),
    *(exp.Is, exp.In, exp.Between, exp.Like, exp.ILike, exp.Escape),
)
_LOOSE_PAIRS = {  # that sqlglot accepts
    (TokenType.L_PAREN, TokenType.COMMA),
    (TokenType.COMMA, TokenType.COMMA),
    (TokenType.COMMA, TokenType.R_PAREN),
    (TokenType.NOT, TokenType.IS),
    (TokenType.ALIAS, TokenType.R_PAREN),
}


_COUNTED: dict[TokenType, tuple[type[exp.Expr], ...]] = {  # that sqlglot overlooks: `BETWEEN 1 2`, `+ NOT a`
    TokenType.AND: (exp.And, exp.Between),
    TokenType.PLUS: (exp.Add,),
}


class _FilterSql(DuckDB):
    """DuckDB's SQL, in which backticks name a column, too."""

    class Tokenizer(DuckDB.Tokenizer):
        IDENTIFIERS = ['"', "`"]  # noqa: RUF012 (sqlglot's interface)


def lance_filter(where: str, schema: pa.Schema) -> str:
    """Check a filter and write it for Lance. schema: of the store's table.

    Raises ValueError, in one sentence that quotes the filter, if it is not exactly one condition over the store's
    columns.
    """
    usable = (field for field in schema if field.name not in HIDDEN_COLUMNS and is_readable(field.name))
    own_first = sorted(usable, key=lambda field: field.name in BUILT_IN_COLUMNS)
    return _lance_filter(where, tuple((field.name, field.type) for field in own_first))


@lru_cache(64)
def _lance_filter(where: str, fields: tuple[tuple[str, pa.DataType], ...]) -> str:
    try:
        columns = {name: replace(column_value(name, type_), source=as_written(name)) for name, type_ in fields}
        return _Conditions(columns).condition(parse_filter(where)).true
    except RefusedFilter as error:
        message = str(error)
    except SqlglotError as error:
        message = syntax_message(error) + _backticks_missing(where, [name for name, _ in fields])
    except RecursionError:
        message = "it is nested too deeply"
    raise ValueError(f"can't select images by {shorten(where, MOST_SHOWN)!r}: {message}")


def parse_filter(where: str) -> exp.Expr:
    """Parse a text that is exactly one expression."""
    if not where.strip():
        raise RefusedFilter("it is empty")
    if any("\ud800" <= character <= "\udfff" for character in where):
        raise RefusedFilter("it is not valid Unicode")
    tokens = _FilterSql().tokenize(where)
    covered, previous, depth = 0, None, 0
    for token in tokens:
        # Between tokens is white space, or a comment, which would hide a part.
        if hidden := where[covered : token.start].strip():
            raise RefusedFilter(f"it has a comment: {hidden[:30]!r}")
        if token.token_type == TokenType.SEMICOLON:
            raise RefusedFilter("it must be one condition without ;")
        if previous is not None and previous.token_type == token.token_type == TokenType.STRING:
            raise RefusedFilter(f"one text follows another: {quote(previous.text)} {quote(token.text)}")
        pair = None if previous is None else (previous.token_type, token.token_type)
        if pair in _LOOSE_PAIRS or where[token.start] == token.text == "!":
            start = previous.start if previous else token.start
            raise RefusedFilter(f"a part is missing or out of order at {where[start : token.end + 1]!r}")
        depth += {TokenType.L_PAREN: 1, TokenType.R_PAREN: -1}.get(token.token_type, 0)
        if depth < 0:
            raise RefusedFilter(f"a bracket is closed that was not opened, after {where[: token.start][-30:]!r}")
        covered, previous = token.end + 1, token
    if hidden := where[covered:].strip():
        raise RefusedFilter(f"it has a comment: {hidden[:30]!r}")
    if depth:
        raise RefusedFilter("a bracket is not closed")
    (tree,) = _FilterSql().parse_into(exp.Condition, where)
    assert tree is not None
    for kind, nodes in _COUNTED.items():
        if sum(token.token_type == kind for token in tokens) != len([*tree.find_all(*nodes)]):
            raise RefusedFilter(f"{kind.name} is not expected, or is missing")
    return tree


def syntax_message(error: SqlglotError) -> str:
    details = getattr(error, "errors", None) or [{}]
    near, before = (str(details[0].get(key) or "").strip() for key in ("highlight", "start_context"))
    if "nexpected token" not in str(details[0].get("description")) or not near:
        return "a part is missing, or a quote or bracket is not closed"
    return f"it is not one condition: {near!r} is not expected" + (f" after {before[-30:]!r}" if before else "")


@lru_cache(1000)
def as_written(column: str) -> str:
    """A column's name as a filter writes it: in backticks where SQL would read something else, such as `taken on`."""
    try:
        (tree,) = _FilterSql().parse_into(exp.Condition, f"{column} = 1")
    except SqlglotError:
        return f"`{column}`"
    left = tree.this if isinstance(tree, exp.EQ) else None
    is_plain = isinstance(left, exp.Column) and not left.table and left.sql() == column
    return column if is_plain else f"`{column}`"


def _backticks_missing(where: str, columns: Sequence[str]) -> str:
    """An ending for the message about a filter that can't be parsed: which column needs backticks, if one does."""
    for name in sorted(columns, key=len, reverse=True):
        if (written := as_written(name)) != name and re.search(rf'(?<![\w`"]){re.escape(name)}(?![\w`"])', where):
            return f"; write the column as {written}, with backticks"
    return ""


class Condition(NamedTuple):
    """A condition. true, false: SQL of where it is true, and of where it is false; neither holds where it is NULL.

    NOT swaps the two, so that the SQL has no NOT: DataFusion simplifies some conditions that are NULL to FALSE, which
    selects other images only below a NOT.
    """

    true: str
    false: str


def simple(sql: str) -> Condition:
    return Condition(sql, f"({sql} IS FALSE)")


class _Conditions:
    """Writes conditions for Lance. Every part is in brackets, so that precedence never matters."""

    def __init__(self, columns: Mapping[str, Value]) -> None:
        self._value = Expressions(columns).value

    def condition(self, node: exp.Expr) -> Condition:
        """Return the condition that a part of a filter states. Raises RefusedFilter for anything else."""
        match node:
            case exp.Paren():
                return self.condition(*arguments(node, "this"))
            case exp.And() | exp.Or():
                arguments(node, "this", "expression")
                parts = [self.condition(part) for part in node.flatten(unnest=False)]
                return all_of(parts) if isinstance(node, exp.And) else any_of(parts)
            case exp.Not():
                return negated(self.condition(*arguments(node, "this")))
            case exp.Is():
                return self._is(node)
            case exp.In():
                return self._in(node)
            case exp.Between():
                value, low, high = self._operands(*arguments(node, "this", "low", "high"))
                return all_of([simple(compare(">=", value, low)), simple(compare("<=", value, high))])
            case exp.Like() | exp.ILike() | exp.Escape():
                return self._like(node)
            case exp.NEQ():
                return negated(simple(compare("=", *self._operands(*arguments(node, "this", "expression")))))
            case exp.NullSafeEQ() | exp.NullSafeNEQ():
                equal = self._null_safe_equal(*arguments(node, "this", "expression"))
                return equal if isinstance(node, exp.NullSafeEQ) else negated(equal)
        if operator := _COMPARISONS.get(type(node)):
            return simple(compare(operator, *self._operands(*arguments(node, "this", "expression"))))
        value = self._value(node)
        if value.kind != "boolean":
            raise RefusedFilter(f"{value.name}, not a condition")
        return simple(value.sql)

    def _operands(self, *nodes: exp.Expr) -> list[Value]:
        """Return the sides of a comparison, numbers in one form."""
        for node in nodes:
            if isinstance(node.unnest(), _CONDITION_NODES):
                raise RefusedFilter(f"the condition {written(node)} can't be compared: use AND, OR and NOT")
        return unify([self._value(node) for node in nodes])

    def _null_safe_equal(self, left: exp.Expr, right: exp.Expr) -> Condition:
        if isinstance(left, exp.Null) or isinstance(right, exp.Null):
            return self._is_null(right if isinstance(left, exp.Null) else left)
        sides = self._operands(left, right)
        return Condition(*(compare(operator, *sides) for operator in ("IS NOT DISTINCT FROM", "IS DISTINCT FROM")))

    def _is(self, node: exp.Expr) -> Condition:
        subject, expected = arguments(node, "this", "expression")
        if isinstance(expected, exp.Null):
            return self._is_null(subject)
        if not isinstance(expected, exp.Boolean):
            raise RefusedFilter(f"{written(node)}: IS goes with NULL, TRUE or FALSE")
        stated = self.condition(subject)
        sql = stated.true if expected.this else stated.false
        return Condition(sql, f"({sql} IS NOT TRUE)")

    def _is_null(self, node: exp.Expr) -> Condition:
        if isinstance(node.unnest(), _CONDITION_NODES):
            stated = self.condition(node)
            known = f"(({stated.true} IS TRUE) OR ({stated.false} IS TRUE))"
            return Condition(f"({known} IS NOT TRUE)", known)
        sql = self._value(node).sql
        return Condition(f"({sql} IS NULL)", f"({sql} IS NOT NULL)")

    def _in(self, node: exp.Expr) -> Condition:
        subject, options = arguments(node, "this", "expressions")
        value, *values = self._operands(subject, *options)
        comparisons = [simple(compare("=", value, option)) for option in values]  # refuses other kinds
        if value.kind in ("text", "integer") and all(v.kind == value.kind and v.constant is not None for v in values):
            return simple(f"({value.sql} IN ({', '.join(v.sql for v in values)}))")
        return any_of(comparisons)

    def _like(self, node: exp.Expr) -> Condition:
        escape = None
        if isinstance(node, exp.Escape):
            node, character = arguments(node, "this", "expression")
            escape = character.name if isinstance(character, exp.Literal) and character.is_string else ""
            if not isinstance(node, exp.Like | exp.ILike) or len(escape) != 1:
                raise RefusedFilter("ESCAPE goes with LIKE and one character, such as ESCAPE '!'")
        subject, pattern = arguments(node, "this", "expression", optional=("negate",))
        value = self._value(subject)
        if value.kind != "text" or not (isinstance(pattern, exp.Literal) and pattern.is_string):
            raise RefusedFilter(f"{written(node)}: LIKE compares a text with a pattern in quotes, such as 'front%'")
        word = "LIKE" if isinstance(node, exp.Like) else "ILIKE"
        matches = simple(f"({value.sql} {word} {quote(_escaped_pattern(pattern.name, escape))})")
        return negated(matches) if node.args.get("negate") else matches


def negated(condition: Condition) -> Condition:
    return Condition(condition.false, condition.true)


def all_of(parts: Sequence[Condition]) -> Condition:
    return Condition(_join([part.true for part in parts], " AND "), _join([part.false for part in parts], " OR "))


def any_of(parts: Sequence[Condition]) -> Condition:
    return negated(all_of([negated(part) for part in parts]))


def _escaped_pattern(pattern: str, escape: str | None) -> str:
    """Write a LIKE pattern for Lance, which always takes a backslash as the escape character."""
    written, characters = [], iter(pattern)
    for character in characters:
        if character == escape:
            literal = next(characters, None)
            if literal is None:
                raise RefusedFilter(f"the pattern {quote(pattern)} ends with its escape character")
            written.append(f"\\{literal}" if literal in "%_\\" else literal)
        else:
            written.append("\\\\" if character == "\\" else character)
    return "".join(written)


def _join(parts: Sequence[str], word: str) -> str:
    """Join conditions in pairs of pairs, so that thousands of them are not nested deeply."""
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    return f"({_join(parts[:half], word)}{word}{_join(parts[half:], word)})"
