"""What is wrong with a site, the worst first."""

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from piseduce_runner.doctor.findings import Finding, Level, of_level
from piseduce_runner.show.text import new_console, print_json

_STYLES = {
    Level.PROBLEM: "bold red",
    Level.WARNING: "yellow",
    Level.NOT_CHECKED: "dim",
    Level.OK: "green",
}


def findings(as_json: bool, found: list[Finding], everything: bool) -> None:
    """All that is not fine, and how many checks are; with `everything`, those too."""
    if as_json:
        rows = [
            {
                "id": one.id,
                "level": one.level.value,
                "subject": one.subject,
                "message": one.message,
                "remedy": one.remedy,
            }
            for one in found
        ]
        counts = {level.name.lower(): len(of_level(found, level)) for level in Level}
        print_json({"findings": rows, "counts": counts})
        return
    console = new_console()
    for level in _STYLES if everything else [one for one in _STYLES if one is not Level.OK]:
        for finding in of_level(found, level):
            _print(console, finding)
    fine = len(of_level(found, Level.OK))
    console.print(Text(f"{fine} check{' is' if fine == 1 else 's are'} fine", style="green"))


def _print(console: Console, finding: Finding) -> None:
    head = Text(f"{finding.level.value}: ", style=_STYLES[finding.level])
    head.append(f"{finding.id}: {finding.subject}", style="bold")
    console.print(head)
    console.print(Padding(Text(finding.message), (0, 0, 0, 4), expand=False))
    if finding.remedy:
        console.print(Padding(Text(f"-> {finding.remedy}"), (0, 0, 0, 4), expand=False))
