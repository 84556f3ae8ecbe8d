"""Timeouts: seconds, or an expression of what is known when a state begins.

The grammar is a part of Python's: numbers, names (the fields of `Facts`), `+ - * /`, `a if c else
b` with one comparison as its condition, `min()`, `max()`, and quoted text, which is compared only.
There is no power, no loop and nothing but `min` and `max` to call; length and depth are limited:
an expression from a site or an environment cannot keep the driver busy.
"""

import ast
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import Enum
from functools import lru_cache
from typing import Any

# A state that lasts a week has been forgotten.
LIMIT_SECONDS = 7 * 24 * 3600
_RANGE = "a timeout must be above 0 and less than 7 days"
_MOST_CHARACTERS = 300
_MOST_DEPTH = 50


@dataclass(frozen=True)
class Facts:
    """What is known when a state begins; 0 or empty when it is not.

    Sizes are in bytes: of the uncompressed image, of its mapped blocks, of the compressed image,
    and of the partition that was asked for (0: the whole card). `nodes` is the number of nodes in
    the batch, `model` the node's model as in the inventory, `phase` where it runs: `nfs` or
    `deployed`.
    """

    image_bytes: int = 0
    mapped_bytes: int = 0
    compressed_bytes: int = 0
    part_bytes: int = 0
    nodes: int = 0
    model: str = ""
    phase: str = ""


@dataclass(frozen=True)
class Expression:
    """Arithmetic on what is known when a state begins, as it stands in the table."""

    text: str

    @classmethod
    def parse(cls, text: str) -> "Expression":
        """The expression that `text` is. Raises `ValueError` that says what is wrong with it."""
        expression = cls(text.strip())
        body = _body(expression.text)
        if _is_constant(body):
            expression.seconds(Facts())
        return expression

    def seconds(self, facts: Facts) -> float:
        """Its value. Raises `ValueError` when that is no deadline: 0 or less, or a week or more."""
        try:
            value = _value(_body(self.text), facts)
        except ZeroDivisionError:
            raise ValueError(f"{self.text} divides by zero") from None
        if not _is_deadline(value):
            raise ValueError(f"{self.text} gives {value:g} seconds; {_RANGE}")
        return value


