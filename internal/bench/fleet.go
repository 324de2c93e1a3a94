package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/broker"
	"github.com/exhume/exhume/schemas"
)

// fleet is a broker in this process and roles in processes of their own.
type fleet struct {
	*world
	dir    string
	cfg    *app.Config
	broker *broker.Broker
	roles  []*child
}

// startFleet starts a fleet, without workers, in a new directory.
func (w *world) startFleet(ctx context.Context) (_ *fleet, err error) {
	f := &fleet{world: w}
	if f.dir, f.cfg, err = w.place(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.stop(nil))
		}
	}()
	token := rand.Text()
	if f.broker, err = broker.Embed(filepath.Join(f.dir, "broker"), broker.Listen("127.0.0.1:0", broker.Credentials{Token: token})); err != nil {
		return nil, err
	}
	f.cfg.NATS.URL, f.cfg.NATS.Token = "nats://"+f.broker.Address(), token
	return f, f.role(ctx, "collector", "collector")
}

// startWorkers starts the workers.
func (f *fleet) startWorkers(ctx context.Context) error {
	for i := range f.Workers {
		if err := f.role(ctx, fmt.Sprintf("worker %d", i+1), "worker", "--worker-name", fmt.Sprintf("w%d", i+1)); err != nil {
			return err
		}
	}
	return nil
}

