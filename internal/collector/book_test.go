package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/internal/evidence"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// realLedger is the ledger as a book sees it.
type realLedger struct{ *ledger.Ledger }

func (l realLedger) Record(ctx context.Context, results []schemas.Result, failures []schemas.Failure, note NoteFresh) ([]schemas.Summary, error) {
	rec, err := l.Ledger.Record(ctx, results, failures, note)
	return rec.Batches, err
}

// store is a ledger and a log that outlive the books kept in them.
type store struct {
	t   testing.TB
	dir string
	l   *ledger.Ledger
	e   *evidence.Log
}

func newStore(t testing.TB) *store {
	t.Helper()
	s := &store{t: t, dir: t.TempDir()}
	var err error
	s.l, err = ledger.Open(t.Context(), filepath.Join(s.dir, "ledger.sqlite"))
	must(t, err)
	s.e, err = evidence.Open(s.dir)
	must(t, err)
	t.Cleanup(func() { must(t, s.e.Close()); must(t, s.l.Close()) })
	return s
}

func (s *store) ctx() context.Context { return context.WithoutCancel(s.t.Context()) }

func (s *store) book() *Book {
	s.t.Helper()
	b, err := OpenBook(s.ctx(), realLedger{s.l}, s.e, Options{})
	must(s.t, err)
	return b
}

// lines says what the log holds of batches, in short.
func (s *store) lines() []string {
	s.t.Helper()
	data, err := os.ReadFile(s.e.Path())
	must(s.t, err)
	out := []string{}
	for line := range strings.Lines(string(data)) {
		var r schemas.Record
		must(s.t, json.Unmarshal([]byte(line), &r))
		switch {
		case r.Action == schemas.ActionRestoreRetry:
			out = append(out, fmt.Sprintf("%s:%d try %d", r.Batch, *r.Index, r.Attempt))
		case r.Index != nil:
			out = append(out, fmt.Sprintf("%s:%d", r.Batch, *r.Index))
		case r.Batch != "":
			out = append(out, r.Batch+" "+r.Phase+string(r.Change))
		}
	}
	return out
}

func (s *store) want(lines ...string) {
	s.t.Helper()
	if diff := cmp.Diff(lines, s.lines()); diff != "" {
		s.t.Errorf("evidence: %s", diff)
	}
}

func results(batch string, indexes ...int64) []schemas.Result {
	var out []schemas.Result
	for _, i := range indexes {
		out = append(out, schemas.Result{
			Request: schemas.Request{Batch: batch, Index: i, Tombstone: "t"}, Outcome: schemas.OutcomeRestored,
			Attempts: 1, Size: 10, Item: fmt.Sprint("item", i), FinishedAt: time.Unix(1, 0).UTC(),
		})
	}
	return out
}

// failures are failed attempts with these numbers at one item.
func failures(batch string, index int64, numbers ...int) []schemas.Failure {
	var out []schemas.Failure
	for _, n := range numbers {
		out = append(out, schemas.Failure{
			Batch: batch, Index: index, Tombstone: "t", Output: "out", Actor: "ops", Number: n, NextTry: time.Unix(2, 5e6).UTC(),
			Attempt: schemas.Attempt{At: time.Unix(1, 0).UTC(), Worker: "w", Code: schemas.CodeInternal, Detail: "why"},
		})
	}
	return out
}

func batch(id string) schemas.Batch {
	return schemas.Batch{ID: id, State: schemas.StateOpen, CreatedAt: time.Unix(0, 1).UTC()}
}

func TestBook(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	b := s.book()
	for range 2 {
		_, err := b.Begin(s.ctx(), batch("b"))
		must(t, err)
	}
	_, err := b.Seal(s.ctx(), "b", 3, "")
	must(t, err)
	for _, part := range [][]int64{{0, 1}, {1, 2}, {0, 1, 2}} {
		touched, err := b.Record(s.ctx(), append(results("b", part...), results("stranger", 1)...), append(failures("b", 1, 1), failures("stranger", 1, 1)...))
		must(t, err)
		if len(touched) != 1 {
			t.Errorf("touched %v", touched)
		}
	}
	for i := range 2 {
		ended, err := b.End(s.ctx(), []string{"b"})
		must(t, err)
		sum, _, err := s.l.Find(s.ctx(), "b")
		must(t, err)
		if (len(ended) == 1) != (i == 0) || sum.State != schemas.StateSucceeded || sum.Counts.Restored != 3 {
			t.Errorf("ended %v, %+v", ended, sum)
		}
	}
	want := []string{"b start", "b:1 try 1", "b:0", "b:1", "b:2", "b end"}
	s.want(want...)
	for range 2 { // another book finds nothing to do
		b := s.book()
		if b.ahead.holds() || len(b.ahead.batches()) > 0 {
			t.Errorf("ahead %+v", b.ahead)
		}
		_, err := b.Record(s.ctx(), results("b", 0, 1, 2), failures("b", 1, 1))
		must(t, err)
		s.want(want...)
	}
}

