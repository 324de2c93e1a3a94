package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path"
	"testing"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

// An archive whose bytes lie partly in object storage and partly in files is
// restored into object storage, to the last byte.
func TestObjectStorage(t *testing.T) {
	t.Parallel()
	s3 := s3test.StartServer(t)
	w := harness.Fixture(t, "sqlite")
	from, to := s3.Bucket(t), s3.Bucket(t)
	w.Config.S3.Endpoint, w.Config.S3.AccessKey, w.Config.S3.SecretKey = s3.Endpoint(), s3test.AccessKey, s3test.SecretKey
	w.Config.S3.Sources = fmt.Sprintf("s3://%s/artifacts, file://%s", from, w.Path("files"))
	store, err := objects.Open(objects.Config{Endpoint: s3.Endpoint(), AccessKey: s3test.AccessKey, SecretKey: s3test.SecretKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	moveBytes(t, w, store, from)

	root := "s3://" + to + "/restored"
	b := w.MustRestore(t, "manifest_all.json", schemas.StatePartial, func(o *app.BatchOptions) { o.Root = root })
	if b.Counts.Restored != 294 || b.Counts.Failed != 10 {
		t.Errorf("counts %+v", b.Counts)
	}
	for _, r := range w.Results(t, b.ID) {
		if r.Outcome != schemas.OutcomeRestored {
			continue
		}
		if want := root + "/" + r.Output; r.Target != want {
			t.Errorf("target %s, want %s", r.Target, want)
		}
		body, _, err := store.Get(t.Context(), to, path.Join("restored", r.Output))
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if _, err := io.Copy(h, body); err != nil {
			t.Fatal(err)
		}
		_ = body.Close()
		if got := hex.EncodeToString(h.Sum(nil)); got != r.SHA256 {
			t.Errorf("%s has SHA-256 %s, want %s", r.Output, got, r.SHA256)
		}
	}
	again := w.MustRestore(t, "manifest.json", schemas.StateSucceeded, func(o *app.BatchOptions) { o.Root, o.Name = root, "again" })
	if again.Counts.Unchanged != 294 {
		t.Errorf("again: %+v", again.Counts)
	}
	// Without permission nothing is read, whatever the archive says.
	w.Config.S3.Sources = ""
	denied := w.MustRestore(t, "manifest.json", schemas.StatePartial, func(o *app.BatchOptions) { o.Name = "denied" })
	if denied.Counts.Failed == 0 || denied.Counts.Restored == 0 {
		t.Errorf("without sources: %+v", denied.Counts)
	}
}

// moveBytes takes the bytes of two artifacts of three out of the archive: into
// the bucket and into files.
func moveBytes(t *testing.T, w *harness.World, store *objects.Store, bucket string) {
	t.Helper()
	db := harness.OpenSQL(t, w.Path("archive.sqlite"))
	defer db.Close() //nolint:errcheck // closed to its end below
	rows, err := db.QueryContext(t.Context(), `SELECT id, blob_bytes FROM artifact WHERE blob_bytes IS NOT NULL ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close() //nolint:errcheck // read to its end
	urls := map[string]string{}
	if err := os.Mkdir(w.Path("files"), 0o755); err != nil {
		t.Fatal(err)
	}
	for n := 0; rows.Next(); n++ {
		var id string
		var blob []byte
		if err := rows.Scan(&id, &blob); err != nil {
			t.Fatal(err)
		}
		switch n % 3 {
		case 0:
			sum := sha256.Sum256(blob)
			err = store.Put(t.Context(), bucket, "artifacts/"+id, blob, hex.EncodeToString(sum[:]), false)
			urls[id] = "s3://" + bucket + "/artifacts/" + id
		case 1:
			err = os.WriteFile(w.Path("files", id), blob, 0o644)
			urls[id] = "file://" + w.Path("files", id)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for id, url := range urls {
		_, err := db.ExecContext(t.Context(), `UPDATE artifact SET blob_bytes = NULL, storage_driver = 'object', object_url = ? WHERE id = ?`, url, id)
		if err != nil {
			t.Fatal(err)
		}
	}
}
