//go:build unix

package evidence

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/exhume/exhume/schemas"
)

// childEnv tells a process started by these tests what to do: the name of one
// of the children and a directory.
const childEnv = "EXHUME_EVIDENCE_TEST_CHILD"

var children = map[string]func(dir string) error{
	"append": func(dir string) error { return appendAtOnce(dir, "child") },
	"full":   appendToFullDisk,
}

func TestMain(m *testing.M) {
	if name, dir, ok := strings.Cut(os.Getenv(childEnv), ":"); ok {
		if err := children[name](dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// startChild runs this test binary again and gives a function that waits for it.
func startChild(t *testing.T, name, dir string) (wait func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	c := exec.CommandContext(t.Context(), self)
	c.Env = append(os.Environ(), childEnv+"="+name+":"+dir)
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := c.Wait(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out.String())
		}
	}
}

const (
	writers   = 8
	groups    = 10
	groupSize = 5
)

// appendAtOnce appends from many goroutines through two Logs.
func appendAtOnce(dir, who string) error {
	var logs [2]*Log
	for i := range logs {
		l, err := Open(dir)
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		logs[i] = l
	}
	errs := make(chan error, writers)
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for g := range groups {
				records := samples(0, groupSize)
				for i := range records {
					records[i].Worker = fmt.Sprintf("%s-%d-%d-%d", who, w, g, i)
				}
				if _, err := logs[w%2].Append(context.Background(), records); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	all.Wait()
	close(errs)
	return <-errs
}

func TestManyWritersAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	waits := []func(){startChild(t, "append", dir), startChild(t, "append", dir)}
	if err := appendAtOnce(dir, "parent"); err != nil {
		t.Error(err)
	}
	for _, wait := range waits {
		wait()
	}
	l := openLog(t, dir)
	mustVerify(t, l, 3*writers*groups*groupSize)
	seen := map[string]int{}
	for r, err := range l.Since(t.Context(), schemas.EvidencePosition{}) {
		if err != nil {
			t.Fatal(err)
		}
		seen[r.Worker]++
	}
	for w := range writers {
		for g := range groups {
			for i := range groupSize {
				parent, child := fmt.Sprintf("parent-%d-%d-%d", w, g, i), fmt.Sprintf("child-%d-%d-%d", w, g, i)
				if seen[parent] != 1 || seen[child] != 2 {
					t.Errorf("%s %d times, want 1; %s %d times, want 2", parent, seen[parent], child, seen[child])
				}
			}
		}
	}
}

func TestAFullDiskLeavesNoHalfGroup(t *testing.T) {
	t.Parallel()
	startChild(t, "full", t.TempDir())()
}

// appendToFullDisk runs out of space in the middle of a group, at every few
// bytes, and goes on when there is room again. It limits the size of files,
// which is for the whole process.
func appendToFullDisk(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	var unlimited syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &unlimited); err != nil {
		return err
	}
	l, err := Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	pos, err := l.Append(context.Background(), samples(0, 3))
	if err != nil {
		return err
	}
	total := int64(3)
	for room := uint64(0); room < 2000; room += 97 {
		limit := syscall.Rlimit{Cur: uint64(pos.Offset) + room, Max: unlimited.Max}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			return err
		}
		_, err := l.Append(context.Background(), samples(0, 10))
		if err == nil || !strings.Contains(err.Error(), l.Path()) || !strings.Contains(err.Error(), "free space") {
			return fmt.Errorf("with room for %d bytes: got error %w", room, err)
		}
		info, err := os.Stat(l.Path())
		if err != nil {
			return err
		}
		if info.Size() != pos.Offset {
			return fmt.Errorf("with room for %d bytes: the file has %d and was to be cut back to %d", room, info.Size(), pos.Offset)
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &unlimited); err != nil {
			return err
		}
		if pos, err = l.Append(context.Background(), samples(0, 1)); err != nil {
			return err
		}
		total++
	}
	report, err := Verify(l.Path(), pos)
	if err == nil && report.Records != total {
		err = fmt.Errorf("%d records, want %d", report.Records, total)
	}
	return err
}
