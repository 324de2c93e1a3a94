package faults

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/schemas"
)

// truth is what must become of an item.
type truth struct {
	index int64
	// code is empty where the item must be restored or found in place.
	code schemas.Code
	// or are codes with which it may fail instead, where chance decides.
	or []schemas.Code
	// sum is the SHA-256 (hex) of what may stand under the item's name, at any time;
	// empty where nothing may.
	sum string
}

// decided is the truth once an item's result says what chance has decided.
func (is truth) decided(r schemas.Result) truth {
	if slices.Contains(is.or, r.Code) {
		is.code, is.sum = r.Code, ""
	}
	return is
}

// makeTruth makes an archive of so many items, the world's manifest for them, and a
// root in which some of their files stand already. Of a hundred items about two are
// not in the archive, one is in place, and in the place of one are other bytes.
func makeTruth(t *testing.T, w *harness.World, random *rand.Rand, items int, root string) map[string]truth {
	t.Helper()
	all := make(map[string]truth, items)
	w.Store(t, func(yield func(string, []byte) bool) {
		for i := range items {
			content := make([]byte, 100+random.IntN(2000))
			for j := range content {
				content[j] = byte(random.Uint32())
			}
			output, is := harness.Output(i), truth{index: int64(i), sum: sha(content)}
			switch random.IntN(100) {
			case 0, 1:
				is.code, is.sum = schemas.CodeTombstoneNotFound, ""
			case 2:
				place(t, filepath.Join(root, output), content)
			case 3:
				other := fmt.Appendf(nil, "somebody else's %d", i)
				place(t, filepath.Join(root, output), other)
				is.code, is.sum = schemas.CodeDestinationExists, sha(other)
			}
			all[output] = is
			if !yield(output, content) {
				return
			}
		}
	})
	rows := w.Rows(t)
	w.Manifest(t, "manifest.jsonl", int64(items), func(i int64) harness.Row {
		if all[rows[i].Output].code == schemas.CodeTombstoneNotFound {
			return harness.Row{Tombstone: fmt.Sprintf("00000000-0000-4000-8000-%012d", i), Output: rows[i].Output}
		}
		return rows[i]
	})
	return all
}

func sha(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}

// place puts a file where none is.
func place(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
