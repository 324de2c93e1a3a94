package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/internal/restore"
	"github.com/exhume/exhume/schemas"
)

// A bucket whose server says nothing holds up nobody who works elsewhere, and who
// asks for it meanwhile hears what the first one hears.
func TestAnAwayBucketHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan net.Conn, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				close(asked)
				return
			}
			asked <- c
		}
	}()
	cfg := &Config{}
	cfg.S3.Endpoint, cfg.S3.AccessKey, cfg.S3.SecretKey, cfg.S3.Private = "http://"+l.Addr().String(), "key", "secret", true
	targets := newTargets(cfg)
	away := schemas.Settings{Root: "s3://bucket/prefix"}
	var wg sync.WaitGroup
	ask := func() {
		if _, err := targets.group(away, 1); !fault.Is(err, schemas.CodeDestinationDown) {
			t.Errorf("got error %v", err)
		}
	}
	wg.Go(ask)
	first := <-asked
	for range 5 {
		wg.Go(ask)
	}
	begin := time.Now()
	for range 3 {
		root := t.TempDir()
		g, err := targets.group(schemas.Settings{Root: root}, 1)
		if err != nil {
			t.Fatal(err)
		}
		g.Abort()
		if err := targets.probe(t.Context(), root); err != nil {
			t.Error(err)
		}
	}
	if d := time.Since(begin); d > 10*time.Second {
		t.Errorf("it took %s to begin elsewhere", d)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for c := first; c != nil; c = <-asked {
		_ = c.Close()
	}
	wg.Wait()
	if err := targets.close(); err != nil {
		t.Error(err)
	}
	if _, err := targets.get(t.TempDir()); err == nil {
		t.Error("a destination was opened when all were closed")
	}
}

// A probe opens a destination that could not be opened before.
func TestProbeOpensADestination(t *testing.T) {
	t.Parallel()
	targets := newTargets(&Config{})
	defer targets.close() //nolint:errcheck // a directory of the test's
	root := t.TempDir() + "/new"
	if err := targets.probe(context.Background(), root); err != nil {
		t.Error(err)
	}
	if one, err := targets.get(root); err != nil || targets.open[root].target != one {
		t.Errorf("%v, %v", one, err)
	}
}

// A root that somebody replaces or removes is opened anew by the next group, while
// those that use the old one go on there.
func TestReplacedRoot(t *testing.T) {
	t.Parallel()
	targets := newTargets(&Config{})
	root := t.TempDir() + "/root"
	s := schemas.Settings{Root: root}
	put := func(g restore.Group, output string) {
		t.Helper()
		err := g.Write(t.Context(), 0, output, 0, emptySHA256, func(io.Writer) error { return nil })
		if err != nil {
			t.Error(err)
		}
		g.Commit(t.Context(), func(_ int, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	begin := func() restore.Group {
		t.Helper()
		g, err := targets.group(s, 1)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	put(begin(), "first")
	old := begin()
	for i, replace := range []func() error{
		func() error { return errors.Join(os.Rename(root, root+".old"), os.Mkdir(root, 0o755)) },
		func() error { return os.RemoveAll(root) },
	} {
		used, err := targets.get(root)
		if err := errors.Join(err, replace()); err != nil {
			t.Fatal(err)
		}
		put(begin(), fmt.Sprint("new", i))
		if g := targets.begin(used, s, 1); g != nil {
			t.Error("a group of one that may be closed")
		}
		if _, err := os.Stat(fmt.Sprint(root, "/new", i)); err != nil {
			t.Error(err)
		}
		if err := targets.probe(t.Context(), root); err != nil {
			t.Error(err)
		}
	}
	put(old, "second")
	for _, name := range []string{"first", "second"} {
		if _, err := os.Stat(root + ".old/" + name); err != nil {
			t.Error(err)
		}
	}
	if err := targets.close(); err != nil {
		t.Error(err)
	}
}

// A destination at which nothing is begun any more is closed, so that it can be
// unmounted; a group that is under way goes on.
func TestIdleDestinationsAreClosed(t *testing.T) {
	t.Parallel()
	targets := newTargets(&Config{})
	targets.restAfter = 200 * time.Millisecond
	root := t.TempDir()
	g, err := targets.group(schemas.Settings{Root: root}, 1)
	if err != nil {
		t.Fatal(err)
	}
	// Nor is one that is probed, which would not know any more what to look at.
	first := targets.open[root].target
	probed, begun := 0, time.Now()
	waitFor(t, "a while of probes", func() bool {
		if err := targets.probe(t.Context(), root); err != nil {
			t.Error(err)
		}
		probed++
		return time.Since(begun) > 3*targets.restAfter
	})
	targets.mu.Lock()
	if now := targets.open[root].target; now != first {
		t.Errorf("another one after %d probes: %v, %v", probed, first, now)
	}
	targets.mu.Unlock()
	waitFor(t, "the destination to be closed", func() bool {
		targets.mu.Lock()
		defer targets.mu.Unlock()
		return len(targets.open) == 0
	})
	if !holds(t, root) {
		t.Error("closed under a group")
	}
	if err := g.Write(t.Context(), 0, "late", 0, emptySHA256, func(io.Writer) error { return nil }); err != nil {
		t.Error(err)
	}
	g.Commit(t.Context(), func(_ int, err error) {
		if err != nil {
			t.Error(err)
		}
	})
	waitFor(t, "nobody to hold the root", func() bool { return !holds(t, root) })
	if err := targets.close(); err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// holds says whether this process has the directory, or something below it, open.
func holds(t *testing.T, dir string) bool {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(fds, func(fd fs.DirEntry) bool {
		to, _ := os.Readlink("/proc/self/fd/" + fd.Name()) // it may have been closed
		return to == dir || strings.HasPrefix(to, dir+"/")
	})
}

// Groups are begun below a root while it is replaced again and again, and each finds
// a destination that is open.
func TestReplacedAllTheTime(t *testing.T) {
	t.Parallel()
	targets := newTargets(&Config{})
	root := t.TempDir() + "/root"
	over := make(chan struct{})
	var replacing, working sync.WaitGroup
	replacing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-over:
				return
			default:
				_ = os.Rename(root, fmt.Sprint(root, i))
			}
		}
	})
	for range 4 {
		working.Go(func() {
			for range 200 {
				g, err := targets.group(schemas.Settings{Root: root}, 1)
				if fault.Is(err, schemas.CodeDestinationDown) {
					continue // renamed while it was opened
				}
				if err != nil {
					t.Error(err)
					return
				}
				if _, _, err := g.Compare(t.Context(), 0, "none", 0, emptySHA256); !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
				g.Abort()
			}
		})
	}
	working.Wait()
	close(over)
	replacing.Wait()
	if err := targets.close(); err != nil {
		t.Error(err)
	}
}

const emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
