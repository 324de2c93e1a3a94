package destination

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/internal/objects/s3test"
	"github.com/exhume/exhume/schemas"
)

// fills writes ours to what Write hands out, and waits for letGo before it ends.
func fills(begun, letGo chan struct{}) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, ours)
		close(begun)
		<-letGo
		return err
	}
}

// A call that comes back after the end of its group, or after whoever made it has
// given up, changes nothing; what it uses is open until then.
func TestLateWrite(t *testing.T) {
	t.Parallel()
	for size, n := range groupSizes {
		for _, how := range []string{"committed", "aborted", "given up"} {
			t.Run(how+"/"+size, func(t *testing.T) {
				t.Parallel()
				root := t.TempDir()
				tree := openTree(t, root)
				g := tree.Group(schemas.Settings{}, n)
				must(t, put(g, 0, "d/in-time", ours))
				ctx, giveUp := context.WithCancel(t.Context())
				defer giveUp()
				begun, letGo, done := make(chan struct{}), make(chan struct{}), make(chan error)
				go func() { done <- g.Write(ctx, 1, "d/late", int64(len(ours)), sum([]byte(ours)), fills(begun, letGo)) }()
				<-begun
				want, codes := map[string]string{"d/in-time": ours}, map[int]schemas.Code{}
				end := func() {
					if how == "aborted" {
						g.Abort()
						want = map[string]string{}
					} else {
						codes = commit(g)
					}
				}
				if how == "given up" {
					giveUp()
				} else {
					end()
				}
				fd := g.dirs.known["d"].fd
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
					t.Error("the directory was closed under the call:", err)
				}
				close(letGo)
				if err := <-done; err == nil {
					t.Error("the late call succeeded")
				}
				if how == "given up" {
					end()
				}
				if len(codes) > 0 {
					t.Error(codes)
				}
				if diff := cmp.Diff(want, visible(t, root)); diff != "" {
					t.Errorf("files (-want +got):\n%s", diff)
				}
				if left, _ := filepath.Glob(filepath.Join(root, stagePrefix+"*", "[0-9]*")); len(left) > 0 {
					t.Errorf("left in the staging directory: %v", left)
				}
				if err := put(g, 2, "d/after", ours); !errors.Is(err, errEnded) {
					t.Errorf("a call after the end: %v", err)
				}
				if tree.groups != 0 {
					t.Errorf("%d groups are under way", tree.groups)
				}
			})
		}
	}
}

// A tree is closed while the kernel holds a call: nothing that the call uses is
// closed, and nothing waits for it.
func TestCloseWithAStuckCall(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	tree, err := OpenTree(root)
	must(t, err)
	g := tree.Group(schemas.Settings{}, 1)
	begun, letGo, done := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() { done <- g.Write(t.Context(), 0, "f", int64(len(ours)), sum([]byte(ours)), fills(begun, letGo)) }()
	<-begun
	g.Abort()
	must(t, tree.Close())
	if left := stages(t, root); len(left) != 1 {
		t.Errorf("staging directories: %v, want the one in use", left)
	}
	close(letGo)
	if err := <-done; !errors.Is(err, errEnded) {
		t.Error(err)
	}
	must(t, tree.Close()) // nothing is left that anybody uses
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// A tree that is closed while a group is under way leaves nothing behind, nor open,
// when that has ended.
func TestCloseBeforeTheGroupEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		tree, err := OpenTree(root)
		must(t, err)
		g := tree.Group(schemas.Settings{}, 1)
		must(t, put(g, 0, "before", ours))
		must(t, tree.Close())
		must(t, put(g, 1, "d/after", ours))
		if codes := commit(g); len(codes) > 0 {
			t.Errorf("failed: %v", codes)
		}
		time.Sleep(2 * idleAfter) // of the bubble's clock
		if diff := cmp.Diff(map[string]string{"before": ours, "d/after": ours}, files(t, root)); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		if left := stages(t, root); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		if _, err := tree.root.Stat("."); !errors.Is(err, fs.ErrClosed) {
			t.Errorf("the root is open: %v", err)
		}
	})
}

