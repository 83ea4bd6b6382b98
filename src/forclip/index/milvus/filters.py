"""SQL filters in the words of Milvus.

A filter is first checked as every filter is (`forclip.index.filters`), then each part is translated. Milvus has fewer
functions than SQL; what it lacks, or treats differently in some version, is refused by name. A missing value makes no
comparison true, as in SQL: every comparison of a column that may lack values says so.
"""

import re
from collections.abc import Sequence
from datetime import date, datetime, time
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor
from typing import NamedTuple

import pyarrow as pa
from sqlglot import exp

from forclip.index.filter_expressions import Expressions, arguments, shorten, written
from forclip.index.filter_values import RefusedFilter, Value, dated_constant, quote
from forclip.index.filters import MOST_SHOWN, Condition, all_of, any_of, lance_filter, negated, parse_filter
from forclip.index.milvus.columns import FILTERABLE, OF_IMAGES, PublishedColumn, microseconds

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_SWAPPED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_COMPARISONS: dict[type[exp.Expr], str] = {
    **{exp.EQ: "==", exp.NEQ: "!=", exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<="},
}
_DAY = 86_400_000_000  # microseconds
_LARGEST_INTEGER = 2**63 - 1


@lru_cache(64)
def milvus_filter(where: str, columns: tuple[PublishedColumn, ...]) -> str:
    """Translate a filter over the columns of every store and these columns of the user.

    Raises ValueError, in one sentence that quotes the filter, for bad SQL and for what Milvus can't do.
    """
    checked = (*columns, *FILTERABLE, *OF_IMAGES)
    lance_filter(where, pa.schema([(column.name, column.arrow_type) for column in checked]))
    try:
        return _Translation((*FILTERABLE, *columns)).condition(parse_filter(where)).true
    except RefusedFilter as error:
        raise ValueError(f"can't select images by {shorten(where, MOST_SHOWN)!r}: {error}") from None


def quoted_text(text: str) -> str:
    """Quote a text for Milvus."""
    return f'"{text.translate(_ESCAPES)}"'


class _Operand(NamedTuple):
    """A side of a comparison: a column, or the constant that a column is compared with."""

    column: PublishedColumn | None
    constant: str | bool | Fraction | None
    value: Value


class _Translation:
    def __init__(self, columns: Sequence[PublishedColumn]) -> None:
        self._columns = {column.name: column for column in (*OF_IMAGES, *columns)}  # a user's own come last
        self._value = Expressions({name: column.value for name, column in self._columns.items()}).value

    def condition(self, node: exp.Expr) -> Condition:
        """Return the expressions of where a part of a filter is true and false."""
        match node:
            case exp.Paren():
                return self.condition(*arguments(node, "this"))
            case exp.And() | exp.Or():
                parts = [self.condition(part) for part in node.flatten(unnest=False)]
                return all_of(parts) if isinstance(node, exp.And) else any_of(parts)
            case exp.Not():
                return negated(self.condition(*arguments(node, "this")))
            case exp.Is():
                return self._is(*arguments(node, "this", "expression"))
            case exp.In():
                return self._in(node)
            case exp.Between():
                value, low, high = arguments(node, "this", "low", "high")
                return all_of([self._compare(value, ">=", low), self._compare(value, "<=", high)])
            case exp.Like() | exp.Escape():
                return self._like(node)
            case exp.StartsWith() | exp.EndsWith() | exp.Contains():
                return self._part_of_text(node)
            case exp.NullSafeEQ() | exp.NullSafeNEQ():
                equal = self._null_safe_equal(*arguments(node, "this", "expression"))
                return equal if isinstance(node, exp.NullSafeEQ) else negated(equal)
            case exp.Column():
                column = self._column(node)
                return Condition(
                    f"({_known(column)}{column.field} == true)", f"({_known(column)}{column.field} == false)"
                )
        if operator := _COMPARISONS.get(type(node)):
            return self._compare(node.this, operator, node.expression)
        raise _refusal(node)

    def _compare(self, left: exp.Expr, operator: str, right: exp.Expr) -> Condition:
        one, other = self._operand(left), self._operand(right)
        if one.column is None:
            one, other, operator = other, one, _SWAPPED[operator]
        if one.column is None:
            raise _refusal(left, "compare a column with a value")
        column = one.column
        if other.column is not None:
            if column.type != other.column.type:
                raise _refusal(right, "columns of different types can't be compared")
            known = _known(column) + _known(other.column)
            sides = [f"({known}{column.field} {o} {other.column.field})" for o in (operator, _OPPOSITE[operator])]
            return Condition(*sides)
        return Condition(*(_comparison(column, o, other) for o in (operator, _OPPOSITE[operator])))

    def _operand(self, node: exp.Expr) -> _Operand:
        inner = node.unnest()
        if isinstance(inner, exp.Column):
            column = self._column(inner)
            return _Operand(column, None, column.value)
        value = self._value(inner)
        match value.constant:
            case str() | bool():
                return _Operand(None, value.constant, value)
            case Decimal():
                return _Operand(None, Fraction(value.constant), value)
            case datetime():
                return _Operand(None, Fraction(microseconds(value.constant)), value)
        if value.kind == "date" and isinstance(inner, exp.Cast) and isinstance(inner.this, exp.Literal):
            return _Operand(None, Fraction(_microseconds_of_day(inner.this.name)), value)
        raise _refusal(node)

    def _column(self, node: exp.Column) -> PublishedColumn:
        column = self._columns[self._value(node).source]
        if column in OF_IMAGES:
            raise RefusedFilter(
                f"{column.name!r} can't be filtered by in Milvus; filter by 'id' or columns of your own"
            )
        return column

    def _is(self, subject: exp.Expr, expected: exp.Expr) -> Condition:
        if isinstance(expected, exp.Null):
            inner = subject.unnest()
            if not isinstance(inner, exp.Column):
                raise _refusal(subject, "IS NULL goes with a column")
            return _missing(self._column(inner))
        stated = self.condition(subject)
        wanted = stated.true if expected.this else stated.false
        return Condition(wanted, f"(not {wanted})")

    def _in(self, node: exp.Expr) -> Condition:
        subject, options = arguments(node, "this", "expressions")
        return any_of([self._compare(subject, "==", option) for option in options])

    def _null_safe_equal(self, left: exp.Expr, right: exp.Expr) -> Condition:
        if isinstance(left, exp.Null) or isinstance(right, exp.Null):
            return self._is(right if isinstance(left, exp.Null) else left, exp.Null())
        one, other = self._operand(left), self._operand(right)
        if one.column is not None and other.column is not None:
            raise _refusal(left, "IS DISTINCT FROM compares a column with a value")
        column = one.column or other.column
        assert column is not None
        equal, gone = self._compare(left, "==", right), _missing(column)
        return Condition(equal.true, f"({equal.false} OR {gone.true})")

    def _like(self, node: exp.Expr) -> Condition:
        escape, like = None, node
        if isinstance(node, exp.Escape):
            like, escape = node.this, node.expression.name
        if not isinstance(like, exp.Like):
            raise _refusal(node)
        subject, pattern = arguments(like, "this", "expression", optional=("negate",))
        parts, characters = [""], iter(pattern.name)
        for character in characters:
            if character == escape:
                parts[-1] += next(characters, "")
            elif character == "%":
                parts.append("")
            elif character == "_":
                raise _refusal(node, "_ in LIKE differs between versions; write % or, for the character, an ESCAPE")
            else:
                parts[-1] += character
        matches = self._matches(subject, parts, node)
        return negated(matches) if like.args.get("negate") else matches

    def _part_of_text(self, node: exp.Expr) -> Condition:
        subject, part = arguments(node, "this", "expression")
        operand = self._operand(part)
        if not isinstance(operand.constant, str):
            raise _refusal(node, "the part must be a text in quotes")
        parts = ["", operand.constant, ""]
        parts = parts[1:] if isinstance(node, exp.StartsWith) else parts
        return self._matches(subject, parts[:-1] if isinstance(node, exp.EndsWith) else parts, node)

    def _matches(self, subject: exp.Expr, parts: Sequence[str], node: exp.Expr) -> Condition:
        """Return where a text consists of parts with anything between them."""
        column = self._operand(subject).column
        if column is None:
            raise _refusal(node, "LIKE compares a column")
        if any("\\" in part for part in parts):
            raise _refusal(node, "a pattern can't hold a backslash")
        if len(parts) == 1:
            equal = _Operand(None, parts[0], column.value)
            return Condition(*(_comparison(column, operator, equal) for operator in ("==", "!=")))
        if not any(parts):
            return negated(_missing(column))
        pattern = "%".join(re.sub("[%_]", r"\\\g<0>", part) for part in parts)
        like = f"{column.field} LIKE {quoted_text(pattern)}"
        return Condition(f"({_known(column)}{like})", f"({_known(column)}(not ({like})))")


def _comparison(column: PublishedColumn, operator: str, other: _Operand) -> str:
    """Compare a column with a constant that was checked to be of its kind."""
    constant, known = other.constant, _known(column)
    if isinstance(constant, str) and column.value.kind in ("date", "timestamp"):
        moment = dated_constant(constant, column.value.kind).constant  # a date has none
        constant = Fraction(microseconds(moment) if isinstance(moment, datetime) else _microseconds_of_day(constant))
    if isinstance(constant, bool):
        return f"({known}{column.field} {operator} {str(constant).lower()})"
    if isinstance(constant, str):
        return f"({known}{column.field} {operator} {quoted_text(constant)})"
    assert constant is not None
    if column.value.kind == "double":
        return f"({known}{column.field} {operator} {_double(constant)})"
    whole = _whole_comparison(operator, constant / _DAY if column.value.kind == "date" else constant)
    if isinstance(whole, bool):
        gone = _missing(column)
        return gone.false if whole else f"({gone.true} AND {gone.false})"
    return f"({known}{column.field} {whole[0]} {whole[1]})"


def _whole_comparison(operator: str, number: Fraction) -> tuple[str, int] | bool:
    """Return a comparison of whole numbers that holds where the one with any number does; a bool for all or none."""
    if number.denominator != 1:
        match operator:
            case "==" | "!=":
                return operator == "!="
            case ">" | ">=":
                operator, number = ">=", Fraction(ceil(number))
            case _:
                operator, number = "<=", Fraction(floor(number))
    if abs(number) > _LARGEST_INTEGER:
        return operator == "!=" or (("<" in operator) == (number > 0) and operator != "==")
    return operator, int(number)


def _double(number: Fraction) -> str:
    text = repr(float(number))
    return text if "." in text or "e" not in text else text.replace("e", ".0e")


def _microseconds_of_day(text: str) -> int:
    return microseconds(datetime.combine(date.fromisoformat(text), time()))


def _known(column: PublishedColumn) -> str:
    return f"{column.field} is not null AND " if column.nullable else ""


def _missing(column: PublishedColumn) -> Condition:
    if column.nullable:
        return Condition(f"({column.field} is null)", f"({column.field} is not null)")
    always = f"({column.field} == {column.field})"
    return Condition(f"({column.field} != {column.field})", always)


def _refusal(node: exp.Expr, reason: str = "Milvus has no such search") -> RefusedFilter:
    return RefusedFilter(f"{quote(written(node))} can't be translated for Milvus: {reason}")
