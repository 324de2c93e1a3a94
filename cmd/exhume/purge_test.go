package main

import (
	"database/sql"
	"testing"
)

// purge does to one item what the predecessor's purge --apply does.
func purge(t *testing.T, path, tombstone string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // what matters is checked below
	res, err := db.ExecContext(t.Context(), `UPDATE artifact SET blob_bytes = NULL, storage_driver = 'object',
		object_url = 'purged://dual-control' WHERE id = (SELECT artifact_id FROM item WHERE tombstone_id = ?)`, tombstone)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.RowsAffected(); n != 1 || err != nil {
		t.Fatalf("purged %d artifacts (%v)", n, err)
	}
}
