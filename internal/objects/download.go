package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/minio/minio-go/v7"
)

// resumes is how often one download is taken up again after it broke off.
const resumes = 5

// Get reads an object. A download that breaks off goes on where it stopped, a
// few times; should the object have changed by then, the error is Taken. Size in
// bytes is that of the object. The context must live as long as the reader.
func (s *Store) Get(ctx context.Context, bucket, key string) (io.ReadCloser, Object, error) {
	d := &download{store: s, ctx: ctx, bucket: bucket, key: key, left: resumes}
	if err := d.open(); err != nil {
		return nil, Object{}, s.fault(ctx, bucket, key, err)
	}
	return d, d.object, nil
}

// download reads one object.
type download struct {
	store       *Store
	ctx         context.Context
	bucket, key string

	object Object
	body   io.ReadCloser
	at     int64 // bytes read
	left   int   // resumes
}

// open asks for what was not read yet.
func (d *download) open() error {
	var opts minio.GetObjectOptions
	if d.at > 0 {
		if err := opts.SetRange(d.at, 0); err != nil {
			return err
		}
		if err := opts.SetMatchETag(d.object.etag); err != nil {
			return err
		}
	}
	body, info, header, err := d.store.client.GetObject(d.ctx, d.bucket, d.key, opts)
	if err != nil {
		return err
	}
	if d.at == 0 {
		d.object = objectOf(info)
	} else if got := header.Get("Content-Range"); !strings.HasPrefix(got, fmt.Sprintf("bytes %d-", d.at)) {
		_ = body.Close()
		return fmt.Errorf("asked for the bytes from %d, got %q", d.at, got)
	}
	d.body = body
	return nil
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	for {
		n, err := d.body.Read(p)
		d.at += int64(n)
		if errors.Is(err, io.EOF) && d.at < d.object.Size {
			err = io.ErrUnexpectedEOF
		}
		if err == nil || errors.Is(err, io.EOF) {
			return n, err
		}
		if err := d.resume(err); err != nil || n > 0 {
			return n, err
		}
	}
}

// resume goes on after err.
func (d *download) resume(err error) error {
	if d.left == 0 || d.ctx.Err() != nil {
		return d.store.fault(d.ctx, d.bucket, d.key, err)
	}
	d.left--
	_ = d.body.Close()
	d.body = io.NopCloser(strings.NewReader("")) // to be closed whatever happens
	return d.store.fault(d.ctx, d.bucket, d.key, d.open())
}

// Close implements io.Closer.
func (d *download) Close() error { return d.body.Close() }
