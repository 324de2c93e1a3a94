package faults

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/schemas"
)

// What the archives hold is damaged, or made to do damage.
func TestData(t *testing.T) {
	strike(t, []fault{
		{"sqlite", false, damaged(func(testing.TB) string { return "" })},
		{"postgres", true, damaged(dbtest.PostgresURL)},
		{"mariadb", true, damaged(dbtest.MariaDBURL)},
		{"bombs", false, bombs},
	})
}

// damaged spoils a third of an archive's artifacts, each in one of many ways. It
// watches that the frames, the length and the SHA-256 of a content are checked before
// anything of it is visible, and that what is damaged harms nobody else: exactly those
// items fail, each with its code: I1, I3.
func damaged(database func(testing.TB) string) func(*testing.T, *rand.Rand) {
	return func(t *testing.T, random *rand.Rand) {
		tr := newTrial(t, random, 600, database(t))
		tr.spoil(damages, 200)
		tr.start(2)
		tr.submit(0)
		tr.finish()
	}
}

// bombs has artifacts that decode to gigabytes, and others whose frames want windows of
// gigabytes. It watches that decoding stops at the declared size and takes no more
// memory than it may, whatever a frame says: I1, I3, and the bound of --memory.
func bombs(t *testing.T, random *rand.Rand) {
	const budget, most = 64 << 20, 192 << 20
	tr := newTrial(t, random, 300, "")
	tr.spoil(explosives, 100)
	tr.start(1, fmt.Sprintf("EXHUME_MEMORY=%d", budget), "EXHUME_GROUP_SIZE=64", "CODEX_ARCHIVE_BATCH_CONCURRENT=4")
	tr.submit(0)
	var peak int64
	ended := tr.wait
	tr.wait = func() int {
		code := ended()
		peak, _ = harness.PeakMemory(tr.workers[0].Pid())
		return code
	}
	tr.finish()
	t.Logf("the worker held %d MiB at most", peak>>20)
	if peak == 0 || peak > most {
		t.Errorf("the worker held %d bytes of memory, want %d at most", peak, most)
	}
}

// row is what an archive says of an artifact, and its true content.
type row struct {
	blob    []byte
	codec   string
	size    int64
	sum     string
	content []byte
}

// damage is something that can be wrong with an artifact.
type damage struct {
	name string
	// code is what its items fail with; empty where they are restored all the same,
	// unless it is with one of the codes of or.
	code schemas.Code
	or   []schemas.Code
	do   func(random *rand.Rand, r *row)
}

// spoil damages the artifacts of so many items, as many in each of the ways.
func (tr *trial) spoil(ways []damage, items int) {
	tr.Helper()
	db := tr.OpenArchive(tr.T)
	defer db.Close() //nolint:errcheck // all is committed
	for i, output := range tr.good()[:items] {
		way, r := ways[i%len(ways)], tr.artifact(db, output)
		way.do(tr.random, r)
		tr.replace(db, output, r)
		is := tr.truth[output]
		if is.code, is.or = way.code, way.or; is.code != "" {
			is.sum = ""
		}
		tr.truth[output] = is
	}
}

// good are the outputs, in any order, whose items are restored when nothing is broken.
func (tr *trial) good() (outputs []string) {
	for output, is := range tr.truth {
		if _, err := os.Lstat(filepath.Join(tr.root, output)); err != nil && is.code == "" {
			outputs = append(outputs, output)
		}
	}
	slices.Sort(outputs)
	tr.random.Shuffle(len(outputs), func(i, j int) { outputs[i], outputs[j] = outputs[j], outputs[i] })
	return outputs
}

// ofOutput finds the artifact of an item.
const ofOutput = ` WHERE id = (SELECT artifact_id FROM item WHERE path = ?)`

// artifact is that of an item, as exhume has stored it.
func (tr *trial) artifact(db *sql.DB, output string) *row {
	tr.Helper()
	r := &row{codec: "zstd"}
	query := tr.placeholders(`SELECT blob_bytes FROM artifact` + ofOutput)
	if err := db.QueryRowContext(tr.Context(), query, output).Scan(&r.blob); err != nil {
		tr.Fatalf("the artifact of %s: %v", output, err)
	}
	r.content = unzstd(tr.T, r.blob)
	r.size, r.sum = int64(len(r.content)), sha(r.content)
	return r
}

// replace puts something else in the place of an item's artifact.
func (tr *trial) replace(db *sql.DB, output string, r *row) {
	tr.Helper()
	query := tr.placeholders(`UPDATE artifact SET blob_bytes = ?, compression = ?, size_bytes = ?, content_sha256 = ?` + ofOutput)
	if _, err := db.ExecContext(context.Background(), query, r.blob, r.codec, r.size, r.sum, output); err != nil {
		tr.Fatalf("the artifact of %s: %v", output, err)
	}
}

// placeholders writes a statement as the archive's database has it.
func (tr *trial) placeholders(query string) string {
	n := 0
	return regexp.MustCompile(`\?`).ReplaceAllStringFunc(query, func(mark string) string {
		if n++; tr.Config.Backend.Backend == archive.Postgres {
			mark = fmt.Sprintf("$%d", n)
		}
		return mark
	})
}