var errCrash = errors.New("crash")

// crashing is a ledger and a log of a process that dies at one of its writes.
type crashing struct {
	Ledger
	Evidence
	// at is the number of the write that is the last one; after says that it
	// is done before the process dies.
	at    int
	after bool
	n     int
}

func (c *crashing) do(write func() error) error {
	c.n++
	switch {
	case c.n < c.at:
		return write()
	case c.n == c.at && c.after:
		if err := write(); err != nil {
			return err
		}
	}
	return errCrash
}

func (c *crashing) Append(ctx context.Context, r []schemas.Record) (pos schemas.EvidencePosition, err error) {
	if len(r) == 0 {
		return c.Evidence.Append(ctx, r)
	}
	err = c.do(func() (err error) { pos, err = c.Evidence.Append(ctx, r); return err })
	return pos, err
}

func (c *crashing) SetPosition(ctx context.Context, pos schemas.EvidencePosition) error {
	return c.do(func() error { return c.Ledger.SetPosition(ctx, pos) })
}

// transact runs a transaction that dies before or after its commit.
func (c *crashing) transact(run func(commit func(error) error) error) error {
	reached := false
	err := run(func(err error) error {
		reached = true
		if err == nil && !c.after {
			err = c.do(func() error { return nil })
		}
		return err
	})
	if err == nil && reached && c.after {
		err = c.do(func() error { return nil })
	}
	return err
}

func (c *crashing) Create(ctx context.Context, b schemas.Batch, note Note) (s schemas.Summary, created bool, err error) {
	err = c.transact(func(commit func(error) error) (err error) {
		s, created, err = c.Ledger.Create(ctx, b, before(note, commit))
		return err
	})
	return s, created, err
}

func (c *crashing) Record(ctx context.Context, r []schemas.Result, f []schemas.Failure, note NoteFresh) (s []schemas.Summary, err error) {
	err = c.transact(func(commit func(error) error) (err error) {
		s, err = c.Ledger.Record(ctx, r, f, func(fresh []schemas.Result, failed []schemas.Failure) (schemas.EvidencePosition, error) {
			pos, err := note(fresh, failed)
			return pos, commit(err)
		})
		return err
	})
	return s, err
}

func (c *crashing) Change(ctx context.Context, id, eventID string, decide Decide, note NoteChange) (s schemas.Summary, changed bool, err error) {
	err = c.transact(func(commit func(error) error) (err error) {
		s, changed, err = c.Ledger.Change(ctx, id, eventID, decide, func(s schemas.Summary, e schemas.BatchEvent) (schemas.EvidencePosition, error) {
			pos, err := note(s, e)
			return pos, commit(err)
		})
		return err
	})
	return s, changed, err
}

func (c *crashing) End(ctx context.Context, ids []string, ready func(schemas.Summary) bool, at time.Time,
	note func([]schemas.Summary) (schemas.EvidencePosition, error)) (ended []schemas.Summary, err error) {
	err = c.transact(func(commit func(error) error) (err error) {
		ended, err = c.Ledger.End(ctx, ids, ready, at, before(note, commit))
		return err
	})
	return ended, err
}

// before lets commit have the last word about a note.
func before[T any](note func(T) (schemas.EvidencePosition, error), commit func(error) error) func(T) (schemas.EvidencePosition, error) {
	return func(v T) (schemas.EvidencePosition, error) {
		pos, err := note(v)
		return pos, commit(err)
	}
}

