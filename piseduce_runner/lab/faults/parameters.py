"""Parameters of faults: what a user may give, and how it is read."""

from dataclasses import dataclass
from enum import Enum

from piseduce_runner.errors import UserError
from piseduce_runner.lab.settings import parse_amount, parse_link_rate

Value = int | float | str

MAX_COUNT = 1_000_000
MAX_SECONDS = 3600


class Kind(Enum):
    """What a parameter's value is."""

    COUNT = "a whole number"
    SECONDS = "seconds"
    PERCENT = "percent"
    BYTES = "bytes, such as 20M"
    BITS = "bits/s, such as 100M"
    CHOICE = "one of a few words"


@dataclass(frozen=True)
class Parameter:
    """One `key=value` of a fault. A `default` of None: it has to be given."""

    name: str
    kind: Kind
    default: Value | None
    about: str
    choices: tuple[str, ...] = ()

    def read(self, text: str, fault: str) -> Value:
        """The value that `text` means. UserError: it means none."""
        where = f"{fault} {self.name}={text}"
        match self.kind:
            case Kind.COUNT:
                return int(_number(text, where, "a whole number", MAX_COUNT, whole=True))
            case Kind.SECONDS:
                return _number(text, where, "a number of seconds", MAX_SECONDS)
            case Kind.PERCENT:
                return int(_number(text, where, "a whole number", 100, least=1, whole=True))
            case Kind.BYTES:
                return 0 if text == "0" else parse_amount(text, f"{fault} {self.name}")
            case Kind.BITS:
                return parse_link_rate(text, f"{fault} {self.name}")
        if text not in self.choices:
            raise UserError(f"{where}: one of {', '.join(self.choices)} is expected")
        return text


def _number(
    text: str, where: str, what: str, most: float, least: float = 0, whole: bool = False
) -> float:
    try:
        number = int(text) if whole else float(text)
    except ValueError as error:
        raise UserError(f"{where}: {what} is expected") from error
    if not least <= number <= most:  # also says no to nan
        raise UserError(f"{where}: {what} from {least} to {most} is expected")
    return number
