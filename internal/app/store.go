package app

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/schemas"
)

// StoreOptions say what is stored.
type StoreOptions struct {
	// Item is what all items have in common; Path and content are each file's.
	Item archive.NewItem
	// Paths are files and directories.
	Paths []string
	// Base, if not empty, is the directory that paths in the archive are
	// relative to; otherwise they are kept as given.
	Base string
	// Limit, if not 0, is how many files are stored at most.
	Limit int
	// Revive allows storing content that was purged.
	Revive bool
	// Manifest, if not empty, is a file that a manifest of what is stored is
	// written to, as JSON lines.
	Manifest string
	// Stored and Failed are told of each file.
	Stored func(archive.Stored) error
	Failed func(path string, err error)
}

// StoreCounts say what Store did.
type StoreCounts struct {
	Stored, Reused, Failed int64
	// Bytes is the size of what was stored.
	Bytes int64
}

// evidenceGroup is how many records are appended with one sync.
const evidenceGroup = 500

// neverStored are directories that are left out.
var neverStored = []string{".git", ".exhume", ".codex"}

// Store stores files in the archive, which it creates where there is none, and
// leaves evidence of each. A file that cannot be stored is reported and the
// others go on; the error is about everything else.
func Store(ctx context.Context, cfg *Config, o StoreOptions) (n StoreCounts, err error) {
	w, err := archive.CreateWriter(ctx, cfg.Backend.URL)
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	log, err := evidence.Open(cfg.Exhume.EvidenceDir)
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	manifest, err := newManifestFile(o.Manifest)
	if err != nil {
		return n, err
	}
	defer func() { err = errors.Join(err, manifest.close()) }()

	var pending []schemas.Record
	flush := func() error {
		if len(pending) == 0 {
			return nil
		}
		_, err := log.Append(ctx, pending)
		pending = pending[:0]
		return err
	}
	defer func() { err = errors.Join(err, flush()) }()
	for s, serr := range w.Store(ctx, files(o), archive.StoreOptions{Revive: o.Revive}) {
		if serr != nil {
			if s.Path == "" {
				return n, serr
			}
			n.Failed++
			o.Failed(s.Path, serr)
			continue
		}
		n.Stored++
		n.Bytes += s.Size
		if s.Reused {
			n.Reused++
		}
		pending = append(pending, archiveRecord(s))
		if len(pending) == evidenceGroup {
			if err := flush(); err != nil {
				return n, err
			}
		}
		if err := errors.Join(o.Stored(s), manifest.add(s)); err != nil {
			return n, err
		}
	}
	return n, nil
}

func archiveRecord(s archive.Stored) schemas.Record {
	return schemas.Record{
		Action: schemas.ActionArchive, Actor: s.By, CompressedSize: s.CompressedSize, Path: s.Path, Reason: s.Reason,
		Repo: s.Repo, SHA256: s.SHA256, Size: &s.Size, Tombstone: s.Tombstone,
	}
}

// errEnough ends a walk before its end.
var errEnough = errors.New("enough")

// files goes through the files to be stored, in a stable order.
func files(o StoreOptions) iter.Seq2[archive.NewItem, error] {
	return func(yield func(archive.NewItem, error) bool) {
		n := 0
		for _, top := range o.Paths {
			err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
				switch {
				case err == nil && d.IsDir() && path != top && slices.Contains(neverStored, d.Name()):
					return fs.SkipDir
				case err == nil && d.IsDir():
					return nil
				case err == nil && path == top:
					err = regular(path)
				case err == nil && !d.Type().IsRegular():
					return nil // links and devices have no content of their own
				}
				if !yield(o.item(path), err) {
					return errEnough
				}
				if n++; n == o.Limit {
					return errEnough
				}
				return nil
			})
			if err != nil {
				return
			}
		}
	}
}

// regular refuses what a path on the command line may be besides a file.
func regular(path string) error {
	st, err := os.Stat(path)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	return err
}

func (o *StoreOptions) item(path string) archive.NewItem {
	item := o.Item
	item.Open = func() (io.ReadCloser, error) { return os.Open(path) }
	item.Path = path
	if rel, err := filepath.Rel(o.Base, path); o.Base != "" && err == nil {
		item.Path = rel
	}
	item.Path = filepath.ToSlash(filepath.Clean(item.Path))
	return item
}

// manifestFile writes a manifest of what is stored.
type manifestFile struct {
	f *os.File
	w *bufio.Writer
}

func newManifestFile(name string) (*manifestFile, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	return &manifestFile{f, bufio.NewWriter(f)}, nil
}

func (m *manifestFile) add(s archive.Stored) error {
	if m == nil {
		return nil
	}
	line, err := json.Marshal(struct {
		Tombstone string `json:"tombstone"`
		Output    string `json:"output"`
	}{s.Tombstone, path.Join(".", path.Clean("/" + s.Path)[1:])})
	if err != nil {
		return err
	}
	_, err = m.w.Write(append(line, '\n'))
	return err
}

func (m *manifestFile) close() error {
	if m == nil {
		return nil
	}
	return errors.Join(m.w.Flush(), m.f.Close())
}
