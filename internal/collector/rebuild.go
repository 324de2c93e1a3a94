package collector

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/exhume/exhume/schemas"
)

// RebuildLedger is the ledger as its rebuilding sees it.
type RebuildLedger interface {
	// Batches gives the batches, newest first; all when limit is 0.
	Batches(ctx context.Context, limit int) ([]schemas.Summary, error)
	// Reinstate creates a batch with what has happened to it.
	Reinstate(ctx context.Context, b schemas.Batch, events []schemas.BatchEvent) (s schemas.Summary, created bool, err error)
	// Record inserts what is new, and counts what was and what belongs to no item.
	Record(ctx context.Context, results []schemas.Result, failures []schemas.Failure) (Added, error)
	// Conclude ends a batch in a state.
	Conclude(ctx context.Context, id string, to schemas.State, total int64, manifestSHA256 string, at time.Time) (schemas.Summary, error)
	Highest(ctx context.Context, id string) (int64, error)
	Events(ctx context.Context, id string, limit int) ([]schemas.BatchEvent, error)
	Results(ctx context.Context, id string) iter.Seq2[schemas.Result, error]
	Failures(ctx context.Context, id string) iter.Seq2[schemas.Failure, error]
	Setting(ctx context.Context, name string) (value string, found bool, err error)
	ChangeSetting(ctx context.Context, name string, change func(old string) (string, error),
		note func() (schemas.EvidencePosition, error)) (string, error)
	SetPosition(ctx context.Context, pos schemas.EvidencePosition) error
	// TellFromNow keeps what has happened from being told again to those outside.
	TellFromNow(ctx context.Context, at time.Time) error
}

// Added is what one recording added.
type Added struct{ Results, Attempts, Strays int }

// Rebuild brings back what was lost of ledger and evidence, from what is left of
// them and from the broker. It only adds. Running it again adds nothing, and has to
// be done when it was broken off: no book is opened before; see Unfinished. Nobody
// else may write to ledger and evidence meanwhile.
type Rebuild struct {
	Ledger RebuildLedger
	// Evidence is the log to which lines are added that are lost; nil adds none, and
	// only counts them.
	Evidence Evidence
	// Logs are the lines of all evidence logs beside the ledger, that one included.
	Logs []iter.Seq2[schemas.Record, error]
	// Options say what evidence contains.
	Options Options
	// Results are the messages of results that the broker has, oldest first.
	Results iter.Seq2[Stored, error]
	// Shown are the batches that workers are shown, and Steering is what holds for the
	// fleet; Known says that the broker knows, and that there are no others.
	Shown    []schemas.Batch
	Steering schemas.Steering
	Known    bool
	// Actor and Reason are who wants it, and why.
	Actor, Reason string
}

// Stored is a message of results, and when the broker stored it.
type Stored struct {
	At   time.Time
	Data []byte
}

// Rebuilt is what was brought back.
type Rebuilt struct {
	// Messages is how many messages of results were read, Records how many lines of
	// evidence.
	Messages int64 `json:"messages"`
	Records  int64 `json:"records"`
	// Batches, Results and Attempts are what was added to the ledger, and Ended is
	// how many batches were ended in it.
	Batches  int64 `json:"batches"`
	Results  int64 `json:"results"`
	Attempts int64 `json:"attempts"`
	Ended    int64 `json:"ended"`
	// Lines is how many lines were added to the evidence.
	Lines int64 `json:"lines"`
	// Problems are what could not be brought back, or does not agree.
	Problems []string `json:"problems,omitempty"`
}

// clocksApart is how far the clocks of a fleet may be apart.
const clocksApart = time.Minute

