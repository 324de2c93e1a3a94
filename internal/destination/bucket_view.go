package destination

import (
	"context"
	"io/fs"

	"github.com/exhume/exhume/internal/objects"
)

// BucketView is a part of an object storage that is looked at and never changed.
// It is safe for concurrent use.
type BucketView struct{ bucket *Bucket }

// ViewBucket looks at what lies below prefix/ in a bucket, or at all of the
// bucket. Its errors are those of OpenBucket; uploads that nobody will complete
// are left alone.
func ViewBucket(store *objects.Store, bucket, prefix string) (*BucketView, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openTimeout)
	defer cancel()
	b, err := findBucket(ctx, store, bucket, prefix)
	if err != nil {
		return nil, err
	}
	return &BucketView{b}, nil
}

// Compare says whether an object with this content (size in bytes, SHA-256 in
// hex) stands under output. Where nothing stands the error is fs.ErrNotExist.
// An object whose SHA-256 is not kept beside it is read.
func (v *BucketView) Compare(ctx context.Context, output string, size int64, sha256 string) (same bool, err error) {
	key, err := v.bucket.key(output)
	if err != nil {
		return false, err
	}
	same, _, err = v.bucket.compare(ctx, key, size, sha256)
	if objects.Is(err, objects.Missing) {
		return false, fs.ErrNotExist
	}
	return same, classifyObject("output", output, err)
}

// Writable refuses outputs that are no key. What else keeps an object from being
// written only writing can tell.
func (v *BucketView) Writable(output string) error {
	_, err := v.bucket.key(output)
	return err
}

// Close does nothing.
func (v *BucketView) Close() {}
