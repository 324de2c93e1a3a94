-- +goose Up

-- All times are nanoseconds since 1970 in UTC, NULL when they have not come yet.
CREATE TABLE batch (
    no              INTEGER PRIMARY KEY, -- order of creation
    id              TEXT    NOT NULL UNIQUE,
    state           TEXT    NOT NULL,
    root            TEXT    NOT NULL,
    overwrite       TEXT    NOT NULL,
    mode            INTEGER NOT NULL,
    actor           TEXT    NOT NULL,
    manifest        TEXT    NOT NULL,
    manifest_sha256 TEXT    NOT NULL,
    archive         TEXT    NOT NULL,
    total           INTEGER NOT NULL,
    created_at      INTEGER,
    sealed_at       INTEGER,
    ended_at        INTEGER,
    -- A cache of what is in result.
    restored        INTEGER NOT NULL DEFAULT 0,
    unchanged       INTEGER NOT NULL DEFAULT 0,
    failed          INTEGER NOT NULL DEFAULT 0,
    skipped         INTEGER NOT NULL DEFAULT 0,
    cancelled       INTEGER NOT NULL DEFAULT 0,
    bytes           INTEGER NOT NULL DEFAULT 0
);

-- Rows are only ever added, so that no is the order of arrival without gaps.
CREATE TABLE result (
    no          INTEGER PRIMARY KEY,
    batch_no    INTEGER NOT NULL REFERENCES batch (no),
    idx         INTEGER NOT NULL,
    tombstone   TEXT    NOT NULL,
    output      TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    labels      TEXT    NOT NULL, -- a JSON object, or empty
    outcome     TEXT    NOT NULL,
    code        TEXT    NOT NULL,
    detail      TEXT    NOT NULL,
    attempts    INTEGER NOT NULL,
    item        TEXT    NOT NULL,
    repo        TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    sha256      TEXT    NOT NULL,
    size        INTEGER NOT NULL,
    target      TEXT    NOT NULL,
    worker      TEXT    NOT NULL,
    finished_at INTEGER,
    queue_ms    REAL    NOT NULL,
    read_ms     REAL    NOT NULL,
    decode_ms   REAL    NOT NULL,
    write_ms    REAL    NOT NULL,
    total_ms    REAL    NOT NULL,
    UNIQUE (batch_no, idx)
);

-- What went wrong is what people ask for, and is rare.
CREATE INDEX result_unhappy ON result (batch_no, idx, outcome, code)
    WHERE outcome NOT IN ('restored', 'unchanged');

-- The end of the evidence log that belongs to the results here; one row.
CREATE TABLE evidence (
    no        INTEGER PRIMARY KEY CHECK (no = 1),
    "offset"  INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    prev      TEXT    NOT NULL
);

PRAGMA application_id = 0x6578686d; -- "exhm"
PRAGMA user_version = 1;

-- +goose Down

-- loses: every batch, every result and the evidence position
DROP TABLE evidence;
DROP TABLE result;
DROP TABLE batch;

PRAGMA application_id = 0;
PRAGMA user_version = 0;