// A root has moved when its name leads elsewhere, by whatever way.
func TestMoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, name := filepath.Join(dir, "root"), filepath.Join(dir, "name")
	must(t, os.Mkdir(root, 0o755))
	must(t, os.Symlink("root", name))
	tree := openTree(t, name)
	for _, step := range []struct {
		name string
		do   func() error
		want bool
	}{
		{"nothing", func() error { return nil }, false},
		{"renamed", func() error { return os.Rename(root, root+".old") }, true},
		{"replaced", func() error { return os.Mkdir(root, 0o755) }, true},
		{"behind another link", func() error { return errors.Join(os.Remove(name), os.Symlink("root.old", name)) }, false},
		{"removed", func() error { return os.Remove(root + ".old") }, true},
	} {
		must(t, step.do())
		if got := tree.Moved(); got != step.want {
			t.Errorf("%s: moved is %v", step.name, got)
		}
	}
}

// What was given up gets no final name any more, though its bytes are durable.
func TestCommitGivenUp(t *testing.T) {
	t.Parallel()
	for size, n := range groupSizes {
		t.Run(size, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			g := openTree(t, root).Group(schemas.Settings{Overwrite: schemas.OverwriteAlways}, n)
			write(t, filepath.Join(root, "a"), "before")
			must(t, put(g, 0, "a", ours))
			must(t, put(g, 1, "b", ours))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			settled := map[int]error{}
			g.Commit(ctx, func(slot int, err error) { settled[slot] = err })
			for slot := range 2 {
				if !errors.Is(settled[slot], context.Canceled) {
					t.Errorf("slot %d: %v", slot, settled[slot])
				}
			}
			if diff := cmp.Diff(map[string]string{"a": "before"}, visible(t, root)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if left, _ := filepath.Glob(filepath.Join(root, stagePrefix+"*", "[0-9]*")); len(left) > 0 {
				t.Errorf("left in the staging directory: %v", left)
			}
		})
	}
}

