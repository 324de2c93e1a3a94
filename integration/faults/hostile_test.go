package faults

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/schemas"
)

// Manifests ask for what must not be, and somebody lays traps where files are to go.
func TestHostile(t *testing.T) {
	strike(t, []fault{
		{"manifest", false, hostileRows},
		{"manifest-unreadable", false, unreadable},
		{"targets", false, strangeTargets(schemas.OverwriteNever)},
		{"targets-overwritten", true, strangeTargets(schemas.OverwriteAlways)},
		{"symlinks-swapped", false, symlinksSwapped},
	})
}

// hostileRows has rows between those of a manifest that lead outside, that collide with
// others, or that nobody can understand. It watches that exactly those are refused, each
// named by its line, and that the others are restored: I1, I7.
func hostileRows(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 400, "")
	tr.start(2)
	rows := tr.Rows(t)
	// A row that others can collide with in more ways, restored like any other.
	good := tr.truth[tr.good()[0]]
	special := harness.Row{Tombstone: rows[good.index].Tombstone, Output: "out/Große Äpfel/é.bin"}
	tr.truth[special.Output] = truth{index: int64(tr.items), sum: good.sum}
	tr.items++
	refused := tr.mix(append(rows, special), hostileLines(special.Tombstone, tr.Path("outside"), rows[0].Output, special.Output))
	tr.submitBy(tr.exit(), "hostile.jsonl", "--on-invalid", "skip", "--rejects", "rejects")
	tr.finish()

	text, err := os.ReadFile(tr.Path("rejects"))
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for line := range harness.Lines(string(text)) {
		var n int
		if _, err := fmt.Sscanf(line, "hostile.jsonl:%d:", &n); err != nil || len(line) > 1000 {
			t.Errorf("refused with %q: %v", line, err)
		}
		got = append(got, n)
	}
	slices.Sort(got)
	if !slices.Equal(got, refused) {
		t.Errorf("lines %v were refused, want %v:\n%s", got, refused, text)
	}
}

// submitBy is submit of a manifest with more arguments.
func (tr *trial) submitBy(want int, manifest string, args ...string) {
	tr.Helper()
	tr.watch = newWatch(tr)
	args = append([]string{"submit", manifest, "--by", "tester", "--batch", batch, "--root", tr.root, "--wait"}, args...)
	done := make(chan int, 1)
	go func() {
		_, said, code := tr.Exhume(tr.T, tr.env, args...)
		if code != want {
			tr.Errorf("%q: exit code %d, want %d\n%s", args, code, want, said)
		}
		done <- code
	}()
	tr.wait = func() int { return <-done }
}

// mix writes hostile.jsonl: the rows in their order, the first one first and the last
// one before the last third of the hostile lines, which are anywhere between. It gives
// the numbers of the hostile lines.
func (tr *trial) mix(rows []harness.Row, hostile []string) (numbers []int) {
	tr.Helper()
	var text strings.Builder
	last := len(hostile) * 2 / 3
	places := make([]int, len(hostile)) // each after so many rows
	for i := range places {
		if places[i] = len(rows); i < last {
			places[i] = 1 + tr.random.IntN(len(rows))
		}
	}
	slices.Sort(places)
	line := 0
	for i := range len(rows) + 1 {
		for len(places) > 0 && places[0] == i {
			line++
			numbers = append(numbers, line)
			text.WriteString(hostile[len(hostile)-len(places)] + "\n")
			places = places[1:]
		}
		if i < len(rows) {
			line++
			_, _ = fmt.Fprintf(&text, "{\"tombstone\":%q,\"output\":%q}\n", tr.manifestTombstone(rows[i]), rows[i].Output)
		}
	}
	if err := os.WriteFile(tr.Path("hostile.jsonl"), []byte(text.String()), 0o644); err != nil {
		tr.Fatal(err)
	}
	return numbers
}

// strangeTargets has what is no file, or somebody else's, where some of the items are to
// go. It watches that nothing of it is opened, followed or written through: I1, I3, I7.
func strangeTargets(overwrite schemas.Overwrite) func(*testing.T, *rand.Rand) {
	return func(t *testing.T, random *rand.Rand) {
		tr := newTrial(t, random, 500, "")
		tr.start(2)
		if overwrite == schemas.OverwriteAlways {
			tr.withoutOthers()
		}
		outside := tr.Path("outside")
		secret := filepath.Join(outside, "secret")
		place(t, secret, []byte("a secret"))
		kinds := []struct {
			name string
			// stays says that it is not replaced even where others are.
			stays bool
			make  func(path string) error
		}{
			{"fifo", false, func(path string) error { return unix.Mkfifo(path, 0o644) }},
			{"device", false, func(path string) error { return unix.Mknod(path, unix.S_IFCHR|0o644, 0) }},
			{"socket", false, func(path string) error { return bindSocket(t, path) }},
			{"directory", true, func(path string) error { return os.Mkdir(path, 0o755) }},
			{"symlink to a file", false, func(path string) error { return os.Symlink(secret, path) }},
			{"symlink to a directory", false, func(path string) error { return os.Symlink(outside, path) }},
			{"symlink to nothing", false, func(path string) error { return os.Symlink(filepath.Join(outside, "new"), path) }},
			{"symlink to itself", false, func(path string) error { return os.Symlink(filepath.Base(path), path) }},
		}
		strange := map[string]os.FileInfo{}
		for i, output := range tr.good()[:10*len(kinds)] {
			kind, path := kinds[i%len(kinds)], filepath.Join(tr.root, output)
			err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), kind.make(path))
			info, serr := os.Lstat(path)
			if err := errors.Join(err, serr); err != nil {
				t.Fatalf("%s: %v", kind.name, err)
			}
			if overwrite == schemas.OverwriteAlways && !kind.stays {
				continue
			}
			strange[path] = info
			is := tr.truth[output]
			is.code, is.sum = schemas.CodeDestinationExists, ""
			tr.truth[output] = is
		}
		tr.submitBy(tr.exit(), "manifest.jsonl", "--overwrite", string(overwrite))
		tr.finish()
		for path, before := range strange {
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
				t.Errorf("I7: %s was %v and is %v (%v)", path, before.Mode(), after, err)
			}
		}
	}
}

