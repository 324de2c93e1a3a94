package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/exhume/exhume/schemas"
)

// resultEntry is one item of the result document: the predecessor's keys first,
// then what exhume adds.
type resultEntry struct {
	Tombstone  string         `json:"tombstone"`
	Output     string         `json:"output"`
	Actor      string         `json:"actor"`
	Status     string         `json:"status"`
	DurationMS *float64       `json:"duration_ms,omitempty"`
	Metrics    *resultMetrics `json:"metrics,omitempty"`
	Detail     string         `json:"detail,omitempty"`

	Index      int64              `json:"index"`
	Outcome    schemas.Outcome    `json:"outcome"`
	Code       schemas.Code       `json:"code,omitempty"`
	Attempts   int                `json:"attempts"`
	SHA256     string             `json:"sha256,omitempty"`
	Size       int64              `json:"size"`
	Repo       string             `json:"repo,omitempty"`
	Path       string             `json:"path,omitempty"`
	Worker     string             `json:"worker"`
	FinishedAt string             `json:"finished_at"`
	Durations  *schemas.Durations `json:"durations,omitempty"`
	Labels     map[string]string  `json:"labels,omitempty"`
}

type resultMetrics struct {
	Name       string  `json:"name"`
	DurationMS float64 `json:"duration_ms"`
}

// SaveResultDocument writes a batch's result document (see WriteResultDocument)
// to a file, which appears only when it is complete.
func SaveResultDocument(ctx context.Context, cfg *Config, id, path string, log zerolog.Logger) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".results-*")
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			err = fmt.Errorf("results %s: %w", path, err)
		}
	}()
	if err := WriteResultDocument(ctx, cfg, id, f, log); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// WriteResultDocument writes the document that the predecessor's batch-restore
// wrote, with the same keys in the same order, and more: JSON, indented by two,
// non-ASCII characters escaped, no newline at the end. It streams: a batch of
// millions needs no memory.
func WriteResultDocument(ctx context.Context, cfg *Config, id string, w io.Writer, log zerolog.Logger) error {
	l, err := OpenBatches(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer l.Close() //nolint:errcheck // opened for reading
	s, err := l.Batch(ctx, id)
	if err != nil {
		return err
	}
	return WriteResults(w, s.Summary, l.Results(ctx, s.ID, schemas.ResultFilter{}), cfg.Performance.Enabled)
}

// WriteResults writes the result document of a batch with the results given.
func WriteResults(w io.Writer, s schemas.Summary, results iter.Seq2[schemas.Result, error], timings bool) error {
	out := bufio.NewWriter(w)
	d := document{w: out, timings: timings}
	d.write(s, results)
	if d.err != nil {
		return d.err
	}
	return out.Flush()
}

// document writes a result document; the first error stays.
type document struct {
	w       *bufio.Writer
	timings bool
	err     error
}

func (d *document) write(s schemas.Summary, results iter.Seq2[schemas.Result, error]) {
	c := s.Counts
	d.printf("{\n  \"total\": %d,\n  \"succeeded\": %d,\n  \"failed\": %d,\n  \"results\": [",
		s.Total, c.Restored+c.Unchanged, c.Failed+c.Skipped+c.Cancelled)
	first := true
	for r, err := range results {
		if err != nil {
			d.err = err
		}
		if d.err != nil {
			return
		}
		if !first {
			d.printf(",")
		}
		first = false
		d.printf("\n    ")
		d.json(d.entry(&r), "    ")
	}
	if !first {
		d.printf("\n  ")
	}
	d.printf("],\n  \"duration_ms\": ")
	if d.timings && !s.EndedAt.IsZero() {
		d.json(milli(float64(s.EndedAt.Sub(s.CreatedAt).Microseconds())/1000), "")
	} else {
		d.printf("null")
	}
	d.printf(",\n  \"batch\": ")
	d.json(s, "  ")
	d.printf("\n}")
}

func (d *document) entry(r *schemas.Result) resultEntry {
	e := resultEntry{
		Tombstone: r.Tombstone, Output: r.Target, Actor: r.Actor, Status: "SUCCESS", Detail: r.Detail,
		Index: r.Index, Outcome: r.Outcome, Code: r.Code, Attempts: r.Attempts, SHA256: r.SHA256, Size: r.Size,
		Repo: r.Repo, Path: r.Path, Worker: r.Worker, FinishedAt: r.FinishedAt.UTC().Format("2006-01-02T15:04:05.000Z"),
		Labels: r.Labels,
	}
	if r.Outcome != schemas.OutcomeRestored && r.Outcome != schemas.OutcomeUnchanged {
		e.Status = "FAILED"
	}
	if d.timings {
		ms := milli(r.Durations.Total)
		e.DurationMS = &ms
		e.Metrics = &resultMetrics{"restore:" + r.Tombstone, ms}
		e.Durations = &r.Durations
	}
	return e
}

func (d *document) printf(format string, args ...any) {
	if d.err == nil {
		_, d.err = fmt.Fprintf(d.w, format, args...)
	}
}

// json writes v indented by two under the prefix.
func (d *document) json(v any, prefix string) {
	if d.err != nil {
		return
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent(prefix, "  ")
	if d.err = enc.Encode(v); d.err == nil {
		_, d.err = d.w.Write(escapeASCII(bytes.TrimSuffix(b.Bytes(), []byte("\n"))))
	}
}

// milli rounds to three decimals.
func milli(ms float64) float64 { return math.Round(ms*1000) / 1000 }

// escapeASCII escapes the non-ASCII characters of JSON text.
func escapeASCII(b []byte) []byte {
	if bytes.IndexFunc(b, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return b
	}
	out := make([]byte, 0, len(b)+16)
	for _, r := range string(b) {
		switch r1, r2 := utf16.EncodeRune(r); {
		case r < utf8.RuneSelf:
			out = append(out, string(r)...)
		case r1 != utf8.RuneError:
			out = fmt.Appendf(out, "\\u%04x\\u%04x", r1, r2)
		default:
			out = fmt.Appendf(out, "\\u%04x", r)
		}
	}
	return out
}
