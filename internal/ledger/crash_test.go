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
const crashEnv = "EXHUME_LEDGER_TEST_CRASH"

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		fmt.Fprintln(os.Stderr, recordForEver(path))
		os.Exit(1)
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
		note := func(fresh []schemas.Result) (schemas.EvidencePosition, error) {
			return schemas.EvidencePosition{Seq: fresh[len(fresh)-1].Index + 1}, nil
		}
		if _, err := l.Record(ctx, sampleResults("b1", from, 70), note); err != nil {
			return err
		}
		fmt.Println(from + 70)
	}
}

func TestAKilledWriterLeavesAConsistentLedger(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "ledger.db")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	acknowledged := int64(0)
	for round := range 3 {
		c := exec.CommandContext(t.Context(), self)
		c.Env = append(os.Environ(), crashEnv+"="+path)
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if _, err := fmt.Sscan(lines.Text(), &acknowledged); err != nil {
				t.Fatal(err)
			}
			if n == 7+5*round {
				if err := c.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := c.Wait(); err == nil || c.ProcessState.ExitCode() != -1 {
			t.Fatalf("the writer was to be killed, but ended by itself: %v", err)
		}
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
