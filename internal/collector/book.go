package collector

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/exhume/exhume/internal/failpoint"
	"github.com/exhume/exhume/internal/fault"
	"github.com/exhume/exhume/schemas"
)

// Ledger is the database of batches and results as the collector sees it.
type Ledger interface {
	// Create, Record and End call note inside their transaction with what is new
	// in it, keep the position that note returns, and commit.
	Create(ctx context.Context, b schemas.Batch, note Note) (s schemas.Summary, created bool, err error)
	Seal(ctx context.Context, id string, total int64, manifestSHA256 string, at time.Time) (schemas.Summary, error)
	// Record inserts what is new, and returns the batches that it is of.
	Record(ctx context.Context, results []schemas.Result, failures []schemas.Failure, note NoteFresh) ([]schemas.Summary, error)
	// End ends those of the batches that are ready, and gives them.
	End(ctx context.Context, ids []string, ready func(schemas.Summary) bool, at time.Time,
		note func([]schemas.Summary) (schemas.EvidencePosition, error)) ([]schemas.Summary, error)
	// Change calls decide inside a transaction with a batch that it may change,
	// and records the event that it returns, unless there is none or one with this
	// id is there already.
	Change(ctx context.Context, id, eventID string, decide Decide, note NoteChange) (s schemas.Summary, changed bool, err error)
	// ChangeSetting does the same with a setting.
	ChangeSetting(ctx context.Context, name string, change func(old string) (string, error),
		note func() (schemas.EvidencePosition, error)) (string, error)
	Position(ctx context.Context) (schemas.EvidencePosition, bool, error)
	SetPosition(ctx context.Context, pos schemas.EvidencePosition) error
	Active(ctx context.Context) ([]schemas.Summary, error)
	Find(ctx context.Context, id string) (s schemas.Summary, found bool, err error)
	// Attempts gives the failed attempts at an item that are recorded.
	Attempts(ctx context.Context, batch string, index int64) ([]schemas.Failure, error)
	// Recorded gives those of the indexes of a batch whose items have results.
	Recorded(ctx context.Context, batch string, indexes []int64) ([]int64, error)
}

// Note writes evidence of a batch that begins; see Ledger.
type Note = func(schemas.Summary) (schemas.EvidencePosition, error)

// NoteFresh writes evidence of results and failed attempts that are new; see Ledger.
type NoteFresh = func([]schemas.Result, []schemas.Failure) (schemas.EvidencePosition, error)

// NoteChange writes evidence of a change to a batch; see Ledger.
type NoteChange = func(schemas.Summary, schemas.BatchEvent) (schemas.EvidencePosition, error)

// Decide changes a batch and says what has happened to it; nil for nothing.
type Decide = func(*schemas.Summary) (*schemas.BatchEvent, error)

// Evidence is the audit log as the collector sees it.
type Evidence interface {
	Append(ctx context.Context, records []schemas.Record) (schemas.EvidencePosition, error)
	Since(ctx context.Context, pos schemas.EvidencePosition) iter.Seq2[schemas.Record, error]
}

// Book keeps ledger and evidence in step: whatever is in one is in the other,
// once, whenever the process dies.
//
// Lines are appended and synced before the ledger's transaction that covers
// them commits. After a crash in between, the lines after the position that the
// ledger remembers are read again, and what they say is not appended a second
// time. It is safe for concurrent use; what it writes, it writes one after the
// other, so that no position ever passes lines that the ledger does not cover.
type Book struct {
	ledger   Ledger
	evidence Evidence
	opts     Options

	mu sync.Mutex
	// broken is why evidence cannot be written any more.
	broken error
	// pos is the position that the ledger remembers, and end the one at which the log
	// ended last.
	pos, end schemas.EvidencePosition
	ahead    ahead
}

// Options say what evidence contains.
type Options struct {
	// Backend and URL are how evidence names the archive; the URL has its
	// secrets removed.
	Backend, URL string
	// Timings says whether lines tell how long things took.
	Timings bool
	// AcceptEvidence continues with the evidence log as it is when it is not
	// the one that the ledger knows any more; see BrokenLogError.
	AcceptEvidence bool
}

// BrokenLogError says that the evidence log does not go on where the ledger
// left it: it was cut short, moved away, replaced or changed.
type BrokenLogError struct{ Err error }

func (e *BrokenLogError) Error() string {
	return fmt.Sprintf("%v; put the file back as it was, or, if it was moved away on purpose, continue with the log as it is now: --accept-evidence; if it was lost, bring it back with 'exhume ledger rebuild'", e.Err)
}

// Unwrap gives what does not fit.
func (e *BrokenLogError) Unwrap() error { return e.Err }