// life is all that happens to a book; every step can be repeated.
func life(ctx context.Context, b *Book) error {
	for _, id := range []string{"a", "b"} {
		if _, err := b.Begin(ctx, batch(id)); err != nil {
			return err
		}
		if _, err := b.Seal(ctx, id, 4, ""); err != nil {
			return err
		}
	}
	for _, part := range []struct {
		results  []schemas.Result
		failures []schemas.Failure
	}{
		{results("a", 0, 1), failures("a", 2, 1)},
		{nil, append(failures("a", 2, 2), failures("b", 3, 1)...)},
		{append(results("a", 2), results("b", 0, 1)...), nil},
		{append(results("b", 2, 3), results("a", 3)...), failures("b", 3, 2, 3)},
	} {
		if _, err := b.Record(ctx, part.results, part.failures); err != nil {
			return err
		}
	}
	_, _, err := b.Change(ctx, "a", "command-1", func(s *schemas.Summary) (*schemas.BatchEvent, error) {
		return &schemas.BatchEvent{Batch: s.ID, Change: schemas.ChangeSet, From: s.State, To: s.State, By: "ops", At: time.Unix(3, 0)}, nil
	})
	if err != nil {
		return err
	}
	if _, err = b.End(ctx, []string{"a", "b"}); err != nil {
		return err
	}
	// One comes late: another collector has recorded what followed it.
	_, err = b.Record(ctx, nil, failures("b", 1, 1))
	return err
}

var wholeLife = []string{
	"a start", "b start", "a:2 try 1", "a:0", "a:1", "a:2 try 2", "b:3 try 1", "a:2", "b:0", "b:1",
	"b:3 try 2", "b:3 try 3", "b:2", "b:3", "a:3", "a set", "a end", "b end", "b:1 try 1",
}

// A process that dies at any step, and its successor at any step too, leave
// every line in the evidence once.
func TestCrashAtEachStep(t *testing.T) {
	t.Parallel()
	steps := func() int {
		s := newStore(t)
		b := s.book()
		c := &crashing{Ledger: b.ledger, Evidence: b.evidence, at: 1 << 30}
		b.ledger, b.evidence = c, c
		must(t, life(s.ctx(), b))
		return c.n
	}()
	if steps < 10 {
		t.Fatalf("only %d steps", steps)
	}
	for first := range steps {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprint(first+1, after), func(t *testing.T) {
				t.Parallel()
				s := newStore(t)
				die := func(at int, after bool, do func(b *Book) error) {
					b := s.book()
					c := &crashing{Ledger: b.ledger, Evidence: b.evidence, at: at, after: after}
					b.ledger, b.evidence = c, c
					if err := do(b); err != nil && !errors.Is(err, errCrash) {
						t.Fatal(err)
					}
				}
				die(first+1, after, func(b *Book) error { return life(s.ctx(), b) })
				// The successor does other things first, and dies as well.
				die(4, false, func(b *Book) error {
					if _, err := b.Begin(s.ctx(), batch("c")); err != nil {
						return err
					}
					return life(s.ctx(), b)
				})
				die(1+first/2, true, func(b *Book) error { return life(s.ctx(), b) })
				b := s.book()
				must(t, life(s.ctx(), b))
				if b.ahead.holds() {
					t.Errorf("ahead %+v", b.ahead)
				}
				s.check(t)
			})
		}
	}
}

// check says whether evidence and ledger hold the whole life, once.
func (s *store) check(t *testing.T) {
	t.Helper()
	count := map[string]int{}
	for _, l := range s.lines() {
		count[l]++
	}
	for _, l := range wholeLife {
		// A start line may stand twice: nobody is bound to open a batch that
		// was about to be opened when the process died.
		if n := count[l]; n != 1 && (n != 2 || !strings.HasSuffix(l, "start")) {
			t.Errorf("%q stands %d times", l, n)
		}
		delete(count, l)
	}
	delete(count, "c start")
	if len(count) > 0 {
		t.Errorf("too much: %v", count)
	}
	for _, id := range []string{"a", "b"} {
		sum, _, err := s.l.Find(s.ctx(), id)
		must(t, err)
		if sum.State != schemas.StateSucceeded || sum.Counts.Restored != 4 || sum.Open() != 0 {
			t.Errorf("%+v", sum)
		}
	}
}