// rebuilding is one run of Rebuild.
type rebuilding struct {
	*Rebuild
	out Rebuilt
	// logged is what the logs hold.
	logged ahead
	// stories are what they tell of each batch, told the batches in the order in which
	// they tell of them.
	stories map[string]*story
	told    []string
	// steered is the last that they tell of the fleet, nil when nothing.
	steered *schemas.Record
	// born is when the batches in the ledger were created, if that is known, shown
	// which of them the workers are shown.
	born  map[string]time.Time
	shown map[string]bool
	// strays are results of no item, older those that are older than their batch,
	// unread messages that cannot be read, untold batches that have ended and of
	// which the logs tell nothing.
	strays, older, unread, untold int64
}

// keyRebuilding is the setting that says since when a rebuilding has not ended.
const keyRebuilding = "rebuilding"

// Unfinished is since when a rebuilding of a ledger has not ended: it is under way,
// or was broken off. It is empty when there is none.
func Unfinished(ctx context.Context, l interface {
	Setting(ctx context.Context, name string) (value string, found bool, err error)
}) (since string, err error) {
	since, _, err = l.Setting(ctx, keyRebuilding)
	return since, err
}

// Run does it.
func (b *Rebuild) Run(ctx context.Context) (Rebuilt, error) {
	r := &rebuilding{Rebuild: b, logged: newAhead(), stories: map[string]*story{}, born: map[string]time.Time{}, shown: map[string]bool{}}
	for _, do := range []func(context.Context) error{r.readLogs, r.begin, r.reinstate, r.replay, r.replayLogs, r.conclude, r.steer, r.write, r.end} {
		if err := do(ctx); err != nil {
			return r.out, err
		}
	}
	if r.strays > 0 {
		r.problem("%d results or failed attempts are of no known item, and were left out", r.strays)
	}
	if r.older > 0 {
		r.problem("%d results or failed attempts are older than the batches of their names, and were left out as those of earlier ones: "+
			"that is wrong where the clocks of collectors and broker are more than %s apart", r.older, clocksApart)
	}
	if r.untold > 0 {
		r.problem("of %d batches that have ended the evidence had no line: if their log was not lost, but moved away, "+
			"their lines stand twice unless it is named with --beside", r.untold)
	}
	if r.unread > 0 {
		r.problem("%d messages of results cannot be understood, or not all that is in them", r.unread)
	}
	return r.out, nil
}

func (r *rebuilding) problem(format string, args ...any) {
	r.out.Problems = append(r.out.Problems, fmt.Sprintf(format, args...))
}

// readLogs finds out what the evidence tells. Logs have no order among themselves.
func (r *rebuilding) readLogs(ctx context.Context) error {
	for _, log := range r.Logs {
		if err := r.readLog(log); err != nil {
			return err
		}
	}
	if len(r.Logs) > 1 {
		for _, s := range r.stories {
			s.order()
		}
	}
	return ctx.Err()
}

func (r *rebuilding) readLog(log iter.Seq2[schemas.Record, error]) error {
	ended := map[string]bool{} // in this log
	left := int64(0)           // so many of the next lines were written by a rebuilding
	var steered *schemas.Record
	for rec, err := range log {
		if err != nil {
			return err
		}
		r.out.Records++
		rebuilt := left > 0
		left--
		if rec.Action == schemas.ActionEvidenceRebuild && rec.Total != nil {
			left = *rec.Total
		}
		if rec.Steering != "" {
			steered = &rec
		}
		if rec.Batch == "" {
			r.logged.add(rec)
			continue
		}
		s := r.stories[rec.Batch]
		if s == nil {
			s = &story{id: rec.Batch}
			r.stories[rec.Batch] = s
			r.told = append(r.told, rec.Batch)
		}
		switch {
		case rec.Phase == schemas.PhaseStart && ended[rec.Batch] && !rebuilt: // another batch of this name
			*s = story{id: rec.Batch}
			r.logged.forget(rec.Batch)
			ended[rec.Batch] = false
		case rec.Phase == schemas.PhaseEnd:
			ended[rec.Batch] = true
		}
		s.tell(rec, rebuilt)
		r.logged.add(rec)
	}
	if steered != nil && (r.steered == nil || !written(steered).Before(written(r.steered))) {
		r.steered = steered
	}
	return nil
}

