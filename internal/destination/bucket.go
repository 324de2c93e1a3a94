package destination

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/schemas"
)

const (
	// partSize is the size of the parts in which contents are uploaded, and of
	// the buffer that each Write needs. It grows for contents that would have
	// too many parts.
	partSize = 8 << 20
	// heldBytes bounds the contents that wait in memory for their groups'
	// Commit. What does not fit is uploaded as one part and waits at the server,
	// at the cost of two more requests.
	heldBytes = 64 << 20
	// requests is how many requests of one group are under way at a time.
	requests = 16
)

const (
	// openTimeout bounds the first questions to a bucket.
	openTimeout = time.Minute
	// dropTimeout bounds how long uploads that failed are tidied up.
	dropTimeout = 10 * time.Second
	// staleAfter is the age of uploads that nobody will complete any more.
	staleAfter = 24 * time.Hour
)

// Bucket is a part of an object storage that contents are restored into: the
// objects of one bucket whose keys begin with a prefix. It is safe for
// concurrent use.
//
// Objects have no permission bits, so the mode of the settings has no meaning
// here.
type Bucket struct {
	store        *objects.Store
	name, prefix string
	held         *semaphore.Weighted
	// unconditional says that the server knows no conditional writes.
	unconditional atomic.Bool
}

// OpenBucket opens what lies below prefix/ in a bucket, or all of the bucket.
// The bucket must exist: the error has CodeDestinationMissing where it does not,
// and CodeDestinationDown where its server does not answer within a minute.
//
// It also ends uploads below the prefix that began more than a day ago: nothing
// else says whether they are those of a process that died, and until they end
// they cost storage. Where the prefix is empty none are ended, for they may be
// anybody's; a lifecycle rule of the bucket (AbortIncompleteMultipartUpload)
// does that better.
func OpenBucket(store *objects.Store, bucket, prefix string) (*Bucket, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	b, err := findBucket(ctx, store, bucket, prefix)
	if err == nil && b.prefix != "" {
		// What cannot be ended is in nobody's way.
		_ = b.store.Sweep(ctx, b.name, b.prefix, time.Now().Add(-staleAfter))
	}
	return b, err
}

func findBucket(ctx context.Context, store *objects.Store, bucket, prefix string) (*Bucket, error) {
	b := &Bucket{store: store, name: bucket, prefix: strings.TrimSuffix(prefix, "/"), held: semaphore.NewWeighted(heldBytes)}
	if b.prefix != "" {
		if err := objects.CheckKey(b.prefix); err != nil {
			return nil, fault.New(schemas.CodePathRefused, "destination %s: %w", objects.URL(bucket, prefix), err)
		}
		b.prefix += "/"
	}
	if err := b.greet(ctx); err != nil {
		return nil, err
	}
	return b, nil
}

// greet asks whether the bucket is there. A server that has not answered when
// ctx ends is away.
func (b *Bucket) greet(ctx context.Context) error {
	where := objects.URL(b.name, b.prefix)
	if err := b.store.CheckBucket(ctx, b.name); ctx.Err() != nil {
		return fault.New(schemas.CodeDestinationDown, "destination %q: its server does not answer in time", where)
	} else if err != nil {
		return classifyObject("destination", where, err)
	}
	return nil
}

// key is the key of an output.
func (b *Bucket) key(output string) (string, error) {
	if err := checkOutput(output); err != nil {
		return "", err
	}
	key := b.prefix + output
	if err := objects.CheckKey(key); err != nil {
		return "", fault.New(schemas.CodePathRefused, "output %q: %w", output, err)
	}
	return key, nil
}

// compare says whether an object has this content. Whoever wrote its SHA-256
// beside it is believed; else it is read.
func (b *Bucket) compare(ctx context.Context, key string, size int64, digest string) (same bool, modified time.Time, err error) {
	o, err := b.store.Stat(ctx, b.name, key)
	if err != nil {
		return false, time.Time{}, err
	}
	if o.Size != size || o.SHA256 != "" {
		return o.Size == size && o.SHA256 == digest, o.Modified, nil
	}
	content, o, err := b.store.Get(ctx, b.name, key)
	if err != nil {
		return false, o.Modified, err
	}
	defer content.Close() //nolint:errcheck // opened for reading
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(content, size+1)); err != nil {
		return false, o.Modified, err
	}
	return o.Size == size && hex.EncodeToString(h.Sum(nil)) == digest, o.Modified, nil
}

// classifyObject gives an error of object storage about an output its code. nil
// stays nil, and the error of a context that has ended stays as it is.
func classifyObject(kind, name string, err error) error {
	e, ok := err.(*objects.Error) //nolint:errorlint // as it comes from the store
	if !ok {
		return err
	}
	return fault.New(objectCode(e.Kind), "%s %q: %w", kind, name, err)
}

func objectCode(k objects.Kind) schemas.Code {
	switch k {
	case objects.Failing, objects.Gone, objects.Taken:
		return schemas.CodeDestinationBusy
	case objects.Away:
		return schemas.CodeDestinationDown
	case objects.NoBucket:
		return schemas.CodeDestinationMissing
	case objects.Full:
		return schemas.CodeDestinationFull
	case objects.BadKey:
		return schemas.CodePathRefused
	default:
		return schemas.CodeDestinationDenied
	}
}
