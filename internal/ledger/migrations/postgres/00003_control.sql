-- +goose Up

-- What steers a batch, and why it is in its state: a JSON object, or empty.
ALTER TABLE batch ADD COLUMN control text NOT NULL DEFAULT '';

-- The attempts that failed before: a JSON array, or empty.
ALTER TABLE result ADD COLUMN history text NOT NULL DEFAULT '';

-- What happened to batches. Rows are only ever added, only under a lock on their
-- batch, and only told_at changes.
CREATE TABLE event (
    seq      bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order of coming
    batch_no bigint  NOT NULL,
    no       bigint  NOT NULL,   -- from 1 in each batch
    id       text    COLLATE "C" NOT NULL UNIQUE,
    body     text    NOT NULL,   -- a JSON object
    told_at  bigint,             -- when it was told to those outside
    UNIQUE (batch_no, no)
);
CREATE INDEX event_untold ON event (seq) WHERE told_at IS NULL;

-- What holds for all batches.
CREATE TABLE setting (
    name  text PRIMARY KEY,
    value text NOT NULL
);

UPDATE ledger_schema SET version = 3, compatible_from = 3;

-- +goose Down

-- loses: what happened to batches and why, their terms, the settings of the fleet and the failed attempts of items; paused batches, and those that were being cancelled, go on
DROP TABLE setting;
DROP TABLE event;
ALTER TABLE result DROP COLUMN history;
ALTER TABLE batch DROP COLUMN control;

-- Version 2 knows two states of batches that have not ended, and ends a running
-- one when its results are as many as its total.
UPDATE batch SET state = CASE WHEN sealed_at IS NULL THEN 'open' ELSE 'running' END
    WHERE state IN ('open', 'sealed', 'running', 'paused');

UPDATE ledger_schema SET version = 2, compatible_from = 2;
