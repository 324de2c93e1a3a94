-- +goose Up

-- The attempts at items that failed and were followed by another. Rows are only ever
-- added.
CREATE TABLE attempt (
    batch_no  bigint NOT NULL,
    idx       bigint  NOT NULL,
    number    bigint  NOT NULL, -- from 1
    tombstone text    NOT NULL,
    output    text    NOT NULL,
    actor     text    NOT NULL,
    at        bigint,
    worker    text    NOT NULL,
    code      text    NOT NULL,
    detail    text    NOT NULL,
    next_try  bigint,
    PRIMARY KEY (batch_no, idx, number)
);

-- The requests of batches that have not ended, from which they can be published again
-- when the broker has lost them.
CREATE TABLE kept (
    batch_no bigint NOT NULL,
    first    bigint  NOT NULL, -- index of the first item
    last     bigint  NOT NULL, -- index of the last item
    body     bytea   NOT NULL, -- requests as JSON, compressed with zstd
    PRIMARY KEY (batch_no, first)
);

UPDATE ledger_schema SET version = 4;

-- +goose Down

-- loses: the failed attempts at items that have no result yet, and what batches that have not ended would be published again from if the broker lost them
DROP TABLE kept;
DROP TABLE attempt;

UPDATE ledger_schema SET version = 3;