// OpenBook brings ledger and evidence into step. A ledger whose rebuilding has not
// ended is refused.
func OpenBook(ctx context.Context, l Ledger, e Evidence, o Options) (*Book, error) {
	b := &Book{ledger: l, evidence: e, opts: o, ahead: newAhead()}
	// Changed, and not only read: that has to wait for a rebuilding that is under way.
	_, err := l.ChangeSetting(ctx, keyRebuilding, func(since string) (string, error) {
		if since != "" {
			return "", fault.New(schemas.CodeLedgerLost, "the ledger is not whole: its rebuilding, begun %s, was broken off; run 'exhume ledger rebuild' again", since)
		}
		return since, nil
	}, nil)
	if err != nil {
		return nil, err
	}
	pos, known, err := l.Position(ctx)
	if err != nil {
		return nil, err
	}
	if known {
		b.pos, b.end = pos, pos
		err := b.readAhead(ctx)
		if err == nil || !o.AcceptEvidence || ctx.Err() != nil {
			return b, err
		}
		b.ahead = newAhead()
	}
	// A new ledger, or a new log: what the log holds is not ours.
	if b.pos, err = e.Append(ctx, nil); err != nil {
		return nil, err
	}
	b.end = b.pos
	return b, l.SetPosition(ctx, b.pos)
}