// A step that fails in a process that lives on can be repeated as well.
func TestFailureAtEachStep(t *testing.T) {
	t.Parallel()
	for at := range 30 {
		s := newStore(t)
		b := s.book()
		l, e := b.ledger, b.evidence
		c := &crashing{Ledger: l, Evidence: e, at: at + 1}
		b.ledger, b.evidence = c, c
		if err := life(s.ctx(), b); err != nil && !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		b.ledger, b.evidence = l, e
		if failed := b.Failed(); failed != nil { // evidence is another process's business then
			if err := life(s.ctx(), b); !errors.Is(err, failed) {
				t.Errorf("went on with %v after %v", err, failed)
			}
			b = s.book()
		}
		must(t, life(s.ctx(), b))
		s.check(t)
	}
}

func TestEvidenceThatDoesNotGoOn(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"cut short": func(p string) error { return os.Truncate(p, 10) },
		"moved":     func(p string) error { return os.Rename(p, p+".1") },
		"emptied":   func(p string) error { return os.Truncate(p, 0) },
		"changed": func(p string) error {
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			return os.WriteFile(p, []byte(strings.ReplaceAll(string(data), "RESTORE", "restore")), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			b := s.book()
			_, err := b.Begin(s.ctx(), batch("b"))
			must(t, err)
			must(t, spoil(s.e.Path()))
			_, err = OpenBook(s.ctx(), realLedger{s.l}, s.e, Options{})
			if broken, ok := errors.AsType[*BrokenLogError](err); !ok ||
				!strings.Contains(broken.Error(), s.e.Path()) || !strings.Contains(broken.Error(), "--accept-evidence") ||
				!strings.Contains(broken.Error(), "'exhume ledger rebuild'") {
				t.Fatalf("got error %v", err)
			}
			b, err = OpenBook(s.ctx(), realLedger{s.l}, s.e, Options{AcceptEvidence: true})
			must(t, err)
			_, err = b.Record(s.ctx(), results("b", 0), nil)
			must(t, err)
			s.book() // and now it goes on
		})
	}
}

// Nor is a line written when that happens while the log is in use.
func TestEvidenceThatIsReplaced(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(path string) error{
		"cut short": func(p string) error { return os.Truncate(p, 10) },
		"moved":     func(p string) error { return os.Rename(p, p+".1") },
		"removed":   os.Remove,
		"emptied":   func(p string) error { return os.Truncate(p, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStore(t)
			b := s.book()
			_, err := b.Begin(s.ctx(), batch("b"))
			must(t, err)
			must(t, spoil(s.e.Path()))
			_, err = b.Record(s.ctx(), results("b", 0), nil)
			if broken, ok := errors.AsType[*BrokenLogError](err); !ok || !strings.Contains(broken.Error(), s.e.Path()) {
				t.Fatalf("got error %v", err)
			}
			if data, err := os.ReadFile(s.e.Path()); err != nil || len(data) > 0 {
				t.Errorf("%v, the log has\n%s", err, data)
			}
			if sum, err := s.l.Batch(s.ctx(), "b"); err != nil || sum.Counts.Done() != 0 {
				t.Errorf("%+v, %v", sum.Counts, err)
			}
		})
	}
}

// Lines of others in the log are nobody's results.
func TestOtherLinesAreLeftAlone(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.book()
	_, err := s.e.Append(s.ctx(), []schemas.Record{
		{Action: schemas.ActionArchive, Actor: "a"}, {Action: schemas.ActionRestore, Tombstone: "t"},
		ItemRecord(Options{}, &results("unknown", 7)[0]),
	})
	must(t, err)
	if b := s.book(); b.ahead.holds() {
		t.Errorf("ahead %+v", b.ahead)
	}
}

// uncommitted is a ledger whose transactions do not commit.
type uncommitted struct{ Ledger }

func (u uncommitted) Record(ctx context.Context, r []schemas.Result, f []schemas.Failure, note NoteFresh) ([]schemas.Summary, error) {
	return u.Ledger.Record(ctx, r, f, func(fresh []schemas.Result, failed []schemas.Failure) (schemas.EvidencePosition, error) {
		_, err := note(fresh, failed)
		return schemas.EvidencePosition{}, errors.Join(err, errCrash)
	})
}

