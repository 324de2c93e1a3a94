package archive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"runtime"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Items are stored in groups, one transaction each, until one of these is
// reached.
const (
	storeItems = 1000
	storeBytes = 64 << 20 // of content
)

// maxBlob is what SQLite and PostgreSQL take for one row's bytes, with room for
// the rest of the row.
const maxBlob = 1_000_000_000 - 4096

// pending is an item on its way into the archive.
type pending struct {
	NewItem
	Stored
	err error // why it is not stored
}

// Store puts items into the archive and yields each, in order, once it is
// committed. Content that the archive has already is not stored again. An item that
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
				yield(Stored{}, w.sink.fault(ctx, "storing items", err))
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

// scanContents reads rows of sha256, id, codec, object URL, size and number of
// stored bytes.
func scanContents(rows rows) (contents, error) {
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

// sumsOf gives the SHA-256 of the items of a group that can be stored.
func sumsOf(group []*pending) (all []string) {
	for _, p := range group {
		if p.err == nil {
			all = append(all, p.SHA256)
		}
	}
	return all
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
	found, err := w.sink.contents(ctx, sumsOf(group))
	if err != nil {
		return err
	}
	zipped := compressNew(group, found)
	return w.sink.store(ctx, func(tx storing) error {
		// Others may have stored or purged something since.
		found, err := tx.contents(ctx, sumsOf(group))
		if err != nil {
			return err
		}
		now := time.Now().UTC().Truncate(time.Second)
		for _, p := range group {
			if p.err != nil {
				continue
			}
			if err := w.storeItem(ctx, tx, opts, p, found, zipped[p.SHA256], now); err != nil {
				return err
			}
		}
		return nil
	})
}

// storeItem stores one item and what belongs to it. What stands in the way of
// this item alone is recorded in p; an error is one of the archive.
func (w *Writer) storeItem(
	ctx context.Context, tx storing, opts StoreOptions, p *pending, found contents, blob []byte, now time.Time,
) error {
	c := found[p.SHA256]
	if err := admit(ctx, tx, opts, p, c); err != nil {
		p.refuse(err)
		return nil
	}
	fresh := !found.has(p.SHA256)
	if !fresh {
		blob = nil
	} else if blob == nil { // purged while the group was being compressed
		blob = encode(p.Content)
	}
	if size, remedy := w.sink.admits(); int64(len(blob)) > size {
		p.refuse(fault.New(schemas.CodeTooLarge, "its %d compressed bytes are more than the %d that the archive can hold in one item%s",
			len(blob), size, remedy))
		return nil
	}
	if fresh {
		id := uuid.NewString()
		if p.Revived = c != nil; p.Revived {
			id = c.id
		}
		c = &storedContent{id: id, codec: codecZstd, size: p.Size, stored: int64(len(blob))}
	}
	p.Reused, p.Codec, p.CompressedSize = !fresh, c.codec, c.stored
	p.Item, p.Tombstone = uuid.NewString(), uuid.NewString()
	row, err := p.row(c.id, blob, now)
	if err == nil {
		err = tx.put(ctx, row)
	}
	if refused, ok := errors.AsType[*refusal](err); ok {
		p.refuse(refused.error)
		return nil
	}
	if err == nil {
		found[p.SHA256] = c
	}
	return err
}

// admit refuses content that must not be stored on top of what the archive has.
func admit(ctx context.Context, tx storing, opts StoreOptions, p *pending, c *storedContent) error {
	switch {
	case c == nil:
		return nil
	case c.stored < 0 && !opts.Revive:
		code, what := schemas.CodeArtifactMissing, "lacks its bytes"
		if StateOf(-1, c.url) == StatePurged {
			code, what = schemas.CodeArtifactPurged, "was purged"
		}
		tombstone, err := tx.holder(ctx, c.id)
		if err != nil {
			tombstone = "of no item"
		}
		return fault.New(code, "this content (sha256 %s, tombstone %s) %s; storing it would bring that item back, which --revive allows",
			p.SHA256, tombstone, what)
	case c.stored >= 0 && c.size != p.Size:
		return fault.New(schemas.CodeIntegrityMismatch, "the archive's artifact %s has this content's sha256 %s but declares %d bytes instead of %d",
			c.id, p.SHA256, c.size, p.Size)
	}
	return nil
}
