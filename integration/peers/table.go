package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
)

// about says what a row's figures are figures of.
type about struct {
	Name    string `json:"system"`
	Version string `json:"version"`
	// Durable says whether what was answered survives a power cut.
	Durable    bool   `json:"durable"`
	Durability string `json:"durability"`
	Settings   string `json:"settings"`
}

// sample is one measurement.
type sample struct {
	Way way `json:"way"`
	figures
}

// row is one line of the table. Its figures are medians: inserting and working
// each alone, and end to end in the way that was faster.
type row struct {
	about
	figures
	Way way `json:"way"`
	// Exhume is how many times as fast exhume is, end to end; 0 when it was not
	// measured.
	Exhume  float64  `json:"exhume_ratio,omitempty"`
	Samples []sample `json:"samples"`
}

// report is the whole result.
type report struct {
	Items int   `json:"items"`
	Runs  int   `json:"runs"`
	CPUs  int   `json:"cpus"`
	Rows  []row `json:"rows"`
}

// newReport is a report with a row without figures for each.
func newReport(o options, all []contender) *report {
	r := &report{Items: o.items, Runs: o.runs, CPUs: runtime.NumCPU(), Rows: make([]row, len(all))}
	for i := range all {
		r.Rows[i].about = all[i].about
	}
	return r
}

func (r *row) add(s sample) { r.Samples = append(r.Samples, s) }

// of is the median of one figure over the samples of one way.
func (r *row) of(w way, figure func(figures) float64) float64 {
	var values []float64
	for _, s := range r.Samples {
		if s.Way == w {
			values = append(values, figure(s.figures))
		}
	}
	return median(values)
}

// conclude computes the rows' medians and ratios.
func (r *report) conclude() {
	var self float64
	for i := range r.Rows {
		row := &r.Rows[i]
		row.conclude()
		if row.Name == "exhume" {
			self = row.EndToEnd
		}
	}
	for i := range r.Rows {
		r.Rows[i].Exhume = self / r.Rows[i].EndToEnd
	}
}

func (r *row) conclude() {
	r.Insert = r.of(insertThenWork, func(f figures) float64 { return f.Insert })
	r.Work = r.of(insertThenWork, func(f figures) float64 { return f.Work })
	for _, w := range []way{insertThenWork, workMeanwhile} {
		if rate := r.of(w, func(f figures) float64 { return f.EndToEnd }); rate > r.EndToEnd {
			r.Way, r.EndToEnd = w, rate
		}
	}
}

// median is the middle value, or the mean of the two in the middle; 0 for none.
func median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return (v[(n-1)/2] + v[n/2]) / 2
}

// print writes the report as json or as a table.
func (r *report) print(w io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	return r.table(w)
}

// table writes the report for people: the figures, and what they are figures of.
func (r *report) table(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprintf(w, "%d jobs that do nothing, %d CPUs, medians of %d runs, jobs a second\n\n", r.Items, r.CPUs, r.Runs)
	_, _ = fmt.Fprintln(w, "SYSTEM\tDURABLE\tINSERT\tWORK\tEND TO END\tWAY\tEXHUME IS")
	for i := range r.Rows {
		row := &r.Rows[i]
		durable := "no"
		if row.Durable {
			durable = "yes"
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Name, durable,
			number("%.0f", row.Insert), number("%.0f", row.Work), number("%.0f", row.EndToEnd), row.Way, number("%.2f×", row.Exhume))
	}
	_, _ = fmt.Fprintln(w)
	for i := range r.Rows {
		row := &r.Rows[i]
		_, _ = fmt.Fprintf(w, "%s: %s\n  durability: %s\n  settings: %s\n", row.Name, row.Version, row.Durability, row.Settings)
	}
	return w.Flush()
}

// number formats a figure; one that was not measured is a dash.
func number(format string, x float64) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf(format, x)
}