// What is ahead of the ledger until another collector records it does not keep the
// position back for ever, neither in a process that lives on nor in the next one.
func TestAttemptsThatAnotherCollectorRecords(t *testing.T) {
	t.Parallel()
	for _, livesOn := range []bool{true, false} {
		s := newStore(t)
		b := s.book()
		_, err := b.Begin(s.ctx(), batch("b"))
		must(t, err)
		whole := b.ledger
		b.ledger = uncommitted{whole}
		if _, err := b.Record(s.ctx(), nil, failures("b", 1, 1, 2)); !errors.Is(err, errCrash) || !b.ahead.holds() {
			t.Fatalf("ahead %+v, %v", b.ahead, err)
		}
		other := newStore(t) // for its evidence
		beside, err := OpenBook(s.ctx(), realLedger{mustOpen(t, s.l.Path(), "other")}, other.e, Options{})
		must(t, err)
		_, err = beside.Record(s.ctx(), nil, failures("b", 1, 1, 2))
		must(t, err)
		if livesOn {
			b.ledger = whole
			_, err := b.Record(s.ctx(), nil, failures("b", 1, 1, 2))
			must(t, err)
		} else {
			b = s.book()
		}
		if b.ahead.holds() {
			t.Errorf("lives on %v: ahead %+v", livesOn, b.ahead)
		}
	}
}

// unheard is a ledger whose commits happen and are not heard of.
type unheard struct{ Ledger }

func (u unheard) Record(ctx context.Context, r []schemas.Result, f []schemas.Failure, note NoteFresh) ([]schemas.Summary, error) {
	_, err := u.Ledger.Record(ctx, r, f, note)
	return nil, errors.Join(err, errCrash)
}

// A batch that never ends does not keep the position back either: neither after a
// commit that happened although it failed, nor when another collector recorded what
// is ahead.
func TestItemsOfABatchThatNeverEnds(t *testing.T) {
	t.Parallel()
	for _, livesOn := range []bool{true, false} {
		s := newStore(t)
		b := s.book()
		_, err := b.Begin(s.ctx(), batch(schemas.Single))
		must(t, err)
		whole := b.ledger
		group := results(schemas.Single, 1, 70, 1<<50)
		if livesOn {
			b.ledger = unheard{whole}
		} else {
			b.ledger = uncommitted{whole}
		}
		if _, err := b.Record(s.ctx(), group, nil); !errors.Is(err, errCrash) || !b.ahead.holds() {
			t.Fatalf("ahead %+v, %v", b.ahead, err)
		}
		if b.ledger = whole; livesOn {
			_, err := b.Record(s.ctx(), group, nil)
			must(t, err)
		} else {
			other, err := OpenBook(s.ctx(), realLedger{mustOpen(t, s.l.Path(), "other")}, newStore(t).e, Options{})
			must(t, err)
			_, err = other.Record(s.ctx(), group[:2], nil)
			must(t, err)
			b = s.book()
			if !b.ahead.holds() || b.ahead.items[schemas.Single].n != 1 {
				t.Errorf("ahead %+v", b.ahead)
			}
			_, err = b.Record(s.ctx(), group, nil)
			must(t, err)
		}
		_, err = b.Record(s.ctx(), results(schemas.Single, 5), nil)
		must(t, err)
		end, err := s.e.Append(s.ctx(), nil)
		must(t, err)
		if pos, _, err := s.l.Position(s.ctx()); err != nil || pos != end {
			t.Errorf("lives on %v: the position is %+v, the log ends at %+v (%v)", livesOn, pos, end, err)
		}
		s.want("single start", "single:1", "single:70", fmt.Sprint("single:", 1<<50), "single:5")
	}
}

// The last line of a process that died may lack nothing but its newline.
func TestALineWithoutItsNewline(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	b := s.book()
	_, err := b.Begin(s.ctx(), batch("b"))
	must(t, err)
	b.ledger = uncommitted{b.ledger}
	if _, err := b.Record(s.ctx(), results("b", 0, 1), nil); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	info, err := os.Stat(s.e.Path())
	must(t, err)
	must(t, os.Truncate(s.e.Path(), info.Size()-1))
	_, err = s.book().Record(s.ctx(), results("b", 0, 1), nil)
	must(t, err)
	s.want("b start", "b:0", "b:1")
}

func mustOpen(t *testing.T, path, writer string) *ledger.Ledger {
	t.Helper()
	l, err := ledger.OpenWith(t.Context(), path, ledger.Options{Writer: writer})
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
	return l
}
