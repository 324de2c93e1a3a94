package restore

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

var (
	tiny  = []byte("tiny")
	large = noise(1, 300<<10) // more than MinMemory/256
)

func restoreAll(t *testing.T, ctx context.Context, s *shelf) (root string, results []schemas.Result, err error) {
	t.Helper()
	root = t.TempDir()
	results, err = New(s, plain, into(t, root), Config{Memory: MinMemory, Threads: 2}).
		Restore(ctx, schemas.Settings{Root: root}, s.requests())
	return root, results, err
}

// These end the group: nothing is judged, nothing becomes visible.
func TestTheArchiveGoesAway(t *testing.T) {
	t.Parallel()
	down := fault.New(schemas.CodeArchiveDown, "gone")
	for name, set := range map[string]func(*shelf, context.CancelFunc){
		"look-up": func(s *shelf, _ context.CancelFunc) {
			s.lookup = func(context.Context, []string) (map[string]schemas.Artifact, error) { return nil, down }
		},
		"blobs": func(s *shelf, _ context.CancelFunc) {
			s.blobs = func(_ context.Context, ids []string, each func(string, []byte) error) error {
				_ = each(ids[0], tiny)
				return down
			}
		},
		"open": func(s *shelf, _ context.CancelFunc) {
			s.open = func(context.Context, schemas.Artifact) (io.ReadCloser, error) { return nil, down }
		},
		"stream": func(s *shelf, _ context.CancelFunc) {
			s.open = func(context.Context, schemas.Artifact) (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(bytes.NewReader(large[:1000]), iotest.ErrReader(down))), nil
			}
		},
		"cancelled at the look-up": func(s *shelf, cancel context.CancelFunc) {
			s.lookup = func(context.Context, []string) (map[string]schemas.Artifact, error) {
				cancel()
				return s.artifacts, nil
			}
		},
		"cancelled at the blobs": func(s *shelf, cancel context.CancelFunc) {
			s.blobs = func(ctx context.Context, _ []string, _ func(string, []byte) error) error { cancel(); return ctx.Err() }
		},
		"cancelled in a stream that hangs": func(s *shelf, cancel context.CancelFunc) {
			s.open = func(ctx context.Context, _ schemas.Artifact) (io.ReadCloser, error) {
				return io.NopCloser(reader(func([]byte) (int, error) {
					cancel()
					<-ctx.Done()
					return 0, ctx.Err()
				})), nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := newShelf(tiny, large, []byte("more"))
			set(s, cancel)
			root, results, err := restoreAll(t, ctx, s)
			if results != nil || !errors.Is(err, down) && !errors.Is(err, context.Canceled) {
				t.Errorf("results %v, error %v", results, err)
			}
			if diff := cmp.Diff(map[string]string{}, tree(t, root)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

type closer struct {
	io.Reader
	close func() error
}

func (c closer) Close() error { return c.close() }

// These are the large item's own fault.
func TestBadStreams(t *testing.T) {
	t.Parallel()
	wrong := bytes.Clone(large)
	wrong[7]++
	busy := fault.New(schemas.CodeArchiveBusy, "locked")
	for name, tt := range map[string]struct {
		stream io.Reader
		close  error
		want   verdict
	}{
		"right, a byte at a time": {stream: iotest.OneByteReader(bytes.NewReader(large)), want: restored},
		"right, error with data":  {stream: iotest.DataErrReader(bytes.NewReader(large)), want: restored},
		"wrong bytes":             {stream: bytes.NewReader(wrong), want: failed(schemas.CodeIntegrityMismatch)},
		"shorter":                 {stream: bytes.NewReader(large[1:]), want: failed(schemas.CodeIntegrityMismatch)},
		"empty":                   {stream: strings.NewReader(""), want: failed(schemas.CodeIntegrityMismatch)},
		"endless":                 {stream: reader(func(p []byte) (int, error) { return len(p), nil }), want: failed(schemas.CodeIntegrityMismatch)},
		"busy":                    {stream: io.MultiReader(bytes.NewReader(large[:9]), iotest.ErrReader(busy)), want: failed(schemas.CodeArchiveBusy)},
		"error at closing":        {stream: bytes.NewReader(large), close: busy, want: failed(schemas.CodeArchiveBusy)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			closed := 0
			s := newShelf(tiny, large)
			s.open = func(context.Context, schemas.Artifact) (io.ReadCloser, error) {
				return closer{tt.stream, func() error { closed++; return tt.close }}, nil
			}
			root, results, err := restoreAll(t, t.Context(), s)
			must(t, err)
			if diff := cmp.Diff([]verdict{restored, tt.want}, verdicts(results)); diff != "" {
				t.Errorf("verdicts (-want +got):\n%s", diff)
			}
			want := map[string]string{"out/0": string(tiny)}
			if tt.want == restored {
				want["out/1"] = string(large)
			}
			if diff := cmp.Diff(want, tree(t, root)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if closed != 1 || strings.Contains(results[1].Detail, "\n") {
				t.Errorf("closed %d times; detail %q", closed, results[1].Detail)
			}
		})
	}
}

// The archive changes between the look-up and the reading.
func TestTheArchiveChanges(t *testing.T) {
	t.Parallel()
	for _, content := range [][]byte{tiny, large} {
		for name, tt := range map[string]struct {
			now  func(schemas.Artifact) (schemas.Artifact, bool) // what a second look-up finds
			want verdict
		}{
			"purged": {func(a schemas.Artifact) (schemas.Artifact, bool) {
				a.Stored, a.URL = -1, "purged://dual-control"
				return a, true
			}, failed(schemas.CodeArtifactPurged)},
			"bytes moved away": {func(a schemas.Artifact) (schemas.Artifact, bool) {
				a.Stored, a.URL = -1, "s3://elsewhere"
				return a, true
			}, failed(schemas.CodeArtifactMissing)},
			"item deleted":   {func(a schemas.Artifact) (schemas.Artifact, bool) { return a, false }, failed(schemas.CodeTombstoneNotFound)},
			"there and away": {func(a schemas.Artifact) (schemas.Artifact, bool) { return a, true }, failed(schemas.CodeArchiveError)},
		} {
			s := newShelf(content, []byte("other"))
			delete(s.content, "a0")
			asked := 0
			s.lookup = func(_ context.Context, ts []string) (map[string]schemas.Artifact, error) {
				found := map[string]schemas.Artifact{}
				for _, tombstone := range ts {
					found[tombstone] = s.artifacts[tombstone]
				}
				if asked++; asked > 1 {
					a, ok := tt.now(found["t0"])
					if found["t0"] = a; !ok {
						delete(found, "t0")
					}
				}
				return found, nil
			}
			_, results, err := restoreAll(t, t.Context(), s)
			must(t, err)
			if diff := cmp.Diff([]verdict{tt.want, restored}, verdicts(results)); diff != "" {
				t.Errorf("%s, %d bytes: verdicts (-want +got):\n%s", name, len(content), diff)
			}
		}
	}
}

func TestNoDestination(t *testing.T) {
	t.Parallel()
	full := fault.New(schemas.CodeDestinationFull, "full")
	s := newShelf(tiny, large)
	results, err := New(s, plain, func(schemas.Settings, int) (Group, error) { return nil, full }, Config{}).
		Restore(t.Context(), schemas.Settings{Root: "/r"}, s.requests())
	must(t, err)
	want := []verdict{failed(schemas.CodeDestinationFull), failed(schemas.CodeDestinationFull)}
	if diff := cmp.Diff(want, verdicts(results)); diff != "" {
		t.Errorf("verdicts (-want +got):\n%s", diff)
	}
}

func TestNothingToDo(t *testing.T) {
	t.Parallel()
	if _, results, err := restoreAll(t, t.Context(), newShelf()); len(results) > 0 || err != nil {
		t.Error(results, err)
	}
}

// Not parallel: it counts the open files of the whole process.
func TestDescriptorsAreClosed(t *testing.T) {
	root := t.TempDir()
	path, tombstones := newArchive(t, tiny, large)
	source := openArchive(t, path)
	newGroup := into(t, root)
	count := func() int {
		open, err := os.ReadDir("/dev/fd")
		must(t, err)
		return len(open)
	}
	var before int
	for round := range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		if round%2 == 1 {
			cancel()
		}
		r := New(source, func(a schemas.Artifact, _, _ []byte) ([]byte, error) {
			return nil, fault.New(schemas.CodeDecodeFailed, "artifact %s", a.ID)
		}, newGroup, Config{Memory: MinMemory})
		_, _ = r.Restore(ctx, schemas.Settings{Root: root, Overwrite: schemas.OverwriteAlways}, requests(tombstones))
		cancel()
		if round == 0 {
			before = count() // the staging directory and the archive's connections are open
		}
	}
	if after := count(); after > before {
		t.Errorf("%d open files, %d before", after, before)
	}
}
