"""The tables, and how a store of an earlier version becomes one of this version.

* `deployment`: one active row per node: what is deployed on it, which state it is in, and which
  driver has claimed it. Rows of the past stay, with `active` 0.
* `transition`: the journal, append-only but for the end of a row that is still open: which node
  entered which state, when it left it, how and why.
* `reservation`: who holds which node from `start` to `until`. Rows of the past stay.
* `act`: append-only: who asked for what.

`PRAGMA user_version` is the number of migrations that a store has been through. A migration that
has been released is never changed.
"""

import sqlite3

import sqlite_utils

_VERSION_1 = """
CREATE TABLE deployment (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL,
    active INTEGER NOT NULL DEFAULT 1,
    process TEXT NOT NULL,
    environment TEXT NOT NULL,
    owner TEXT NOT NULL,
    options TEXT NOT NULL,
    memory TEXT NOT NULL,
    status TEXT NOT NULL,
    position INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    percent INTEGER,
    reason TEXT NOT NULL,
    since REAL NOT NULL,
    created REAL NOT NULL,
    claim TEXT,
    claim_expires REAL
) STRICT;
CREATE UNIQUE INDEX one_active_deployment_per_node ON deployment (node) WHERE active = 1;
CREATE TABLE transition (
    id INTEGER PRIMARY KEY,
    deployment INTEGER NOT NULL REFERENCES deployment (id),
    node TEXT NOT NULL,
    process TEXT NOT NULL,
    state TEXT NOT NULL,
    position INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    started REAL NOT NULL,
    ended REAL,
    outcome TEXT,
    reason TEXT NOT NULL DEFAULT '',
    log TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX transitions_of_node ON transition (node, id);
"""

# In version 1 whoever had deployed a node held it: their reservation has no end, so that nobody
# loses a node by the migration.
_VERSION_2 = """
CREATE TABLE reservation (
    id INTEGER PRIMARY KEY,
    node TEXT NOT NULL,
    owner TEXT NOT NULL,
    start REAL NOT NULL,
    until REAL,
    created REAL NOT NULL,
    configuration TEXT,
    active INTEGER NOT NULL DEFAULT 1,
    ended REAL,
    CHECK (until >= start)
) STRICT;
CREATE INDEX active_reservations ON reservation (node, start) WHERE active = 1;
CREATE TABLE act (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    who TEXT NOT NULL,
    what TEXT NOT NULL,
    node TEXT NOT NULL,
    forced INTEGER NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX acts_of_node ON act (node, id);
ALTER TABLE deployment ADD COLUMN record TEXT NOT NULL DEFAULT '{}';
ALTER TABLE deployment ADD COLUMN reservation INTEGER REFERENCES reservation (id);
ALTER TABLE deployment ADD COLUMN cancel_asked_by TEXT NOT NULL DEFAULT '';
ALTER TABLE deployment ADD COLUMN cancel_asked REAL;
ALTER TABLE deployment ADD COLUMN rate INTEGER;
CREATE INDEX deployments_of_node ON deployment (node, id);
CREATE INDEX deployments_of_reservation ON deployment (reservation);
INSERT INTO reservation (node, owner, start, created)
    SELECT node, owner, created, created FROM deployment WHERE active = 1;
UPDATE deployment
    SET reservation = (SELECT id FROM reservation WHERE reservation.node = deployment.node)
    WHERE active = 1;
"""

_MIGRATIONS = (_VERSION_1, _VERSION_2)
VERSION = len(_MIGRATIONS)


def version(database: sqlite_utils.Database | sqlite3.Connection) -> int:
    """How many migrations this store has been through; 0 for a new file."""
    return database.execute("PRAGMA user_version").fetchone()[0]


def migrate(database: sqlite_utils.Database) -> None:
    """Bring the tables to this version. Expects to be in a transaction that may write."""
    for script in _MIGRATIONS[version(database) :]:
        for statement in script.split(";"):
            database.execute(statement)
    database.execute(f"PRAGMA user_version = {VERSION}")
