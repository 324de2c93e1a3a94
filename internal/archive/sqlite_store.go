package archive

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"iter"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Items are stored in groups, one transaction each, until one of these is
// reached.
const (
	storeItems = 1000
	storeBytes = 64 << 20 // of content
)

// maxBlob is what SQLite takes for one row's bytes, with room for the rest of
// the row.
const maxBlob = 1_000_000_000 - 4096

// pending is an item on its way into the archive.
type pending struct {
	NewItem
	Stored
	err error // why it is not stored
}

// Store puts items into the archive and yields each, in order, once it is on
// disk. Content that the archive has already is not stored again. An item that
// cannot be stored is yielded with its Repo and Path and an error, and the
// others go on; an error of the archive itself, whose Stored is zero, ends the
// sequence, and none of the items that were not yielded is stored. An error in
// items is taken as the error of that item.
//
// Memory is needed for a group of items (64 MiB of content, or one item if that
// is larger) before and after compression.
func (w *Writer) Store(ctx context.Context, items iter.Seq2[NewItem, error], opts StoreOptions) iter.Seq2[Stored, error] {
	return func(yield func(Stored, error) bool) {
		var group []*pending
		var size int64
		flush := func() bool {
			if err := w.storeGroup(ctx, group, opts); err != nil {
				yield(Stored{}, w.fault(ctx, "storing items", err))
				return false
			}
			for _, p := range group {
				if !yield(p.Stored, p.err) {
					return false
				}
			}
			group, size = nil, 0
			return true
		}
		for item, err := range items {
			p := prepare(item, err)
			group, size = append(group, p), size+p.Size
			if (len(group) == storeItems || size >= storeBytes) && !flush() {
				return
			}
		}
		flush()
	}
}

// prepare checks the item and reads its content.
func prepare(item NewItem, err error) *pending {
	p := &pending{NewItem: item}
	if err == nil {
		p.NewItem, err = item.checked()
	}
	if err == nil {
		p.Content, err = p.read(maxBlob)
	}
	sum := sha256.Sum256(p.Content)
	p.Stored = Stored{Repo: p.NewItem.Repo, Path: p.NewItem.Path, Reason: p.NewItem.Reason, By: p.NewItem.By,
		SHA256: hex.EncodeToString(sum[:]), Size: int64(len(p.Content))}
	if err != nil {
		p.refuse(err)
	}
	return p
}

// refuse records why the item is not stored.
func (p *pending) refuse(err error) {
	p.err = fmt.Errorf("storing %s %s: %w", p.NewItem.Repo, p.NewItem.Path, err)
	p.Stored = Stored{Repo: p.NewItem.Repo, Path: p.NewItem.Path}
}

// contents are what the archive knows about the contents of a group, by
// SHA-256. stored is -1 for an artifact without bytes.
type contents map[string]*storedContent

type storedContent struct {
	id, codec, url string
	size, stored   int64
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func findContents(ctx context.Context, db querier, group []*pending) (contents, error) {
	var sums []string
	for _, p := range group {
		if p.err == nil {
			sums = append(sums, p.SHA256)
		}
	}
	array, err := json.Marshal(sums)
	if err != nil {
		return nil, err
	}
	rows, err := db.QueryContext(ctx, `
SELECT a.content_sha256, a.id, a.compression, coalesce(a.object_url, ''), a.size_bytes, coalesce(octet_length(a.blob_bytes), -1)
  FROM json_each(?1) AS wanted CROSS JOIN artifact AS a ON a.content_sha256 = wanted.value`, string(array))
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	found := contents{}
	for rows.Next() {
		var sum string
		var c storedContent
		if err := rows.Scan(&sum, &c.id, &c.codec, &c.url, &c.size, &c.stored); err != nil {
			return nil, err
		}
		found[sum] = &c
	}
	return found, rows.Err()
}

// compressNew compresses what the archive lacks, on all processors, before the
// write lock is taken.
func compressNew(group []*pending, found contents) map[string][]byte {
	zipped := map[string][]byte{}
	var lacking []*pending
	for _, p := range group {
		if _, ok := zipped[p.SHA256]; ok || p.err != nil || found.has(p.SHA256) {
			continue
		}
		zipped[p.SHA256] = nil
		lacking = append(lacking, p)
	}
	blobs := make([][]byte, len(lacking))
	var workers errgroup.Group
	workers.SetLimit(runtime.GOMAXPROCS(0))
	for i, p := range lacking {
		workers.Go(func() error {
			blobs[i] = encode(p.Content)
			return nil
		})
	}
	_ = workers.Wait()
	for i, p := range lacking {
		zipped[p.SHA256] = blobs[i]
	}
	return zipped
}

func (c contents) has(sum string) bool { return c[sum] != nil && c[sum].stored >= 0 }

func (w *Writer) storeGroup(ctx context.Context, group []*pending, opts StoreOptions) error {
	if len(group) == 0 {
		return ctx.Err()
	}
	found, err := findContents(ctx, w.db, group)
	if err != nil {
		return err
	}
	zipped := compressNew(group, found)
	return w.inTx(ctx, func(tx *sql.Tx) error {
		// Others may have stored or purged something since.
		found, err := findContents(ctx, tx, group)
		if err != nil {
			return err
		}
		s, err := newStoring(ctx, tx, opts)
		if err != nil {
			return err
		}
		for _, p := range group {
			if p.err != nil {
				continue
			}
			if err := s.store(ctx, p, found, zipped[p.SHA256]); err != nil {
				return err
			}
		}
		return nil
	})
}
