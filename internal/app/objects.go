package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/objects"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
)

// isBucket says whether a destination root is object storage.
func isBucket(root string) bool { return strings.HasPrefix(root, "s3://") }

// openStore makes the configured object storage ready.
func openStore(cfg *Config) (*objects.Store, error) {
	c := cfg.S3
	o := objects.Config{
		Endpoint: c.Endpoint, Region: c.Region, AccessKey: c.AccessKey, SecretKey: c.SecretKey, SessionToken: c.SessionToken,
		Style: objects.Style(c.Style), CAFile: c.CA, Insecure: c.Insecure, Private: c.Private,
	}
	if o.AccessKey == "" && o.SecretKey == "" {
		o.AccessKey, o.SecretKey = os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
		o.SessionToken = cmp.Or(o.SessionToken, os.Getenv("AWS_SESSION_TOKEN"))
	}
	return objects.Open(o)
}

// openSources opens what artifacts may be read from besides the archive.
func openSources(cfg *Config) (*objects.Reader, error) {
	var sources []objects.Source
	var directories []string
	for part := range strings.SplitSeq(cfg.S3.Sources, ",") {
		part = strings.TrimSpace(part)
		dir, isFile := strings.CutPrefix(part, "file://")
		switch {
		case part == "":
		case isFile || filepath.IsAbs(part):
			directories = append(directories, dir)
		case isBucket(part):
			bucket, prefix, err := objects.ParseURL(part)
			if err != nil {
				return nil, err
			}
			store, err := openStore(cfg)
			if err != nil {
				return nil, err
			}
			sources = append(sources, objects.Source{Store: store, Bucket: bucket, Prefix: prefix})
		default:
			return nil, fmt.Errorf("s3.sources: %q: want s3://bucket/prefix or file:///directory, several with commas between", part)
		}
	}
	return objects.NewReader(sources, directories)
}

// source is the archive together with the object storage that holds the bytes of
// some of its artifacts.
type source struct {
	*archive.Reader
	objects *objects.Reader
}

// openSource opens the configured archive for reading.
func openSource(ctx context.Context, cfg *Config) (*source, error) {
	o, err := openSources(cfg)
	if err != nil {
		return nil, err
	}
	r, err := archive.OpenReader(ctx, cfg.Backend.URL)
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return &source{r, o}, nil
}

// Lookup finds artifacts, and says which of them lie elsewhere.
func (s *source) Lookup(ctx context.Context, tombstones []string) (map[string]schemas.Artifact, error) {
	found, err := s.Reader.Lookup(ctx, tombstones)
	for tombstone, a := range found {
		if a.Stored < 0 && elsewhere(a.URL) {
			a.Stored = restore.Elsewhere
			found[tombstone] = a
		}
	}
	return found, err
}

// Open streams the decoded content of one artifact, wherever its bytes are.
func (s *source) Open(ctx context.Context, a schemas.Artifact) (io.ReadCloser, error) {
	if a.Stored != restore.Elsewhere {
		return s.Reader.Open(ctx, a)
	}
	blob, _, err := s.objects.Open(ctx, a.URL)
	if err != nil {
		return nil, err
	}
	return archive.DecodeStream(a, blob)
}

// Ping says with CodeArchiveDown that something that is read from does not answer:
// the archive, or the object storage that holds the bytes of some of its artifacts.
func (s *source) Ping(ctx context.Context) error {
	if err := s.Reader.Ping(ctx); err != nil {
		return err
	}
	return s.objects.Ping(ctx)
}

// Close closes both.
func (s *source) Close() error { return errors.Join(s.Reader.Close(), s.objects.Close()) }

// elsewhere says whether an artifact's URL is one that bytes can be read from.
func elsewhere(url string) bool { return isBucket(url) || strings.HasPrefix(url, "file://") }
