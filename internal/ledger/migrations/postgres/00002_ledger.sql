-- +goose Up

-- Versions are those of the SQLite ledger, whose second is PostgreSQL's first.

-- All times are nanoseconds since 1970 in UTC, NULL when they have not come yet.
-- In each text, what PostgreSQL refuses (NUL, and bytes that are no UTF-8) stands
-- as U+001A and two hexadecimal digits; so does U+001A itself.
CREATE TABLE batch (
    no              bigint  GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- order of creation
    id              text    COLLATE "C" NOT NULL UNIQUE,
    state           text    NOT NULL,
    root            text    NOT NULL,
    overwrite       text    NOT NULL,
    mode            bigint  NOT NULL,
    actor           text    NOT NULL,
    manifest        text    NOT NULL,
    manifest_sha256 text    NOT NULL,
    archive         text    NOT NULL,
    total           bigint  NOT NULL,
    created_at      bigint,
    sealed_at       bigint,
    ended_at        bigint,
    -- A cache of what is in result. Each recording changes it, which is cheap as
    -- long as there is room left on the page.
    restored        bigint  NOT NULL DEFAULT 0,
    unchanged       bigint  NOT NULL DEFAULT 0,
    failed          bigint  NOT NULL DEFAULT 0,
    skipped         bigint  NOT NULL DEFAULT 0,
    cancelled       bigint  NOT NULL DEFAULT 0,
    bytes           bigint  NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Rows are only ever added, and only under a lock on their batch, which is never
-- removed. That is why there is no foreign key: checking it row by row costs time.
CREATE TABLE result (
    batch_no    bigint  NOT NULL,
    idx         bigint  NOT NULL,
    tombstone   text    NOT NULL,
    output      text    NOT NULL,
    actor       text    NOT NULL,
    labels      text    NOT NULL, -- a JSON object, or empty
    outcome     text    NOT NULL,
    code        text    NOT NULL,
    detail      text    NOT NULL,
    attempts    bigint  NOT NULL,
    item        text    NOT NULL,
    repo        text    NOT NULL,
    path        text    NOT NULL,
    sha256      text    NOT NULL,
    size        bigint  NOT NULL,
    target      text    NOT NULL,
    worker      text    NOT NULL,
    finished_at bigint,
    queue_ms    double precision NOT NULL,
    read_ms     double precision NOT NULL,
    decode_ms   double precision NOT NULL,
    write_ms    double precision NOT NULL,
    total_ms    double precision NOT NULL,
    PRIMARY KEY (batch_no, idx)
);

-- What went wrong is what people ask for, and is rare.
CREATE INDEX result_unhappy ON result (batch_no, idx, outcome, code)
    WHERE outcome NOT IN ('restored', 'unchanged');

-- The end of the evidence log that belongs to the results here: one row for
-- each collector, which has a log of its own. The embedded one has no name.
CREATE TABLE evidence_position (
    writer    text   PRIMARY KEY,
    "offset"  bigint NOT NULL,
    seq       bigint NOT NULL,
    prev      text   NOT NULL
);

-- Which migration was the last, and the lowest version of exhume's schema that a
-- program must know to work with it; one row.
CREATE TABLE ledger_schema (
    version         bigint NOT NULL,
    compatible_from bigint NOT NULL
);
INSERT INTO ledger_schema VALUES (2, 2);

-- +goose Down

-- loses: every batch, every result and the evidence positions
DROP TABLE ledger_schema;
DROP TABLE evidence_position;
DROP TABLE result;
DROP TABLE batch;
