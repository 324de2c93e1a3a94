package app

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/internal/archive"
	"github.com/exhume/exhume/internal/console"
	"github.com/exhume/exhume/producer"
	"github.com/exhume/exhume/schemas"
	"github.com/exhume/exhume/worker"
)

// BatchOptions say which manifest is restored, and how.
type BatchOptions struct {
	// Manifest is a file's name, "-" for Stdin.
	Manifest string
	Stdin    io.Reader
	// Actor is who submits the batch and on whose behalf items are restored
	// that name no actor themselves.
	Actor string
	// Name is the batch's id; empty derives it from what is to be done.
	Name string
	// Root is the destination root; empty means the manifest's directory, or
	// the current one for standard input.
	Root string
	// SkipInvalid leaves invalid rows out instead of refusing the manifest.
	SkipInvalid bool
	// From leaves out the rows before this one, counted from 1.
	From int64
	// Terms, if set, says how a batch of so many items is worked on.
	Terms func(total int64) (schemas.Terms, error)
	// Hold submits the batch without beginning to restore it.
	Hold bool
	// CheckOnly reads and checks the manifest and does nothing more.
	CheckOnly bool
	// AcceptEvidence continues with the evidence log as it is, although it was
	// moved away, replaced or cut since the last batch.
	AcceptEvidence bool
	// Rejected is told of each invalid row.
	Rejected func(producer.Reject)
	// Progress is told how the work goes on.
	Progress Progress
	// Trial is for measurements.
	Trial Trial
}

// Trial changes an embedded fleet for the sake of a measurement. The zero value
// changes nothing.
type Trial struct {
	// Restorer, if set, stands in for archive and destination.
	Restorer worker.Restorer
	// Metrics, if set, are counted in.
	Metrics *console.Metrics
}

// Progress is told how a batch goes on. Its methods are called from several
// goroutines, one at a time.
type Progress interface {
	// Waiting: another process must end first.
	Waiting(owner string)
	// Checking: so many rows of the manifest are read.
	Checking(rows int64)
	// Submitting: so many requests of the total are published.
	Submitting(published, total int64)
	// Full: nothing more can be submitted for now, because the queue is full; nil
	// says that it goes on. It is told every few seconds.
	Full(reason error)
	Watcher
}

// Batch is what became of a batch.
type Batch struct {
	schemas.Summary
	// Rows and Rejected count the manifest's rows.
	Rows, Rejected int64
	// Before are the counts that the batch had when it was submitted again;
	// Known says that it was.
	Before schemas.Counts
	Known  bool
}

// InvalidManifestError says that a manifest has rows that cannot be restored.
type InvalidManifestError struct {
	Manifest        string
	Valid, Rejected int64
}

func (e *InvalidManifestError) Error() string {
	if e.Valid == 0 {
		return fmt.Sprintf("%s: none of its rows is valid (%d invalid), nothing was submitted; correct them", e.Manifest, e.Rejected)
	}
	return fmt.Sprintf("%s: %d invalid %s, nothing was submitted; correct them, or leave them out with --on-invalid skip",
		e.Manifest, e.Rejected, plural(e.Rejected, "row", "rows"))
}

// ErrNoManifest says that there is no manifest where one was named.
var ErrNoManifest = errors.New("there is no such file")

// ErrInterrupted says that a batch was stopped before its end. Nothing is lost:
// the same call continues.
var ErrInterrupted = errors.New("interrupted")

// BatchRestore restores a manifest and returns when the batch has ended: through
// the fleet that is configured or works in the state directory, else through an
// embedded one. When ctx ends it finishes what is in hand and returns
// ErrInterrupted.
func BatchRestore(ctx context.Context, cfg *Config, o BatchOptions, log zerolog.Logger) (Batch, error) {
	if HasFleet(cfg) {
		return Submit(ctx, cfg, o, true, log)
	}
	out, s, done, err := o.prepare(ctx, cfg)
	if err != nil || o.CheckOnly {
		return out, err
	}
	defer done()
	f, err := openFleet(ctx, cfg, fleetOptions{
		waiting: o.Progress.Waiting, acceptEvidence: o.AcceptEvidence, listen: onlyHere, temporary: true, trial: o.Trial,
	}, log)
	if err != nil {
		return out, err
	}
	err = f.restoreBatch(ctx, &out, o, s)
	return out, errors.Join(err, f.close())
}

