package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// stopTimeout bounds how long exhume may take to stop when it is interrupted.
const stopTimeout = 20 * time.Second

// exhume measures exhume by its own command, which runs broker, worker and
// collector in one process.
type exhume struct {
	program string
	dir     string
	version string
	runs    int
}

// newExhume looks the program up. Its data go below parent.
func newExhume(ctx context.Context, parent, program string) (*exhume, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return nil, err
	}
	if path, err = filepath.Abs(path); err != nil {
		return nil, err
	}
	return &exhume{program: path, dir: parent, version: exhumeVersion(ctx, path)}, nil
}

// exhumeVersion is the second word of what the program says of its version,
// which need not be a number.
func exhumeVersion(ctx context.Context, program string) string {
	out, _ := exec.CommandContext(ctx, program, "version").Output() // without an answer it is unknown
	if words := strings.Fields(string(out)); len(words) > 1 {
		return words[1]
	}
	return "unknown"
}

func (e *exhume) contender() contender {
	return contender{
		about: about{
			Name: "exhume", Version: "exhume " + e.version,
			Durable: true, Durability: "its embedded broker syncs every write (sync_interval always)",
			Settings: "its defaults, by 'exhume bench --mode noop'; the time includes reading the manifest, starting and stopping broker, " +
				"worker and collector, and a record of each job in ledger and evidence, which the peers do not have",
		},
		ways:    []way{workMeanwhile},
		measure: e.measure,
	}
}

// measure runs the command once, in a directory of its own.
func (e *exhume) measure(ctx context.Context, _ way, jobs []job) (figures, error) {
	e.runs++
	dir := filepath.Join(e.dir, fmt.Sprintf("exhume-%d", e.runs))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return figures{}, err
	}
	cmd := exec.CommandContext(ctx, e.program, "bench", "--mode", "noop",
		"--items", strconv.Itoa(len(jobs)), "--runs", "1", "-o", "json")
	cmd.Dir, cmd.Env = dir, exhumeEnv(dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return figures{}, fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, stderr.Bytes())
	}
	return parseBench(stdout.Bytes(), len(jobs))
}

// exhumeEnv is this program's environment without what would configure exhume,
// and with temporary files in dir, on the same disk as the peers' data.
func exhumeEnv(dir string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "EXHUME_") && !strings.HasPrefix(v, "CODEX_") {
			env = append(env, v)
		}
	}
	return append(env, "TMPDIR="+dir)
}

// benchRate is a rate in the command's output.
type benchRate struct {
	Items float64 `json:"items_per_second"`
}

// benchOutput is what the command prints, as far as it is of use here.
type benchOutput struct {
	benchRate
	Mode   string      `json:"mode"`
	Count  int         `json:"items"`
	Runs   []benchRate `json:"runs"`
	Median benchRate   `json:"median"`
}

// parseBench takes the rate from the command's output: the median of its runs,
// given as such or not, in an object or as a bare list. It must be of a no-op
// batch of so many items.
func parseBench(output []byte, items int) (figures, error) {
	var b benchOutput
	err := json.Unmarshal(output, &b.Runs)
	if err != nil {
		b.Runs = nil
		err = json.Unmarshal(output, &b)
	}
	if err != nil {
		return figures{}, fmt.Errorf("the output of exhume's bench: %w", err)
	}
	if b.Mode != "" && b.Mode != "noop" || b.Count != 0 && b.Count != items {
		return figures{}, fmt.Errorf("exhume measured %d items in mode %s, not %d in mode noop", b.Count, b.Mode, items)
	}
	rates := make([]float64, len(b.Runs))
	for i, r := range b.Runs {
		rates[i] = r.Items
	}
	for _, rate := range []float64{b.Median.Items, b.Items, median(rates)} {
		if rate > 0 {
			return figures{EndToEnd: rate}, nil
		}
	}
	return figures{}, errors.New("exhume's bench gives no items_per_second")
}
