package objects

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"time"

	"github.com/minio/minio-go/v7"
)

// sha256Meta is the user metadata that holds the SHA-256 of the whole content in
// hex: x-amz-meta-sha256. The checksums that servers keep themselves are, for
// uploads in parts, those of the parts.
const sha256Meta = "Sha256"

// Object is what a server says of an object.
type Object struct {
	// Size is in bytes, -1 when the server does not say.
	Size int64
	// SHA256 is what whoever wrote the object says, in hex; often empty.
	SHA256 string
	// Modified is when it was written, to the second.
	Modified time.Time

	etag string
}

func objectOf(o minio.ObjectInfo) Object {
	return Object{Size: o.Size, SHA256: o.Metadata.Get("X-Amz-Meta-" + sha256Meta), Modified: o.LastModified, etag: o.ETag}
}

// CheckBucket says whether there is such a bucket that the key may use.
func (s *Store) CheckBucket(ctx context.Context, bucket string) error {
	exists, err := s.client.BucketExists(ctx, bucket)
	if err == nil && !exists {
		err = minio.ErrorResponse{Code: minio.NoSuchBucket, BucketName: bucket}
	}
	return s.fault(ctx, bucket, "", err)
}

// Stat describes an object.
func (s *Store) Stat(ctx context.Context, bucket, key string) (Object, error) {
	o, err := s.client.StatObject(ctx, bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return Object{}, s.fault(ctx, bucket, key, err)
	}
	return objectOf(o), nil
}

// Put writes an object in one request, which either succeeds as a whole or
// changes nothing. The server checks what arrives against digest, the content's
// SHA-256 in hex. With onlyNew an object that stands there already is left alone
// and the error is Taken; it is Unsupported where the server says that it knows
// no such condition. Some old servers ignore the condition and say nothing.
func (s *Store) Put(ctx context.Context, bucket, key string, content []byte, digest string, onlyNew bool) error {
	raw, err := hex.DecodeString(digest)
	if err != nil {
		return s.fault(ctx, bucket, key, err)
	}
	opts := options(digest)
	opts.UserMetadata["x-amz-checksum-sha256"] = base64.StdEncoding.EncodeToString(raw)
	if onlyNew {
		opts.SetMatchETagExcept("*")
	}
	_, err = s.client.PutObject(ctx, bucket, key, bytes.NewReader(content), int64(len(content)), "", digest, opts)
	return s.fault(ctx, bucket, key, err)
}

// options are those of an object's creation. The body is signed as a whole by
// its SHA-256, and not a second time in chunks.
func options(digest string) minio.PutObjectOptions {
	return minio.PutObjectOptions{DisableContentSha256: true, UserMetadata: map[string]string{sha256Meta: digest}}
}
