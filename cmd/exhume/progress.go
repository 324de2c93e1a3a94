package main

import (
	"fmt"
	"io"
	"os"
	"strings"
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

	mu    sync.Mutex
	last  time.Time // of the last plain line
	batch schemas.Summary
	where schemas.Whereabouts
	pace  pace
	// full is why nothing more can be submitted for now, since when.
	full      error
	fullSince time.Time

	all *mpb.Progress // of the bar, nil until there is a total
	bar *mpb.Bar

	// The bar reads these while it draws, and must not wait for the lock then:
	// its holder may be waiting for the bar.
	published, total atomic.Int64
	note             atomic.Value // string
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

// Full implements app.Progress.
func (p *progress) Full(reason error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if reason != nil && p.full == nil {
		p.fullSince = time.Now()
		if !p.terminal {
			_, _ = fmt.Fprintf(p.w, "Waiting: %v. It goes on by itself; Ctrl-C stops, and the same command continues.\n", reason)
		}
	}
	p.full = reason
	p.show()
}

// Restoring implements app.Progress.
func (p *progress) Restoring(s schemas.Summary) {
	p.mu.Lock()
	defer p.mu.Unlock()
	stands, stood := standingText(s.Batch), standingText(p.batch.Batch)
	changed := s.State == schemas.StatePaused && stands != stood || p.batch.State == schemas.StatePaused && s.State != schemas.StatePaused
	p.pace.observe(s, time.Now())
	p.batch = s
	p.total.Store(max(p.total.Load(), s.Total))
	if changed && !p.terminal {
		_, _ = fmt.Fprintf(p.w, "Batch %s: %s\n", s.ID, stands)
	}
	p.show()
}

// Where implements app.Watcher.
func (p *progress) Where(w schemas.Whereabouts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.where = w
	p.show()
}

// show brings the bar up to date or prints a plain line. The caller holds the lock.
func (p *progress) show() {
	c := p.batch.Counts
	p.note.Store(p.noteText())
	if p.terminal {
		p.openBar()
		p.bar.SetTotal(p.total.Load(), false)
		p.bar.SetCurrent(min(c.Done(), p.total.Load()))
		return
	}
	if c.Done() == 0 {
		if p.full != nil {
			p.line("%d of %d items submitted, %s", p.published.Load(), p.total.Load(), p.waitText())
			return
		}
		p.line("%d of %d items submitted", p.published.Load(), p.total.Load())
		return
	}
	p.line("%d of %d items done (%d restored, %d unchanged, %d failed), %s, %s", c.Done(), p.total.Load(),
		c.Restored, c.Unchanged, c.Failed, bytesText(c.Bytes), p.noteText())
}

// noteText is what is said besides the number of items. The caller holds the lock.
func (p *progress) noteText() string {
	s := p.batch
	var parts []string
	say := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if n := p.published.Load(); n > 0 && n < p.total.Load() {
		say("submitted %d", n)
	}
	if p.full != nil {
		say("%s", p.waitText())
	}
	if s.Reason != "" && s.Reason != schemas.ReasonWorking && !s.State.Final() {
		say("%s (%s)", s.State, s.Reason)
	}
	if p.pace.items > 0 {
		say("%.0f items/s, %s/s", p.pace.items, bytesText(int64(p.pace.bytes)))
	}
	if left, ok := p.pace.left(s); ok {
		say("%s left", left.Round(time.Second))
	}
	if p.terminal && s.Counts.Failed > 0 {
		say("failed %d", s.Counts.Failed)
	}
	if n := p.where.Retrying; n > 0 {
		say("%d to be tried again", n)
	}
	items := int64(0)
	for _, w := range p.where.Workers {
		items += w.Items
	}
	if n := len(p.where.Workers); n > 0 {
		say("%d workers with %d items in hand", n, items)
	}
	if text := waitText(p.where.Workers); text != "" {
		say("%s", text)
	}
	return strings.Join(parts, ", ")
}

// waitText says why, and for how long, nothing more is submitted.
func (p *progress) waitText() string {
	return fmt.Sprintf("waiting for %s: %v", time.Since(p.fullSince).Round(time.Second), p.full)
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
		mpb.AppendDecorators(decor.Percentage(), decor.Name(" "), decor.Any(p.notes)))
}

// notes is what the bar says besides its numbers.
func (p *progress) notes(decor.Statistics) string {
	text, _ := p.note.Load().(string)
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
