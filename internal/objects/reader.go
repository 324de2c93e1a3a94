package objects

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// setting is what allows a Reader to read something.
const setting = "EXHUME_S3_SOURCES"

// Source is a part of an endpoint that may be read: what lies below a prefix of
// a bucket, or all of the bucket.
type Source struct {
	Store          *Store
	Bucket, Prefix string
}

func (s Source) holds(bucket, key string) bool {
	return s.Bucket == bucket && (s.Prefix == "" || strings.HasPrefix(key, s.Prefix+"/"))
}

// Reader opens the objects that artifacts point at. Whoever can write to an
// archive decides where its URLs point, so nothing is read but what lies in the
// sources and below the directories it was made with. It is safe for concurrent
// use.
type Reader struct {
	sources     []Source
	directories []directory
}

// directory is one that may be read. Symlinks in it lead nowhere else.
type directory struct {
	path string
	root *os.Root
}

// NewReader makes a reader of sources and of absolute directories; Close it at
// the end. Errors are of usage, without a code.
func NewReader(sources []Source, directories []string) (*Reader, error) {
	r := &Reader{}
	for _, s := range sources {
		s.Prefix = strings.TrimSuffix(s.Prefix, "/")
		if s.Prefix != "" {
			if err := CheckKey(s.Prefix); err != nil {
				return nil, fmt.Errorf("source %s: %w (%s)", URL(s.Bucket, s.Prefix), err, setting)
			}
		}
		r.sources = append(r.sources, s)
	}
	for _, path := range directories {
		if !filepath.IsAbs(path) {
			return nil, errors.Join(fmt.Errorf("source directory %q: want an absolute path (%s)", path, setting), r.Close())
		}
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("source directory %q: %w (%s)", path, err, setting), r.Close())
		}
		r.directories = append(r.directories, directory{filepath.Clean(path), root})
	}
	return r, nil
}

// Close closes the directories. What is open may be read to its end.
func (r *Reader) Close() error {
	var errs []error
	for _, d := range r.directories {
		errs = append(errs, d.root.Close())
	}
	return errors.Join(errs...)
}

// Ping says with CodeArchiveDown that a source does not work: nobody answers at its
// endpoint by the deadline of ctx, or it is overloaded or broken. What else may be
// wrong there is for the items to say.
func (r *Reader) Ping(ctx context.Context) error {
	for _, s := range r.sources {
		err := s.Store.CheckBucket(ctx, s.Bucket)
		switch source := URL(s.Bucket, s.Prefix); {
		case Is(err, Away), Is(err, Failing):
			return fault.New(schemas.CodeArchiveDown, "source %s: %w", source, err)
		case errors.Is(err, context.DeadlineExceeded):
			return fault.New(schemas.CodeArchiveDown, "source %s: its server does not answer in time", source)
		case errors.Is(err, context.Canceled):
			return err
		}
	}
	return nil
}

// Open opens the object that an artifact's URL points at, s3://bucket/key or
// file:///path, and gives its size in bytes (-1 when the server does not say).
// The context must live as long as the reader it gives.
//
// The codes of errors, also of those while reading: CodeArtifactPurged for the
// mark of a purge; CodeArtifactMissing when there is no such object, or the URL
// names none; CodeArtifactDenied when it lies where nothing may be read, or
// whoever keeps it refuses it; CodeArchiveDown when nobody answers;
// CodeArchiveError for trouble that may pass.
func (r *Reader) Open(ctx context.Context, objectURL string) (io.ReadCloser, int64, error) {
	scheme, _, _ := strings.Cut(objectURL, ":")
	switch scheme {
	case "s3":
		return r.openS3(ctx, objectURL)
	case "file":
		return r.openFile(objectURL)
	case "purged":
		return nil, 0, fault.New(schemas.CodeArtifactPurged, "the artifact was purged, its bytes are gone")
	}
	return nil, 0, missing(objectURL, errors.New("want s3://BUCKET/KEY or file:///PATH"))
}

