package objects

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/minio/minio-go/v7"
)

const (
	// MinPart is the size of the smallest part of an upload but the last.
	MinPart = 5 << 20
	// MaxParts is how many parts an upload may have.
	MaxParts = 10_000
)

// Upload writes an object in parts. Nothing of it is visible before Complete.
// It ends with Complete or Abort; if Complete fails, Abort is still needed.
type Upload struct {
	store           *Store
	bucket, key, id string
	parts           []minio.CompletePart
}

// Begin begins an upload of a content whose SHA-256 in hex is digest, which is
// kept as metadata. The server checks the parts; that they make up the digest is
// the caller's to check.
func (s *Store) Begin(ctx context.Context, bucket, key, digest string) (*Upload, error) {
	id, err := s.client.NewMultipartUpload(ctx, bucket, key, options(digest))
	if err != nil {
		return nil, s.fault(ctx, bucket, key, err)
	}
	return &Upload{store: s, bucket: bucket, key: key, id: id}, nil
}

// Part uploads the next part: MinPart bytes or more unless it is the last.
func (u *Upload) Part(ctx context.Context, content []byte) error {
	digest := sha256.Sum256(content)
	part, err := u.store.client.PutObjectPart(ctx, u.bucket, u.key, u.id, len(u.parts)+1,
		bytes.NewReader(content), int64(len(content)),
		minio.PutObjectPartOptions{Sha256Hex: hex.EncodeToString(digest[:]), DisableContentSha256: true})
	if err != nil {
		return u.store.fault(ctx, u.bucket, u.key, err)
	}
	u.parts = append(u.parts, minio.CompletePart{PartNumber: part.PartNumber, ETag: part.ETag})
	return nil
}

// Complete makes the object visible; onlyNew is that of Put. An error may also
// mean that it is not known whether it is visible: Gone says that the upload
// ended, perhaps by an earlier try whose answer was lost.
func (u *Upload) Complete(ctx context.Context, onlyNew bool) error {
	var opts minio.PutObjectOptions
	if onlyNew {
		opts.SetMatchETagExcept("*")
	}
	_, err := u.store.client.CompleteMultipartUpload(ctx, u.bucket, u.key, u.id, u.parts, opts)
	return u.store.fault(ctx, u.bucket, u.key, err)
}

// Abort drops what was uploaded. Where that fails, Sweep does it another day.
func (u *Upload) Abort(ctx context.Context) {
	_ = u.store.client.AbortMultipartUpload(ctx, u.bucket, u.key, u.id)
}

// Sweep aborts the uploads below a prefix that began before a time. A server
// does not say whose they are.
func (s *Store) Sweep(ctx context.Context, bucket, prefix string, before time.Time) error {
	var err error
	for u := range s.client.ListIncompleteUploads(ctx, bucket, prefix, true) {
		switch {
		case err != nil: // the rest, so that the listing ends
		case u.Err != nil:
			err = u.Err
		case u.Initiated.Before(before):
			err = s.client.AbortMultipartUpload(ctx, bucket, u.Key, u.UploadID)
		}
	}
	return s.fault(ctx, bucket, prefix, err)
}
