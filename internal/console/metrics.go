package console

import (
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"

	"github.com/exhume/exhume/schemas"
)

// Metrics count what the roles of a process do. They are safe for concurrent
// use.
type Metrics struct {
	registry *prometheus.Registry

	results  *prometheus.CounterVec
	bytes    prometheus.Counter
	attempts *prometheus.CounterVec
	inHand   prometheus.Gauge
	breaker  *prometheus.GaugeVec
	sick     prometheus.Gauge
	recorded *prometheus.CounterVec
	batches  *prometheus.CounterVec

	// Of items, and of groups of them.
	queue, read, decode, write, total prometheus.Observer
	sync, settle, record              prometheus.Observer

	mu sync.Mutex
	// open are the destinations whose breakers are not closed.
	open map[string]schemas.BreakerStatus
}

// stageBuckets are seconds: a group of small files takes tens of milliseconds, a
// large artifact minutes, a queue hours.
var stageBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200}

// groupBuckets are seconds, each half as long again as the one before, because
// there are few groups and much is to be learned from them.
var groupBuckets = prometheus.ExponentialBuckets(.00025, 1.5, 32)

// NewMetrics makes the metrics of a process.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(), open: map[string]schemas.BreakerStatus{},
		results: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "exhume_worker_results_total", Help: "Final results of items, by outcome and error code.",
		}, []string{"outcome", "code"}),
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "exhume_worker_restored_bytes_total", Help: "Sizes of the items that were restored.",
		}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "exhume_worker_failed_attempts_total", Help: "Attempts that failed and will be repeated, by error code.",
		}, []string{"code"}),
		inHand: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "exhume_worker_items_in_hand", Help: "Items that this worker holds.",
		}),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "exhume_worker_breaker_state", Help: "1 for the state that the breaker in front of the archive is in, and for the worst of those in front of destinations.",
		}, []string{"of", "state"}),
		sick: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "exhume_worker_sick", Help: "Destinations that this worker has stepped aside from, because it cannot write there.",
		}),
		recorded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "exhume_collector_recorded_total", Help: "Results recorded in ledger and evidence, by outcome and error code.",
		}, []string{"outcome", "code"}),
		batches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "exhume_collector_batches_ended_total", Help: "Batches that ended, by state.",
		}, []string{"state"}),
	}
	stages := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "exhume_worker_stage_seconds", Help: "Where an item's time went; work that a group shares counts in full for each item.", Buckets: stageBuckets,
	}, []string{"stage"})
	m.queue, m.read, m.decode = stages.WithLabelValues("queue"), stages.WithLabelValues("read"), stages.WithLabelValues("decode")
	m.write, m.total = stages.WithLabelValues("write"), stages.WithLabelValues("total")
	groups := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "exhume_group_seconds", Help: "What a group of items took: to become durable, to have its results stored, to be recorded.", Buckets: groupBuckets,
	}, []string{"stage"})
	m.sync, m.settle, m.record = groups.WithLabelValues("sync"), groups.WithLabelValues("settle"), groups.WithLabelValues("record")
	m.registry.MustRegister(m.results, m.bytes, m.attempts, stages, groups, m.inHand, m.breaker, m.sick, m.recorded, m.batches,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.setBreaker(ofArchive, schemas.BreakerClosed)
	m.setBreaker(ofDestination, schemas.BreakerClosed)
	return m
}

// Gather gives all metrics as they are now.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) { return m.registry.Gather() }

// Gauge adds a figure that is asked for whenever metrics are read. It must
// answer soon.
func (m *Metrics) Gauge(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read))
}

// InHand counts items that a worker takes, or, below zero, gives away.
func (m *Metrics) InHand(delta int) { m.inHand.Add(float64(delta)) }

// Synced counts a group whose files became durable in that time.
func (m *Metrics) Synced(took time.Duration) { m.sync.Observe(took.Seconds()) }

// Settled counts final results of a worker, which were stored in that time.
func (m *Metrics) Settled(results []schemas.Result, took time.Duration) {
	m.settle.Observe(took.Seconds())
	tally(m.results, results)
	for i := range results {
		r := &results[i]
		if r.Outcome == schemas.OutcomeRestored {
			m.bytes.Add(float64(r.Size))
		}
		m.queue.Observe(r.Durations.Queue / 1000)
		m.read.Observe(r.Durations.Read / 1000)
		m.decode.Observe(r.Durations.Decode / 1000)
		m.write.Observe(r.Durations.Write / 1000)
		m.total.Observe(r.Durations.Total / 1000)
	}
}

// tally counts results by outcome and code, each kind once: finding a counter
// costs more than counting.
func tally(counters *prometheus.CounterVec, results []schemas.Result) {
	type kind struct {
		outcome schemas.Outcome
		code    schemas.Code
	}
	kinds := map[kind]int{}
	for i := range results {
		kinds[kind{results[i].Outcome, results[i].Code}]++
	}
	for k, n := range kinds {
		counters.WithLabelValues(string(k.outcome), string(k.code)).Add(float64(n))
	}
}

// Retried counts a failed attempt that will be repeated.
func (m *Metrics) Retried(code schemas.Code) { m.attempts.WithLabelValues(string(code)).Inc() }

// What a breaker is in front of: each destination for itself would be too many.
const (
	ofArchive     = "archive"
	ofDestination = "destination"
)

// breakerStates are the states of breakers, the best first.
var breakerStates = []schemas.BreakerState{schemas.BreakerClosed, schemas.BreakerHalfOpen, schemas.BreakerOpen}

// Breaker notes how a breaker of a worker stands.
func (m *Metrics) Breaker(s schemas.BreakerStatus) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s.Of == schemas.BreakerArchive {
		m.setBreaker(ofArchive, s.State)
		return
	}
	m.open[s.Of] = s
	if s.State == schemas.BreakerClosed {
		delete(m.open, s.Of)
	}
	worst, sick := 0, 0
	for _, b := range m.open {
		worst = max(worst, slices.Index(breakerStates, b.State))
		if b.Sick {
			sick++
		}
	}
	m.setBreaker(ofDestination, breakerStates[worst])
	m.sick.Set(float64(sick))
}

func (m *Metrics) setBreaker(of string, state schemas.BreakerState) {
	for _, s := range breakerStates {
		v := 0.0
		if s == state {
			v = 1
		}
		m.breaker.WithLabelValues(of, string(s)).Set(v)
	}
}

// Recorded counts results that a collector recorded in that time.
func (m *Metrics) Recorded(results []schemas.Result, took time.Duration) {
	m.record.Observe(took.Seconds())
	tally(m.recorded, results)
}

// Ended counts a batch that ended.
func (m *Metrics) Ended(s schemas.State) { m.batches.WithLabelValues(string(s)).Inc() }