// begin notes that ledger and evidence are not whole until the end.
func (r *rebuilding) begin(ctx context.Context) error {
	return r.note(ctx, time.Now().UTC().Format(time.RFC3339))
}

func (r *rebuilding) note(ctx context.Context, since string) error {
	if r.Evidence == nil {
		return nil
	}
	_, err := r.Ledger.ChangeSetting(ctx, keyRebuilding, func(string) (string, error) { return since, nil }, nil)
	return err
}

// end puts ledger and evidence into step.
func (r *rebuilding) end(ctx context.Context) error {
	if r.Evidence == nil {
		return nil
	}
	end, err := r.Evidence.Append(ctx, nil)
	if err == nil {
		err = r.Ledger.SetPosition(ctx, end)
	}
	if err != nil {
		return err
	}
	return r.note(ctx, "")
}

// reinstate creates the batches that are known by more than their results.
func (r *rebuilding) reinstate(ctx context.Context) error {
	there, err := r.Ledger.Batches(ctx, 0)
	if err != nil {
		return err
	}
	for _, s := range there {
		r.born[s.ID] = r.stories[s.ID].bornAt(s.Batch)
	}
	batches := slices.Clone(r.Shown) // knows them best
	for _, b := range batches {
		r.shown[b.ID] = true
	}
	for _, id := range r.told {
		if b, known := r.stories[id].batch(); known && !r.shown[id] {
			batches = append(batches, b)
		}
	}
	batches = slices.DeleteFunc(batches, func(b schemas.Batch) bool { _, known := r.born[b.ID]; return known })
	slices.SortStableFunc(batches, func(a, b schemas.Batch) int { return a.CreatedAt.Compare(b.CreatedAt) })
	for _, b := range batches {
		if err := r.create(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

func (r *rebuilding) create(ctx context.Context, b schemas.Batch) error {
	s := r.stories[b.ID]
	_, created, err := r.Ledger.Reinstate(ctx, b, append([]schemas.BatchEvent{s.opened(b)}, s.events()...))
	if err != nil {
		return err
	}
	r.born[b.ID] = s.bornAt(b)
	if created {
		r.out.Batches++
	}
	return nil
}

// replay records the results that the broker still has.
func (r *rebuilding) replay(ctx context.Context) error {
	var g gathered
	for m, err := range r.Results {
		if err != nil {
			return err
		}
		r.out.Messages++
		results, failures, err := decode(m.Data)
		if err != nil {
			r.unread++
		}
		for i := range results {
			q := &results[i]
			if take, err := r.belongs(ctx, q.Batch, m.At, func() schemas.Batch { return fromResult(q, m.At, fromResults) }); err != nil {
				return err
			} else if take {
				g.results = append(g.results, *q)
			}
		}
		for i := range failures {
			f := &failures[i]
			if take, err := r.belongs(ctx, f.Batch, m.At, func() schemas.Batch { return fromFailure(f, m.At, fromResults) }); err != nil {
				return err
			} else if take {
				g.failures = append(g.failures, *f)
			}
		}
		if g.size() >= gatherResults {
			if err := r.record(ctx, &g); err != nil {
				return err
			}
		}
	}
	return r.record(ctx, &g)
}

// belongs says whether something that was said of a batch at a time is to be
// recorded; a batch that is not known is created.
func (r *rebuilding) belongs(ctx context.Context, id string, at time.Time, unknown func() schemas.Batch) (bool, error) {
	born, known := r.born[id]
	switch {
	case known:
		if at.Before(born.Add(-clocksApart)) {
			r.older++
			return false, nil
		}
		return true, nil
	case id != schemas.Single && schemas.CheckName(id) != nil:
		r.strays++
		return false, nil //nolint:nilerr // it is told in the end
	}
	return true, r.create(ctx, unknown())
}

func (r *rebuilding) record(ctx context.Context, g *gathered) error {
	if g.size() == 0 {
		return nil
	}
	added, err := r.Ledger.Record(ctx, g.results, g.failures)
	if err != nil {
		return err
	}
	r.out.Results += int64(added.Results)
	r.out.Attempts += int64(added.Attempts)
	r.strays += int64(added.Strays)
	g.results, g.failures = g.results[:0], g.failures[:0]
	return nil
}

// replayLogs records what only the evidence still tells: it tells less of a result
// than the broker does.
func (r *rebuilding) replayLogs(ctx context.Context) error {
	var g gathered
	for _, log := range r.Logs {
		for rec, err := range log {
			if err != nil {
				return err
			}
			if rec.Batch == "" || rec.Index == nil {
				continue
			}
			at := written(&rec)
			if rec.Action == schemas.ActionRestoreRetry {
				f := failureOf(&rec)
				if take, err := r.belongs(ctx, f.Batch, f.At, func() schemas.Batch { return fromFailure(&f, at, fromLines) }); err != nil {
					return err
				} else if take {
					g.failures = append(g.failures, f)
				}
			} else if q := resultOf(&rec, r.stories[rec.Batch].root()); valid(&q) {
				if take, err := r.belongs(ctx, q.Batch, at, func() schemas.Batch { return fromResult(&q, at, fromLines) }); err != nil {
					return err
				} else if take {
					g.results = append(g.results, q)
				}
			}
			if g.size() >= gatherResults {
				if err := r.record(ctx, &g); err != nil {
					return err
				}
			}
		}
	}
	return r.record(ctx, &g)
}

// conclude ends the batches that had ended. Those that workers are shown go on when
// the collector does.
func (r *rebuilding) conclude(ctx context.Context) error {
	all, err := r.Ledger.Batches(ctx, 0)
	if err != nil {
		return err
	}
	for _, s := range slices.Backward(all) {
		if s.State.Final() || s.ID == schemas.Single {
			continue
		}
		if err := r.concludeOne(ctx, s); err != nil {
			return err
		}
	}
	if r.out.Batches == 0 {
		return nil
	}
	return r.Ledger.TellFromNow(ctx, time.Now().UTC())
}

func (r *rebuilding) concludeOne(ctx context.Context, s schemas.Summary) error {
	end := func(to schemas.State, total int64, manifestSHA256 string, at time.Time) error {
		r.out.Ended++
		_, err := r.Ledger.Conclude(ctx, s.ID, to, total, manifestSHA256, at)
		return err
	}
	if last := r.stories[s.ID].ended(); last != nil {
		if last.Counts != nil && *last.Counts != s.Counts {
			r.problem("batch %s: the evidence says that it ended with %s, and %s could be found", s.ID, countsText(*last.Counts), countsText(s.Counts))
		}
		var total int64
		if last.Total != nil {
			total = *last.Total
		}
		return end(last.State, total, last.ManifestSHA256, written(last))
	}
	switch {
	case r.shown[s.ID]:
	case s.Complete():
		if to, ok := s.Next(schemas.ChangeComplete); ok {
			return end(to, s.Total, s.ManifestSHA256, time.Now().UTC())
		}
	case !s.SealedAt.IsZero():
		r.problem("batch %s: %d of its %d items have no result", s.ID, s.Open(), s.Total)
	case s.Note == fromResults && r.Known:
		// Its end is not told, but it is not shown to workers any more.
		highest, err := r.Ledger.Highest(ctx, s.ID)
		if err != nil {
			return err
		}
		if total := s.Counts.Done(); total > 0 && highest+1 == total {
			s.State, s.Total, s.SealedAt = schemas.StateRunning, total, s.CreatedAt
			to, _ := s.Next(schemas.ChangeComplete)
			return end(to, total, "", time.Now().UTC())
		}
		r.problem("batch %s: %d results were found, up to item %d; how many items it has is not known: cancel it, and submit its manifest again under another id",
			s.ID, s.Counts.Done(), highest)
	default:
		r.problem("batch %s: how many items it has is not known: submit its manifest again under this id, which goes on with it, or cancel it", s.ID)
	}
	return nil
}

func countsText(c schemas.Counts) string {
	return fmt.Sprintf("%d restored, %d unchanged, %d failed, %d skipped, %d cancelled", c.Restored, c.Unchanged, c.Failed, c.Skipped, c.Cancelled)
}

// steer brings back what holds for the fleet, so that what was paused stays so.
func (r *rebuilding) steer(ctx context.Context) error {
	const nothing = "{}" // which is what a new broker has as well
	data, err := json.Marshal(r.Steering)
	if err != nil {
		return err
	}
	text := string(data)
	if text == nothing && r.steered != nil {
		text = r.steered.Steering
	}
	if old, _, err := r.Ledger.Setting(ctx, schemas.KeySteering); err != nil || old != "" || text == nothing {
		return err
	}
	_, err = r.Ledger.ChangeSetting(ctx, schemas.KeySteering, func(string) (string, error) { return text, nil }, nil)
	return err
}

// write adds the lines that the evidence lacks of what the ledger has.
func (r *rebuilding) write(ctx context.Context) error {
	all, err := r.Ledger.Batches(ctx, 0)
	if err != nil {
		return err
	}
	w := lineWriter{rebuilding: r}
	for _, s := range slices.Backward(all) {
		if err := w.batch(ctx, s); err != nil {
			return err
		}
	}
	return w.flush(ctx)
}

// lineWriter adds lines that are not there, many at a time.
type lineWriter struct {
	*rebuilding
	pending []schemas.Record
}

// batch adds all lines about a batch.
func (w *lineWriter) batch(ctx context.Context, s schemas.Summary) error {
	events, err := w.Ledger.Events(ctx, s.ID, 0)
	if err != nil {
		return err
	}
	begun := s.Batch
	if len(events) > 0 && events[0].Change == schemas.ChangeOpen {
		begun.Note = events[0].Note
	}
	lines := []schemas.Record{startRecord(begun)}
	for _, e := range events {
		switch e.Change {
		case schemas.ChangeOpen, schemas.ChangeSeal, schemas.ChangeBegin, schemas.ChangeComplete: // have no lines
		default:
			line := controlRecord(s, e)
			line.Counts, line.Total = nil, nil // as they were then is not known
			lines = append(lines, line)
		}
	}
	if err := w.add(ctx, lines...); err != nil {
		return err
	}
	for f, err := range w.Ledger.Failures(ctx, s.ID) {
		if err != nil {
			return err
		}
		if err := w.add(ctx, retryRecord(w.Options, &f)); err != nil {
			return err
		}
	}
	for q, err := range w.Ledger.Results(ctx, s.ID) {
		if err != nil {
			return err
		}
		if err := w.add(ctx, ItemRecord(w.Options, &q)); err != nil {
			return err
		}
	}
	if !s.State.Final() {
		return nil
	}
	if w.stories[s.ID] == nil {
		w.untold++
	}
	return w.add(ctx, endRecord(w.Options, s))
}

func (w *lineWriter) add(ctx context.Context, lines ...schemas.Record) error {
	for i := range lines {
		if !w.logged.has(&lines[i]) {
			w.pending = append(w.pending, lines[i])
		}
	}
	if len(w.pending) < gatherResults {
		return nil
	}
	return w.flush(ctx)
}

func (w *lineWriter) flush(ctx context.Context) error {
	lines := w.pending
	if len(lines) == 0 {
		return nil
	}
	n := int64(len(lines))
	lines = slices.Insert(lines, 0, schemas.Record{Action: schemas.ActionEvidenceRebuild, Actor: w.Actor, Reason: w.Reason, Total: &n})
	w.out.Lines += int64(len(lines))
	w.pending = lines[:0]
	if w.Evidence == nil {
		return nil
	}
	_, err := w.Evidence.Append(ctx, lines)
	return err
}
