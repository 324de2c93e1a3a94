package integration

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/exhume/exhume/integration/harness"
)

// A batch that is killed again and again, and each time started with the same
// command, ends as if nothing had happened.
func TestKill(t *testing.T) {
	const items, kills = 5000, 20
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))

	w, sums := harness.Synthetic(t, items)
	killed := 0
	// The first round is left alone and tells how long a round takes.
	whole := killRound(t, w, "whole", sums, func(int) time.Duration { return time.Hour }, &killed)
	for round := 1; killed < kills; round++ {
		if round > 2*kills {
			t.Fatalf("only %d kills in %d rounds", killed, round-1)
		}
		took := killRound(t, w, fmt.Sprintf("round-%d", round), sums, func(attempt int) time.Duration {
			// Later attempts get more time: the machine may have become so slow
			// that none would get anywhere.
			return time.Duration(random.Int64N(int64(whole) * int64(attempt)))
		}, &killed)
		whole = min(whole, took) // or the machine was slow before
	}
}

// killRound restores the world's manifest under a name, started anew with the
// same command whenever it is killed after a delay, and checks everything. It
// gives the time of a run that did it all, an hour when there was none.
func killRound(
	t *testing.T, w *harness.World, name string, sums map[string]string, delay func(attempt int) time.Duration, killed *int,
) (whole time.Duration) {
	t.Helper()
	root := w.Path(name)
	for attempt := 1; ; attempt++ {
		cmd, _, stderr := w.Command(t, "batch-restore", "manifest.jsonl", "--by", "tester", "--batch", name, "--root", name)
		began := time.Now()
		done, err := runOrKill(cmd, delay(attempt))
		whole = time.Since(began)
		t.Logf("%s: ran %v, ended by itself: %v", name, whole.Round(time.Millisecond), done)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, stderr)
		}
		harness.CheckVisible(t, root, sums)
		if done {
			if attempt > 1 {
				whole = time.Hour // it had only the rest to do
			}
			break
		}
		*killed++
		if attempt == 50 {
			t.Fatalf("%s does not end:\n%s", name, stderr)
		}
	}
	w.CheckInvariants(t, name)
	if got := harness.FilesBelow(t, root); len(got) != len(sums) {
		t.Errorf("%s: %d files, want %d", name, len(got), len(sums))
	}
	return whole
}

// runOrKill runs a command and kills it after the delay; done says that it
// ended by itself, with success.
func runOrKill(cmd *exec.Cmd, delay time.Duration) (done bool, err error) {
	if err := cmd.Start(); err != nil {
		return false, err
	}
	timer := time.AfterFunc(delay, func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
	err = cmd.Wait()
	timer.Stop()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			return false, nil
		}
	}
	return err == nil, err
}

// Ctrl-C stops in order, says how to go on, and the same command does.
func TestInterrupt(t *testing.T) {
	w, sums := harness.Synthetic(t, 5000)
	args := []string{"batch-restore", "manifest.jsonl", "--by", "tester"}
	cmd, _, stderr := w.Command(t, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	harness.WaitFor(t, "the first restored file", func() bool {
		_, err := os.Stat(w.Path("out"))
		return err == nil
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 130 {
		t.Fatalf("after Ctrl-C: %v, want exit code 130\n%s", err, stderr)
	}
	if want := "the same command continues it"; !harness.ContainsLine(stderr.String(), want) {
		t.Errorf("after Ctrl-C stderr does not say %q:\n%s", want, stderr)
	}
	harness.CheckVisible(t, w.Dir, sums)
	if left := w.TempFiles(); len(left) > 0 {
		t.Errorf("I8: left behind: %v", left)
	}

	cmd, _, stderr = w.Command(t, args...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("the same command: %v\n%s", err, stderr)
	}
	if want := "were done already"; !harness.ContainsLine(stderr.String(), want) {
		t.Errorf("the same command does not say that items %q:\n%s", want, stderr)
	}
	w.CheckInvariants(t, "latest")
}

// Two runs in one directory: the second waits for the first, with a message,
// and then finds its work done.
func TestTwoAtOnce(t *testing.T) {
	w, _ := harness.Synthetic(t, 2000)
	type run struct {
		cmd    *exec.Cmd
		stderr fmt.Stringer
	}
	var runs []run
	for range 2 {
		cmd, _, stderr := w.Command(t, "batch-restore", "manifest.jsonl", "--by", "tester")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		runs = append(runs, run{cmd, stderr})
	}
	waited := 0
	for _, r := range runs {
		if err := r.cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, r.stderr)
		}
		if harness.ContainsLine(r.stderr.String(), "waiting for it to end") {
			waited++
		}
	}
	if waited != 1 {
		t.Errorf("%d runs said that they wait, want 1", waited)
	}
	w.CheckInvariants(t, "latest")
}

// A full disk stops the run with a clear message and costs nothing: once there
// is room, the same command finishes.
func TestDestinationFull(t *testing.T) {
	w, _ := harness.Synthetic(t, 300)
	if err := os.Mkdir(w.Path("small"), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"batch-restore", "manifest.jsonl", "--by", "tester", "--root", "small"}
	// The small file system exists in a mount namespace of the command's own
	// and ends with it. It has room for a directory and for no file.
	cmd, _, stderr := w.Command(t, args...)
	inside := append([]string{"-rm", "sh", "-c", `mount -t tmpfs -o nr_inodes=2 none small && exec "$@"`, "sh", cmd.Path}, args...)
	full := exec.CommandContext(t.Context(), "unshare", inside...)
	full.Dir, full.Env, full.Stderr = cmd.Dir, cmd.Env, stderr
	err := full.Run()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 5 {
		t.Fatalf("on a full disk: %v, want exit code 5\n%s", err, stderr)
	}
	if !harness.ContainsLine(stderr.String(), "no space left on device") {
		t.Errorf("the message does not name the cause:\n%s", stderr)
	}
	cmd, _, stderr = w.Command(t, args...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("with room again: %v\n%s", err, stderr)
	}
	w.CheckInvariants(t, "latest")
}
