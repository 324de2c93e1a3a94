package archive

import (
	"context"
	"time"
)

// storing is a transaction that stores a group.
type storing interface {
	contents(ctx context.Context, sums []string) (contents, error)
	// holder is the tombstone of an item that has this artifact.
	holder(ctx context.Context, artifact string) (tombstone string, err error)
	// put inserts one item and what belongs to it. A *refusal says that it is
	// not there, and that the transaction can go on.
	put(ctx context.Context, r newRow) error
}

// refusal is the reason why the archive does not take one item.
type refusal struct{ error }

// newRow is an item as it goes into the tables.
type newRow struct {
	NewItem
	id, tombstone string
	artifact      string
	sha256        string
	size          int64
	// blob is the content, compressed as codecZstd says; nil if the archive has
	// it already.
	blob     []byte
	metadata string
	// about is the context of the item's ARCHIVE event.
	about string
	at    time.Time // UTC, whole seconds
}

// row is the item as it goes into the tables.
func (p *pending) row(artifact string, blob []byte, now time.Time) (newRow, error) {
	metadata, err := p.metadata(p.Stored)
	if err != nil {
		return newRow{}, err
	}
	about := map[string]any{"commit": p.Commit, "path": p.NewItem.Path, "repo": p.NewItem.Repo, "tool": "exhume"}
	if p.Revived {
		about["revived"] = true
	}
	text, err := compactJSON(about)
	return newRow{
		NewItem: p.NewItem, id: p.Item, tombstone: p.Tombstone, artifact: artifact, sha256: p.SHA256, size: p.Size,
		blob: blob, metadata: metadata, about: text, at: now,
	}, err
}
