package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"

	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/destination"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/schemas"
)

// Verdict is how what stands at the destination compares with a result.
type Verdict string

// The verdicts.
const (
	// VerdictMatch: a regular file or an object of the same size and SHA-256.
	VerdictMatch Verdict = "match"
	// VerdictDiffers: something else.
	VerdictDiffers Verdict = "differs"
	// VerdictMissing: nothing.
	VerdictMissing Verdict = "missing"
	// VerdictError: it cannot be read.
	VerdictError Verdict = "error"
)

// Mark is the verdict as rclone's check marks it.
func (v Verdict) Mark() string {
	switch v {
	case VerdictMatch:
		return "="
	case VerdictDiffers:
		return "*"
	case VerdictMissing:
		return "-"
	default:
		return "!"
	}
}

// Verified is one restored item and what stands under its output now.
type Verified struct {
	Verdict   Verdict         `json:"verdict"`
	Index     int64           `json:"index"`
	Tombstone string          `json:"tombstone"`
	Output    string          `json:"output"`
	Outcome   schemas.Outcome `json:"outcome"`
	// Size (bytes) and SHA256 are those of the result.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// FoundSize is that of what stands there, -1 where it is not known or is no
	// size of a content. FoundSHA256 is empty where size or kind say enough.
	FoundSize   int64  `json:"found_size"`
	FoundSHA256 string `json:"found_sha256,omitempty"`
	// Code is that of an error.
	Code schemas.Code `json:"code,omitempty"`
	// Reason is one line for people, empty for a match.
	Reason string `json:"reason,omitempty"`
}

// VerifyCounts are items by verdict. Match+Differs+Missing+Errors = Checked.
type VerifyCounts struct {
	Checked, Match, Differs, Missing, Errors int64
	// Bytes is how many were read and hashed.
	Bytes int64
}

// Add counts one item.
func (c *VerifyCounts) Add(v Verified) {
	c.Checked++
	if v.FoundSHA256 != "" {
		c.Bytes += v.FoundSize
	}
	switch v.Verdict {
	case VerdictMatch:
		c.Match++
	case VerdictDiffers:
		c.Differs++
	case VerdictMissing:
		c.Missing++
	default:
		c.Errors++
	}
}

const (
	// bucketReads is how many objects are read at a time: a server answers many
	// questions at once.
	bucketReads = 16
	// readAhead is how many items may be under way, or wait for an earlier one.
	readAhead = 256
)

// Verify reads what stands below root where items were restored to, and compares
// it with their results, several at a time. It changes nothing, and gives the
// items in the order of the results; those that were not restored are left out.
// It ends with an error where the destination is not there or its server away.
func Verify(ctx context.Context, cfg *Config, root string, results iter.Seq2[schemas.Result, error]) iter.Seq2[Verified, error] {
	return func(yield func(Verified, error) bool) {
		d, err := openDestination(cfg, root)
		if err != nil {
			yield(Verified{}, err)
			return
		}
		defer d.close()
		d.verify(ctx, results, yield)
	}
}

// readable is a destination that is read and never changed.
type readable struct {
	read func(ctx context.Context, output string, size int64) (destination.Content, error)
	// reads is how many are under way at a time.
	reads int
	close func()
}

func openDestination(cfg *Config, root string) (readable, error) {
	if isBucket(root) {
		return openBucketToRead(cfg, root)
	}
	tree, err := destination.ViewTree(root)
	if err != nil {
		return readable{}, err
	}
	d := readable{read: tree.Read, reads: processors, close: func() { _ = tree.Close() }} // opened for reading
	if !tree.Exists() {
		d.close()
		return d, fmt.Errorf("destination root %s: %w here; --root names another place where the files are", root, fs.ErrNotExist)
	}
	return d, nil
}

func openBucketToRead(cfg *Config, root string) (readable, error) {
	name, prefix, err := objects.ParseURL(root)
	if err != nil {
		return readable{}, err
	}
	store, err := openStore(cfg)
	if err != nil {
		return readable{}, err
	}
	bucket, err := destination.ViewBucket(store, name, prefix)
	if err != nil {
		store.Close()
		return readable{}, err
	}
	return readable{bucket.Read, bucketReads, store.Close}, nil
}

// underWay is an item that is being verified; settled is closed at the end.
type underWay struct {
	Verified
	err     error // of the destination as a whole, or of the results
	settled chan struct{}
}

func (d readable) verify(ctx context.Context, results iter.Seq2[schemas.Result, error], yield func(Verified, error) bool) {
	ctx, stop := context.WithCancel(ctx)
	queue := make(chan *underWay, readAhead)
	var feeder errgroup.Group
	feeder.Go(func() error {
		defer close(queue)
		d.feed(ctx, results, queue)
		return nil
	})
	defer feeder.Wait() //nolint:errcheck // it has none
	defer stop()
	for item := range queue {
		<-item.settled
		if item.err != nil {
			yield(Verified{}, item.err)
			return
		}
		if !yield(item.Verified, nil) {
			return
		}
	}
	if err := ctx.Err(); err != nil {
		yield(Verified{}, err)
	}
}

// feed begins to verify one item after the other, and returns when all that it
// has begun are settled.
func (d readable) feed(ctx context.Context, results iter.Seq2[schemas.Result, error], queue chan<- *underWay) {
	var readers errgroup.Group
	readers.SetLimit(d.reads)
	defer readers.Wait() //nolint:errcheck // an item keeps its error
	for r, err := range results {
		if err == nil && r.Outcome != schemas.OutcomeRestored && r.Outcome != schemas.OutcomeUnchanged {
			continue
		}
		item := &underWay{err: err, settled: make(chan struct{})}
		select {
		case queue <- item:
		case <-ctx.Done():
			return
		}
		if err != nil {
			close(item.settled)
			return
		}
		readers.Go(func() error {
			defer close(item.settled)
			item.Verified, item.err = d.verifyItem(ctx, &r)
			return nil
		})
	}
}

// verifyItem verifies one item. The error is one that all others would have, too.
func (d readable) verifyItem(ctx context.Context, r *schemas.Result) (Verified, error) {
	v := Verified{
		Index: r.Index, Tombstone: r.Tombstone, Output: r.Output, Outcome: r.Outcome, Size: r.Size, SHA256: r.SHA256, FoundSize: -1,
	}
	c, err := d.read(ctx, r.Output, r.Size)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.Verdict, v.Reason = VerdictMissing, "nothing stands there"
		return v, nil
	case ctx.Err() != nil:
		return v, ctx.Err()
	case err != nil && fault.CodeOf(err).Class() == schemas.ClassBackendDown:
		return v, err
	case err != nil:
		v.Verdict, v.Code, v.Reason = VerdictError, fault.CodeOf(err), err.Error()
		return v, nil
	}
	if c.Kind == "" {
		v.FoundSize, v.FoundSHA256 = c.Size, c.SHA256
	}
	v.Verdict = VerdictDiffers
	switch {
	case c.Kind != "":
		v.Reason = c.Kind + " stands there"
	case c.Size != r.Size:
		v.Reason = fmt.Sprintf("%d bytes instead of %d", c.Size, r.Size)
	case c.SHA256 != r.SHA256:
		v.Reason = "its SHA-256 is " + c.SHA256
	default:
		v.Verdict = VerdictMatch
	}
	return v, nil
}