def parse_timeout(value: object) -> float | Expression:
    """A timeout from a table or an inventory. Raises `ValueError` that says what is wrong."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return Expression.parse(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is neither seconds nor an expression that gives them")
    if not _is_deadline(value):
        raise ValueError(f"{_RANGE}, in seconds")
    return float(value)


def _is_deadline(seconds: float) -> bool:
    return 0 < seconds < LIMIT_SECONDS


class _Kind(Enum):
    NUMBER = "a number"
    TEXT = "text"
    TRUTH = "true or false"


_NAMES = {f.name: _Kind.TEXT if f.type is str else _Kind.NUMBER for f in fields(Facts)}
_ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}
_ORDER = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}
_EQUALITY = (ast.Eq, ast.NotEq)
_OPERATORS: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_CALLS: dict[str, Callable[..., float]] = {"min": min, "max": max}


@lru_cache(maxsize=256)
def _body(text: str) -> ast.expr:
    """The checked tree of an expression."""
    if not text:
        raise ValueError("the expression is empty")
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f"the expression is longer than {_MOST_CHARACTERS} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, on `5if`: its text is not for us
            body = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else type(error).__name__
        raise ValueError(f"{text!r} is not an expression: {reason}") from None
    _check_depth(body)
    kind = _kind(body)
    if kind is not _Kind.NUMBER:
        raise ValueError(f"{_text(body)} gives {kind.value}, not seconds")
    return body


def _check_depth(body: ast.expr) -> None:
    """Level by level: what comes after this may be recursive."""
    level: list[ast.AST] = [body]
    for _ in range(_MOST_DEPTH):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise ValueError("the expression is nested too deeply")


def _is_constant(node: ast.expr) -> bool:
    return not any(isinstance(part, ast.Name) and part.id in _NAMES for part in ast.walk(node))


def _kind(node: ast.expr) -> _Kind:
    """What an expression gives, by the types of its parts. Raises `ValueError`."""
    match node:
        case ast.Constant(value=value):
            return _constant_kind(node, value)
        case ast.Name(id=name):
            if name not in _NAMES:
                raise ValueError(f"unknown name {name!r}; known: {', '.join(_NAMES)}")
            return _NAMES[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            _need(_Kind.NUMBER, "- needs numbers", operand)
            return _Kind.NUMBER
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            _need(_Kind.NUMBER, f"{_ARITHMETIC[type(op)]} needs numbers", left, right)
            if isinstance(op, ast.Div) and _is_constant(right) and _value(right, Facts()) == 0:
                raise ValueError(f"{_text(node)} divides by zero")
            return _Kind.NUMBER
        case ast.Call():
            return _call_kind(node)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _comparison_kind(left, op, right)
        case ast.Compare():
            raise ValueError(f"{_text(node)}: one comparison at a time")
        case ast.IfExp(test=test, body=first, orelse=second):
            test_kind = _kind(test)
            if test_kind is not _Kind.TRUTH:
                raise ValueError(f"{_text(test)} is {test_kind.value}, not true or false")
            return _same_kind(first, second)
        case _:
            raise _refusal(node)


def _constant_kind(node: ast.expr, value: object) -> _Kind:
    if isinstance(value, str):
        return _Kind.TEXT
    if type(value) not in (int, float):
        raise ValueError(f"{_text(node)} is neither a number nor text")
    if value == float("inf"):
        raise ValueError("a number of the expression is too large")
    return _Kind.NUMBER


def _call_kind(node: ast.Call) -> _Kind:
    name = node.func.id if isinstance(node.func, ast.Name) else "another"
    if name not in _CALLS:
        raise ValueError(f"only min() and max() can be called, not {name}()")
    if node.keywords:
        raise ValueError(f"{name}() takes numbers only")
    _need(_Kind.NUMBER, f"{name}() needs numbers", *node.args)
    if len(node.args) < 2:
        raise ValueError(f"{name}() needs two numbers or more")
    return _Kind.NUMBER


def _comparison_kind(left: ast.expr, op: ast.cmpop, right: ast.expr) -> _Kind:
    if type(op) in _ORDER:
        _need(_Kind.NUMBER, f"{_ORDER[type(op)]} needs numbers", left, right)
    elif isinstance(op, _EQUALITY):
        _same_kind(left, right)
    elif isinstance(op, ast.In):
        _need(_Kind.TEXT, "in needs text", left)
        texts = right.elts if isinstance(right, ast.Tuple) else [right]
        are_texts = [isinstance(x, ast.Constant) and isinstance(x.value, str) for x in texts]
        if not isinstance(right, ast.Tuple) or not all(are_texts):
            raise ValueError("in needs a list of texts in parentheses: ('RPI3B+', 'RPI4B')")
    else:
        raise _refusal(op)
    return _Kind.TRUTH


def _need(kind: _Kind, rule: str, *nodes: ast.expr) -> None:
    for node in nodes:
        found = _kind(node)
        if found is not kind:
            raise ValueError(f"{rule}, and {_text(node)} is {found.value}")


def _same_kind(first: ast.expr, second: ast.expr) -> _Kind:
    one, other = _kind(first), _kind(second)
    if one is not other:
        raise ValueError(
            f"{_text(first)} is {one.value} and {_text(second)} is {other.value}:"
            " they do not go together"
        )
    return one


def _refusal(node: ast.AST) -> ValueError:
    part = f"{_text(node)}: " if isinstance(node, ast.expr) else ""
    return ValueError(
        f"{part}only + - * /, < <= > >= == != in, if-else, min() and max() are known here"
    )


def _text(node: ast.expr) -> str:
    return ast.unparse(node)


def _value(node: ast.expr, facts: Facts) -> Any:
    """The value of a checked expression; only the branch that holds is computed."""
    match node:
        case ast.Constant(value=value):
            return value if isinstance(value, str) else float(value)
        case ast.Name(id=name):
            value = getattr(facts, name)
            return value if isinstance(value, str) else float(value)
        case ast.UnaryOp(operand=operand):
            return -_value(operand, facts)
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, facts), _value(right, facts))
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _CALLS[name](*(_value(argument, facts) for argument in arguments))
        case ast.Compare(left=left, ops=[ast.In()], comparators=[ast.Tuple(elts=texts)]):
            return any(_value(left, facts) == text.value for text in texts)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _OPERATORS[type(op)](_value(left, facts), _value(right, facts))
        case ast.IfExp(test=test, body=first, orelse=second):
            return _value(first if _value(test, facts) else second, facts)
    raise AssertionError(f"not checked: {ast.dump(node)}")