// onlyHere is where a fleet listens that can be steered from this machine while it
// works on its batch.
const onlyHere = "127.0.0.1:0"

// prepare reads and checks the manifest and says what is to be submitted. The
// caller calls done when that has happened.
func (o BatchOptions) prepare(ctx context.Context, cfg *Config) (out Batch, s producer.Submission, done func(), err error) {
	root, err := destinationRoot(o)
	if err != nil {
		return out, s, nil, err
	}
	m, err := producer.OpenManifest(o.Manifest, o.Stdin, producer.ManifestOptions{
		Actor: o.Actor, Root: root, From: o.From, Progress: o.Progress.Checking,
	})
	if err != nil {
		return out, s, nil, err
	}
	closeManifest := func() { _ = m.Close() } // temporaries only
	defer func() {
		if err != nil || o.CheckOnly {
			closeManifest()
		}
	}()
	check, err := m.Check(ctx, o.Rejected)
	if err != nil {
		return out, s, nil, err
	}
	out = Batch{Rows: check.Rows, Rejected: check.Rejected}
	out.Total = check.Valid
	if check.Rejected > 0 && !o.SkipInvalid || check.Valid == 0 {
		return out, s, nil, &InvalidManifestError{m.Name(), check.Valid, check.Rejected}
	}
	spec := schemas.Batch{
		ID: o.Name, State: schemas.StateOpen, Actor: o.Actor, Manifest: m.Name(), ManifestSHA256: check.SHA256, Archive: archive.Redact(cfg.Backend.URL),
		Settings: schemas.Settings{Root: root, Overwrite: cfg.Exhume.Overwrite, Mode: cfg.Exhume.Mode.Bits()},
	}
	if spec.ID == "" {
		spec.ID = derivedID(spec, o)
	}
	if o.Terms != nil {
		if spec.Terms, err = o.Terms(check.Valid); err != nil {
			return out, s, nil, err
		}
	}
	if o.Hold {
		spec.State = schemas.StatePaused
	}
	return out, producer.Submission{Batch: spec, Items: m.Items(ctx), Total: check.Valid}, closeManifest, nil
}

// restoreBatch submits a batch and runs the fleet until the batch has ended.
func (f *fleet) restoreBatch(ctx context.Context, out *Batch, o BatchOptions, s producer.Submission) error {
	// Even when nothing is left to do, a run that was killed may have left its
	// temporary files.
	if _, err := f.targets.get(s.Batch.Settings.Root); err != nil {
		return err
	}
	ended := f.watch(s.Batch.ID, o.Progress.Restoring)
	silence, err := f.answer(ctx, f.recording)
	if err != nil {
		return err
	}
	defer silence()
	running, stop := context.WithCancel(ctx)
	defer stop()
	ran := make(chan error, 1)
	go func() {
		err := f.run(running)
		stop()
		ran <- err
	}()

	submitting, halt := context.WithCancel(running)
	defer halt()
	s.Progress = func(published int64) { o.Progress.Submitting(published, s.Total) }
	s.Waiting = func(reason error) {
		o.Progress.Full(reason)
		select {
		case <-ended: // nobody makes room any more
			halt()
		default:
		}
	}
	sub, err := producer.Submit(submitting, f.control, f.broker, s)
	var paused *PausedError
	if err == nil && !sub.State.Final() {
		// Also when everything is.
		if r, gerr := f.answers.Get(running, s.Batch.ID); gerr == nil && r.State == schemas.StatePaused {
			paused = &PausedError{r.Summary}
		}
	}
	if err == nil && !sub.State.Final() && paused == nil {
		select {
		case <-ended:
		case <-running.Done():
		}
	}
	stop()
	if rerr := <-ran; rerr != nil {
		err = rerr
	} else if errors.Is(err, context.Canceled) {
		err = nil
	}
	out.Known, out.Before = sub.Known, sub.Before
	sum, found, ferr := f.ledger.Find(context.WithoutCancel(ctx), s.Batch.ID)
	if found {
		out.Summary = sum
	}
	if err := errors.Join(err, ferr); err != nil {
		return err
	}
	switch {
	case out.State.Final():
		return nil
	case ctx.Err() != nil:
		return ErrInterrupted
	case out.State == schemas.StatePaused:
		return &PausedError{out.Summary}
	case paused != nil:
		return paused
	}
	return ErrInterrupted
}

