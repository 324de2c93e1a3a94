-- +goose Up

-- The attempts at items that failed and were followed by another. Rows are only ever
-- added.
CREATE TABLE attempt (
    batch_no  INTEGER NOT NULL REFERENCES batch (no),
    idx       INTEGER NOT NULL,
    number    INTEGER NOT NULL, -- from 1
    tombstone TEXT    NOT NULL,
    output    TEXT    NOT NULL,
    actor     TEXT    NOT NULL,
    at        INTEGER,
    worker    TEXT    NOT NULL,
    code      TEXT    NOT NULL,
    detail    TEXT    NOT NULL,
    next_try  INTEGER,
    PRIMARY KEY (batch_no, idx, number)
) WITHOUT ROWID;

-- The requests of batches that have not ended, from which they can be published again
-- when the broker has lost them.
CREATE TABLE kept (
    batch_no INTEGER NOT NULL REFERENCES batch (no),
    first    INTEGER NOT NULL, -- index of the first item
    last     INTEGER NOT NULL, -- index of the last item
    body     BLOB    NOT NULL, -- requests as JSON, compressed with zstd
    PRIMARY KEY (batch_no, first)
);

UPDATE ledger_schema SET version = 4;

-- +goose Down

-- loses: the failed attempts at items that have no result yet, and what batches that have not ended would be published again from if the broker lost them
DROP TABLE kept;
DROP TABLE attempt;

UPDATE ledger_schema SET version = 3;