// role starts a role and waits until it works.
func (f *fleet) role(ctx context.Context, name string, args ...string) error {
	c, err := f.spawn(ctx, name, args...)
	if err != nil {
		return err
	}
	f.roles = append(f.roles, c)
	select {
	case <-c.ready:
		return nil
	case <-c.ended:
		return fmt.Errorf("%s: %w\n%s", name, c.err, c.said())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spawn starts a process of exhume that belongs to the fleet.
func (f *fleet) spawn(ctx context.Context, name string, args ...string) (*child, error) {
	c := &child{name: name, cmd: exec.CommandContext(ctx, f.Program, args...), ready: make(chan struct{}), ended: make(chan struct{})}
	// In order, so that nothing is left behind; whoever is told twice ends at once.
	c.cmd.Cancel = func() error { return c.cmd.Process.Signal(syscall.SIGTERM) }
	c.cmd.Dir = f.dir
	c.cmd.Env = append(foreign(os.Environ()),
		"EXHUME_NATS_URL="+f.cfg.NATS.URL, "EXHUME_NATS_TOKEN="+f.cfg.NATS.Token, "CODEX_ARCHIVE_URL="+f.cfg.Backend.URL,
		"EXHUME_STATE_DIR="+f.cfg.Exhume.StateDir, "CODEX_EVIDENCE_DIR="+f.cfg.Exhume.EvidenceDir, "EXHUME_HTTP_LISTEN=127.0.0.1:0",
		"EXHUME_LEDGER_URL="+f.cfg.Exhume.LedgerURL)
	out, err := c.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.follow(out)
	go c.weigh()
	return c, nil
}

// foreign is the environment without settings of exhume.
func foreign(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(e string) bool {
		return strings.HasPrefix(e, "EXHUME_") || strings.HasPrefix(e, "CODEX_")
	})
}

// submitAll submits all batches, a few at a time, and gives their names.
func (f *fleet) submitAll(ctx context.Context) (names []string, err error) {
	manifests, err := f.divide(f.dir)
	if err != nil {
		return nil, err
	}
	names = make([]string, len(manifests))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, manifest := range manifests {
		names[i] = fmt.Sprintf("bench-%d", i)
		g.Go(func() error {
			o := f.batch(f.dir, names[i])
			o.Manifest = manifest
			_, err := app.Submit(ctx, f.cfg, o, false, zerolog.Nop())
			return err
		})
	}
	return names, g.Wait()
}

// await waits until so many batches have ended, all well.
func (f *fleet) await(ctx context.Context, batches int) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ended, bad, err := f.ended(ctx)
		switch {
		case err != nil:
			return err
		case bad > 0:
			return fmt.Errorf("%d batches did not succeed", bad)
		case ended == batches:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// ended counts the batches that have ended, and those of them that are not
// complete.
func (f *fleet) ended(ctx context.Context) (ended, bad int, err error) {
	families, err := f.roles[0].scrape(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, m := range families["exhume_collector_batches_ended_total"].GetMetric() {
		n := int(m.GetCounter().GetValue())
		ended += n
		if m.GetLabel()[0].GetValue() != string(schemas.StateSucceeded) {
			bad += n
		}
	}
	return ended, bad, nil
}

// scrape reads the metrics of all roles.
func (f *fleet) scrape(ctx context.Context) (families []*dto.MetricFamily, err error) {
	for _, c := range f.roles {
		found, err := c.scrape(ctx)
		if err != nil {
			return nil, err
		}
		families = slices.AppendSeq(families, maps.Values(found))
	}
	http.DefaultClient.CloseIdleConnections()
	return families, nil
}

// scrape reads the metrics of a role.
func (c *child) scrape(ctx context.Context) (map[string]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.http+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	found, err := parser.TextToMetricFamilies(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", c.name, err)
	}
	return found, nil
}

// cpuNow is what the processes of all roles have used so far.
func (f *fleet) cpuNow() (sum time.Duration, err error) {
	for _, c := range f.roles {
		used, err := c.cpuNow()
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// stop stops everything, once, and tells, if it is asked to, what each process
// has used.
func (f *fleet) stop(each func(role string, peak int64, cpu time.Duration)) error {
	var errs []error
	for _, c := range slices.Backward(f.roles) {
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		if err := c.wait(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w\n%s", c.name, err, c.said()))
		}
	}
	for _, c := range f.roles {
		if each != nil {
			each(c.name, c.peakMemory(), c.cpu())
		}
	}
	f.roles = nil
	if f.broker != nil {
		errs = append(errs, f.broker.Close())
		f.broker = nil
	}
	return errors.Join(errs...)
}

// child is a process of exhume.
type child struct {
	name         string
	cmd          *exec.Cmd
	ready, ended chan struct{}
	http         string // when it is ready
	err          error  // when it has ended

	mu     sync.Mutex
	stderr bytes.Buffer
	peak   int64
}

// weighEvery is how often the memory of a process is looked at: at first, and in
// the end, for looking costs a little, which counts as the measured work's.
const weighFirst, weighEvery = 5 * time.Millisecond, 250 * time.Millisecond

// weigh notes the most memory that the process has resident until it ends. What
// the system tells of processes that have ended counts their parent's memory, too.
func (c *child) weigh() {
	tick := time.NewTimer(weighFirst)
	defer tick.Stop()
	for every := weighFirst; ; {
		peak := peakMemory(strconv.Itoa(c.cmd.Process.Pid))
		c.mu.Lock()
		c.peak = max(c.peak, peak)
		c.mu.Unlock()
		select {
		case <-c.ended:
			return
		case <-tick.C:
			every = min(2*every, weighEvery)
			tick.Reset(every)
		}
	}
}

// follow reads what the process says until it ends.
func (c *child) follow(out io.Reader) {
	defer close(c.ended)
	ready := c.ready
	in := bufio.NewScanner(out)
	for in.Scan() {
		c.mu.Lock()
		c.stderr.WriteString(in.Text() + "\n")
		c.mu.Unlock()
		if at, ok := strings.CutPrefix(in.Text(), "HTTP: "); ok {
			c.http = strings.TrimSuffix(at, "/metrics")
		}
		if strings.HasSuffix(in.Text(), " is ready.") && ready != nil {
			close(ready)
			ready = nil
		}
	}
	c.err = c.cmd.Wait()
}

func (c *child) said() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stderr.String()
}

func (c *child) wait() error {
	<-c.ended
	return c.err
}

// cpu is what an ended process has used.
func (c *child) cpu() time.Duration {
	return c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()
}

// peakMemory is the most memory that the process had resident, in bytes.
func (c *child) peakMemory() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peak
}

// clockTick is the unit of /proc/PID/stat, which is the same on all of Linux.
const clockTick = 10 * time.Millisecond

// cpuNow is what a running process has used.
func (c *child) cpuNow() (time.Duration, error) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.cmd.Process.Pid), "stat"))
	if err != nil {
		return 0, fmt.Errorf("mode idle needs Linux: %w", err)
	}
	// After the name, which stands in brackets and may contain anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * clockTick, nil
}
