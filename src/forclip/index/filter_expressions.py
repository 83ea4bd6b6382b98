"""Expressions in filters that have a value: columns, constants, calculations, functions and casts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlglot import exp

from forclip.index.filter_values import (
    EXACT,
    NUMERIC,
    Kind,
    RefusedFilter,
    Value,
    as_double,
    cast_timestamp,
    dated_constant,
    number_constant,
    quote,
    text_constant,
    unify,
)
from forclip.index.schema import BUILT_IN_COLUMNS, DESCRIBED_COLUMNS
from forclip.text.vocabulary import did_you_mean

_CURLY_QUOTES = "\u2018\u2019\u201c\u201d\u201e\u00b4"
_MAX_LISTED = 30  # columns in an error message
_ARITHMETIC: dict[type[exp.Expr], str] = {
    exp.Add: "+",
    exp.Sub: "-",
    exp.Mul: "*",
    exp.Div: "/",
    exp.Mod: "%",
    exp.IntDiv: "//",
}
_OF_TEXT: dict[type[exp.Expr], tuple[Kind, str]] = {  # functions of one or two texts: their kind and SQL
    exp.StartsWith: ("boolean", "starts_with({}, {})"),
    exp.EndsWith: ("boolean", "ends_with({}, {})"),
    exp.Contains: ("boolean", "contains({}, {})"),
    exp.Lower: ("text", "lower({})"),
    exp.Upper: ("text", "upper({})"),
    exp.Trim: ("text", "btrim({})"),
    exp.DPipe: ("text", "({} || {})"),
    exp.Length: ("integer", "CAST(character_length({}) AS bigint)"),
}
_DATE_PARTS = ("year", "month", "day", "hour", "minute", "second", "dow")
_FUNCTIONS = (
    *("lower", "upper", "trim", "length", "left", "right", "concat", "starts_with", "ends_with", "contains"),
    *("regexp_like", "abs", "round", "isnan", "coalesce", "nullif", "date_part", "year", "month", "day", "cast"),
)
_CAST_KINDS: dict[exp.DType, Kind] = {
    **{exp.DType[name]: "integer" for name in ("TINYINT", "SMALLINT", "INT", "BIGINT")},
    **{exp.DType[name]: "text" for name in ("TEXT", "VARCHAR")},
    **{exp.DType[name]: "timestamp" for name in ("TIMESTAMP", "TIMESTAMPNTZ", "TIMESTAMPTZ", "DATETIME")},
    **{exp.DType.DOUBLE: "double", exp.DType.DATE: "date", exp.DType.TIME: "time"},
}
_CASTS: dict[Kind, tuple[Kind, ...]] = {  # to each kind from which others
    "integer": ("integer", "text"),
    "double": (*NUMERIC, "text"),
    "text": ("text", "integer", "boolean", "date"),
    "timestamp": ("timestamp", "date", "text"),
    "date": ("date", "timestamp", "text"),
}
_SQL_TYPES: dict[Kind, str] = {"integer": "bigint", "double": "double", "text": "string", "date": "date"}
_IGNORED = {"typed", "safe", "coalesce", "big_int"}  # properties of sqlglot's dialects


class Expressions:
    """Writes expressions over a store's columns for Lance. columns: by name."""

    def __init__(self, columns: Mapping[str, Value]) -> None:
        self.columns = columns

    def value(self, node: exp.Expr) -> Value:
        """Return an expression's SQL and kind. Raises RefusedFilter for what is not one."""
        match node:
            case exp.Paren():
                return self.value(*arguments(node, "this"))
            case exp.Column():
                return self._column(node)
            case exp.Literal():
                return text_constant(node.name) if node.is_string else _number(node.name)
            case exp.Boolean():
                return Value("boolean", str(node.this).lower(), written(node), bool(node.this))
            case exp.Null():
                raise RefusedFilter("nothing equals NULL: write IS NULL or IS NOT NULL")
            case exp.Neg():
                return self._negative(node)
            case exp.Cast():
                return self._cast(node)
        if type(node) in _ARITHMETIC:
            return self._calculate(node)
        return self._function(node)

    def _column(self, node: exp.Column) -> Value:
        parts = [part.name for part in node.parts]
        if not all(isinstance(part, exp.Identifier) for part in node.parts):
            raise RefusedFilter(f"{written(node)} is not a column")
        name = ".".join(parts)
        found = [name] if name in self.columns else [c for c in self.columns if c.lower() == name.lower()]
        if len(found) > 1:
            raise RefusedFilter(f"{name!r} may be the column {' or '.join(map(repr, found))}")
        if found:
            return self.columns[found[0]]
        own = [c for c in self.columns if c not in BUILT_IN_COLUMNS] or [*DESCRIBED_COLUMNS]
        listed = ", ".join(own[:_MAX_LISTED]) + (", …" if len(own) > _MAX_LISTED else "")
        hint = did_you_mean(name, [*self.columns])
        if name[0] in _CURLY_QUOTES:
            hint = "; write texts in straight quotes, such as 'front'"
        elif not hint and node.this.args.get("quoted"):
            hint = f"; write a text in single quotes: {quote(name)}"
        raise RefusedFilter(f"there is no column {name!r}{hint or f'; the columns are {listed}'}")

    def _negative(self, node: exp.Expr) -> Value:
        value, source = self.value(*arguments(node, "this")), written(node)
        if value.kind not in NUMERIC:
            raise RefusedFilter(f"{value.name}: it has no negative")
        if isinstance(value.constant, Decimal):
            return number_constant(-value.constant, source)
        return _calculated("*", number_constant(Decimal(-1), "-1"), value, source)  # keeps the sign of a zero

    def _calculate(self, node: exp.Expr) -> Value:
        left, right = map(self.value, arguments(node, "this", "expression"))
        for value in (left, right):
            if value.kind not in NUMERIC:
                raise RefusedFilter(f"{value.name}: {written(node)} needs numbers")
        return _calculated(_ARITHMETIC[type(node)], left, right, written(node))

    def _cast(self, node: exp.Expr) -> Value:
        if type(node) is not exp.Cast:
            raise RefusedFilter(f"{written(node)} is not supported")
        inner, to = arguments(node, "this", "to")
        value, source = self.value(inner), written(node)
        kind = _CAST_KINDS.get(to.this)
        if isinstance(value.constant, str) and kind in ("timestamp", "date", "time"):
            return dated_constant(value.constant, kind)
        if kind is None or value.kind not in _CASTS.get(kind, ()):
            hint = ": use round()" if kind == "integer" and value.kind in NUMERIC else ""
            raise RefusedFilter(f"{value.name}: it can't be converted by {source}{hint}")
        if kind == value.kind:
            return Value(kind, value.sql, source, aware=value.aware, nanoseconds=value.nanoseconds)
        if kind == "timestamp":
            return Value(kind, cast_timestamp(value).sql, source)
        return Value(kind, f"CAST({value.sql} AS {_SQL_TYPES[kind]})", source)

    def _function(self, node: exp.Expr) -> Value:
        source, of_type = written(node), type(node)
        if of_type in _OF_TEXT:
            kind, sql = _OF_TEXT[of_type]
            texts = self._all("text", *arguments(node, *("this", "expression")[: sql.count("{}")]))
            return Value(kind, sql.format(*(text.sql for text in texts)), source)
        match node:
            case exp.Left() | exp.Right():
                text, count = map(self.value, arguments(node, "this", "expression"))
                if text.kind != "text" or not isinstance(count.constant, Decimal) or count.kind != "integer":
                    raise RefusedFilter(f"{source} needs a text and a number of characters")
                if count.constant < 0:
                    raise RefusedFilter(f"{source} needs a number of characters of at least 0")
                return Value("text", f"{of_type.__name__.lower()}({_list([text, count])})", source)
            case exp.Concat():
                (parts,) = arguments(node, "expressions")
                return Value("text", f"concat({_list(self._all('text', *parts))})", source)
            case exp.RegexpLike():
                text, pattern = self._all("text", *arguments(node, "this", "expression"))
                if not isinstance(pattern.constant, str):
                    raise RefusedFilter(f"{source}: write regexp_like(column, 'pattern')")
                return Value("boolean", f"regexp_like({_list([text, pattern])})", source)
            case exp.Abs() | exp.Round():
                number = self.value(*arguments(node, "this"))
                if number.kind not in NUMERIC:
                    raise RefusedFilter(f"{number.name}: {source} needs a number")
                name = of_type.__name__.lower()
                if number.kind in EXACT and name == "abs":
                    return Value(number.kind, f"abs({number.sql})", source)
                return Value("double", f"{name}({as_double(number)})", source, single=number.single)
            case exp.IsNan():
                number = self.value(*arguments(node, "this"))
                if number.kind != "double":
                    raise RefusedFilter(f"{number.name}: isnan needs a number with fractions")
                return Value("boolean", f"isnan({number.sql})", source)
            case exp.Coalesce():
                first, others = arguments(node, "this", "expressions")
                return self._first_of([first, *others], "coalesce", source)
            case exp.Nullif():
                return self._first_of(arguments(node, "this", "expression"), "nullif", source)
            case exp.Year() | exp.Month() | exp.Day():
                (moment,) = arguments(node, "this")
                return self._date_part(exp.var(of_type.__name__), moment, source)
            case exp.Extract():
                part, moment = arguments(node, "this", "expression")
                return self._date_part(part, moment, source)
            case exp.Anonymous() if node.name.lower() == "date_part" and len(node.expressions) == 2:
                part, moment = node.expressions
                return self._date_part(part, moment, source)
        if isinstance(node, exp.Func):
            raise RefusedFilter(f"{source} is not supported; filters may use {', '.join(_FUNCTIONS)}")
        raise RefusedFilter(f"{source} is not a part of a condition")

    def _all(self, kind: Kind, *nodes: exp.Expr) -> list[Value]:
        values = [self.value(node) for node in nodes]
        for value in values:
            if value.kind != kind:
                raise RefusedFilter(f"{value.name}, where {kind} is needed")
        return values

    def _first_of(self, nodes: Sequence[exp.Expr], function: str, source: str) -> Value:
        values = unify([self.value(node) for node in nodes])
        kinds: set[Kind] = {value.kind for value in values}
        if kinds <= set(EXACT):
            kinds = {"decimal" if "decimal" in kinds else "integer"}
        if len(kinds) > 1 or kinds & {"other", "time"}:
            raise RefusedFilter(f"{source} needs values of one kind")
        return replace(values[0], kind=kinds.pop(), sql=f"{function}({_list(values)})", source=source, constant=None)

    def _date_part(self, wanted: exp.Expr, node: exp.Expr, source: str) -> Value:
        value, part = self.value(node), wanted.name.lower()
        if value.kind not in ("timestamp", "date"):
            raise RefusedFilter(f"{value.name}: {source} needs a time or a date")
        if part not in _DATE_PARTS or not isinstance(wanted, exp.Var | exp.Literal):
            raise RefusedFilter(f"{source}: the parts are {', '.join(_DATE_PARTS)}")
        sql = value.sql if value.kind == "timestamp" else cast_timestamp(value).sql
        return Value("integer", f"CAST(date_part('{part}', {sql}) AS bigint)", source)


