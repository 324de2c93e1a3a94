package bench

import (
	"cmp"
	"slices"
)

// Report is a measurement.
type Report struct {
	Mode Mode `json:"mode"`
	// Items is how many there are, Size their mean size in bytes where they are
	// made up, Files where they are from otherwise.
	Items int    `json:"items"`
	Size  int64  `json:"size,omitempty"`
	Files string `json:"files,omitempty"`
	// Backend and Ledger are kinds of databases; Workers is the number of worker
	// processes, 0 for one process that does everything.
	Backend string `json:"backend"`
	Ledger  string `json:"ledger"`
	Workers int    `json:"workers"`
	Batches int    `json:"batches"`
	// Processors is how many the machine has.
	Processors int `json:"processors"`
	// Against says what is measured as Raw.
	Against string `json:"against,omitempty"`
	// Runs are all runs; Median has the median of each figure by itself.
	Runs   []Measured `json:"runs"`
	Median Measured   `json:"median"`
}

// Rate is how fast something went.
type Rate struct {
	Items     float64 `json:"items_per_second"`
	Megabytes float64 `json:"megabytes_per_second"`
	Seconds   float64 `json:"seconds"`
}

// Measured are the figures of one run.
type Measured struct {
	Rate
	// Raw is what it is held against, and Ratio the one rate divided by the other.
	Raw   *Rate   `json:"raw,omitempty"`
	Ratio float64 `json:"ratio,omitempty"`
	// CPU is what all processes together used for one item, in microseconds; of an
	// idle fleet it is CPUShare, the share of one processor in percent.
	CPU      float64 `json:"cpu_us_per_item,omitempty"`
	CPUShare float64 `json:"cpu_percent,omitempty"`
	// Processes are those of exhume, with the most memory that each held.
	Processes []Process `json:"processes,omitempty"`
	// Stages are where time went.
	Stages []Stage `json:"stages,omitempty"`
}

// Process is one of exhume's.
type Process struct {
	Role string `json:"role"`
	// PeakMemory is the most that was resident, in bytes; 0 if the system does not
	// tell.
	PeakMemory int64 `json:"peak_memory_bytes"`
}

// Stage is a part of the way of items, and what it took, in milliseconds: of each
// item, or of each group of items that were synced, settled or recorded together.
type Stage struct {
	Name string  `json:"stage"`
	Of   string  `json:"of"`
	P50  float64 `json:"p50_ms"`
	P95  float64 `json:"p95_ms"`
	P99  float64 `json:"p99_ms"`
}

// median is the median of each figure.
func median(runs []Measured) (m Measured) {
	of := func(figure func(*Measured) float64) float64 { return middle(runs, figure) }
	rate := func(r func(*Measured) *Rate) Rate {
		return Rate{
			of(func(m *Measured) float64 { return r(m).Items }), of(func(m *Measured) float64 { return r(m).Megabytes }),
			of(func(m *Measured) float64 { return r(m).Seconds }),
		}
	}
	m = Measured{
		Rate:  rate(func(m *Measured) *Rate { return &m.Rate }),
		Ratio: of(func(m *Measured) float64 { return m.Ratio }),
		CPU:   of(func(m *Measured) float64 { return m.CPU }), CPUShare: of(func(m *Measured) float64 { return m.CPUShare }),
	}
	if runs[0].Raw != nil {
		raw := rate(func(m *Measured) *Rate { return m.Raw })
		m.Raw = &raw
	}
	for i, p := range runs[0].Processes {
		p.PeakMemory = int64(of(func(m *Measured) float64 { return float64(m.Processes[i].PeakMemory) }))
		m.Processes = append(m.Processes, p)
	}
	for i, s := range runs[0].Stages {
		s.P50 = of(func(m *Measured) float64 { return m.Stages[i].P50 })
		s.P95 = of(func(m *Measured) float64 { return m.Stages[i].P95 })
		s.P99 = of(func(m *Measured) float64 { return m.Stages[i].P99 })
		m.Stages = append(m.Stages, s)
	}
	return m
}

// middle is the median of a figure; of two in the middle the mean.
func middle(runs []Measured, figure func(*Measured) float64) float64 {
	all := make([]float64, len(runs))
	for i := range runs {
		all[i] = figure(&runs[i])
	}
	slices.SortFunc(all, cmp.Compare)
	n := len(all)
	return (all[(n-1)/2] + all[n/2]) / 2
}
