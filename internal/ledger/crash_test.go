//go:build unix

package ledger

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/exhume/exhume/internal/dbtest"
	"github.com/exhume/exhume/schemas"
)

// crashEnv tells a process started by the test which ledger to write to.
const (
	crashEnv       = "EXHUME_LEDGER_TEST_CRASH"
	crashChangeEnv = "EXHUME_LEDGER_TEST_CRASH_CHANGE"
)

func TestMain(m *testing.M) {
	for env, forEver := range map[string]func(string) error{crashEnv: recordForEver, crashChangeEnv: changeForEver} {
		if where := os.Getenv(env); where != "" {
			fmt.Fprintln(os.Stderr, forEver(where))
			os.Exit(1)
		}
	}
	dbtest.Main(m)
}

// recordForEver prints a line after each group that Record said is kept.
func recordForEver(path string) error {
	ctx := context.Background()
	l, err := Open(ctx, path)
	if err != nil {
		return err
	}
	if _, _, err := l.Create(ctx, sampleBatch("b1"), nil); err != nil {
		return err
	}
	b, err := l.Batch(ctx, "b1")
	if err != nil {
		return err
	}
	for from := b.Counts.Done(); ; from += 70 {
		note := func(fresh []schemas.Result, _ []schemas.Failure) (schemas.EvidencePosition, error) {
			return schemas.EvidencePosition{Seq: fresh[len(fresh)-1].Index + 1}, nil
		}
		if _, err := l.Record(ctx, sampleResults("b1", from, 70), nil, note); err != nil {
			return err
		}
		fmt.Println(from + 70)
	}
}

// changeForEver prints a line after each change that Change said is kept.
func changeForEver(where string) error {
	ctx := context.Background()
	l, err := Open(ctx, where)
	if err != nil {
		return err
	}
	if _, _, err := l.Create(ctx, sampleBatch("b1"), nil); err != nil {
		return err
	}
	for {
		var kept schemas.BatchEvent
		_, _, err := l.Change(ctx, "b1", "", func(s *schemas.Summary) (*schemas.BatchEvent, error) {
			on := schemas.ChangePause
			if s.State == schemas.StatePaused {
				on = schemas.ChangeResume
			}
			s.Terms.MaxInFlight++
			return decide(on, "ops")(s)
		}, func(_ schemas.Summary, e schemas.BatchEvent) (schemas.EvidencePosition, error) {
			kept = e
			return schemas.EvidencePosition{Seq: e.No}, nil
		})
		if err != nil {
			return err
		}
		fmt.Println(kept.No)
	}
}

// killed starts a process that writes to the ledger at where and prints numbers,
// kills it after n of them, and gives the last that it printed.
func killed(t *testing.T, env, where string, n int) (last int64) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self)
	c.Env = append(os.Environ(), env+"="+where)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for i := 1; lines.Scan(); i++ {
		if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
			t.Fatal(err)
		}
		if i == n {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != -1 {
		t.Fatalf("the writer was to be killed, but ended by itself: %v", err)
	}
	return last
}

func TestAKilledWriterLeavesAConsistentLedger(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	for round := range 3 {
		acknowledged := killed(t, crashEnv, path, 8+5*round)
		l, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		got := mustAudit(t, l.Reader, "b1").Done()
		pos, _, err := l.Position(t.Context())
		if err != nil || got < acknowledged || got%70 != 0 || pos.Seq != got {
			t.Errorf("%d results (%d were acknowledged) and evidence up to %d, %v", got, acknowledged, pos.Seq, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A batch, its events and the evidence position change together or not at all.
func TestAKilledChangerLeavesAConsistentLedger(t *testing.T) {
	onBoth(t, func(t *testing.T, k kind) {
		where := k.where(t)
		l := openLedger(t, where)
		for round := range 3 {
			acknowledged := killed(t, crashChangeEnv, where, 8+5*round)
			// Looking also waits until the server has given the killed one up.
			_, _, err := l.Change(t.Context(), "b1", "", func(*schemas.Summary) (*schemas.BatchEvent, error) { return nil, nil }, nil)
			if err != nil {
				t.Fatal(err)
			}
			s, _, err := l.Find(t.Context(), "b1")
			if err != nil {
				t.Fatal(err)
			}
			events := mustEvents(t, l.Reader, "b1")
			last := events[len(events)-1]
			pos, _, err := l.Position(t.Context())
			if err != nil || last.No < acknowledged || pos.Seq != last.No || s.State != last.To || s.Terms.MaxInFlight != last.No-1 {
				t.Errorf("the last event is %+v (%d was acknowledged), the batch %s with terms %+v, evidence up to %d, %v",
					last, acknowledged, s.State, s.Terms, pos.Seq, err)
			}
		}
	})
}
