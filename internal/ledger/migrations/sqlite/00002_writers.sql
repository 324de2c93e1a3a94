-- +goose Up

-- The end of the evidence log that belongs to the results here: one row for
-- each collector, which has a log of its own. The embedded one has no name.
CREATE TABLE evidence_position (
    writer    TEXT    PRIMARY KEY,
    "offset"  INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    prev      TEXT    NOT NULL
) WITHOUT ROWID;
INSERT INTO evidence_position SELECT '', "offset", seq, prev FROM evidence;
DROP TABLE evidence;

-- Which migration was the last, and the lowest version of exhume's schema that a
-- program must know to work with it; one row.
CREATE TABLE ledger_schema (
    version         INTEGER NOT NULL,
    compatible_from INTEGER NOT NULL
);
INSERT INTO ledger_schema VALUES (2, 2);

-- Programs that know version 1 only go by this, and by this alone; it stays 2.
PRAGMA user_version = 2;

-- +goose Down

-- loses: the evidence positions of all collectors but the embedded one
CREATE TABLE evidence (
    no        INTEGER PRIMARY KEY CHECK (no = 1),
    "offset"  INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    prev      TEXT    NOT NULL
);
INSERT INTO evidence SELECT 1, "offset", seq, prev FROM evidence_position WHERE writer = '';
DROP TABLE evidence_position;
DROP TABLE ledger_schema;

PRAGMA user_version = 1;