def _number(written: str) -> Value:
    try:
        return number_constant(Decimal(written), written)
    except InvalidOperation:
        raise RefusedFilter(f"{written!r} is not a number") from None


def _calculated(operator: str, left: Value, right: Value, source: str) -> Value:
    """Return a calculation: exact where both numbers are, else as a double; a division by zero has no value."""
    kinds = {left.kind, right.kind}
    if operator == "//" and kinds != {"integer"}:
        raise RefusedFilter(f"{source}: // needs whole numbers")
    if kinds == {"integer"} and operator in ("//", "%"):
        a, b = (f"CAST({value.sql} AS bigint)" for value in (left, right))
        return Value("integer", f"({a} {'%' if operator == '%' else '/'} nullif({b}, 0))", source)
    if "double" not in kinds and operator in ("+", "-", "*"):
        a, b = (v.sql if v.kind == "decimal" else f"CAST({v.sql} AS decimal(38, 0))" for v in (left, right))
        return Value("integer" if kinds == {"integer"} else "decimal", f"({a} {operator} {b})", source)
    if operator == "%" and "decimal" in kinds:
        raise RefusedFilter(f"{source}: % needs whole numbers")
    left, right = unify([left, right])
    single = left.single and right.single
    sql = f"({as_double(left)} {operator} {as_double(right)})"
    return Value("double", f"CAST(CAST({sql} AS float) AS double)" if single else sql, source, single=single)


def _list(values: Sequence[Value]) -> str:
    return ", ".join(value.sql for value in values)


def arguments(node: exp.Expr, *names: str, optional: Sequence[str] = ()) -> list[Any]:
    """Return a node's arguments; refuse a node that lacks one, or that has others."""
    given = {name for name, value in node.args.items() if value not in (None, False, []) and name not in _IGNORED}
    if given - {*names, *optional} or not given.issuperset(names):
        raise RefusedFilter(f"{written(node)} is not supported")
    return [node.args[name] for name in names]


def written(node: exp.Expr) -> str:
    """Return a part of a filter as SQL for a message, shortened."""
    return shorten(node.sql("duckdb"), 60)


def shorten(text: str, length: int) -> str:
    """Cut a text for a message."""
    return text if len(text) <= length else f"{text[:length]}…"
