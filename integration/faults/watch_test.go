package faults

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/exhume/exhume/integration/harness"
	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// watch looks on while things break: nothing wrong is visible at any moment (I3),
// the counters always add up and never go back (I2), nothing outside the root
// changes (I7).
type watch struct {
	cfg      *app.Config
	tr       *trial
	outside  string
	before   string // what is outside
	stopped  chan struct{}
	all      sync.WaitGroup
	done     atomic.Uint64 // bits of a float64: the share of the items that is done
	present  atomic.Int64  // items whose file is there
	seen     map[string]seen
	samples  int
	recorded int64
}

// seen is a file whose content is known.
type seen struct {
	inode uint64
	size  int64
	at    time.Time
}

func newWatch(tr *trial) *watch {
	tr.Helper()
	cfg := *tr.Config // which the test may still change
	w := &watch{tr: tr, cfg: &cfg, outside: tr.Path("outside"), stopped: make(chan struct{}), seen: map[string]seen{}}
	place(tr.T, filepath.Join(w.outside, "sentinel"), []byte("nobody's business"))
	w.before = w.digest()
	w.all.Go(w.run)
	tr.Cleanup(w.stop)
	return w
}

// stop ends the watch, which must have seen something.
func (w *watch) stop() {
	select {
	case <-w.stopped:
		return
	default:
	}
	close(w.stopped)
	w.all.Wait()
	if w.samples == 0 {
		w.tr.Error("the ledger was not read once while the batch ran")
	}
	if after := w.digest(); after != w.before {
		w.tr.Errorf("I7: outside the root was %s, is %s", w.before, after)
	}
}

// progress is the share of the items that is done, as files and ledger tell.
func (w *watch) progress() float64 { return math.Float64frombits(w.done.Load()) }

func (w *watch) run() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var l *ledger.Reader
	defer func() {
		if l != nil {
			_ = l.Close()
		}
	}()
	for {
		w.look()
		if l == nil {
			l, _ = app.OpenLedgerReader(context.Background(), w.cfg) // it may be away
		}
		if l != nil {
			w.counters(l)
		}
		select {
		case <-tick.C:
		case <-w.stopped:
			return
		}
	}
}

// look looks at all that is visible now.
func (w *watch) look() {
	n := w.visible(w.tr.truth, false)
	w.present.Store(int64(n))
	w.reached(float64(n) / float64(len(w.tr.truth)))
}

// files says whether every file is there that must be in the end.
func (w *watch) files() bool { return w.present.Load() == int64(visibleInTheEnd(w.tr.truth)) }

// reached notes a share of the items.
func (w *watch) reached(share float64) {
	if share > w.progress() {
		w.done.Store(math.Float64bits(share))
	}
}

// visible checks what stands below the root and gives how many items' final content
// does; all says that everything must be there. It goes nowhere else, whatever symlinks
// appear meanwhile.
func (w *watch) visible(truths map[string]truth, all bool) (n int) {
	if root, err := os.OpenRoot(w.tr.root); err == nil {
		n = w.below(root, truths)
		_ = root.Close()
	}
	if want := visibleInTheEnd(truths); all && n != want {
		w.tr.Errorf("I3: %d files are there, want %d", n, want)
	}
	return n
}

// below is visible for a root that is there.
func (w *watch) below(root *os.Root, truths map[string]truth) (n int) {
	_ = fs.WalkDir(root.FS(), ".", func(rel string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // it was removed meanwhile, as temporary files are
		}
		is, asked := truths[rel]
		if !asked {
			if !temporary(rel) {
				w.tr.Errorf("I7: %s was not asked for", rel)
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil // as above
		}
		if w.known(rel, info) {
			n++
			return nil
		}
		f, err := root.Open(rel)
		if err != nil {
			delete(w.seen, rel)
			return nil // as above
		}
		defer f.Close() //nolint:errcheck // opened for reading
		n++
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil || hex.EncodeToString(h.Sum(nil)) != is.sum {
			w.tr.Errorf("I3: %s has SHA-256 %x (%v), want %q", rel, h.Sum(nil), err, is.sum)
		}
		return nil
	})
	return n
}

// visibleInTheEnd is how many items have a file in the end.
func visibleInTheEnd(truths map[string]truth) (n int) {
	for _, is := range truths {
		if is.sum != "" {
			n++
		}
	}
	return n
}

// known says whether a file is the one whose content was looked at.
func (w *watch) known(path string, info fs.FileInfo) bool {
	now := seen{size: info.Size(), at: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		now.inode = st.Ino
	}
	was := w.seen[path]
	w.seen[path] = now
	return was == now
}

// temporary says whether a path below the root is one of exhume's own.
func temporary(rel string) bool {
	for dir := rel; dir != "."; dir = filepath.Dir(dir) {
		if base := filepath.Base(dir); len(base) > 8 && base[:8] == ".exhume-" {
			return true
		}
	}
	return false
}

// counters looks at what the ledger says, if it can.
func (w *watch) counters(l *ledger.Reader) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s, found, err := l.Find(ctx, batch)
	if err != nil || !found {
		return
	}
	kept, counted, err := l.Audit(ctx, batch)
	if err != nil {
		return
	}
	w.samples++
	total := int64(len(w.tr.truth))
	if kept != counted {
		w.tr.Errorf("I2: kept %+v, counted %+v", kept, counted)
	}
	if done := counted.Done(); done < w.recorded || done > total {
		w.tr.Errorf("I2: %d results, after %d, of %d items", done, w.recorded, total)
	}
	if sealed(s) && s.Counts.Done()+s.Open() != total {
		w.tr.Errorf("I2: %d results and %d open, of %d items", s.Counts.Done(), s.Open(), total)
	}
	w.recorded = counted.Done()
	w.reached(float64(w.recorded) / float64(total))
}

func sealed(s schemas.Summary) bool { return s.State != schemas.StateOpen }

// digest describes everything outside the root that nobody may touch.
func (w *watch) digest() (text string) {
	err := filepath.WalkDir(w.outside, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text += path + " " + info.Mode().String() + " " + info.ModTime().String()
		if info.Mode().IsRegular() {
			text += " " + harness.FileSHA256(path)
		}
		text += "\n"
		return nil
	})
	if err != nil {
		text += err.Error()
	}
	return text
}