// bindSocket makes a socket at a path of any length.
func bindSocket(t *testing.T, path string) error {
	t.Helper()
	short := filepath.Join(os.TempDir(), fmt.Sprintf("exhume-%x", rand.Uint64()))
	l, err := net.Listen("unix", short)
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = l.Close() })
	return os.Rename(short, path)
}

// withoutOthers removes what stands already where items are to go.
func (tr *trial) withoutOthers() {
	tr.Helper()
	db := tr.OpenArchive(tr.T)
	defer db.Close() //nolint:errcheck // opened for reading
	for output, is := range tr.truth {
		if is.code == schemas.CodeDestinationExists {
			is.code, is.sum = "", tr.artifact(db, output).sum
			tr.truth[output] = is
		}
	}
	if err := os.RemoveAll(tr.root); err != nil {
		tr.Fatal(err)
	}
}

// symlinksSwapped swaps directories for symlinks that lead outside, and back, all the
// time while files are restored into them. Outside there is everything that the items
// might find there. It watches that no path is taken twice on trust: what is written
// goes to the directory that was checked, or the item fails: I1, I3, I7.
func symlinksSwapped(t *testing.T, random *rand.Rand) {
	tr := newTrial(t, random, 1500, "")
	tr.start(2)
	var swaps []swap
	for i, dir := range []string{"out/1", "out/0/3", "out/0/7", "out/2/0"} {
		s := swap{dir: filepath.Join(tr.root, dir), link: tr.Path(fmt.Sprint("parked", i))}
		to := tr.Path("outside", fmt.Sprint(i))
		if random.IntN(2) == 0 {
			to, _ = filepath.Rel(filepath.Dir(s.dir), to)
		}
		if err := errors.Join(os.MkdirAll(s.dir, 0o755), os.Symlink(to, s.link)); err != nil {
			t.Fatal(err)
		}
		swaps = append(swaps, s)
		tr.tempt(dir, tr.Path("outside", fmt.Sprint(i)))
	}
	tr.submit(300)
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	var times int
	swapping.Go(func() {
		for {
			s := swaps[random.IntN(len(swaps))]
			s.do(t)
			pause(random, 10*time.Millisecond)
			s.do(t)
			times++
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(random.Int64N(int64(10 * time.Millisecond)))):
			}
		}
	})
	ended := tr.wait
	tr.wait = func() int {
		code := ended()
		close(stop)
		swapping.Wait()
		return code
	}
	tr.finish()
	refused := 0
	for _, r := range tr.Results(t, batch) {
		if r.Code == schemas.CodePathRefused {
			refused++
		}
	}
	t.Logf("%d swaps, %d items were refused", times, refused)
	if refused == 0 {
		t.Error("no item met a symlink")
	}
}

// tempt has the items below a directory fail when they meet a symlink, and puts what
// they are to become where it leads: some of them with other bytes.
func (tr *trial) tempt(dir, to string) {
	tr.Helper()
	db := tr.OpenArchive(tr.T)
	defer db.Close() //nolint:errcheck // opened for reading
	place(tr.T, filepath.Join(to, "sentinel"), []byte("nobody's business"))
	for _, output := range slices.Sorted(maps.Keys(tr.truth)) {
		rel, below := strings.CutPrefix(output, dir+"/")
		is := tr.truth[output]
		if !below || is.code == schemas.CodeTombstoneNotFound {
			continue
		}
		_ = os.Remove(filepath.Join(tr.root, output)) // if anything stands there
		a := tr.artifact(db, output)
		tr.truth[output] = truth{index: is.index, sum: a.sum, or: []schemas.Code{schemas.CodePathRefused}}
		switch tr.random.IntN(3) {
		case 0:
			place(tr.T, filepath.Join(to, rel), a.content)
		case 1:
			place(tr.T, filepath.Join(to, rel), []byte("other bytes"))
		}
	}
}

// swap exchanges a directory and a symlink.
type swap struct{ dir, link string }

func (s swap) do(t *testing.T) {
	if err := unix.Renameat2(unix.AT_FDCWD, s.dir, unix.AT_FDCWD, s.link, unix.RENAME_EXCHANGE); err != nil {
		t.Errorf("swap %s: %v", s.dir, err)
	}
}

// pause waits for up to so long.
func pause(random *rand.Rand, most time.Duration) {
	<-time.After(time.Duration(random.Int64N(int64(most))))
}
