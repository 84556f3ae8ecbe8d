"""Who asked for what."""

from piseduce_runner.store.database import Database
from piseduce_runner.store.records import Act


class Acts(Database):
    """The acts of the store."""

    def record_act(
        self, who: str, what: str, node: str, now: float, *, forced: bool = False, detail: str = ""
    ) -> None:
        """Note that `who` asked for `what` (a command's name) on the node.

        Do it in one `transaction` with the act itself, so that neither is without the other.
        """
        with self.transaction():
            self._execute(
                "INSERT INTO act (at, who, what, node, forced, detail) VALUES (?, ?, ?, ?, ?, ?)",
                [now, who, what, node, int(forced), detail],
            )

    def acts(self, node: str | None = None, limit: int = 1000) -> list[Act]:
        """The newest `limit` acts, oldest first; on one node or on all."""
        where, arguments = ("WHERE node = ?", [node]) if node is not None else ("", [])
        rows = self._rows(
            f"SELECT * FROM act {where} ORDER BY id DESC LIMIT ?",  # noqa: S608
            [*arguments, limit],
        )
        return [Act(**row | {"forced": bool(row["forced"])}) for row in rows][::-1]
