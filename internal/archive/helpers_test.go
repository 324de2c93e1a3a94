package archive

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

const testdata = "../../integration/testdata"

// fixture copies the archive of a testdata folder and gives the copy's path.
func fixture(t testing.TB, folder string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(testdata, folder, "archive.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "archive.sqlite")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// expectedItem is an item of a fixture's expected.json.
type expectedItem struct {
	Tombstone string   `json:"tombstone"`
	Repo      string   `json:"repo"`
	Path      string   `json:"path"`
	SHA256    string   `json:"sha256"`
	Size      int64    `json:"size"`
	Kind      string   `json:"kind"`
	Reason    string   `json:"reason"`
	Tags      []string `json:"tags"`
	State     string   `json:"state"`
	LegalHold bool     `json:"legal_hold"`
}

func expected(t testing.TB, folder string) (items []expectedItem, unknown []string) {
	t.Helper()
	var doc struct {
		Items   []expectedItem `json:"items"`
		Unknown []expectedItem `json:"unknown"`
	}
	data, err := os.ReadFile(filepath.Join(testdata, folder, "expected.json"))
	if err == nil {
		err = json.Unmarshal(data, &doc)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range doc.Unknown {
		unknown = append(unknown, u.Tombstone)
	}
	return doc.Items, unknown
}

func openReader(t testing.TB, path string) *Reader {
	t.Helper()
	r, err := OpenReader(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func createWriter(t testing.TB, path string) *Writer {
	t.Helper()
	w, err := CreateWriter(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// execSQL changes a database behind the package's back.
func execSQL(t testing.TB, path string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// noise is n bytes that do not compress.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func wantCode(t testing.TB, err error, code schemas.Code) {
	t.Helper()
	if !fault.Is(err, code) {
		t.Errorf("got error %v (%s), want code %s", err, fault.CodeOf(err), code)
	}
}

func newItems(n int, content func(i int) []byte) []NewItem {
	items := make([]NewItem, n)
	for i := range items {
		items[i] = NewItem{Repo: "acme/demo", Path: fmt.Sprintf("src/%d.go", i), Commit: "c0ffee", By: "alice",
			Content: content(i)}
	}
	return items
}

func sequence(items []NewItem) iter.Seq2[NewItem, error] {
	return func(yield func(NewItem, error) bool) {
		for _, n := range items {
			if !yield(n, nil) {
				return
			}
		}
	}
}

// storeAll stores items that must all be accepted.
func storeAll(t testing.TB, w *Writer, items ...NewItem) []Stored {
	t.Helper()
	var all []Stored
	for s, err := range w.Store(t.Context(), sequence(items), StoreOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}

func mustTime(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339, s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