// readAhead finds the lines that the ledger may not cover.
func (b *Book) readAhead(ctx context.Context) error {
	for r, err := range b.evidence.Since(ctx, b.pos) {
		if err != nil {
			return &BrokenLogError{err}
		}
		b.ahead.add(r)
	}
	for id := range b.ahead.batches() {
		s, found, err := b.ledger.Find(ctx, id)
		if err != nil {
			return err
		}
		switch {
		case !found: // its results are of no batch, and will never be covered
			start := b.ahead.starts[id]
			if b.ahead.forget(id); start {
				b.ahead.starts[id] = true
			}
		case s.State == schemas.StateCancelled || s.State == schemas.StateAborted: // nothing is recorded of it any more
			b.ahead.forget(id)
		case s.State.Final():
			delete(b.ahead.items, id)
			delete(b.ahead.ends, id)
			delete(b.ahead.starts, id)
			err = b.forgetAttempts(ctx, id)
		default:
			delete(b.ahead.starts, id)
			if err = b.forgetItems(ctx, id); err == nil {
				err = b.forgetAttempts(ctx, id)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// forgetItems forgets the items of a batch whose results the ledger has: another
// collector may have been faster.
func (b *Book) forgetItems(ctx context.Context, id string) error {
	indexes := b.ahead.items[id].all()
	if len(indexes) == 0 {
		return nil
	}
	recorded, err := b.ledger.Recorded(ctx, id, indexes)
	for _, index := range recorded {
		b.ahead.removeItem(id, index)
	}
	return err
}

// forgetAttempts forgets the failed attempts of a batch that the ledger has.
func (b *Book) forgetAttempts(ctx context.Context, id string) error {
	indexes := map[int64]bool{}
	for a := range b.ahead.attempts[id] {
		indexes[a.index] = true
	}
	for index := range indexes {
		recorded, err := b.ledger.Attempts(ctx, id, index)
		if err != nil {
			return err
		}
		for _, f := range recorded {
			b.ahead.removeAttempt(id, attempt{f.Index, f.Number})
		}
	}
	return nil
}

// append appends those records that are not there yet, and returns the position
// that the ledger is to remember when it covers them. If it does not come to
// that, the records are ahead of the ledger.
func (b *Book) append(ctx context.Context, records []schemas.Record) (schemas.EvidencePosition, error) {
	if b.broken != nil {
		return schemas.EvidencePosition{}, b.broken
	}
	err := b.goesOn(ctx)
	var pos schemas.EvidencePosition
	if err == nil {
		pos, err = b.evidence.Append(ctx, b.ahead.without(records))
	}
	if err != nil && ctx.Err() == nil {
		// What a device holds that has failed once is not to be relied on: whoever
		// goes on reads the log anew.
		b.broken = err
	}
	if err != nil {
		return pos, err
	}
	b.end = pos
	b.ahead.remove(records)
	if b.ahead.holds() {
		pos = b.pos
	}
	return pos, nil
}

// goesOn checks that the log still is what it was after the last line: a new one that
// somebody has put in its place would begin in the middle of batches, unnoticed.
func (b *Book) goesOn(ctx context.Context) error {
	at, err := b.evidence.Append(ctx, nil)
	if err != nil {
		return err
	}
	if at.Offset > b.end.Offset || at == b.end {
		return nil // others write there, too
	}
	for _, err := range b.evidence.Since(ctx, b.end) {
		if err != nil {
			return &BrokenLogError{err}
		}
		break
	}
	return nil
}

// appender appends records inside a transaction of the ledger.
type appender func(records ...schemas.Record) (schemas.EvidencePosition, error)

// noted runs a transaction of the ledger that notes evidence. Lines of one that
// did not commit, or perhaps did, are ahead of the ledger.
func (b *Book) noted(ctx context.Context, transact func(note appender) error) error {
	pos := b.pos
	var added []schemas.Record
	err := transact(func(records ...schemas.Record) (_ schemas.EvidencePosition, err error) {
		failpoint.Here("collector.inserted")
		if pos, err = b.append(ctx, records); err == nil {
			added = records
			failpoint.Here("collector.noted")
		}
		return pos, err
	})
	if err != nil {
		b.ahead.add(added...)
		return err
	}
	b.pos = pos
	return nil
}

// Begin records a batch that opens, unless it is known already.
func (b *Book) Begin(ctx context.Context, batch schemas.Batch) (schemas.Summary, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, found, err := b.ledger.Find(ctx, batch.ID)
	if err != nil || found {
		return s, err
	}
	return s, b.noted(ctx, func(note appender) error {
		s, _, err = b.ledger.Create(ctx, batch, func(s schemas.Summary) (schemas.EvidencePosition, error) {
			return note(startRecord(s.Batch))
		})
		return err
	})
}

// Seal records a batch's total.
func (b *Book) Seal(ctx context.Context, id string, total int64, manifestSHA256 string) (schemas.Summary, error) {
	return b.ledger.Seal(ctx, id, total, manifestSHA256, time.Now().UTC())
}

// Failed is why evidence cannot be written, nil as long as it can. It does not
// become possible again: the process has to end, and another one to read the log.
func (b *Book) Failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.broken
}

// Record records results and failed attempts; those that are recorded already change
// nothing. It returns the batches that they are of.
func (b *Book) Record(ctx context.Context, results []schemas.Result, failures []schemas.Failure) ([]schemas.Summary, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var touched []schemas.Summary
	err := b.noted(ctx, func(note appender) (err error) {
		touched, err = b.ledger.Record(ctx, results, failures,
			func(fresh []schemas.Result, failed []schemas.Failure) (schemas.EvidencePosition, error) {
				records := make([]schemas.Record, 0, len(failed)+len(fresh))
				for i := range failed { // they came before the results of their items
					records = append(records, retryRecord(b.opts, &failed[i]))
				}
				for i := range fresh {
					records = append(records, ItemRecord(b.opts, &fresh[i]))
				}
				return note(records...)
			})
		return err
	})
	if err != nil {
		return nil, err
	}
	// The ledger has them now, also when another collector was faster, or when it had
	// them before, from a commit that was not heard of.
	for i := range failures {
		b.ahead.removeAttempt(failures[i].Batch, attempt{failures[i].Index, failures[i].Number})
	}
	for i := range results {
		b.ahead.removeItem(results[i].Batch, results[i].Index)
	}
	return touched, nil
}

// End records the end of batches whose results are complete, unless it is
// recorded already, and gives those that it ended.
func (b *Book) End(ctx context.Context, ids []string) (ended []schemas.Summary, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err = b.noted(ctx, func(note appender) (err error) {
		ended, err = b.ledger.End(ctx, ids, b.ready, time.Now().UTC(), func(ended []schemas.Summary) (schemas.EvidencePosition, error) {
			records := make([]schemas.Record, len(ended))
			for i, s := range ended {
				records[i] = endRecord(b.opts, s)
			}
			return note(records...)
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	for _, id := range ids { // also when another collector was faster
		delete(b.ahead.items, id)
		delete(b.ahead.ends, id)
	}
	return ended, nil
}

// ready says whether a batch ends.
func (b *Book) ready(s schemas.Summary) bool {
	if !s.Complete() {
		return false
	}
	delete(b.ahead.items, s.ID) // the ledger has them all
	return true
}

// Change records what decide makes of a batch, once for each id of an event.
func (b *Book) Change(ctx context.Context, id, eventID string, decide Decide) (s schemas.Summary, changed bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	err = b.noted(ctx, func(note appender) (err error) {
		s, changed, err = b.ledger.Change(ctx, id, eventID, decide, func(s schemas.Summary, e schemas.BatchEvent) (schemas.EvidencePosition, error) {
			return note(controlRecord(s, e))
		})
		return err
	})
	return s, changed, err
}

// Steer records what change makes of what holds for the fleet.
func (b *Book) Steer(ctx context.Context, by schemas.Command, change func(*schemas.Steering) error) (s schemas.Steering, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text string
	err = b.noted(ctx, func(note appender) error {
		_, err := b.ledger.ChangeSetting(ctx, schemas.KeySteering, func(old string) (_ string, err error) {
			if s, err = schemas.ParseSteering(old); err != nil {
				return "", err
			}
			if err := change(&s); err != nil {
				return "", err
			}
			data, err := json.Marshal(s)
			text = string(data)
			return text, err
		}, func() (schemas.EvidencePosition, error) { return note(steerRecord(by, text)) })
		return err
	})
	return s, err
}

// Active lists the batches that have not ended.
func (b *Book) Active(ctx context.Context) ([]schemas.Summary, error) { return b.ledger.Active(ctx) }

// Find finds a batch by its whole id.
func (b *Book) Find(ctx context.Context, id string) (schemas.Summary, bool, error) {
	return b.ledger.Find(ctx, id)
}
