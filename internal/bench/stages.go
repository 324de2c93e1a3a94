package bench

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"

	"github.com/exhume/exhume/internal/app"
	"github.com/exhume/exhume/internal/ledger"
	"github.com/exhume/exhume/schemas"
)

// itemStages are the stages that the results of the batches tell of.
func itemStages(ctx context.Context, cfg *app.Config, batches []string) (stages []Stage, err error) {
	l, err := app.OpenLedgerReader(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	parts := []struct {
		name string
		of   func(*schemas.Durations) float64
		ms   []float32
	}{
		{name: "queue", of: func(d *schemas.Durations) float64 { return d.Queue }},
		{name: "read", of: func(d *schemas.Durations) float64 { return d.Read }},
		{name: "decode", of: func(d *schemas.Durations) float64 { return d.Decode }},
		{name: "write", of: func(d *schemas.Durations) float64 { return d.Write }},
	}
	for _, id := range batches {
		for r, err := range l.Results(ctx, id, ledger.Filter{}) {
			if err != nil {
				return nil, err
			}
			for i := range parts {
				parts[i].ms = append(parts[i].ms, float32(parts[i].of(&r.Durations)))
			}
		}
	}
	for _, p := range parts {
		slices.SortFunc(p.ms, cmp.Compare)
		at := func(q float64) float64 {
			if len(p.ms) == 0 {
				return 0
			}
			return float64(p.ms[int(math.Ceil(q*float64(len(p.ms))))-1])
		}
		stages = append(stages, Stage{p.name, "item", at(.5), at(.95), at(.99)})
	}
	return stages, nil
}

// groupMetric is the histogram of what groups took.
const groupMetric = "exhume_group_seconds"

// groupStages are the stages that metrics, of one or several processes, tell of.
func groupStages(families []*dto.MetricFamily) (stages []Stage) {
	for _, name := range []string{"sync", "settle", "record"} {
		var h histogram
		for _, f := range families {
			if f.GetName() != groupMetric {
				continue
			}
			for _, m := range f.GetMetric() {
				if len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == name {
					h.add(m.GetHistogram())
				}
			}
		}
		if h.total == 0 {
			continue
		}
		stages = append(stages, Stage{name, "group", h.quantile(.5) * 1000, h.quantile(.95) * 1000, h.quantile(.99) * 1000})
	}
	return stages
}

// histogram is the sum of histograms with the same bounds.
type histogram struct {
	bounds []float64
	counts []uint64 // cumulative
	total  uint64
}

func (h *histogram) add(x *dto.Histogram) {
	h.total += x.GetSampleCount()
	for i, b := range x.GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) {
			continue
		}
		if i == len(h.bounds) {
			h.bounds, h.counts = append(h.bounds, b.GetUpperBound()), append(h.counts, 0)
		}
		h.counts[i] += b.GetCumulativeCount()
	}
}

// quantile estimates a quantile: within a bucket all values are as likely. What
// is beyond the last bound counts as that.
func (h *histogram) quantile(q float64) float64 {
	rank := q * float64(h.total)
	low, below := 0.0, 0.0
	for i, bound := range h.bounds {
		if upTo := float64(h.counts[i]); upTo >= rank && upTo > below {
			return low + (bound-low)*(rank-below)/(upTo-below)
		} else {
			low, below = bound, upTo
		}
	}
	return low
}
