"""Timeouts as expressions: what they give, what is refused, and that none does harm."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piseduce_runner.expressions import Expression, Facts, parse_timeout

FACTS = Facts(
    image_bytes=2_000_000_000,
    mapped_bytes=1_000_000_000,
    compressed_bytes=400_000_000,
    part_bytes=8_000_000_000,
    nodes=12,
    model="RPI4B",
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("600", 600),
        ("600 + image_bytes / 2000000", 1600),
        ("mapped_bytes / 8_000_000", 125),
        ("compressed_bytes * nodes / 10000000", 480),
        ("part_bytes / 1e8 - -20", 100),
        ("min(nodes, 10) * max(5, 6, nodes)", 120),
        ("600 if model == 'RPI3B+' else 300", 300),
        ("600 if model != 'RPI3B+' else 300", 600),
        ('600 if model in ("RPI3B+", "RPI4B") else 300', 600),
        ("60 if nodes >= 12 else 30 if nodes > 6 else 10", 60),
        ("60 if nodes < 12 else 30 if nodes == 12 else 10", 30),
        ("60 / nodes if nodes <= 3 else 10", 10),
        ("  (40 +\n 2) ", 42),
    ],
)
def test_an_expression_gives_seconds_from_what_is_known(text, seconds):
    assert Expression.parse(text).seconds(FACTS) == pytest.approx(seconds)


def test_only_the_branch_that_holds_is_computed():
    expression = Expression.parse("600 / nodes if nodes > 0 else 60")
    assert expression.seconds(Facts()) == 60


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("600 + image_byte", "unknown name 'image_byte'; known: image_bytes, mapped_bytes"),
        ("2 ** 9", "only + - * /"),
        ("7 // 2", "only + - * /"),
        ("not nodes", "only + - * /"),
        ("+5", "only + - * /"),
        ("nodes.real", "only + - * /"),
        ("[5][0]", "only + - * /"),
        ("(lambda: 5)()", "only min() and max() can be called"),
        ("open('/etc/passwd')", "only min() and max() can be called, not open()"),
        ("min(5)", "min() needs two numbers or more"),
        ("min(*[5, 6])", "only + - * /"),
        ("max(5, 6, key=7)", "max() takes numbers only"),
        ("min(5, model)", "min() needs numbers, and model is text"),
        ("5 + model", "+ needs numbers, and model is text"),
        ("-model", "- needs numbers, and model is text"),
        ("5 + (nodes > 3)", "+ needs numbers, and nodes > 3 is true or false"),
        ("model", "gives text, not seconds"),
        ("nodes > 3", "gives true or false, not seconds"),
        ("5 if nodes else 6", "nodes is a number, not true or false"),
        ("5 if nodes > 3 else model", "5 is a number and model is text"),
        ("5 if model < 'RPI4' else 6", "< needs numbers, and model is text"),
        ("5 if model == 4 else 6", "model is text and 4 is a number"),
        ("5 if model in 'RPI4' else 6", "needs a list of texts in parentheses"),
        ("5 if model in ('RPI4', 4) else 6", "needs a list of texts in parentheses"),
        ("5 if nodes in ('1', '2') else 6", "in needs text, and nodes is a number"),
        ("5 if 1 < nodes < 3 else 6", "one comparison at a time"),
        ("5 if True else 6", "True is neither a number nor text"),
        ("5j", "5j is neither a number nor text"),
        ("nodes / 0", "divides by zero"),
        ("10 - 20", "gives -10 seconds"),
        ("8 * 24 * 3600", "gives 691200 seconds"),
        ("1e999", "is too large"),
        ("5 5", "not an expression"),
        ("5 if", "not an expression"),
        ("5\0", "not an expression"),
        ("(" * 290, "not an expression"),
        ("", "is empty"),
        ("- " * 60 + "5", "nested too deeply"),
        ("nodes + " * 40 + "5", "longer than 300 characters"),
    ],
)
def test_what_is_no_timeout_is_refused_with_the_reason(text, message):
    with pytest.raises(ValueError) as error:
        Expression.parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("600 / part_bytes", "600 / part_bytes divides by zero"),
        ("nodes - 5", "nodes - 5 gives -5 seconds"),
        ("nodes * 60", "nodes * 60 gives 0 seconds"),
        ("7 * 24 * 3600 + nodes", "gives 604800 seconds"),
        ("1e300 * 1e300 * (nodes - 1)", "gives -inf seconds"),
        ("1e300 * 1e300 * nodes", "gives nan seconds"),
    ],
)
def test_a_result_that_is_no_deadline_is_an_error(text, message):
    with pytest.raises(ValueError) as error:
        Expression.parse(text).seconds(Facts())
    assert message in str(error.value)


def test_a_number_is_itself_and_other_text_an_expression():
    assert parse_timeout(30) == parse_timeout(" 30 ") == 30.0
    assert parse_timeout("5 * nodes") == Expression("5 * nodes")


@pytest.mark.parametrize("value", [0, -1, 7 * 24 * 3600, float("nan"), "nan", True, None, [5]])
def test_a_number_that_is_no_deadline_is_refused(value):
    with pytest.raises(ValueError, match="seconds"):
        parse_timeout(value)


WORDS = """
image_bytes nodes model min( max( ( ) , + - * / ** < == in if else 'RPI4' 0 5 1e308 9999999999 not
and lambda : . [ ] := ~ ' " # \\ \n
""".split(" ")


@settings(deadline=None, max_examples=300)
@given(
    st.one_of(
        st.text(max_size=320),
        st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join),
        st.builds(
            lambda part, times, tail: part * times + tail,
            st.sampled_from(["(", "-", "[", "5*", "9", "5if 1<2else ", "min(5,", "'", "not ", "{"]),
            st.integers(0, 400),
            st.sampled_from(["", "5", "model", "5)"]),
        ),
    )
)
def test_no_text_makes_an_expression_do_anything_but_give_seconds_or_a_reason(text):
    try:
        seconds = Expression.parse(text).seconds(FACTS)
    except ValueError:
        return
    assert 0 < seconds < 7 * 24 * 3600
