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
, control TEXT NOT NULL DEFAULT '');
CREATE TABLE event (
    seq      INTEGER PRIMARY KEY, -- order of coming
    batch_no INTEGER NOT NULL REFERENCES batch (no),
    no       INTEGER NOT NULL,    -- from 1 in each batch
    id       TEXT    NOT NULL UNIQUE,
    body     TEXT    NOT NULL,    -- a JSON object
    told_at  INTEGER,             -- when it was told to those outside
    UNIQUE (batch_no, no)
);
CREATE TABLE evidence_position (
    writer    TEXT    PRIMARY KEY,
    "offset"  INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    prev      TEXT    NOT NULL
) WITHOUT ROWID;
CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
CREATE TABLE kept (
    batch_no INTEGER NOT NULL REFERENCES batch (no),
    first    INTEGER NOT NULL, -- index of the first item
    last     INTEGER NOT NULL, -- index of the last item
    body     BLOB    NOT NULL, -- requests as JSON, compressed with zstd
    PRIMARY KEY (batch_no, first)
);
CREATE TABLE ledger_schema (
    version         INTEGER NOT NULL,
    compatible_from INTEGER NOT NULL
);
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
    total_ms    REAL    NOT NULL, history TEXT NOT NULL DEFAULT '',
    UNIQUE (batch_no, idx)
);
CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX event_untold ON event (seq) WHERE told_at IS NULL;
CREATE INDEX result_unhappy ON result (batch_no, idx, outcome, code)
    WHERE outcome NOT IN ('restored', 'unchanged');