// PausedError says that a batch is paused, and nobody is known who would let it go
// on. Nothing is lost: it can be resumed, and then the same call continues it.
type PausedError struct{ Summary schemas.Summary }

func (e *PausedError) Error() string {
	b := &e.Summary.Batch
	why := ""
	if b.Note != "" {
		why = ": " + b.Note
	}
	resume := "exhume batch resume " + b.ID
	if b.Reason == schemas.ReasonFleetPaused {
		resume = "exhume batch resume --all"
	}
	return fmt.Sprintf("batch %s is paused (%s)%s; '%s' lets it go on, and then the same command", b.ID, b.Reason, why, resume)
}

// watch tells changed of the batch's changes, one at a time, and closes the
// channel when the batch has ended or is stopped without anybody having asked for
// it. It must be called before run.
func (f *fleet) watch(id string, changed func(schemas.Summary)) (ended <-chan struct{}) {
	done := make(chan struct{})
	var mu sync.Mutex
	over := false
	f.collector.Changed = func(s schemas.Summary) {
		mu.Lock()
		defer mu.Unlock()
		if s.ID != id || over {
			return
		}
		changed(s)
		if over = s.State.Final() || s.State == schemas.StatePaused && s.By == ""; over {
			close(done)
		}
	}
	return done
}

// destinationRoot is the absolute directory, or the bucket, below which outputs
// lie.
func destinationRoot(o BatchOptions) (string, error) {
	if o.Root != "" {
		return AbsoluteRoot(o.Root)
	}
	if o.Manifest == "-" {
		return os.Getwd()
	}
	path, err := filepath.EvalSymlinks(o.Manifest)
	if err != nil {
		return "", fmt.Errorf("manifest %s: %w", o.Manifest, ErrNoManifest)
	}
	return filepath.Abs(filepath.Dir(path))
}

// AbsoluteRoot makes a destination root one that means the same everywhere. None
// stays none.
func AbsoluteRoot(root string) (string, error) {
	if root == "" || isBucket(root) {
		return root, nil
	}
	return filepath.Abs(root)
}

// derivedID names a batch after everything that makes it what it is, so that
// the same work has the same name.
func derivedID(b schemas.Batch, o BatchOptions) string {
	h := sha256.New()
	for _, part := range []string{
		b.ManifestSHA256, b.Archive, b.Settings.Root, string(b.Settings.Overwrite),
		fmt.Sprint(b.Settings.Mode), fmt.Sprint(o.SkipInvalid), fmt.Sprint(max(o.From, 1)),
	} {
		_, _ = io.WriteString(h, part+"\x00")
	}
	name := strings.ToLower(filepath.Base(b.Manifest))
	name, _, _ = strings.Cut(name, ".")
	name = strings.Trim(notInNames.ReplaceAllString(name, "-"), "-_")
	if len(name) > 40 {
		name = name[:40]
	}
	if name == "" {
		name = "batch"
	}
	return name + "-" + hex.EncodeToString(h.Sum(nil))[:12]
}

func plural(n int64, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}
