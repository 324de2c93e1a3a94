package producer

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// ErrManifestChanged says that a manifest's bytes are no longer those that
// Check saw.
var ErrManifestChanged = errors.New("the manifest changed after it was checked; submit it again")

// ManifestOptions say how a manifest's rows are read.
type ManifestOptions struct {
	// Actor is on whose behalf a row is restored that names no actor itself.
	Actor string
	// Root is the absolute, lexically clean directory below which every output
	// must lie, or s3://bucket/prefix. It need not exist.
	Root string
	// TempDir is where standard input and sorted outputs are spooled;
	// empty means os.TempDir().
	TempDir string
	// From leaves out the rows before this one, counted from 1; 0 and 1 leave
	// out none. Rows left out are neither checked nor counted.
	From int64
	// Progress, if set, is told by Check now and then how many rows it has read.
	Progress func(rows int64)
}

// Manifest is a list of items to restore: a JSON list, a JSON object with a
// list "items", JSON lines, or CSV with a header; each in UTF-8 and possibly
// compressed with gzip. The format is recognised by content, never by name.
//
// A manifest is read as a stream, as often as asked for, unless it is so small
// that its rows are kept; memory does not grow with its rows except for one bit
// each. Check comes first and from one
// goroutine; after it, Items may run from several at once.
type Manifest struct {
	name string // as given
	file *os.File
	temp bool // file is a spooled copy of ours
	opts ManifestOptions

	// What Check found out.
	checked  bool
	size     int64
	result   Check
	rejected rowSet
	kept     kept
}

// OpenManifest opens the manifest at path. "-" reads stdin to its end into a
// temporary file first, and so does a path that is not a regular file, such as
// a pipe. The caller must Close the manifest.
func OpenManifest(path string, stdin io.Reader, o ManifestOptions) (*Manifest, error) {
	if err := o.complete(); err != nil {
		return nil, fmt.Errorf("open manifest %s: %w", path, err)
	}
	if path == "-" {
		return spool(path, stdin, o)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open manifest: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Mode().IsRegular() {
		return &Manifest{name: path, file: f, opts: o}, nil
	}
	defer func() { _ = f.Close() }()
	if err != nil {
		return nil, fmt.Errorf("open manifest: %w", err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("open manifest %s: it is a directory; name a file in it", path)
	}
	return spool(path, f, o)
}

func (o *ManifestOptions) complete() error {
	if !strings.HasPrefix(o.Root, "s3://") && (!path.IsAbs(o.Root) || path.Clean(o.Root) != o.Root) {
		return fmt.Errorf("root %q is not an absolute, clean path", o.Root)
	}
	o.Actor = strings.TrimSpace(o.Actor)
	if o.TempDir == "" {
		o.TempDir = os.TempDir()
	}
	return nil
}

// spool copies r to a temporary file, so that it can be read more than once.
func spool(name string, r io.Reader, o ManifestOptions) (*Manifest, error) {
	if r == nil {
		return nil, errors.New("open manifest: there is no standard input to read")
	}
	f, err := os.CreateTemp(o.TempDir, "exhume-manifest-*")
	if err != nil {
		return nil, fmt.Errorf("spool manifest: %w", err)
	}
	m := &Manifest{name: name, file: f, temp: true, opts: o}
	// Where the system allows it the name goes at once, so that nothing is left
	// over even if this process is killed. Close tries again where it does not.
	_ = os.Remove(f.Name())
	if _, err := io.Copy(f, r); err != nil {
		return nil, errors.Join(fmt.Errorf("spool manifest: %w", err), m.Close())
	}
	return m, nil
}

// Close releases the manifest and removes its temporary file. Closing again
// does nothing.
func (m *Manifest) Close() error {
	if m.file == nil {
		return nil
	}
	err := m.file.Close()
	if m.temp {
		if e := os.Remove(m.file.Name()); !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	m.file = nil
	return err
}

// Name is the manifest's path as it was given, "-" for standard input.
func (m *Manifest) Name() string { return m.name }

// title is what messages call the manifest.
func (m *Manifest) title() string {
	if m.name == "-" {
		return "stdin"
	}
	return m.name
}