func TestProbe(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	tree := openTree(t, root)
	must(t, tree.Probe(t.Context()))
	for _, s := range stages(t, root) {
		if left, _ := filepath.Glob(filepath.Join(s, "[0-9]*")); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		must(t, os.RemoveAll(s)) // somebody tidies up
	}
	must(t, tree.Probe(t.Context()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tree.Probe(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	must(t, os.RemoveAll(root))
	if err := tree.Probe(t.Context()); codeOfError(err) != schemas.CodeDestinationDown {
		t.Errorf("without a root: %v", err)
	}
}

// An answer, whatever it says of rights, means that the server works; silence and a
// server's own trouble mean that it does not.
func TestBucketProbe(t *testing.T) {
	t.Parallel()
	srv := s3test.StartOwnServer(t)
	b := newBucket(t, srv)
	must(t, b.Probe(t.Context()))
	gone := &Bucket{store: b.store, name: "gone"}
	must(t, gone.Probe(t.Context()))

	srv.Freeze(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := b.Probe(ctx); codeOfError(err) != schemas.CodeDestinationDown {
		t.Errorf("frozen: %v", err)
	}
	srv.Thaw()
	must(t, b.Probe(t.Context()))
	srv.Kill()
	if err := b.Probe(t.Context()); codeOfError(err) != schemas.CodeDestinationDown {
		t.Errorf("killed: %v", err)
	}
	srv.Start(t)
	ended, end := context.WithCancel(t.Context())
	end()
	if err := b.Probe(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

// As TestLateWrite, of objects.
func TestBucketLateWrite(t *testing.T) {
	t.Parallel()
	srv := s3test.StartServer(t)
	for _, content := range []string{ours, large} {
		for _, how := range []string{"committed", "aborted", "given up"} {
			b := newBucket(t, srv)
			g := b.Group(schemas.Settings{}, 2)
			ctx, giveUp := context.WithCancel(t.Context())
			begun, letGo, done := make(chan struct{}), make(chan struct{}), make(chan error)
			go func() {
				done <- g.Write(ctx, 0, "late", int64(len(content)), sum([]byte(content)), func(w io.Writer) error {
					_, err := io.WriteString(w, content)
					close(begun)
					<-letGo
					return err
				})
			}()
			<-begun
			switch how {
			case "aborted":
				g.Abort()
			case "committed":
				commit(g)
			default:
				giveUp()
			}
			close(letGo)
			if err := <-done; err == nil {
				t.Errorf("%s: the late call succeeded", how)
			}
			if how == "given up" {
				commit(g)
			}
			giveUp()
			if found := stored(t, srv, b.name); len(found) > 0 {
				t.Errorf("%s: visible: %v", how, found)
			}
		}
	}
}

// answering is a server whose bucket is there and that answers everything else alike.
func answering(t *testing.T, status int, code string) *Bucket {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && r.URL.Path == "/bucket/" {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Location", "http://169.254.169.254/latest/meta-data/")
		w.WriteHeader(status)
		if code != "" {
			_, _ = fmt.Fprintf(w, "<Error><Code>%s</Code><Message>m</Message></Error>", code)
		}
	}))
	t.Cleanup(srv.Close)
	b, err := OpenBucket(openStore(t, srv.URL), "bucket", "")
	must(t, err)
	return b
}

// Whatever the server answers to an upload, small or in parts, the item has its code,
// and the class that follows from it.
func TestBucketAnswers(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		code   string
		want   schemas.Code
	}{
		"forbidden":   {403, "AccessDenied", schemas.CodeDestinationDenied},
		"no bucket":   {404, "NoSuchBucket", schemas.CodeDestinationMissing},
		"too many":    {429, "", schemas.CodeDestinationBusy},
		"slow down":   {503, "SlowDown", schemas.CodeDestinationBusy},
		"broken":      {500, "InternalError", schemas.CodeDestinationBusy},
		"full":        {507, "XMinioStorageFull", schemas.CodeDestinationFull},
		"quota":       {403, "QuotaExceeded", schemas.CodeDestinationFull},
		"elsewhere":   {307, "TemporaryRedirect", schemas.CodeDestinationDenied},
		"no content":  {204, "", schemas.CodeDestinationBusy},
		"bad request": {400, "InvalidRequest", schemas.CodeDestinationDenied},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := answering(t, tt.status, tt.code)
			g := b.Group(schemas.Settings{Overwrite: schemas.OverwriteAlways}, 2)
			must(t, putObject(g, 0, "small", ours))
			inParts := codeOfError(putObject(g, 1, "large", large))
			got := []schemas.Code{commit(g)[0], inParts}
			want := []schemas.Code{tt.want, tt.want}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("codes (-want +got):\n%s", diff)
			}
			must(t, b.Probe(t.Context())) // the bucket is there
		})
	}
}

// A server that hangs on uploads keeps a group no longer than its context, whatever
// it was doing.
func TestBucketHangs(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead && r.URL.Path == "/bucket/" {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-r.Context().Done():
		case <-ended:
		}
	}))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(ended) })
	b, err := OpenBucket(openStore(t, srv.URL), "bucket", "")
	must(t, err)
	for name, call := range map[string]func(ctx context.Context, g *BucketGroup) error{
		"compare": func(ctx context.Context, g *BucketGroup) error {
			_, _, err := g.Compare(ctx, 0, "f", 1, "")
			return err
		},
		"write": func(ctx context.Context, g *BucketGroup) error {
			return g.Write(ctx, 0, "f", int64(len(large)), sum([]byte(large)), func(w io.Writer) error {
				_, err := io.WriteString(w, large)
				return err
			})
		},
		"commit": func(ctx context.Context, g *BucketGroup) (err error) {
			must(t, putObject(g, 0, "f", ours))
			g.Commit(ctx, func(_ int, e error) { err = e })
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			start := time.Now()
			err := call(ctx, b.Group(schemas.Settings{}, 1))
			if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took > 3*time.Second {
				t.Errorf("%v after %v", err, took)
			}
		})
	}
}
