package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/exhume/exhume/schemas"
)

// plainEvery is how often progress is printed where there is no terminal.
const plainEvery = 10 * time.Second

// progress shows how a batch goes on: a bar on a terminal, a line now and then
// elsewhere. It is safe for concurrent use.
type progress struct {
	w        io.Writer
	terminal bool

	mu     sync.Mutex
	last   time.Time // of the last plain line
	start  time.Time // of restoring
	begun  int64     // items done before this run
	counts schemas.Counts

	all *mpb.Progress // of the bar, nil until there is a total
	bar *mpb.Bar

	// The bar reads these while it draws, and must not wait for the lock then:
	// its holder may be waiting for the bar.
	published, total, failed atomic.Int64
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, terminal: terminal(w), last: time.Now()}
}

// Waiting implements app.Progress.
func (p *progress) Waiting(owner string) {
	_, _ = fmt.Fprintf(p.w, "Another exhume (%s) works in this state directory; waiting for it to end.\n", owner)
}

// Checking implements app.Progress.
func (p *progress) Checking(rows int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.line("%d rows of the manifest checked", rows)
}

// Submitting implements app.Progress.
func (p *progress) Submitting(published, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.published.Store(published)
	p.total.Store(total)
	p.show()
}

// Restoring implements app.Progress.
func (p *progress) Restoring(s schemas.Summary) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.start.IsZero() {
		p.start, p.begun = time.Now(), s.Counts.Done()
	}
	p.counts = s.Counts
	p.failed.Store(s.Counts.Failed)
	p.total.Store(max(p.total.Load(), s.Total))
	p.show()
}

// show brings the bar up to date or prints a plain line. The caller holds the lock.
func (p *progress) show() {
	c := p.counts
	if p.terminal {
		p.openBar()
		p.bar.SetCurrent(c.Done())
		return
	}
	if c.Done() == 0 {
		p.line("%d of %d items submitted", p.published.Load(), p.total.Load())
		return
	}
	p.line("%d of %d items done (%d restored, %d unchanged, %d failed), %s, %.0f items/s", c.Done(), p.total.Load(),
		c.Restored, c.Unchanged, c.Failed, bytesText(c.Bytes), float64(c.Done()-p.begun)/max(time.Since(p.start).Seconds(), 1e-3))
}

// line prints a plain line unless one was printed just before.
func (p *progress) line(format string, args ...any) {
	if time.Since(p.last) >= plainEvery {
		p.last = time.Now()
		_, _ = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *progress) openBar() {
	if p.bar != nil {
		return
	}
	p.all = mpb.New(mpb.WithOutput(p.w), mpb.WithWidth(50), mpb.WithRefreshRate(100*time.Millisecond))
	p.bar = p.all.AddBar(p.total.Load(),
		mpb.PrependDecorators(decor.Name("restoring "), decor.CountersNoUnit("%d/%d ")),
		mpb.AppendDecorators(decor.Percentage(), decor.Any(p.notes), decor.Name(" "),
			decor.AverageSpeed(0, "%.0f/s"), decor.Name(" ETA "), decor.AverageETA(decor.ET_STYLE_GO)))
}

// notes is what the bar says besides its numbers.
func (p *progress) notes(decor.Statistics) string {
	text := ""
	if n := p.published.Load(); n > 0 && n < p.total.Load() {
		text += fmt.Sprintf(" submitted %d", n)
	}
	if n := p.failed.Load(); n > 0 {
		text += fmt.Sprintf(" failed %d", n)
	}
	return text
}

// finish leaves the bar as it stands.
func (p *progress) finish() {
	p.mu.Lock()
	all, bar := p.all, p.bar
	p.mu.Unlock()
	if all == nil {
		return
	}
	if !bar.Completed() {
		bar.Abort(false)
	}
	all.Wait()
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd()) && os.Getenv("TERM") != "dumb"
}

// colours says whether coloured text may be written to w (see no-color.org).
func colours(w io.Writer) bool { return terminal(w) && os.Getenv("NO_COLOR") == "" }

// bytesText is a size for people.
func bytesText(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}