func (r *Reader) openS3(ctx context.Context, objectURL string) (io.ReadCloser, int64, error) {
	bucket, key, err := ParseURL(objectURL)
	if err == nil {
		err = CheckKey(key)
	}
	if err != nil {
		return nil, 0, missing(objectURL, err)
	}
	source, ok := r.source(bucket, key)
	if !ok {
		return nil, 0, denied(objectURL, errors.New("it lies in none of the sources that may be read; "+setting+" names them"))
	}
	body, o, err := source.Store.Get(ctx, bucket, key)
	if err != nil {
		return nil, 0, classify(err)
	}
	return &classified{body}, o.Size, nil
}

// source is the one with the longest prefix, should several hold the object.
func (r *Reader) source(bucket, key string) (found Source, ok bool) {
	for _, s := range r.sources {
		if s.holds(bucket, key) && (!ok || len(s.Prefix) > len(found.Prefix)) {
			found, ok = s, true
		}
	}
	return found, ok
}

func (r *Reader) openFile(objectURL string) (io.ReadCloser, int64, error) {
	u, err := url.Parse(objectURL)
	if err != nil || u.Host != "" && u.Host != "localhost" || u.User != nil || u.RawQuery != "" || u.Fragment != "" ||
		!filepath.IsAbs(u.Path) || filepath.Clean(u.Path) != u.Path {
		return nil, 0, missing(objectURL, errors.New("want file:///PATH with a clean absolute path"))
	}
	for _, d := range r.directories {
		rel, err := filepath.Rel(d.path, u.Path)
		if err == nil && filepath.IsLocal(rel) && rel != "." {
			return d.open(objectURL, rel)
		}
	}
	return nil, 0, denied(objectURL, errors.New("it lies in none of the directories that may be read; "+setting+" names them as file:///PATH"))
}

// open opens a regular file. Anything else might be waited for without end.
func (d directory) open(objectURL, rel string) (io.ReadCloser, int64, error) {
	f, err := d.root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err
		}
		return nil, 0, fileFault(objectURL, err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it is no regular file")
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, missing(objectURL, err)
	}
	return &classified{f}, info.Size(), nil
}

// fileFault is the error for a file that cannot be opened. Most of the reasons
// stay; a few may pass.
func fileFault(objectURL string, err error) error {
	errno, ok := errors.AsType[syscall.Errno](err)
	if !ok {
		// What os.Root refuses has no errno: the path leads outside.
		return denied(objectURL, err)
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.EIO, syscall.ESTALE, syscall.EINTR:
		return fault.New(schemas.CodeArchiveError, "object URL %q: %w", Redact(objectURL), err)
	case syscall.EACCES, syscall.EPERM:
		return denied(objectURL, err)
	}
	return missing(objectURL, err)
}

func denied(objectURL string, err error) error {
	return fault.New(schemas.CodeArtifactDenied, "object URL %q: %w", Redact(objectURL), err)
}

func missing(objectURL string, err error) error {
	return fault.New(schemas.CodeArtifactMissing, "object URL %q: %w", Redact(objectURL), err)
}

// classified gives the errors of reading their codes.
type classified struct{ io.ReadCloser }

func (c *classified) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = classify(err)
	}
	return n, err
}

// classify gives an error about an artifact's object its code.
func classify(err error) error {
	e, ok := errors.AsType[*Error](err)
	switch {
	case ok: // though its cause may be a timeout, which looks like that of a context
		return fault.New(artifactCode(e.Kind), "artifact's object: %w", err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return fault.New(schemas.CodeArchiveError, "reading an artifact: %w", err) // a file's
}

func artifactCode(k Kind) schemas.Code {
	switch k {
	case Away:
		return schemas.CodeArchiveDown
	case Failing, Taken, Full:
		return schemas.CodeArchiveError
	case Missing, NoBucket, BadKey:
		return schemas.CodeArtifactMissing
	default: // the endpoint refuses, or may not be spoken to
		return schemas.CodeArtifactDenied
	}
}
